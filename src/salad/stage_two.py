"""Stage II on one page: cluster -> probe -> select -> synthesize -> distill on (paper section 5).

The model itself says where it is deaf: the divergence of what it hears from what the text LLM reads, cluster by cluster
of a broad text corpus. Only that is synthesized, and distillation goes on from the checkpoint before Stage I's decay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from salad.card.bill import Bill, data_bill, read_bill, stage_bill
from salad.card.page import write_card
from salad.distill.checkpoint import load_weights
from salad.distill.schedule import linear_to_zero
from salad.interleave.builder import SequenceBuilder
from salad.interleave.stream import Stream
from salad.interleave.utterances import Utterance
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.probing import ProbeReport, Probing, beginning, probe_speech
from salad.ranks import ALONE, Ranks
from salad.ray_workers import fan_out
from salad.recipe import Recipe
from salad.run import Progress
from salad.select.budget import Budget, parse_budget, seconds_budget, token_counter
from salad.select.clusters import Clusters
from salad.select.embed_corpus import EmbedSettings, embed_corpus
from salad.select.partition import PartitionSettings, partition
from salad.select.probe import draw_probes
from salad.select.selecting import Opened, Setting, select_one
from salad.speech.prepared import Rejected
from salad.stage_one import PRE_DECAY, by_size, usable_speech
from salad.student import save_model, warm_start_once
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text
from salad.training import distill
from salad.workers import FanOut


def embed(pool: Path, recipe: Recipe, out: Path, progress: Progress) -> None:
    """1. Each broad text as a vector of what it is about."""
    told = functools.partial(progress, note="embedding")
    settings, processes = _embedding(recipe), recipe.workers if recipe.engine.fan_out == "ray" else 1
    embed_corpus(TextCorpus(pool), out / "embeddings", settings, processes, told, _workers(recipe, out))


def cluster(pool: Path, recipe: Recipe, out: Path, progress: Progress) -> Clusters:
    """2. Partition the broad texts by meaning, into clusters of equal size; embeddings in `out` are used."""
    two = recipe.stage_two
    embedding = _embedding(recipe)
    settings = PartitionSettings(two.num_clusters, recipe.seed, tolerance=two.balance_tolerance, embedding=embedding)

    @contextmanager
    def bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
        yield lambda done, total: progress(done, total or done + 1, what)

    partition(pool, out, settings, bar=bar)
    return Clusters.read(out, pool)


def _embedding(recipe: Recipe) -> EmbedSettings:
    threads = 1 if recipe.engine.fan_out == "ray" else recipe.threads
    return EmbedSettings(recipe.embedder, recipe.engine.device, threads)


def _workers(recipe: Recipe, folder: Path) -> FanOut:
    """Who embeds and probes; on Ray each holds a GPU where the recipe's device is one."""
    gpus = 1.0 if recipe.engine.device == "cuda" else 0.0
    return fan_out(recipe.engine.fan_out, folder, gpus)


def draw(pool: Path, clusters: Clusters, recipe: Recipe) -> dict[Text, int]:
    """3. The texts that probe each cluster, with its number; of a long one, its beginning. They are not selected."""
    texts = TextCorpus(pool)
    rows = draw_probes(clusters.labels_N, recipe.stage_two.probe_texts, recipe.seed, clusters.num_clusters)
    return {beginning(texts[int(row)]): number for number, own in enumerate(rows) for row in own}


def probe(model: Path, clusters: Path, speech: Path, recipe: Recipe, out: Path, progress: Progress) -> ProbeReport:
    """4. M(c): what the student hears of each cluster's probe against what the text LLM reads."""
    on_ray = recipe.engine.fan_out == "ray"
    probing = Probing(
        model,
        clusters,
        out,
        scores=(recipe.stage_two.score,),
        max_cer=recipe.stage_two.max_cer,
        seed=recipe.seed,
        threads=1 if on_ray else recipe.threads,
        processes=recipe.workers if on_ray else 1,
        fan_out=_workers(recipe, out),
        progress=progress,
    )
    return probe_speech(probing, speech)


def select(opened: Opened, recipe: Recipe, gamma: float, budget: Budget, out: Path) -> dict[str, Any]:
    """5. P_target ~ P_web M^gamma, and texts drawn from it until the budget is reached; what selection.json holds.

    Neither the probes are drawn nor what shares words with an evaluation set. Both arms draw from the same order within
    each cluster.
    """
    two = recipe.stage_two
    setting = Setting(gamma, two.score, two.coverage_frac, two.max_boost, recipe.seed)
    hint = "lower the recipe's stage_two.budget_..., or raise data.pool_texts"
    return select_one(opened, setting, budget, out, hint)[1]


def budget_of(recipe: Recipe, natural_s: float, seconds_per_character: float) -> Budget:
    """How much is selected, by the recipe; `natural_s`: seconds of Stage I's natural speech."""
    two = recipe.stage_two
    if two.budget_tokens is not None:
        llm = recipe.model.llm
        return parse_budget(f"{two.budget_tokens} tokens", count_tokens=token_counter(llm), counted_by=llm)
    seconds = two.budget_h * 3600 if two.budget_h is not None else (two.budget_frac or 0.0) * natural_s
    return seconds_budget(seconds, seconds_per_character)


def stage_two(
    recipe: Recipe,
    stage_one_folder: Path,
    natural: Sequence[Sequence[Utterance]],
    selected: Sequence[Utterance],
    texts: Sequence[Text],
    held_out: Sequence[Utterance],
    out: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> list[Rejected]:
    """6. Continue from the pre-decay checkpoint on natural speech, selected speech and text in equal parts.

    The adapter first meets the new words in a warm start on natural and selected speech. Returns the selected
    utterances that no sequence could be made of, and those that the warm start could make nothing of. On all ranks.
    """
    settings = recipe.stage_two
    torch.set_num_threads(recipe.threads)
    before_decay = stage_one_folder / "checkpoints" / PRE_DECAY
    student = SpeechLM.from_pretrained(stage_one_folder / "model")
    load_weights(before_decay, student, ranks)
    left_out = warm_start_once(
        student, recipe, [*natural, selected], settings.warm_start, "stage_two", out / "warm_start", progress, ranks
    )
    builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, recipe.seed)
    usable_natural, _ = usable_speech(builder, natural)
    usable, rejected = builder.usable(selected)
    sources, weights = [*usable_natural, usable], [*by_size(usable_natural, 1 / 3), 1 / 3, 1 / 3]
    stream = Stream.of(builder, sources, texts, weights, settings, student.config.speech_token_id, "stage_two")

    def bills(rows: list[dict[str, Any]]) -> list[Bill]:
        if not ranks.is_main:
            return []
        own = stage_bill(out.name, stream, settings, settings.warm_start, rows)
        return [*read_bill(before_decay)["training"], own]

    if ranks.is_main:
        write_card(out / "checkpoints", data_bill(recipe, out.name, bills([])))
    rows = distill(
        "Stage II",
        student,
        stream,
        settings,
        lambda step: linear_to_zero(step, settings.steps),
        held_out,
        recipe,
        out,
        progress,
        ranks,
        optimizer_from=before_decay,
    )
    save_model(student, recipe, out.name, out / "model", ranks, bills(rows))
    return [*left_out, *rejected]
