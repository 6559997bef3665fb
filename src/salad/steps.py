"""The steps of `salad run`, in order: which folder holds what, and which room does the work.

human/N, aligned/N  natural speech, prepared folders, without and with word timings; human_split.json: what is held out
texts/            mix, pool, probe, heldout .jsonl
clusters/         the pool's clusters, their names, the probes' clusters
spoken/NAME/      synthetic speech: heldout, probe, stage_two, stage_two_uniform; audio shared in spoken/audio
*/features/       the frozen encoder's frames of the human speech in aligned/ and of each folder of synthetic speech
stage_one/, stage_two/, stage_two_uniform/    models, checkpoints, curves
measured/         per-item rows of every arm
results.json, report.html
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from salad.assets import resolve
from salad.distill.teacher import teacher_for
from salad.files import read_json, read_jsonl, write_json, write_jsonl
from salad.interleave.builder import SequenceBuilder
from salad.interleave.utterances import SpeechCorpus, Utterance
from salad.measure.arm import ArmRows, HeldOut, measure_arm, read_task
from salad.measure.cascade import transcripts
from salad.measure.tasks.definition import DefinitionItem, definition_items
from salad.model.encode import encode_cuts
from salad.model.encoder import load_encoder
from salad.model.encoders.speech_encoder import SpeechEncoder
from salad.model.llm import load_tokenizer
from salad.model.speech_lm import SpeechLM
from salad.natural_speech import (
    aligned_folders,
    corpora,
    held_out_speech,
    hold_out,
    is_prepared,
    prepare_human,
    training_speech,
)
from salad.recipe import Recipe
from salad.report.page import write_report
from salad.results import assemble
from salad.run import Progress, Run, Step, reports, wall_s
from salad.select.probe import ClusterProbe
from salad.speech.align import align_folder
from salad.speech.prepared import Rejected, kind_of, read_cuts, stream_cuts, text_of
from salad.speech.recognize import Recognizer
from salad.stage_one import stage_one
from salad.stage_two import cluster, probe, select, stage_two
from salad.synthesize.pool import synthesize
from salad.synthesize.quality import character_error_rate
from salad.tally import Kinds
from salad.texts import wordnet
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text, read_texts, write_texts

ARMS = ("stage_two", "stage_two_uniform")


# --- speech and text ---------------------------------------------------------------------------------------------


def prepare(run: Run, progress: Progress) -> dict[str, Any]:
    """Human speech -> cuts with transcripts; broad texts -> mix, pool, probe and held-out parts."""
    data, two = run.recipe.data, run.recipe.stage_two
    progress(0, 3, "human speech")
    folders = prepare_human(run)
    progress(1, 3, "texts")
    texts, left_out = wordnet.load(resolve("wordnet")) if data.text == "wordnet" else (read_texts(Path(data.text)), {})
    sizes = {
        "heldout": data.heldout_texts,
        "probe": two.num_clusters * two.probe_texts * 4,  # so that every cluster has enough to choose from
        "mix": data.mix_texts,
        "pool": data.pool_texts,
    }
    progress(2, 3, "splitting by synset")
    for name, part in wordnet.split_by_synset(texts, sizes, run.recipe.seed).items():
        write_texts(run.path("texts", f"{name}.jsonl"), part)
    progress(3, 3)
    durations = [cut.duration for there in folders for cut in stream_cuts(there)]
    rejected = Counter(kind_of(row["reason"]) for there in folders for row in read_jsonl(there / "rejected.jsonl"))
    return {
        "human_s": sum(durations),
        "num_utterances": len(durations),
        "rejected": counts("human speech", rejected) + counts("broad text", Counter(left_out)),
    }


def align(run: Run, progress: Progress) -> dict[str, Any]:
    """Word timings for the human speech; then which of its utterances are held out."""
    report: dict[str, Any] = {"rejected": []}
    for number, (entry, out) in enumerate(zip(corpora(run.recipe), aligned_folders(run), strict=True)):
        if not is_prepared(entry):  # one that was brought along was aligned by its owner
            own = _align_folder(run, entry, run.path("human", str(number)), out, progress)
            report["rejected"] += own.pop("rejected")
            report[entry] = own
    hold_out(run)
    return report


def cluster_pool(run: Run, progress: Progress) -> dict[str, Any]:
    """Partition the pool by meaning, and give each cluster its probe texts."""
    pool, candidates = read_texts(_texts(run, "pool")), read_texts(_texts(run, "probe"))
    clustering, probe_labels, names = cluster(pool, candidates, run.recipe, progress)
    labels = {text.id: int(label) for text, label in zip(pool, clustering.labels, strict=True)}
    probes: list[Text] = []
    probe_cluster: dict[str, int] = {}
    for c in range(len(names)):
        own = [t for t, label in zip(candidates, probe_labels, strict=True) if label == c]
        for text in own[: run.recipe.stage_two.probe_texts]:
            probes.append(text)
            probe_cluster[text.id] = c
    write_jsonl(run.path("clusters", "labels.jsonl"), [{"id": i, "cluster": c} for i, c in labels.items()])
    write_json(run.path("clusters", "clusters.json"), {"names": names, "inertia": clustering.inertia})
    write_texts(run.path("clusters", "probes.jsonl"), probes)
    write_json(run.path("clusters", "probe_clusters.json"), probe_cluster)
    return {"num_clusters": len(names), "num_probes": len(probes), "names": names}


def speak(run: Run, progress: Progress) -> dict[str, Any]:
    """The held-out and probe texts, spoken by the voice, aligned and encoded; so is the human speech."""
    texts = {"heldout": read_texts(_texts(run, "heldout")), "probe": read_texts(run.path("clusters", "probes.jsonl"))}
    report = _speak_and_encode(run, texts, dict(zip(corpora(run.recipe), aligned_folders(run), strict=True)), progress)
    cuts = read_cuts(run.path("spoken", "probe"))

    def tell(done: int, total: int) -> None:
        progress(done, total, "recognizing probe speech")

    heard = transcripts(cuts, _recognizer(run.recipe), tell)
    cer = {cut.id: character_error_rate(text_of(cut), heard[cut.id]) for cut in cuts}
    write_json(run.path("spoken", "probe", "cer.json"), cer)
    return report | {"mean_probe_cer": sum(cer.values()) / max(1, len(cer))}


# --- the two stages ------------------------------------------------------------------------------------------------


def run_stage_one(run: Run, progress: Progress) -> dict[str, Any]:
    """Warm start on the human speech, then cross-modal distillation; the checkpoint before the decay is kept."""
    human = training_speech(run)
    dim, hz = human[0].store.feature_dim, human[0].store.frame_hz
    mix = TextCorpus(_texts(run, "mix"))
    rejected = stage_one(run.recipe, human, mix, dim, hz, run.path("stage_one"), progress)
    seconds = sum(utterance.words[-1].end_s for corpus in human for utterance in corpus)
    return {"human_s": seconds, "rejected": _reasons("Stage I sequences", rejected)}


def run_probe(run: Run, progress: Progress) -> dict[str, Any]:
    """M(c): where does the Stage I model mishear?"""
    progress(0, 1, "hearing the probes")
    probes, rejected = probe(
        run.path("stage_one", "model"),
        _speech(run, "spoken/probe"),
        read_json(run.path("clusters", "probe_clusters.json")),
        read_json(run.path("spoken", "probe", "cer.json")),
        run.recipe,
    )
    write_json(run.path("probe.json"), [entry.as_json() for entry in probes])
    progress(1, 1)
    excluded = [f"cluster {p.cluster}: {p.excluded}" for p in probes if p.excluded]
    return {"excluded": excluded, "rejected": _reasons("probe sequences", rejected)}


def run_select(run: Run, progress: Progress) -> dict[str, Any]:
    """Texts for both arms: drawn by M^gamma, and uniformly, to the same budget of speech."""
    progress(0, 2, "drawing texts")
    probes = [ClusterProbe(**row) for row in read_json(run.path("probe.json"))]
    labels = {row["id"]: row["cluster"] for row in read_jsonl(run.path("clusters", "labels.jsonl"))}
    spoken = [*read_cuts(run.path("spoken", "heldout")), *read_cuts(run.path("spoken", "probe"))]
    pace = sum(cut.duration for cut in spoken) / sum(len(text_of(cut)) for cut in spoken)
    budget_s = run.recipe.stage_two.budget_frac * float(run_report(run, "stage_one")["human_s"])
    report: dict[str, Any] = {"budget_s": budget_s}
    for arm, gamma in zip(ARMS, (run.recipe.stage_two.gamma, 0.0), strict=True):
        chosen = select(read_texts(_texts(run, "pool")), labels, probes, gamma, budget_s, pace, run.recipe.seed)
        write_texts(run.path("selected", f"{arm}.jsonl"), chosen.texts)
        report[arm] = {"num_texts": len(chosen.texts), "per_cluster": chosen.per_cluster, "target": chosen.target}
        report[arm]["exhausted_clusters"] = chosen.exhausted_clusters
    progress(2, 2)
    return report


def run_synthesize(run: Run, progress: Progress) -> dict[str, Any]:
    """The selected texts of both arms, spoken, aligned and encoded."""
    return _speak_and_encode(run, {arm: read_texts(run.path("selected", f"{arm}.jsonl")) for arm in ARMS}, {}, progress)


def stage_two_step(arm: str) -> Any:
    """The work of Stage II for one arm."""

    def work(run: Run, progress: Progress) -> dict[str, Any]:
        selected = _speech(run, f"spoken/{arm}")
        mix = TextCorpus(_texts(run, "mix"))
        human = training_speech(run)
        rejected = stage_two(run.recipe, run.path("stage_one"), human, selected, mix, run.path(arm), progress)
        return {"rejected": _reasons(f"{arm} sequences", rejected)}

    return work


# --- measuring -----------------------------------------------------------------------------------------------------


def measure_step(*arms: str) -> Any:
    """The work of measuring some arms; an arm that is measured is not measured again after an interruption."""

    def work(run: Run, progress: Progress) -> dict[str, Any]:
        torch.set_num_threads(run.recipe.threads)
        left_out: list[dict[str, Any]] = []
        for arm in arms:
            path = run.path("measured", f"{arm}.json")
            student = SpeechLM.from_pretrained(_model_of(run, arm))
            builder = SequenceBuilder.of(
                student, load_tokenizer(run.recipe.model.llm), run.recipe.sequence, run.recipe.seed
            )
            held_out, left_out = _held_out(run, builder)
            if path.is_file():
                continue

            def tell(done: int, total: int, note: str, arm: str = arm) -> None:
                progress(done, total, f"{arm}: {note}")

            rows = measure_arm(
                student,
                teacher_for(student),
                builder,
                held_out,
                run.recipe.measure,
                run.recipe.seed,
                tell,
            )
            if arm == "untrained":
                _measure_text_llm(run, student, builder, held_out.items)
            write_json(path, rows.as_json())
        return {"rejected": left_out if "untrained" in arms else []}

    return work


def _measure_text_llm(run: Run, student: SpeechLM, builder: SequenceBuilder, items: Sequence[DefinitionItem]) -> None:
    """The topline (the text LLM reads) and the cascade (it reads what the ASR heard)."""
    asked = {item.id for item in items}
    cuts = [cut for cut in read_cuts(run.path("spoken", "heldout")) if cut.id in asked]
    heard = transcripts(cuts, _recognizer(run.recipe))
    # An untrained model that will be trained in full is still the text LLM; others have their LoRA switched off.
    with nullcontext() if student.config.train_llm == "full" else student.as_text_llm():
        batch = run.recipe.measure.batch_documents
        topline = read_task(student, builder, items, [item.definition for item in items], batch)
        cascade = read_task(student, builder, items, [heard[item.id] for item in items], batch)
    write_json(run.path("measured", "text_llm.json"), {"topline": topline, "cascade": cascade, "transcripts": heard})


def write_results(run: Run, progress: Progress) -> dict[str, Any]:
    """results.json and report.html from what was measured."""
    progress(0, 2, "results.json")
    order = ("untrained", "stage_one", *ARMS)
    rows = {
        arm: ArmRows.from_json(read_json(run.path("measured", f"{arm}.json")))
        for arm in order
        if run.path("measured", f"{arm}.json").is_file()
    }
    results = assemble(run.recipe, run.folder, rows, reports(run, STEPS), wall_s(run, STEPS))
    write_json(run.path("results.json"), results)
    progress(1, 2, "report.html")
    write_report(run.path("results.json"), run.path("report.html"))
    progress(2, 2)
    return {}


# --- helpers of the steps ------------------------------------------------------------------------------------------


def run_report(run: Run, step: str) -> dict[str, Any]:
    """What a finished step reported."""
    return reports(run, STEPS)[step]


def counts(where: str, reasons: Counter[str]) -> list[dict[str, Any]]:
    """Rejections as results.json lists them."""
    return [{"where": where, "reason": reason, "count": count} for reason, count in sorted(reasons.items())]


def _reasons(where: str, rejected: Iterable[Rejected]) -> list[dict[str, Any]]:
    kinds = Kinds()
    for row in rejected:
        kinds.add(re.sub(r"^utterance '[^']*': ", "", row.reason), row.id, row.place)
    return [{"where": where, "reason": kind["reason"], "count": kind["count"]} for kind in kinds.rows()]


def _align_folder(run: Run, name: str, folder_: Path, out: Path, progress: Progress) -> dict[str, Any]:
    def tell(done: int, total: int) -> None:
        progress(done, total, f"aligning {name}")

    report, rejected = align_folder(folder_, run.recipe.aligner, run.recipe.threads, out, progress=tell)
    return report | {"rejected": _reasons(f"alignment of {name}", rejected)}


def _speak_and_encode(
    run: Run, texts: dict[str, list[Text]], also_encode: dict[str, Path], progress: Progress
) -> dict[str, Any]:
    encoder = load_encoder(run.recipe.model.encoder, run.recipe.threads)
    report: dict[str, Any] = {"seconds": {}, "rejected": []}
    for name, part in texts.items():

        def tell(done: int, total: int, name: str = name) -> None:
            progress(done, total, f"speaking {name}")

        out = run.path("spoken", name)
        synthesize(part, run.recipe.voice, out, run.recipe.threads, tell, run.path("spoken", "audio"))
        unspoken = Counter(row["reason"] for row in read_jsonl(out / "rejected.jsonl"))
        report["rejected"] += counts(f"synthesis of {name}", unspoken)
        report["rejected"] += _align_folder(run, name, out, out, progress)["rejected"]
        report["seconds"][name] = sum(cut.duration for cut in read_cuts(out))
    spoken = {name: run.path("spoken", name) for name in texts}
    for name, there in {**spoken, **also_encode}.items():
        report["rejected"] += _encode_folder(name, there, encoder, progress)
    return report


def _encode_folder(name: str, there: Path, encoder: SpeechEncoder, progress: Progress) -> list[dict[str, Any]]:
    """Encode a prepared folder; what could not be, by reason."""
    made = encode_cuts(there, encoder, lambda done, total: progress(done, total, f"encoding {name}"))
    return _reasons(f"encoding of {name}", made.rejected)


def _recognizer(recipe: Recipe) -> Recognizer:
    return Recognizer(resolve(recipe.asr), recipe.threads)


def _texts(run: Run, name: str) -> Path:
    return run.path("texts", f"{name}.jsonl")


def _speech(run: Run, where: str) -> SpeechCorpus:
    return SpeechCorpus(run.path(where), run.recipe.model.encoder)


def _held_out(run: Run, builder: SequenceBuilder) -> tuple[HeldOut, list[dict[str, Any]]]:
    """What every arm is measured on, the same for all, and what the policy can't use of it."""
    broad, bad_broad = builder.usable(_speech(run, "spoken/heldout"))
    human: list[Utterance] = []
    bad_human: list[Rejected] = []
    for corpus in held_out_speech(run):
        usable, rejected = builder.usable(corpus)
        human += usable
        bad_human += rejected
    spoken = {utterance.id for utterance in broad}
    texts = [text for text in read_texts(_texts(run, "heldout")) if text.id in spoken]
    items = definition_items(texts, run.recipe.measure.task_items, run.recipe.seed)
    left_out = _reasons("held-out broad sequences", bad_broad) + _reasons("held-out human sequences", bad_human)
    return HeldOut(broad, human, items), left_out


def _model_of(run: Run, arm: str) -> Path:
    return run.path("stage_one", "untrained") if arm == "untrained" else run.path(arm, "model")


MODEL = ("model", "sequence")
STEPS: tuple[Step, ...] = (
    Step(
        "prepare",
        "human speech with transcripts, and broad texts split into mix, pool, probe and held-out",
        ("data", "stage_two.num_clusters", "stage_two.probe_texts"),
        (),
        ("human", "texts"),
        12,
        prepare,
    ),
    Step(
        "align",
        "when each word of the human speech is spoken (an aligner, held to the transcript)",
        ("aligner", "data", "sequence.min_words"),
        ("prepare",),
        ("aligned", "human_split.json"),
        50,
        align,
    ),
    Step(
        "cluster",
        "what the broad texts are about: embeddings and balanced k-means",
        ("embedder", "stage_two.num_clusters", "stage_two.probe_texts"),
        ("prepare",),
        ("clusters",),
        25,
        cluster_pool,
    ),
    Step(
        "speak",
        "held-out and probe texts spoken by the voice; the frozen encoder hears everything once",
        ("asr", "aligner", "voice", "model.encoder"),
        ("align", "cluster"),
        ("spoken/heldout", "spoken/probe"),
        120,
        speak,
    ),
    Step(
        "stage_one",
        "Stage I: distillation from the text LLM on human speech, after a word-aligned warm start",
        (*MODEL, "stage_one"),
        ("speak",),
        ("stage_one",),
        100,
        run_stage_one,
    ),
    Step(
        "measure_one",
        "M, F, hearing and the task for the untrained and the Stage I model",
        (*MODEL, "measure", "asr"),
        ("stage_one",),
        ("measured/untrained.json", "measured/stage_one.json", "measured/text_llm.json"),
        110,
        measure_step("untrained", "stage_one"),
    ),
    Step(
        "probe",
        "Stage II: in which clusters does the Stage I model mishear?",
        ("stage_two.max_cer", "measure.batch_positions"),
        ("stage_one",),
        ("probe.json",),
        10,
        run_probe,
    ),
    Step(
        "select",
        "texts drawn by misalignment^gamma, and uniformly as the control",
        ("stage_two.gamma", "stage_two.budget_frac"),
        ("probe",),
        ("selected",),
        1,
        run_select,
    ),
    Step(
        "synthesize",
        "the selected texts of both arms, spoken, aligned and encoded",
        ("voice", "aligner"),
        ("select",),
        ("spoken/stage_two", "spoken/stage_two_uniform"),
        110,
        run_synthesize,
    ),
    Step(
        "stage_two",
        "distillation goes on, on natural speech, selected speech and text",
        ("stage_two",),
        ("synthesize",),
        ("stage_two",),
        90,
        stage_two_step("stage_two"),
    ),
    Step(
        "stage_two_uniform",
        "the control arm: same budget, same steps, uniform selection (gamma = 0)",
        ("stage_two",),
        ("synthesize",),
        ("stage_two_uniform",),
        90,
        stage_two_step("stage_two_uniform"),
    ),
    Step(
        "measure_two",
        "M, F, hearing and the task for both Stage II models",
        (*MODEL, "measure"),
        ("stage_two", "stage_two_uniform"),
        ("measured/stage_two.json", "measured/stage_two_uniform.json"),
        90,
        measure_step("stage_two", "stage_two_uniform"),
    ),
    Step(
        "report",
        "results.json and report.html",
        ("name", "measure"),
        ("measure_one", "measure_two"),
        ("results.json", "report.html"),
        5,
        write_results,
    ),
)
