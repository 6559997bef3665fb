"""The one place where candidate utterances become cuts or rejections, in bounded memory and resumable at any point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salad.speech.candidate import Candidate, Checks
from salad.speech.prepared import Rejected

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
    """Check every candidate and write the prepared folder `out`.

    Args:
        candidates: what the corpus says, and what its reader could not use; read once, lazily, in order.
        out: the prepared folder.
        info: "corpus", "licence", "source" and what else is known of the whole; goes into info.json.
        checks: what is asked of an utterance.
        jobs: worker processes.
        progress: told the number of utterances that are done.

    Raises:
        DataError: no utterance can be used, or, under `checks.strict`, one can't.
    """
    raise NotImplementedError
