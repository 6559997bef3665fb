"""The steps of the two stages: train, probe where the model mishears, select, train on."""

from __future__ import annotations

from itertools import chain
from typing import Any

from salad.files import read_json, read_jsonl, write_json
from salad.interleave.utterances import Utterance
from salad.natural_speech import held_out_speech, training_speech
from salad.run import Progress, Run, report_of
from salad.select.probe import ClusterProbe
from salad.speech.prepared import read_cuts, reasons, text_of
from salad.stage_one import stage_one
from salad.stage_two import probe, select, stage_two
from salad.steps.data import ARMS, speech_in, texts_file
from salad.synthesize.quality_files import read_quality
from salad.texts.corpus import TextCorpus
from salad.texts.text import read_texts, write_texts


def run_stage_one(run: Run, progress: Progress) -> dict[str, Any]:
    """Warm start on the human speech, then cross-modal distillation; the checkpoint before the decay is kept."""
    human = training_speech(run)
    dim, hz = human[0].store.feature_dim, human[0].store.frame_hz
    mix = TextCorpus(texts_file(run, "mix"))
    watched, out = _watched(run), run.path("stage_one")
    rejected = stage_one(run.recipe, human, mix, watched, dim, hz, out, progress, run.ranks)
    seconds = sum(utterance.words[-1].end_s for corpus in human for utterance in corpus)
    return {"human_s": seconds, "rejected": reasons("Stage I sequences", rejected)}


def run_probe(run: Run, progress: Progress) -> dict[str, Any]:
    """M(c): where does the Stage I model mishear?"""
    progress(0, 1, "hearing the probes")
    probes, rejected = probe(
        run.path("stage_one", "model"),
        speech_in(run, "spoken/probe"),
        read_json(run.path("clusters", "probe_clusters.json")),
        {name: row.cer for name, row in read_quality(run.path("spoken", "probe")).items() if row.cer is not None},
        run.recipe,
    )
    write_json(run.path("probe.json"), [entry.as_json() for entry in probes])
    progress(1, 1)
    excluded = [f"cluster {p.cluster}: {p.excluded}" for p in probes if p.excluded]
    return {"excluded": excluded, "rejected": reasons("probe sequences", rejected)}


def run_select(run: Run, progress: Progress) -> dict[str, Any]:
    """Texts for both arms: drawn by M^gamma, and uniformly, to the same budget of speech."""
    progress(0, 2, "drawing texts")
    probes = [ClusterProbe(**row) for row in read_json(run.path("probe.json"))]
    labels = {row["id"]: row["cluster"] for row in read_jsonl(run.path("clusters", "labels.jsonl"))}
    spoken = [*read_cuts(run.path("spoken", "heldout")), *read_cuts(run.path("spoken", "probe"))]
    pace = sum(cut.duration for cut in spoken) / sum(len(text_of(cut)) for cut in spoken)
    budget_s = run.recipe.stage_two.budget_frac * float(report_of(run, "stage_one")["human_s"])
    report: dict[str, Any] = {"budget_s": budget_s}
    pool = read_texts(texts_file(run, "pool"))
    for arm, gamma in zip(ARMS, (run.recipe.stage_two.gamma, 0.0), strict=True):
        chosen = select(pool, labels, probes, gamma, budget_s, pace, run.recipe.seed)
        write_texts(run.path("selected", f"{arm}.jsonl"), [pool[row] for row in chosen.rows])
        report[arm] = {"num_texts": len(chosen.rows), "per_cluster": chosen.per_cluster, "target": chosen.target}
        report[arm]["exhausted_clusters"] = chosen.exhausted
    progress(2, 2)
    return report


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


def _watched(run: Run) -> list[Utterance]:
    """The held-out human speech, where training is to be watched on it."""
    return list(chain.from_iterable(held_out_speech(run))) if run.recipe.engine.watch_every else []
