"""What is heard in the utterances of a folder: by the ASR and by measuring, kept by the content of the audio.

    HEARD/KEY-N.jsonl    a line an utterance: its key, what the ASR heard, the numbers of `quality_sound`

KEY is made of the ASR and of how it is asked. Whatever is heard stays, so that thresholds can be changed in seconds, a
run that was stopped goes on, and folders that share their audio hear it once. The parts hold no more than caches do.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from salad.assets import digest_of, resolve
from salad.errors import AudioError, MissingFileError
from salad.files import read_jsonl, write_atomic
from salad.fingerprint import SETTLED_S, content_hash
from salad.speech.aligner import RATE_HZ
from salad.speech.audio import load_cut
from salad.speech.prepared import cut_line
from salad.synthesize.quality_sound import measure_sound
from salad.workers import Died, FanOut, answer_all

if TYPE_CHECKING:
    from lhotse import MonoCut

VERSION = 1
"""Of what a line holds and how it is measured: what an older version heard is heard again."""
GROUP = 8
"""Cuts a task."""
KEEP_EVERY_S = 5.0
"""How much work a killed run may lose."""
UNREADABLE = "not readable"

Heard = dict[str, Any]
"""{"key", "hypothesis" (None without ASR), and the numbers of `Sound`} or {"key", "problem": why nothing is heard}."""
Task = tuple[tuple[str, "MonoCut"], ...]
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def hear(
    cuts: Iterable[MonoCut],
    asr: str | None,
    folder: Path,
    *,
    threads: int,
    processes: int,
    fan_out: FanOut = answer_all,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Heard]:
    """Hear every cut once; cut id → what is heard in it.

    Args:
        cuts: read once, lazily.
        asr: a Whisper model for CTranslate2, by its name or folder; None: sound is measured alone.
        folder: what is heard is kept here.
        threads: CPU threads of all processes together.
        processes: worker processes; with one, on this machine, this process does the work.
        fan_out: who answers.
        progress: told the number of cuts that are done.

    Raises:
        AssetError: the ASR can't be had.
    """
    memory = _Memory(folder, asr)
    heard: dict[str, Heard] = {}
    waiting: dict[str, list[str]] = {}  # key → ids of the cuts that sound the same

    def unheard() -> Iterator[tuple[str, MonoCut]]:
        for cut in cuts:
            try:
                key = memory.key(cut)
            except MissingFileError as error:
                heard[cut.id] = {"key": None, "problem": f"{UNREADABLE}: {error}"}
                continue
            known = memory.rows.get(key)
            if known is not None:
                heard[cut.id] = known
            elif key in waiting:
                waiting[key].append(cut.id)
            else:
                waiting[key] = [cut.id]
                yield key, cut
                continue
            progress(len(heard))

    setup = partial(_listener, asr, max(1, threads // processes))
    if processes == 1 and fan_out is answer_all:
        fan_out = _in_this_process
    for rows in _answers(_groups(unheard()), setup, processes, fan_out):
        for row in rows:
            memory.add(row)
            heard.update(dict.fromkeys(waiting.pop(row["key"]), row))
        progress(len(heard))
    memory.write()
    progress(len(heard))
    return heard


def _answers(
    tasks: Iterable[Task], setup: Callable[[], Callable[[Task], list[Heard]]], processes: int, fan_out: FanOut
) -> Iterator[list[Heard]]:
    """The answers as they come; of a group that a worker died of, each cut is tried alone once more."""
    again: list[Task] = []
    for task, answer in fan_out(tasks, setup, processes):
        if isinstance(answer, Died):
            again += [(one,) for one in task]
        else:
            yield answer
    for task, answer in fan_out(again, setup, processes) if again else ():
        if isinstance(answer, Died):
            why = f"{UNREADABLE}: the process that listened to it ended (exit code {answer.exit_code})"
            yield [{"key": key, "problem": why, "died": True} for key, _ in task]
        else:
            yield answer


def _in_this_process(
    tasks: Iterable[Asked], setup: Callable[[], Callable[[Asked], Answer]], processes: int
) -> Iterator[tuple[Asked, Answer | Died]]:
    """A fan-out to nobody else."""
    del processes
    answer_to = None
    for task in tasks:
        answer_to = answer_to or setup()
        yield task, answer_to(task)


def _groups(unheard: Iterator[tuple[str, MonoCut]]) -> Iterator[Task]:
    while group := tuple(islice(unheard, GROUP)):
        yield group


def _listener(asr: str | None, threads: int) -> Callable[[Task], list[Heard]]:
    """In a worker: load the ASR, and give the function that listens."""
    if asr is None:
        return partial(_listen, None)
    from salad.speech.recognize import Recognizer

    recognizer = Recognizer(resolve(asr), threads)
    return partial(_listen, partial(recognizer.transcribe, spell_numbers=True, short_window=True))


def _listen(transcribe: Callable[..., str] | None, task: Task) -> list[Heard]:
    return [_hear_one(transcribe, key, cut) for key, cut in task]


def _hear_one(transcribe: Callable[..., str] | None, key: str, cut: MonoCut) -> Heard:
    try:
        audio = load_cut(cut, RATE_HZ)
    except (AudioError, MissingFileError) as error:
        return {"key": key, "problem": f"{UNREADABLE}: {error}"}
    try:
        sound = measure_sound(audio, RATE_HZ)
    except AudioError as error:
        return {"key": key, "problem": str(error)}
    numbers = {name: round(value, 6) for name, value in asdict(sound).items()}
    return {"key": key, "hypothesis": None if transcribe is None else transcribe(audio), **numbers}


@dataclass
class _Memory:
    """What was heard before, and what is new and not yet on the disk."""

    folder: Path
    asr: str | None
    rows: dict[str, Heard] = field(default_factory=dict)
    _digests: dict[tuple[str, int, int], str] = field(default_factory=dict)  # of files as they were
    _new: list[Heard] = field(default_factory=list)
    _new_files: list[Heard] = field(default_factory=list)
    _written: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        made_of = f"{VERSION} {None if self.asr is None else content_hash(resolve(self.asr))}"
        self.name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
        for part in sorted(self.folder.glob(f"{self.name}-*.jsonl")):
            for row in read_jsonl(part):
                if "file" in row:
                    self._digests[row["file"], row["size"], row["mtime_ns"]] = row["sha256"]
                else:
                    self.rows[row["key"]] = row

    def key(self, cut: MonoCut) -> str:
        """Made of the content of the cut's audio file and of its span in it."""
        source = cut.recording.sources[0] if cut.recording is not None else None
        if source is None or source.type != "file":
            return hashlib.sha256(cut_line(cut, self.folder)).hexdigest()[:32]
        span = f"{self._digest(Path(source.source))} {cut.start} {cut.duration}"
        return hashlib.sha256(span.encode()).hexdigest()[:32]

    def _digest(self, path: Path) -> str:
        try:
            stat = path.stat()
        except OSError as error:
            raise MissingFileError(f"{path} does not exist; check the manifest that names it.") from error
        place = (str(path), stat.st_size, stat.st_mtime_ns)
        if place not in self._digests:
            self._digests[place] = digest_of(path)
            if time.time_ns() - stat.st_mtime_ns > SETTLED_S * 1e9:
                row = dict(zip(("file", "size", "mtime_ns"), place, strict=True))
                self._new_files.append(row | {"sha256": self._digests[place]})
        return self._digests[place]

    def add(self, row: Heard) -> None:
        """Take in what was heard; it is written with others, soon."""
        self.rows[row["key"]] = row
        if "died" not in row:  # which may have been of something else
            self._new.append(row)
        if time.monotonic() - self._written > KEEP_EVERY_S:
            self.write()

    def write(self) -> None:
        """Keep what is new."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*self._new, *self._new_files])
        if lines:
            part = hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()[:16]
            write_atomic(self.folder / f"{self.name}-{part}.jsonl", lines)
        self._new, self._new_files, self._written = [], [], time.monotonic()
