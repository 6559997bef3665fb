"""The steps of the stages: train, probe where the model mishears, select, train on, go on in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from salad.files import write_jsonl
from salad.interleave.utterances import Utterance
from salad.natural_speech import aligned_folders, held_out_speech, training_speech
from salad.ranks import Ranks
from salad.ray_workers import fan_out
from salad.run import Progress, Run, report_of
from salad.select.budget import pace_of
from salad.select.selecting import Selecting, open_pool
from salad.speech.index import IndexedCuts
from salad.speech.prepared import read_info, reasons
from salad.stage_one import stage_one
from salad.stage_three import stage_three
from salad.stage_two import budget_of, probe, select, stage_two
from salad.steps.data import ARMS, probes_file, selected_folder, speech_in, texts_file
from salad.taking_over import take_over
from salad.texts.corpus import TextCorpus


def run_stage_one(run: Run, progress: Progress) -> dict[str, Any]:
    """Warm start on the human speech, then cross-modal distillation; the checkpoint before the decay is kept.

    Or none of it, where the recipe starts from a model.
    """
    human = training_speech(run)
    dim, hz = human[0].store.feature_dim, human[0].store.frame_hz
    mix = TextCorpus(texts_file(run, "mix"))
    watched, out = _watched(run), run.path("stage_one")
    if run.recipe.stage_one.start is not None:
        take_over(run.recipe, dim, hz, out, run.ranks)
        rejected = []
    else:
        rejected = stage_one(run.recipe, human, mix, watched, dim, hz, out, progress, run.ranks)
    return {"human_s": _spoken_s(human, run.ranks), "rejected": reasons("Stage I sequences", rejected)}


def _spoken_s(corpora: Sequence[Sequence[Utterance]], ranks: Ranks) -> float:
    """Seconds of all utterances up to their last word, each read by one of the ranks: of millions it takes minutes."""
    own = (corpus[index] for corpus in corpora for index in range(ranks.rank, len(corpus), ranks.world))
    here = sum(utterance.words[-1].end_s for utterance in own)
    return float(ranks.total(torch.tensor([here], dtype=torch.float64)))


def probe_step(*models: str) -> Any:
    """The work of probing models: M(c), where does each mishear?"""

    def work(run: Run, progress: Progress) -> dict[str, Any]:
        report: dict[str, Any] = {}
        for name in models:
            found = probe(
                run.path(name, "model"),
                run.path("clusters"),
                run.path("spoken", "probe"),
                run.recipe,
                run.path("probe", name),
                progress,
            )
            keys = ("excluded", "not_measured", "stability", "warnings")
            report[name] = {key: found.info[key] for key in keys if key in found.info}
        return report

    return work


def run_select(run: Run, progress: Progress) -> dict[str, Any]:
    """Texts for both arms: drawn by M^gamma, and uniformly, to the same budget of speech."""
    recipe = run.recipe
    pace = pace_of(run.path("spoken", "heldout"))
    opened = open_pool(
        Selecting(
            texts_file(run, "pool"),
            run.path("clusters"),
            run.path("selected"),
            run.path("probe", "stage_one"),
            exclude=(probes_file(run), *heard_texts(run)),
            against=tuple(Path(name) for name in recipe.data.evaluation),
            contamination_words=recipe.stage_two.contamination_words,
            min_words=recipe.sequence.min_words,
            max_seconds=0.0,  # a long text is spoken in parts
            seconds_per_character=pace,
            processes=recipe.workers if recipe.engine.fan_out == "ray" else recipe.threads,
            fan_out=fan_out(recipe.engine.fan_out, run.path("selected")),
            progress=lambda done, total: progress(done, total, "comparing with evaluation items"),
        )
    )
    budget = budget_of(recipe, float(report_of(run, "stage_one")["human_s"]), pace)
    report: dict[str, Any] = {"budget": {"amount": budget.amount, "unit": budget.unit}}
    for number, (arm, gamma) in enumerate(zip(ARMS, (recipe.stage_two.gamma, 0.0), strict=True)):
        progress(number, len(ARMS), f"drawing texts for {arm}")
        report[arm] = select(opened, recipe, gamma, budget, selected_folder(run, arm))
    progress(len(ARMS), len(ARMS))
    return report


def heard_texts(run: Run) -> list[Path]:
    """A list of the texts that the run's own synthetic speech says: Stage I hears them, so Stage II selects others.

    A text that was spoken in parts is its parts' document.
    """
    spoken = [there for there in aligned_folders(run) if "voices" in read_info(there)]
    path = run.path("selected", "heard.jsonl")
    if spoken:
        heard = ((cut.id, cut.document) for there in spoken for cut in IndexedCuts(there))
        write_jsonl(path, [{"id": name} for name in dict.fromkeys(chain.from_iterable(heard)) if name is not None])
    return [path] if spoken else []


def stage_two_step(arm: str) -> Any:
    """The work of Stage II for one arm."""

    def work(run: Run, progress: Progress) -> dict[str, Any]:
        selected = speech_in(run, f"spoken/{arm}")
        mix = TextCorpus(texts_file(run, "mix"))
        human = training_speech(run)
        rejected = stage_two(
            run.recipe,
            run.path("stage_one"),
            human,
            selected,
            mix,
            _watched(run),
            run.path(arm),
            progress,
            run.ranks,
        )
        return {"rejected": reasons(f"{arm} sequences", rejected)}

    return work


def run_stage_three(run: Run, progress: Progress) -> dict[str, Any]:
    """On-policy distillation, from the Stage II model on."""
    rejected = stage_three(
        run.recipe,
        run.path("stage_two"),
        training_speech(run),
        speech_in(run, "spoken/stage_two"),
        TextCorpus(texts_file(run, "mix")),
        _watched(run),
        run.path("stage_three"),
        progress,
        run.ranks,
    )
    return {"rejected": reasons("stage_three sequences", rejected)}


def _watched(run: Run) -> list[Utterance]:
    """The held-out human speech, where training is to be watched on it."""
    return list(chain.from_iterable(held_out_speech(run))) if run.recipe.engine.watch_every else []
