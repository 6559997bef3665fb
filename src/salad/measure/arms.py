"""Arms of a measurement: who is asked a task's items, in which view, and where the rows lie.

OUT/TASK/ARM holds the rows of an arm (item_scores.py, task_divergence.py); what is there is not done again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from salad.measure.choice_request import Unscorable
from salad.measure.choice_scorers import Scorer
from salad.measure.models.base import Listener
from salad.measure.models.written import WrittenCounts
from salad.measure.reading import ReadingScorer
from salad.measure.score_task import ScoreSettings, TaskScores, score_task
from salad.measure.spoken_clips import SpokenClips
from salad.measure.task_divergence import Apart, Divergences
from salad.measure.task_divergence import why_not as no_distributions
from salad.measure.task_result import NATS
from salad.measure.tasks.item import Item
from salad.measure.tasks.task import Task
from salad.measure.transcripts import Transcripts
from salad.measure.written_task import answer_task, written_arm

Progress = Callable[[str, int, int], None]  # told an arm, items done, items in all


@dataclass(frozen=True)
class Writer:
    """A model that is asked for written answers, for it gives no log-probabilities, or the other one gives none."""

    listener: Listener


@dataclass(frozen=True)
class Measuring:
    """Who is measured against whom, how, and where results go.

    `workers`: items at once, of an endpoint; `domains`: category -> domain, for a grouping of its own.
    """

    model: Scorer | Writer
    base: Scorer | Writer
    transcripts: Transcripts
    out: Path
    settings: ScoreSettings
    limit: int | None = None
    progress: Progress = lambda *_: None
    workers: int = 1
    domains: Mapping[str, str] | None = None


class Scoring:
    """Scores arms of one task, and remembers what could not be scored."""

    def __init__(self, measuring: Measuring, task: Task, items: Sequence[Item]) -> None:
        """See the class."""
        self.measuring, self.task, self.items = measuring, task, items
        self.unscorable: dict[str, dict[str, str]] = {}
        self.written: dict[str, WrittenCounts] = {}

    def read(self, who: Scorer | Writer, arm: str, clips: SpokenClips) -> TaskScores:
        """The clips' transcripts, in the speech's place."""
        heard = self.measuring.transcripts
        if isinstance(who, Writer):
            return self.scores(who, arm, clips, transcripts=heard)
        return self.scores(ReadingScorer(heard, who), arm, clips)

    def scores(
        self,
        who: Scorer | Writer,
        arm: str,
        clips: SpokenClips | None = None,
        items: Sequence[Item] | None = None,
        transcripts: Transcripts | None = None,
    ) -> TaskScores:
        """One arm, in OUT/TASK/ARM."""
        own, asked = self.measuring, self.items if items is None else items
        place = self.place(arm)
        tell = partial(own.progress, f"{self.task.name} {arm}")
        if isinstance(who, Writer):
            seed = own.settings.seed
            written = (who.listener, self.task, asked, place, seed, clips, transcripts, own.limit, tell, own.workers)
            result = answer_task(*written)
            if not arm.startswith("."):
                self.written[arm] = written_arm(result.scores, asked)
        else:
            result = score_task(who, self.task, asked, place, own.settings, self.items, clips, own.limit, tell)
        self.lose(arm, result.unscorable)
        return result

    def place(self, arm: str) -> Path:
        """The arm's folder."""
        return arm_place(self.measuring.out, self.task.name, arm)

    def lose(self, arm: str, unscorable: Sequence[Unscorable]) -> None:
        """Remember what an arm has no score of."""
        if unscorable:
            self.unscorable[arm] = {one.name: one.reason for one in unscorable}

    def apart(
        self, clips: Mapping[tuple[str, str], SpokenClips]
    ) -> tuple[list[Apart], dict[tuple[str, str], list[Apart]], dict[str, str]]:
        """F's rows, those of M by voice and condition, and what can't be had and why."""
        own, why = self.measuring, {}
        if isinstance(own.model, Writer) or (reason := no_distributions(own.model)) is not None:
            told = f"{own.model.listener.name} gives no log-probabilities." if isinstance(own.model, Writer) else reason
            return [], {}, dict.fromkeys(NATS, str(told))
        base = None if isinstance(own.base, Writer) else own.base
        if base is None or (reason := no_distributions(own.model, base)) is not None:
            why = dict.fromkeys(("forgetting", "base_to_speech"), str(reason))
            base = None
        arms = {self.place(f"divergence/{voice}/{name}"): one for (voice, name), one in clips.items()}
        places = dict(zip(clips, arms, strict=True))
        read = self.place("divergence/text")
        divergences = Divergences(own.model, base, self.task, self.items, own.settings)
        tell = partial(own.progress, f"{self.task.name} F and M")
        every = {read: None, **arms} if base is not None else arms
        found = divergences.measure(self.items, every, own.limit, tell)
        for arm, rows in found.items():
            name = arm.relative_to(own.out / self.task.name).as_posix()
            self.lose(name, [row for row in rows if isinstance(row, Unscorable)])
        kept = {arm: [row for row in rows if isinstance(row, Apart)] for arm, rows in found.items()}
        return kept.get(read, []), {key: kept[arm] for key, arm in places.items()}, why


def arm_place(out: Path, task: str, arm: str) -> Path:
    """OUT/TASK/ARM; parts of `arm` are between slashes."""
    return out / task / "/".join(re.sub(r"[^\w.-]+", "_", part) for part in arm.split("/"))
