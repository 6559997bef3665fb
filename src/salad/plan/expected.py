"""What sequences to expect of data that nobody has seen yet: the recipe's policy, drawn many times on a typical item.

The item is made of `expected` in the recipe: an utterance of so many seconds, a text of so many words. Real items vary;
their mean length is what tokens and hours follow from, so that the variation is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from salad.errors import RecipeError
from salad.interleave.spans import plan_spans
from salad.plan.activations import MicroBatch
from salad.randomness import generator
from salad.recipe import EncoderSizes, Recipe, StageThreeSettings

NUM_DRAWS = 500


@dataclass(frozen=True)
class Expected:
    """One sequence: positions of student and teacher, those with loss, encoder frames of its spans, its audio.

    `audio_s` is how long the whole item is when spoken, heard or not; 0 for a text that is only read. `own` tokens of
    it the student wrote itself.
    """

    student: int
    teacher: int
    scored: int
    span_frames: tuple[int, ...]
    audio_s: float
    own: int = 0


@dataclass(frozen=True)
class Source:
    """Draws of one source of a stage's mix, and its share of the sequences."""

    name: str
    share: float
    draws: tuple[Expected, ...]

    def mean(self, of: str) -> float:
        """Mean of a field over the draws."""
        return fmean(getattr(draw, of) for draw in self.draws)

    def heard_s(self, hz: float) -> float:
        """Mean seconds of speech that the student hears of a sequence."""
        return fmean(sum(draw.span_frames) for draw in self.draws) / hz


def stage_one_sources(recipe: Recipe, encoder: EncoderSizes) -> list[Source]:
    """Natural speech and text."""
    text_frac = recipe.stage_one.text_frac
    natural = Source("natural speech", 1 - text_frac, spoken(recipe, encoder, utterance_words(recipe)))
    return [source for source in (natural, Source("text", text_frac, read(recipe))) if source.share > 0]


def stage_two_sources(recipe: Recipe, encoder: EncoderSizes) -> list[Source]:
    """Natural speech, selected texts spoken, and text, in equal parts."""
    return [
        Source("natural speech", 1 / 3, spoken(recipe, encoder, utterance_words(recipe))),
        Source("selected speech", 1 / 3, spoken(recipe, encoder, selected_words(recipe, encoder))),
        Source("text", 1 / 3, read(recipe)),
    ]


def stage_three_sources(recipe: Recipe, encoder: EncoderSizes) -> list[Source]:
    """Natural and selected speech in equal parts, each on-policy and off-policy, and text; none without a Stage III."""
    three = recipe.stage_three
    if three is None:
        return []
    found: list[Source] = []
    words = {"natural speech": utterance_words(recipe), "selected speech": selected_words(recipe, encoder)}
    for name, num_words in words.items():
        share, own = (1 - three.text_frac) / 2, three.on_policy_frac
        if share * (1 - own) > 0:
            found.append(Source(name, share * (1 - own), spoken(recipe, encoder, num_words)))
        if share * own > 0:
            found.append(Source(f"{name}, on-policy", share * own, continued(recipe, encoder, num_words, three)))
    return [*found, *([Source("text", three.text_frac, read(recipe))] if three.text_frac else [])]


def utterance_words(recipe: Recipe) -> int:
    """Words of an utterance of natural speech.

    Raises:
        RecipeError: too few for the policy.
    """
    words = round(recipe.expected.utterance_s * recipe.expected.words_per_s)
    if words < recipe.sequence.min_words:
        raise RecipeError(
            f"expected.utterance_s={recipe.expected.utterance_s} at {recipe.expected.words_per_s} words a second makes "
            f"{words} words, fewer than sequence.min_words={recipe.sequence.min_words}; nothing could be trained on."
        )
    return words


def selected_words(recipe: Recipe, encoder: EncoderSizes) -> int:
    """Words of a text that is spoken: as many as expected, or as fit into a sequence; longer ones are left out."""
    words = max(recipe.sequence.min_words, round(recipe.expected.text_words))
    while words > recipe.sequence.min_words and not _draws(recipe, encoder, words):
        words = max(recipe.sequence.min_words, int(0.9 * words))
    return words


def read(recipe: Recipe) -> tuple[Expected, ...]:
    """A text that is read, cut at `max_positions` as the builder cuts it."""
    tokens = round(recipe.expected.text_words * recipe.expected.tokens_per_word)
    length = max(2, min(1 + tokens, recipe.sequence.max_positions))
    return (Expected(length, length, length - 1, (), 0.0),)


def spoken(recipe: Recipe, encoder: EncoderSizes, num_words: int) -> tuple[Expected, ...]:
    """Draws of an item of `num_words` words; those with nothing to predict, or too long, are left out as in training.

    Raises:
        RecipeError: no draw can be trained on.
    """
    draws = _draws(recipe, encoder, num_words)
    if not draws:
        raise RecipeError(
            f"items of {num_words} words (expected.*) make no sequence of at most sequence.max_positions="
            f"{recipe.sequence.max_positions} positions with text to predict; shorten them, or lengthen the sequences."
        )
    return draws


def continued(recipe: Recipe, encoder: EncoderSizes, num_words: int, three: StageThreeSettings) -> tuple[Expected, ...]:
    """Draws of an item that is cut after a speech span and continued by the student, to the last token it may write.

    A draw without speech, or without room, stays as it is in training; here it is left out.

    Raises:
        RecipeError: no draw can be continued.
    """
    settings, expected = recipe.sequence, recipe.expected
    per_position = recipe.model.adapter.frames_per_position
    rng = generator(0, "plan continuations", num_words)
    draws: list[Expected] = []
    for _ in range(NUM_DRAWS):
        spans = plan_spans(num_words, settings, rng)
        ends = [place for place, span in enumerate(spans) if span.kind == "speech"]
        if not ends:
            continue
        kept = spans[: ends[int(rng.integers(len(ends)))] + 1]
        heard = [span.stop - span.start for span in kept if span.kind == "speech"]
        frames = tuple(max(1, round(words / expected.words_per_s * encoder.hz)) for words in heard)
        words_read = kept[-1].stop - sum(heard)
        student = 1 + round(words_read * expected.tokens_per_word) + sum(-(-count // per_position) for count in frames)
        teacher = 1 + round(kept[-1].stop * expected.tokens_per_word)
        own = min(three.continuation_tokens, settings.max_positions - max(student, teacher))
        if own > 0:
            audio_s = num_words / expected.words_per_s
            draws.append(Expected(student + own, teacher + own, own, frames, audio_s, own))
    if not draws:
        raise RecipeError(
            f"items of {num_words} words (expected.*) have no speech with room behind it in sequence.max_positions="
            f"{settings.max_positions}; shorten them, or lengthen the sequences."
        )
    return tuple(draws)


def _draws(recipe: Recipe, encoder: EncoderSizes, num_words: int) -> tuple[Expected, ...]:
    settings, expected = recipe.sequence, recipe.expected
    per_position = recipe.model.adapter.frames_per_position
    rng = generator(0, "plan", num_words)
    follows = settings.continuation_words if settings.policy == "utterance" else 0
    draws: list[Expected] = []
    for _ in range(NUM_DRAWS):
        spans = plan_spans(num_words, settings, rng)
        heard = [span.stop - span.start for span in spans if span.kind == "speech"]
        frames = tuple(max(1, round(words / expected.words_per_s * encoder.hz)) for words in heard)
        scored = round((num_words - sum(heard) + follows) * expected.tokens_per_word)
        student = 1 + scored + sum(-(-count // per_position) for count in frames)
        teacher = 1 + round((num_words + follows) * expected.tokens_per_word)
        if scored and student <= settings.max_positions:
            draws.append(Expected(student, teacher, scored, frames, num_words / expected.words_per_s))
    return tuple(draws)


def full_window(draws: Sequence[Expected], positions: int) -> MicroBatch:
    """A micro-batch of such sequences, filled up to `positions` with a text."""
    lengths: list[int] = []
    frames: list[int] = []
    scored = 0
    for draw in draws:
        if sum(lengths) + draw.student > positions:
            break
        lengths.append(draw.student)
        frames += draw.span_frames
        scored += draw.scored
    rest = positions - sum(lengths)
    if rest:
        lengths.append(rest)
        scored += max(0, rest - 1)
    return MicroBatch(tuple(lengths), tuple(frames) or (1,), max(1, scored))
