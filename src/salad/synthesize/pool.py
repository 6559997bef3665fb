"""Texts → a prepared folder of synthetic speech, by worker processes, resumable to the utterance.

An utterance's file is named by what it sounds like: sha256(voice fingerprint | text)[:16]. A file that is there is
right (they are written atomically), so a run that was stopped, or another folder that shares `audio_dir`, uses it.
Where the voice says when each word is spoken, the cut has its word timings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from salad.errors import DataError
from salad.speech.prepared import Rejected, with_words, write_prepared
from salad.synthesize.voices import load_voice
from salad.synthesize.workers import RATE_HZ, Failed, audio_file, earlier_result, speak_all, word_times


class Text(Protocol):
    """What is spoken: a text, already normalized, with an id of its own."""

    @property
    def id(self) -> str:
        """Becomes the cut's id."""

    @property
    def text(self) -> str:
        """The words to speak."""


def synthesize(
    texts: Sequence[Text],
    voice: str,
    out: Path,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
    audio_dir: Path | None = None,
) -> None:
    """Speak every text and write the prepared folder `out`: one 16 kHz mono FLAC and one cut a text, in input order.

    A text that the voice fails on, or whose speech is empty or longer than 30 s, is rejected with the reason and
    the rest goes on; so it does when a worker process dies of it. Equal texts share one file.

    Args:
        texts: ids must be unique.
        voice: as `load_voice` knows it.
        out: the prepared folder; written at the end, so a folder with cuts is whole.
        processes: worker processes, one thread each; they end with this one, whichever way it ends.
        progress: told (done, total) in utterances.
        audio_dir: where the FLACs lie, `out`/audio unless several folders share it.

    Raises:
        DataError: two texts share an id, `processes` is below one, or the disk takes no more.
        AssetError: the voice can't be loaded.
    """
    _check(texts, processes)
    speaker = load_voice(voice)
    folder = (audio_dir or out / "audio").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    utterances = {text.id: utterance_id(speaker.fingerprint, text.text) for text in texts}
    num_samples = _speak_all(texts, utterances, voice, folder, processes, progress)
    cuts: list[MonoCut] = []
    rejected: list[Rejected] = []
    for text in texts:
        utterance = utterances[text.id]
        found = num_samples[utterance]
        if isinstance(found, Failed):
            rejected.append(Rejected(text.id, found.reason, f"voice {speaker.name}"))
        else:
            cuts.append(_cut(text, audio_file(folder, utterance), utterance, found, speaker.name))
    info = {"corpus": "synthesized", "voice": speaker.name, "voice_fingerprint": speaker.fingerprint}
    write_prepared(out, cuts, rejected, info)


def utterance_id(fingerprint: str, text: str) -> str:
    """The name of what a voice with this fingerprint makes of `text`: sha256(fingerprint | text), 16 hex digits."""
    return hashlib.sha256(f"{fingerprint}|{text}".encode()).hexdigest()[:16]


def _check(texts: Sequence[Text], processes: int) -> None:
    if processes < 1:
        raise DataError(f"{processes} processes can't synthesize anything; give 1 or more.")
    seen: set[str] = set()
    for text in texts:
        if text.id in seen:
            raise DataError(
                f"the text id {text.id!r} stands twice; ids must be unique, or cuts could not be told apart."
            )
        seen.add(text.id)


def _speak_all(
    texts: Sequence[Text],
    utterances: dict[str, str],
    voice: str,
    folder: Path,
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int | Failed]:
    """For every utterance its number of samples at 16 kHz, or why there is none."""
    results: dict[str, int | Failed] = {}
    wanted = {utterances[text.id]: text.text for text in texts}
    for utterance in wanted:
        there = earlier_result(audio_file(folder, utterance))
        if there is not None:
            results[utterance] = there
    if progress is not None:
        progress(len(results), len(wanted))
    missing = [(utterance, text) for utterance, text in wanted.items() if utterance not in results]
    for utterance, result in speak_all(missing, voice, folder, processes):
        results[utterance] = result
        if progress is not None:
            progress(len(results), len(wanted))
    return results


def _cut(text: Text, path: Path, utterance: str, num_samples: int, speaker: str) -> MonoCut:
    duration_s = num_samples / RATE_HZ
    source = AudioSource(type="file", channels=[0], source=str(path))
    recording = Recording(utterance, [source], RATE_HZ, num_samples, duration_s)
    words = SupervisionSegment(
        id=text.id,
        recording_id=utterance,
        start=0.0,
        duration=duration_s,
        text=text.text,
        language="en",
        speaker=speaker,
    )
    cut = MonoCut(id=text.id, start=0.0, duration=duration_s, channel=0, supervisions=[words], recording=recording)
    times = word_times(path)
    if times is not None:
        with_words(cut, ((word, *time, None) for word, time in zip(text.text.split(), times, strict=True)))
        cut.custom = {"timed_by": f"voice {speaker}"}
    return cut
