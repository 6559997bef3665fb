"""How deaf is a model, and why: the gap of a spoken task, split, guarded, and under every voice and condition.

    topline          the base LLM, text view
    own text         the model under test, text view
    own transcript   the model under test reads what an ASR heard
    cascade          the base LLM reads what the ASR heard
    speech           the model under test hears
    guards           it hears what is of no use
    divergence       how far its distributions are from the base LLM's (F) and from its own in text (M)

Each arm's items lie in OUT/TASK/ARM (item_scores.py); what is there is not scored again.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from salad.errors import AssetError, CheckpointError, DataError, RecipeError
from salad.files import read_json
from salad.measure.altered import ALTERATIONS, AlteredClips
from salad.measure.arms import Measuring, Scoring, Writer
from salad.measure.choice_scorers import Scorer, scorer_of
from salad.measure.choices import ItemScore
from salad.measure.gap import Arms, Split, mean_gap, split_gap
from salad.measure.listening import GUARD_ITEMS, Listening, listening
from salad.measure.models.base import Listener
from salad.measure.models.endpoint import Endpoint
from salad.measure.models.load import load_listener
from salad.measure.paired import accuracy, paired_difference
from salad.measure.power import power
from salad.measure.score_task import ScoreSettings, TaskScores
from salad.measure.significance import holm, paired_test
from salad.measure.spoken_clips import SpokenClips
from salad.measure.task_divergence import Apart
from salad.measure.task_result import Condition, TaskResult, nats_of, per_token
from salad.measure.tasks.conditions import CLEAN
from salad.measure.tasks.item import Item
from salad.measure.tasks.spoken import SpokenTask
from salad.model.saved import model_folder


def load_models(model: str, base: str, dtype: str = "auto") -> tuple[Scorer | Writer, Scorer | Writer]:
    """The model under test and its base LLM, asked in the same way.

    Where the model gives no log-probabilities both answer in writing. A base LLM's prompts begin with the document mark
    where the model's do.

    Raises:
        AssetError, CheckpointError, RecipeError: there is no such model, or the base gives no log-probabilities though
            the model does.
    """
    how = {} if dtype == "auto" else {"dtype": dtype}  # what is behind a server has none
    heard, read = load_listener(model, **how), load_listener(base, **how)
    for listener in (heard, read):
        _reach(getattr(listener, "reader", listener))
    if not heard.can_score:
        return Writer(heard), Writer(read)
    own = scorer_of(heard)
    return own, scorer_of(read, getattr(own, "mark", None) or None)


def _reach(listener: Listener) -> None:
    """Connect once to a model's server: an address without one would be waited for at every item.

    Raises:
        AssetError: nobody is there.
    """
    url = urlsplit(listener.name.removeprefix("endpoint:"))
    if not isinstance(listener, Endpoint) or url.scheme in getproxies():
        return
    try:
        socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), 10.0).close()
    except OSError as error:
        raise AssetError(
            f"{listener.name}: nobody answers there ({error}); start the server, or mend the URL."
        ) from error


def base_of(spec: str) -> str:
    """The text LLM that a model of ours came from, or that reads in a cascade.

    Raises:
        RecipeError: another's model, which doesn't say.
    """
    if spec.startswith("cascade:") and "+" in spec:
        return spec.partition("+")[2]
    try:
        return str(read_json(model_folder(Path(spec.removeprefix("salad:"))) / "config.json")["llm"])
    except (CheckpointError, KeyError) as error:
        if ":" not in spec and not Path(spec).exists():
            raise RecipeError(
                f"{spec} does not exist; check the path, or, if it is a model on the hub, give --base, its text LLM."
            ) from error
        raise RecipeError(f"{spec} does not say which text LLM it came from; give --base.") from error


def measure_task(measuring: Measuring, spoken: SpokenTask, every: Sequence[Item] | None = None) -> TaskResult:
    """All arms of one task.

    Args:
        measuring: who and how.
        spoken: the task's items with their speech.
        every: all items of the task where only the first ones are spoken: examples are drawn from all, so that they
            stay the same when more are spoken.

    Raises:
        DataError: no item is spoken by all voices and answered in all arms.
        RecipeError: it is no multiple-choice task, or holds no clean speech.
    """
    if spoken.task is None:
        raise RecipeError(f"{spoken.folder} holds {spoken.name}, whose answers are free; the gap needs choices.")
    task = spoken.task
    items = [item for item in spoken.items if isinstance(item, Item)] if every is None else list(every)
    clean = [
        voice
        for voice in spoken.voices
        if any(r.voice == voice and r.condition == CLEAN.name for r in spoken.renditions)
    ]
    if not clean:
        raise RecipeError(f"{spoken.folder} holds no clean speech; the gap is that of clean speech.")
    scoring = Scoring(measuring, task, items)
    heard = {
        (voice, condition): scoring.scores(
            measuring.model, f"speech/{voice}/{condition}", SpokenClips(spoken, voice, condition)
        )
        for voice, condition in dict.fromkeys((row.voice, row.condition) for row in spoken.renditions)
    }
    verdict = _guard(scoring, SpokenClips(spoken, clean[0]), heard[clean[0], CLEAN.name])
    topline = scoring.scores(measuring.base, "topline")
    own_text = scoring.scores(measuring.model, "own_text")
    own_read = {v: scoring.read(measuring.model, f"own_transcript/{v}", SpokenClips(spoken, v)) for v in clean}
    cascade = {v: scoring.read(measuring.base, f"cascade/{v}", SpokenClips(spoken, v)) for v in clean}
    arms = Arms(
        answers_of(topline),
        answers_of(own_text),
        {voice: answers_of(scores) for voice, scores in own_read.items()},
        {voice: answers_of(heard[voice, CLEAN.name]) for voice in clean},
    )
    seed, draws = measuring.settings.seed, measuring.settings.num_bootstrap
    groupings = _groupings(items, measuring.domains)
    gap = split_gap(task.name, arms, seed, groupings, draws)
    text, spread, why_not = scoring.apart({key: SpokenClips(spoken, *key) for key in heard})
    nats = nats_of(text, [spread[v, CLEAN.name] for v in clean if spread], groupings, seed, task.name, draws, why_not)
    top_1I, read_VI = _matched(topline, list(cascade.values()), f"{task.name}, cascade")
    text_1I, speech_VI = _matched(topline, [heard[voice, CLEAN.name] for voice in clean], task.name)
    return TaskResult(
        task,
        arms,
        verdict,
        gap,
        accuracy(read_VI, "cascade"),
        paired_difference(top_1I, read_VI, seed, f"{task.name} cascade", draws),
        nats,
        [_condition(topline, heard[key], key, spread.get(key, []), seed, draws) for key in heard],
        paired_test(text_1I, speech_VI).p_value,
        power(text_1I, speech_VI).sentence,
        float(np.mean([task.chance(item) for item in items[: measuring.limit]])),
        scoring.unscorable,
        scoring.written,
    )


@dataclass(frozen=True)
class Measured:
    """Several tasks by one model."""

    tasks: dict[str, TaskResult]
    mean: Split
    holm: dict[str, float]

    def mean_json(self) -> dict[str, Any]:
        """The mean split as plain data."""
        return asdict(self.mean)

    @property
    def listens(self) -> bool:
        """Whether it can be shown to listen in every task."""
        return all(result.listening.listens for result in self.tasks.values())


def summarize(tasks: Mapping[str, TaskResult], settings: ScoreSettings) -> Measured:
    """The mean gap over tasks, each counting alike, and p-values corrected for their number (Holm)."""
    mean = mean_gap({name: result.arms for name, result in tasks.items()}, settings.seed, settings.num_bootstrap)
    return Measured(dict(tasks), mean, holm({name: result.p_value for name, result in tasks.items()}))


def answers_of(scores: TaskScores) -> dict[str, int]:
    """Item id -> 1 for right, 0 for wrong; items without a score are not in it."""
    return {score.item_id: int(score.correct) for score in scores.scores}


def _guard(scoring: Scoring, clips: SpokenClips, right: TaskScores) -> Listening:
    """Score the first items again with speech that is of no use."""
    ids = [score.item_id for score in right.scores][:GUARD_ITEMS]
    if len(ids) < 2:
        lost = f"; {right.unscorable[0].name}: {right.unscorable[0].reason}" if right.unscorable else ""
        raise DataError(f"{scoring.task.name}: {len(ids)} items could be scored with speech, the guards need 2{lost}.")
    items = [item for item in scoring.items if item.id in set(ids)]
    settings = scoring.measuring.settings
    altered: dict[str, list[ItemScore]] = {}
    for how in ALTERATIONS:
        other = AlteredClips(clips, how, ids, settings.seed)
        chosen = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8]  # another choice of items is guarded anew
        altered[how] = scoring.scores(scoring.measuring.model, f".guards/{chosen}/{how}", other, items).scores
    return listening(right.scores, altered, settings.seed, settings.num_bootstrap)


def _condition(
    topline: TaskScores, heard: TaskScores, key: tuple[str, str], rows: Sequence[Apart], seed: int, num_bootstrap: int
) -> Condition:
    voice, condition = key
    text_1I, speech_1I = _matched(topline, [heard], f"{voice}, {condition}")
    gap = paired_difference(text_1I, speech_1I, seed, f"{voice} {condition}", num_bootstrap)
    nats = {
        name: per_token([rows], name, seed, f"{voice} {condition}", num_bootstrap)
        for name in ("misalignment", "base_to_speech")
    }
    return Condition(voice, condition, accuracy(speech_1I, "speech"), gap, **nats)


def _matched(text: TaskScores, voices: Sequence[TaskScores], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Answers on the items that all have: [1, I] and [V, I]."""
    read, heard = answers_of(text), [answers_of(scores) for scores in voices]
    ids = [name for name in read if all(name in own for own in heard)]
    if not ids:
        raise DataError(f"{what}: no item was answered in text and by all voices.")
    return np.array([[read[name] for name in ids]]), np.array([[own[name] for name in ids] for own in heard])


def _groupings(items: Sequence[Item], domains: Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    """Item -> category, and item -> domain, where there is more than one."""
    by = {"category": {item.id: item.category for item in items}}
    if domains is not None:
        by["domain"] = {item.id: domains.get(item.category, "") for item in items}
    return {name: labels for name, labels in by.items() if len(set(labels.values())) > 1}
