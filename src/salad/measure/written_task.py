"""A task answered in writing, by a model that gives no log-probabilities: records like those of scored choices.

A record's `logprobs` are empty, its rules are those of models/parse.py, and an answer in which no choice can be read is
prediction -1: wrong, by every rule. Each part of the items is kept as it is done (item_scores.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from salad.measure.choice_request import Unscorable
from salad.measure.choices import ItemScore
from salad.measure.item_scores import WRITTEN_RULES, ScoreFolder
from salad.measure.models.base import Listener, Speech
from salad.measure.models.parse import Parsed, credits
from salad.measure.models.written import Asked, Written, WrittenCounts, asked, written_answers, written_counts
from salad.measure.score_task import PART_ITEMS, UNSPOKEN, TaskScores, is_stale
from salad.measure.spoken_clips import SpokenClips
from salad.measure.tasks.item import Item
from salad.measure.tasks.task import Task
from salad.measure.transcripts import Transcripts

VERSION = 1
"""Of how items are asked and answers read."""
UNREAD = -1


def answer_task(
    listener: Listener,
    task: Task,
    items: Sequence[Item],
    out: Path,
    seed: int = 0,
    clips: SpokenClips | None = None,
    transcripts: Transcripts | None = None,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    workers: int = 1,
) -> TaskScores:
    """Ask for the items, or the first `limit`, without examples, into `out`; what is there is not asked again.

    Args:
        listener: who answers.
        task: what is asked.
        items: of it.
        out: see item_scores.py.
        seed: of a model that draws although it is asked not to.
        clips: the items' speech; None asks in text.
        transcripts: with `clips`: what these hear is asked in text.
        limit: only so many items.
        on_progress: called with (items done, items in all).
        workers: so many items at once, of an endpoint.

    Raises:
        DataError: `out` holds answers of something else.
        AssetError: an endpoint is gone, or does not accept the key.
    """
    identity = {
        "answers": VERSION,
        "task": task.name,
        "task_version": task.version,
        "voice": clips and clips.voice,
        "condition": clips and clips.condition,
        "asr": transcripts and transcripts.asr.fingerprint,
        "model": listener.fingerprint,
        "items": hashlib.sha256("".join(item.sha256 for item in items).encode()).hexdigest(),
        "seed": seed,
    }
    folder = ScoreFolder(out, identity)
    chosen = items[:limit]
    found = folder.done()
    for begin in range(0, len(chosen), PART_ITEMS):
        part = chosen[begin : begin + PART_ITEMS]
        known = found.setdefault(begin // PART_ITEMS, {})
        lacking = [item for item in part if is_stale(known.get(item.id), item, clips)]
        if lacking:
            known.update(_answer_part(listener, task, lacking, seed, clips, transcripts, workers))
            folder.write_part(begin // PART_ITEMS, list(known.values()))
        on_progress(min(begin + PART_ITEMS, len(chosen)), len(chosen))
    every = {name: outcome for part in found.values() for name, outcome in part.items()}
    outcomes = [every[item.id] for item in chosen]
    scores = [one for one in outcomes if isinstance(one, ItemScore)]
    unscorable = [one for one in outcomes if isinstance(one, Unscorable)]
    folder.finish(scores, unscorable)
    return TaskScores(scores, unscorable)


def written_arm(scores: Sequence[ItemScore], items: Sequence[Item]) -> WrittenCounts:
    """An arm's answers to the items, counted from their records."""
    num_choices = {item.id: len(item.choices) for item in items}
    return written_counts([_written(score, num_choices[score.item_id]) for score in scores])


def _written(score: ItemScore, num_choices: int) -> Written:
    """What a record says was written; the reverse of `_record`."""
    read = {rule: None if score.predictions[rule] == UNREAD else score.predictions[rule] for rule in WRITTEN_RULES}
    parsed = Parsed(score.reply or "", **read)
    return Written(score.item_id, parsed, credits(parsed, num_choices, score.answer))


def _answer_part(
    listener: Listener,
    task: Task,
    items: Sequence[Item],
    seed: int,
    clips: SpokenClips | None,
    transcripts: Transcripts | None,
    workers: int,
) -> dict[str, ItemScore | Unscorable]:
    outcomes: dict[str, ItemScore | Unscorable] = {}
    questions: dict[str, tuple[Item, Asked]] = {}
    for item in items:
        if clips is not None and item.id not in clips:
            outcomes[item.id] = Unscorable(item.id, UNSPOKEN)
            continue
        question = asked(task, item, None if clips is None else clips[item.id])
        if transcripts is not None:
            question = replace(question, segments=(transcripts.read(question.segments),))
        questions[item.id] = item, question
    chosen = [question for _, question in questions.values()]
    for written in written_answers(listener, chosen, seed=seed, workers=workers):
        item, question = questions[written.item_id]
        audio = None if clips is None else clips.audio_sha256(item.id)
        outcomes[item.id] = _record(listener, task, item, question, written, audio)
    return outcomes


def _record(
    listener: Listener, task: Task, item: Item, question: Asked, written: Written, audio_sha256: str | None
) -> ItemScore | Unscorable:
    if written.parsed is None:
        why = written.unanswered.reason if written.unanswered is not None else "it has no answer"
        return Unscorable(item.id, why)
    asked_of = [part.sha256 if isinstance(part, Speech) else part for part in question.segments]
    prompt = "\x00".join([*asked_of, "", *question.choices])
    read = {rule: getattr(written.parsed, rule) for rule in WRITTEN_RULES}
    return ItemScore(
        item_id=item.id,
        item_sha256=item.sha256,
        prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
        logprobs=(),
        num_tokens=(),
        num_bytes=(),
        num_characters=(),
        unconditional_logprobs=None,
        predictions={rule: UNREAD if choice is None else choice for rule, choice in read.items()},
        ties=(),
        answer=item.answer,
        rule=WRITTEN_RULES[0],
        num_shots=0,
        category=item.category,
        audio_sha256=audio_sha256,
        task=task.name,
        task_version=task.version,
        model=listener.fingerprint,
        reply=written.parsed.text,
    )
