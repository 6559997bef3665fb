"""The one place where candidate utterances become cuts or rejections: streaming, parallel, resumable at any point.

Memory holds the chunks at work and 8 bytes a candidate, however many there are.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from salad.errors import DataError
from salad.files import open_atomic, write_atomic
from salad.speech.candidate import Candidate, Checks
from salad.speech.chunks import PARTS_NAME, Part, checked, chunks
from salad.speech.prepared import ALIGNMENT_NAME, CUTS_NAME, Rejected

__all__ = ["Candidate", "Checks", "Rejected", "Summary", "prepare_corpus"]


@dataclass(frozen=True)
class Summary:
    """What became of a corpus; `reasons`: (kind of reason, count), most frequent first."""

    out: Path
    num_cuts: int
    hours: float
    num_speakers: int
    licence: str
    num_rejected: int
    reasons: tuple[tuple[str, int], ...]

    @property
    def rejected_frac(self) -> float:
        """Share (0-1) of the utterances that were not taken."""
        return self.num_rejected / max(1, self.num_cuts + self.num_rejected)


def prepare_corpus(
    candidates: Iterable[Candidate | Rejected],
    out: Path,
    info: dict[str, Any],
    checks: Checks | None = None,
    jobs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Check every candidate and write the prepared folder `out`; the same input gives the same bytes.

    Args:
        candidates: what the corpus says, and what its reader could not use; read once, lazily, in order.
        out: the prepared folder.
        info: "corpus", "licence", "source" and what else is known of the whole; goes into info.json. Read after the
            last candidate, so their reader may still add to it. Without a licence, those of the utterances are given.
        checks: what is asked of an utterance.
        jobs: worker processes; 1: this one.
        progress: told the number of utterances that are done.

    Raises:
        DataError: no utterance can be used, or, under `checks.strict`, one can't; `out`/rejected.jsonl says why. Or
            `out` was aligned or encoded since it was prepared, or another process prepares it.
        OSError: the disk is full. The next run goes on.
    """
    checks = checks or Checks()
    if (out / CUTS_NAME).is_file() and ((out / ALIGNMENT_NAME).is_file() or (out / "features").is_dir()):
        raise DataError(
            f"{out} was prepared before, and preparing it again would lose its word timings and features; delete "
            f"{out / CUTS_NAME} to have it so, or name another --out."
        )
    parts = out / PARTS_NAME
    parts.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(parts / "lock", timeout=0):
            tally = _Tally()
            for part in checked(chunks(candidates, checks, out), checks, out, jobs):
                if checks.strict and part.first_rejected is not None:
                    raise _first_bad(out, part.first_rejected)
                tally.add(part)
                if progress is not None:
                    progress(tally.num_items)
            if tally.num_cuts == 0:
                raise _nothing_usable(out, tally)
            return _written(tally, out, info, checks)
    except Timeout:
        raise DataError(f"another process is preparing {out}; wait until it has ended.") from None


class _Tally:
    """The sums over all parts."""

    def __init__(self) -> None:
        self.seconds_of: dict[
            str, float
        ] = {}  # by name, to be added in order: the sum must not depend on who was first
        self.num_cuts = 0
        self.speakers: set[str] = set()
        self.licences: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.first_rejected: dict[str, dict[str, str]] = {}

    def add(self, part: Part) -> None:
        self.seconds_of[part.name] = part.seconds
        self.num_cuts += part.num_cuts
        self.speakers.update(part.speakers)
        self.licences.update(part.licences)
        self.kinds.update(part.kinds)
        if part.first_rejected is not None:
            self.first_rejected[part.name] = part.first_rejected

    @property
    def num_rejected(self) -> int:
        return self.kinds.total()

    @property
    def num_items(self) -> int:
        return self.num_cuts + self.num_rejected


def _written(tally: _Tally, out: Path, info: dict[str, Any], checks: Checks) -> Summary:
    """Join the parts to the prepared folder; the cuts come last, so a folder that has them is whole."""
    names = sorted(tally.seconds_of)
    hours = sum(tally.seconds_of[name] for name in names) / 3600
    licence = str(info.get("licence") or "; ".join(sorted(tally.licences)) or "not stated")
    reasons = tuple(sorted(tally.kinds.items(), key=lambda item: (-item[1], item[0])))
    whole = {
        **info,
        "licence": licence,
        "num_cuts": tally.num_cuts,
        "hours": round(hours, 4),
        "num_speakers": len(tally.speakers),
        "num_rejected": tally.num_rejected,
        "rejected": dict(reasons),
        "checks": {key: value for key, value in asdict(checks).items() if key != "strict"},
    }
    for stale in (CUTS_NAME, ALIGNMENT_NAME):
        (out / stale).unlink(missing_ok=True)
    _write_rejected(tally, out)
    write_atomic(out / "info.json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    with open_atomic(out / CUTS_NAME) as joined:
        for name in names:
            with (out / PARTS_NAME / f"{name}.cuts.gz").open("rb") as member:
                shutil.copyfileobj(member, joined)
    shutil.rmtree(out / PARTS_NAME)
    return Summary(out, tally.num_cuts, hours, len(tally.speakers), licence, tally.num_rejected, reasons)


def _write_rejected(tally: _Tally, out: Path) -> None:
    with open_atomic(out / "rejected.jsonl") as joined:
        for name in sorted(tally.seconds_of):
            with (out / PARTS_NAME / f"{name}.jsonl").open("rb") as part:
                part.readline()
                shutil.copyfileobj(part, joined)


def _first_bad(out: Path, row: dict[str, str]) -> DataError:
    """The error under `strict`; what was checked is kept for the next run."""
    write_atomic(out / "rejected.jsonl", json.dumps(row, ensure_ascii=False) + "\n")
    return DataError(
        f"utterance {row['id']!r} ({row['place']}) can't be used: {row['reason']}; mend it, leave it out, or prepare "
        "without --strict."
    )


def _nothing_usable(out: Path, tally: _Tally) -> DataError:
    _write_rejected(tally, out)
    shutil.rmtree(out / PARTS_NAME)
    if not tally.num_items:
        return DataError(
            "the corpus holds no utterance; check its folder, and the manifest, format or split that was named."
        )
    first = tally.first_rejected[min(tally.first_rejected)]
    return DataError(
        f"none of {tally.num_items} utterances can be used; the first, at {first['place']}: {first['reason']}. All are "
        f"in {out / 'rejected.jsonl'}."
    )
