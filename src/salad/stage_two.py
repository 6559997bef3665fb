"""Stage II on one page: cluster -> probe -> select -> synthesize -> distill on (paper section 5).

The model itself says where it is deaf: the divergence of what it hears from what the text LLM reads, cluster by cluster
of a broad text corpus. Only that is synthesized, and distillation goes on from the checkpoint before Stage I's decay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from salad.card.bill import Bill, data_bill, read_bill, stage_bill
from salad.card.page import write_card
from salad.distill.checkpoint import load_weights
from salad.distill.schedule import linear_to_zero
from salad.distill.teacher import teacher_for
from salad.errors import DataError
from salad.interleave.builder import SequenceBuilder
from salad.interleave.stream import Stream
from salad.interleave.utterances import Utterance, feature_lookup
from salad.measure.divergence_by_item import scores_by_item
from salad.measure.misalignment import batches_of
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.ranks import ALONE, Ranks, device_of
from salad.recipe import Recipe
from salad.run import Progress
from salad.select.balanced_kmeans import Clustering, balanced_kmeans
from salad.select.budget import seconds_budget
from salad.select.embed import embed
from salad.select.naming import cluster_names
from salad.select.probe import ClusterProbe, ProbeItem, probe_clusters
from salad.select.sampling import Pool, Selection, select_texts
from salad.select.scores import cluster_scores
from salad.select.target import target_distribution
from salad.speech.prepared import Rejected
from salad.stage_one import PRE_DECAY, by_size, usable_speech
from salad.student import save_model, warm_start_once
from salad.texts.text import Text
from salad.training import distill


def cluster(
    pool: Sequence[Text], probes: Sequence[Text], recipe: Recipe, progress: Progress
) -> tuple[Clustering, np.ndarray, list[str]]:
    """1. Partition the pool; give each probe text the nearest centre's cluster. Clustering, probe labels, names."""
    embeddings = embed([text.text for text in (*pool, *probes)], recipe.embedder, progress)
    pool_Nd, probes_Nd = embeddings[: len(pool)], embeddings[len(pool) :]
    clustering = balanced_kmeans(pool_Nd, recipe.stage_two.num_clusters, recipe.seed)
    distance = ((probes_Nd[:, None] - clustering.centres[None]) ** 2).sum(-1)
    names = cluster_names([text.text for text in pool], clustering.labels, recipe.stage_two.num_clusters)
    return clustering, distance.argmin(1), names


def probe(
    model: Path,
    spoken: Sequence[Utterance],
    cluster_of: Mapping[str, int],
    cer_of: Mapping[str, float],
    recipe: Recipe,
) -> tuple[list[ClusterProbe], list[Rejected]]:
    """2. M(c): what the student hears of each cluster's probe texts against what the text LLM reads."""
    torch.set_num_threads(recipe.threads)
    student = SpeechLM.from_pretrained(model, device_map=device_of(recipe.engine.device))
    builder = SequenceBuilder.of(student, load_tokenizer(recipe.model.llm), recipe.sequence, recipe.seed)
    usable, rejected = builder.usable(spoken)
    sequences = [builder.mixed(utterance) for utterance in usable]
    batches = batches_of(sequences, feature_lookup(usable), student, recipe.measure.batch_positions)
    words = {utterance.id: utterance.words for utterance in usable}
    items = [
        ProbeItem(row, cluster_of[row.item], cer_of.get(row.item), len(words[row.item]), words[row.item][-1].end_s)
        for row in scores_by_item(teacher_for(student), student, batches)
    ]
    settings = recipe.stage_two
    return probe_clusters(items, settings.num_clusters, settings.max_cer), rejected


def select(
    pool: Sequence[Text],
    cluster_of: Mapping[str, int],
    probes: Sequence[ClusterProbe],
    gamma: float,
    budget_s: float,
    seconds_per_character: float,
    seed: int,
) -> Selection:
    """3. and 4. P_target ~ P_web M^gamma, and texts drawn from it until the budget is reached."""
    unknown = [text.id for text in pool if text.id not in cluster_of]
    if unknown:
        raise DataError(f"{len(unknown)} texts are in no cluster (e.g. {unknown[0]!r}); cluster this corpus first.")
    labels = np.array([cluster_of[text.id] for text in pool], np.int32)
    num_chars = np.array([len(text.text) for text in pool], np.int32)
    excluded = [entry.excluded is not None for entry in probes]
    sizes = np.bincount(labels, minlength=len(probes))
    target = target_distribution(sizes, cluster_scores(probes, "misalignment"), gamma, excluded)
    hint = "lower stage_two.budget_frac or raise data.pool_texts"
    budget = seconds_budget(budget_s, seconds_per_character)
    return select_texts(Pool(pool, labels, num_chars), target, budget, seed, hint=hint)


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
    """5. Continue from the pre-decay checkpoint on natural speech, selected speech and text in equal parts.

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
