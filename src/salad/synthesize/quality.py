"""Does synthetic speech say its text, and does it sound like speech? What does not is set aside.

    OUT/cuts.jsonl.gz    what passed
    OUT/refused.jsonl    what did not: id, text, audio, what the ASR heard, the numbers, the reasons, and the whole cut
    OUT/quality.parquet  the same of every utterance but for the cut, in the folder's order
    OUT/.heard/          what was heard (quality_hearing.py), for the next thresholds

Nothing is lost: cuts.jsonl.gz and refused.jsonl together are all there is, after every step of this, and a check with
other thresholds takes back what they let pass. docs/quality.md has each check's definition and why it stands where it
does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from salad.errors import DataError
from salad.recipe.synthesis import QualitySettings
from salad.speech.audio import audio_place
from salad.speech.prepared import Rejected, text_of
from salad.synthesize.quality_files import Quality, all_cuts, note_check, write_checked
from salad.synthesize.quality_hearing import Heard, hear
from salad.synthesize.quality_words import character_error_rate, for_comparison, repeated_words
from salad.workers import FanOut, answer_all

if TYPE_CHECKING:
    from lhotse import MonoCut

QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class QualityReport:
    """What a check found.

    Attributes:
        num_checked: all utterances, those that were refused before too.
        num_refused: those that are refused now.
        by_reason: an utterance counts for each of its reasons; the most frequent first.
        mean_cer: over all that could be heard; None without an ASR.
        cer_quantiles: "p50" and so on.
        refused: each with its reasons.
        worst: those with the highest error rates.
        num_taken_back: had been refused, and are not any more.
    """

    num_checked: int
    num_refused: int
    by_reason: dict[str, int]
    mean_cer: float | None
    cer_quantiles: dict[str, float]
    refused: tuple[Quality, ...]
    worst: tuple[Quality, ...]
    num_taken_back: int = 0

    def rejections(self) -> list[Rejected]:
        """The refused as rejections: one each, with all its reasons."""
        return [Rejected(item.id, "; ".join(item.reasons), item.audio) for item in self.refused]

    def as_json(self) -> dict[str, Any]:
        """All but the utterances and what was before."""
        left_out = ("refused", "worst", "num_taken_back")
        return {key: value for key, value in asdict(self).items() if key not in left_out}


def check_speech(
    folder: Path,
    asr: str | None,
    settings: QualitySettings,
    *,
    threads: int = 1,
    processes: int = 1,
    fan_out: FanOut = answer_all,
    progress: Callable[[int, int], None] | None = None,
    heard_dir: Path | None = None,
) -> QualityReport:
    """Check every utterance of a prepared folder, those refused before too, and keep those that pass.

    Audio that can't be read is refused as well. The result does not depend on the number of processes.

    Args:
        folder: a prepared folder.
        asr: a Whisper model for CTranslate2, by its name or folder; None: the sound is checked alone.
        settings: the thresholds.
        threads: CPU threads of all processes together.
        processes: worker processes.
        fan_out: who listens.
        progress: told (done, total) in utterances.
        heard_dir: where what is heard is kept, `folder`/.heard unless several folders share their audio.

    Raises:
        MissingFileError: the folder was never prepared.
        AssetError: the ASR can't be had.
        DataError: another process checks the same folder.
    """
    total = sum(1 for _ in all_cuts(folder))
    with _locked(folder):
        heard = hear(
            all_cuts(folder),
            asr,
            heard_dir or folder / ".heard",
            threads=threads,
            processes=processes,
            fan_out=fan_out,
            progress=lambda done: progress(done, total) if progress is not None else None,
        )
        rows = [judge(cut, heard[cut.id], settings) for cut in all_cuts(folder)]
        report = _report(rows)
        taken_back = write_checked(folder, rows)
        note_check(folder, asr, settings, report.as_json())
    return replace(report, num_taken_back=taken_back)


def judge(cut: MonoCut, heard: Heard, settings: QualitySettings) -> Quality:
    """The numbers of one utterance, and why it is refused if it is."""
    text = text_of(cut)
    place = {"id": cut.id, "text": text, "audio": audio_place(cut)}
    if "problem" in heard:
        return Quality(**place, reasons=(heard["problem"],))
    hypothesis = heard["hypothesis"]
    num_characters = len(for_comparison(text))
    numbers = {
        "hypothesis": hypothesis,
        "cer": None if hypothesis is None else character_error_rate(text, hypothesis),
        "repeated_words": None if hypothesis is None else repeated_words(text, hypothesis),
        "seconds": heard["seconds"],
        "seconds_per_character": heard["speech_s"] / num_characters if num_characters else None,
        **{name: heard[name] for name in ("silence_frac", "max_pause_s", "clipped_frac", "end_db")},
    }
    return Quality(**place, **numbers, reasons=tuple(_reasons(numbers, settings)))


def _reasons(numbers: dict[str, Any], settings: QualitySettings) -> Iterator[str]:
    """Why an utterance with these numbers is refused: "kind: number and threshold" each."""
    pace, (least, most) = numbers["seconds_per_character"], settings.seconds_per_character or (0.0, float("inf"))
    if pace is not None and not least <= pace <= most:
        kind, bound = ("too fast", f"under {least:g}") if pace < least else ("too slow", f"over {most:g}")
        yield f"{kind}: {pace:.3f} s a character, {bound}"
    checks = (
        ("silence_frac", settings.max_silence_frac, "silence", "{:.0%} of it, over {:.0%}"),
        ("max_pause_s", settings.max_pause_s, "long pause", "{:.1f} s, over {:g}"),
        ("clipped_frac", settings.max_clipped_frac, "clipped", "{:.1%} of the samples near full swing, over {:.1%}"),
        ("end_db", settings.max_end_db, "cut off", "the last 20 ms at {:.0f} dB of the speech, over {:g}"),
        ("repeated_words", settings.max_repeated_words, "repeated", "{} words in a row were heard again, over {}"),
        ("cer", settings.max_cer, "misspoken", "character error rate {:.2f}, over {:g}"),
    )
    for name, allowed, kind, wording in checks:
        if allowed is not None and numbers[name] is not None and numbers[name] > allowed:
            yield f"{kind}: {wording.format(numbers[name], allowed)}"


def cer_by_cluster(rows: Sequence[Quality], cluster_of: dict[str, int]) -> dict[int, float]:
    """The mean character error rate of each cluster's utterances, refused or not; those without one do not count."""
    cers: dict[int, list[float]] = {}
    for row in rows:
        if row.cer is not None and row.id in cluster_of:
            cers.setdefault(cluster_of[row.id], []).append(row.cer)
    return {cluster: float(np.mean(of_it)) for cluster, of_it in sorted(cers.items())}


def _report(rows: list[Quality]) -> QualityReport:
    cers = [row.cer for row in rows if row.cer is not None]
    refused = tuple(row for row in rows if row.reasons)
    kinds = Counter(kind for row in refused for kind in row.kinds)
    return QualityReport(
        num_checked=len(rows),
        num_refused=len(refused),
        by_reason=dict(kinds.most_common()),
        mean_cer=float(np.mean(cers)) if cers else None,
        cer_quantiles={f"p{share * 100:g}": float(np.quantile(cers, share)) for share in QUANTILES if cers},
        refused=refused,
        worst=tuple(sorted((row for row in rows if row.cer is not None), key=lambda row: -(row.cer or 0.0))[:10]),
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / ".check.lock", timeout=0):
            yield
    except Timeout as error:
        raise DataError(f"{folder} is being checked by another process; wait for it, or stop it.") from error
