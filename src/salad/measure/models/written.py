"""Multiple choice by written answers: for models that give no log-probabilities.

Every item is asked with its choices after letters, greedily, and the answer is read by the declared rule and by the
three of others (parse.py). What can't be read is wrong; what was never answered is counted, and in no accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

from salad.errors import RecipeError
from salad.measure.models.base import Listener, Segment, Speech, Unanswered, answer_of, merged
from salad.measure.models.endpoint import Endpoint
from salad.measure.models.parse import RULES, Parsed, asking, credits, parse
from salad.measure.tasks.item import Item
from salad.measure.tasks.task import Task, lettered

MAX_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """An item for a model that writes: its prompt before the choices, the choices, and which is right.

    `listed`: the choices stand in the prompt after letters already, in text or spoken.
    """

    id: str
    segments: tuple[Segment, ...]
    choices: tuple[str, ...]
    answer: int
    listed: bool = False


@dataclass(frozen=True)
class Written:
    """What a model wrote to an item, and what that counts under each rule; or why it wrote nothing."""

    item_id: str
    parsed: Parsed | None
    credits: dict[str, float]
    unanswered: Unanswered | None = None


def asked(task: Task, item: Item, clip: Speech | None = None) -> Asked:
    """A task's item for a model that writes: without examples, and without the cue that choices would follow.

    Args:
        task: how it is asked.
        item: what is asked.
        clip: its speech; None asks in text.
    """
    before, said, after = task.speech_parts(item) if clip else task.parts(item)
    lines = after.split("\n")
    after = "\n".join(lines[:-1]) if lines[-1].endswith(":") else after
    segments = merged((task.description(item) + before, clip or said, after))
    return Asked(item.id, tuple(segments), item.choices, item.answer, lettered(item) in said + after)


def written_answers(
    listener: Listener,
    items: Sequence[Asked],
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
    on_done: Callable[[Written], None] = lambda _: None,
    workers: int = 1,
) -> list[Written]:
    """Ask for all items; results are in the items' order, `on_done` gets each as soon as it is there.

    Args:
        listener: who answers.
        items: what is asked.
        max_tokens: of each answer.
        seed: of the model, where it draws although it is asked not to.
        on_done: called in this thread.
        workers: so many items at once, of an endpoint.

    Raises:
        DataError: the model can't take such prompts at all, or an item has more choices than there are letters.
        AssetError: an endpoint is gone, or does not accept the key; what was answered has been given to `on_done`.
        RecipeError: several workers for a model that answers one item at a time.
    """
    if workers > 1 and not isinstance(listener, Endpoint):
        raise RecipeError(f"{listener.name} answers one item at a time; leave {workers} workers to endpoints.")
    ask = partial(_answer, listener, max_tokens, seed)
    results: dict[int, Written] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(ask, item): number for number, item in enumerate(items)}
        try:
            for done in as_completed(futures):
                results[futures[done]] = done.result()
                on_done(results[futures[done]])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(items))]


def _answer(listener: Listener, max_tokens: int, seed: int, item: Asked) -> Written:
    def ask() -> str:
        prompt = asking(item.segments, () if item.listed else item.choices)
        return listener.generate(prompt, max_tokens, seed, temperature=0.0)

    text = answer_of(item.id, ask)
    if isinstance(text, Unanswered):
        return Written(item.id, None, {}, text)
    parsed = parse(text, item.choices)
    return Written(item.id, parsed, credits(parsed, len(item.choices), item.answer))


@dataclass(frozen=True)
class WrittenCounts:
    """How written answers were read; items without an answer are in no number of it.

    Attributes:
        num_answers: how many there are.
        num_unread: those in which the declared rule reads no choice: wrong.
        accuracy_by_rule: a rule of `RULES` → accuracy, 0–1; the declared one counts. Empty without answers.
    """

    num_answers: int
    num_unread: int
    accuracy_by_rule: dict[str, float]


def written_counts(results: Sequence[Written]) -> WrittenCounts:
    """Count what was answered."""
    answered = [result for result in results if result.parsed is not None]
    unread = sum(result.parsed.declared is None for result in answered if result.parsed is not None)
    shares = {rule: sum(result.credits[rule] for result in answered) / len(answered) for rule in RULES if answered}
    return WrittenCounts(len(answered), unread, shares)
