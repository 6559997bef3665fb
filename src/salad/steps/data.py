"""The steps that make data: natural speech and broad texts prepared, timed, clustered, spoken and encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from salad.assets import resolve
from salad.files import read_jsonl, write_jsonl
from salad.interleave.utterances import SpeechCorpus
from salad.model.encode import encode_cuts
from salad.model.encoder import load_encoder
from salad.model.encoders.speech_encoder import SpeechEncoder
from salad.natural_speech import aligned_folders, corpora, hold_out, is_prepared, prepare_human
from salad.probing import NOTHING_REFUSED, beginning
from salad.ray_workers import fan_out
from salad.recipe import Recipe
from salad.run import Progress, Run, report_of
from salad.select.export import SELECTED_NAME
from salad.speech.align import align_folder
from salad.speech.prepared import kind_of, reasons, stream_cuts
from salad.speech.recognize import Recognizer
from salad.spoken import note, speak_folder
from salad.stage_two import cluster, draw, embed
from salad.texts import wordnet
from salad.texts.corpus import TextCorpus
from salad.texts.split import split
from salad.texts.text import Text, read_texts, write_texts

ARMS = ("stage_two", "stage_two_uniform")


def prepare(run: Run, progress: Progress) -> dict[str, Any]:
    """Human speech -> cuts with transcripts; broad texts -> mix, pool and held-out parts."""
    data = run.recipe.data
    progress(0, 3, "human speech")
    folders = prepare_human(run)
    progress(1, 3, "texts")
    texts: Sequence[Text]
    texts, left_out = wordnet.load(resolve("wordnet")) if data.text == "wordnet" else (TextCorpus(Path(data.text)), {})
    sizes = {"heldout": data.heldout_texts, "mix": data.mix_texts, "pool": data.pool_texts}
    progress(2, 3, "splitting")
    for name, rows in split(texts, sizes, run.recipe.seed).items():
        part = (texts[row] for row in rows)
        write_texts(texts_file(run, name), map(beginning, part) if name == "heldout" else part)
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


def embed_pool(run: Run, progress: Progress) -> dict[str, Any]:
    """What each text of the pool is about."""
    embed(texts_file(run, "pool"), run.recipe, run.path("clusters"), progress)
    return {}


def cluster_pool(run: Run, progress: Progress) -> dict[str, Any]:
    """Partition the pool by meaning, and draw each cluster's probe texts."""
    pool = texts_file(run, "pool")
    clusters = cluster(pool, run.recipe, run.path("clusters"), progress)
    drawn = draw(pool, clusters, run.recipe)
    write_jsonl(probes_file(run), ({**asdict(text), "cluster": number} for text, number in drawn.items()))
    return {"num_clusters": clusters.num_clusters, "num_probes": len(drawn), "names": clusters.names}


def encode_human(run: Run, progress: Progress) -> dict[str, Any]:
    """The frozen encoder hears the human speech once."""
    encoder = load_encoder(run.recipe.model.encoder, run.recipe.threads)
    rejected: list[dict[str, Any]] = []
    for name, there in zip(corpora(run.recipe), aligned_folders(run), strict=True):
        rejected += _encode_folder(name, there, encoder, progress)
    return {"rejected": rejected}


def speak(run: Run, progress: Progress) -> dict[str, Any]:
    """The held-out and probe texts, spoken by the voice, aligned and encoded."""
    texts = {"heldout": read_texts(texts_file(run, "heldout")), "probe": read_texts(probes_file(run))}
    report = _speak_and_encode(run, texts, progress)
    return report | {"mean_probe_cer": report["quality"]["probe"]["mean_cer"]}


def run_synthesize(run: Run, progress: Progress) -> dict[str, Any]:
    """The selected texts of both arms, spoken, aligned and encoded."""
    chosen = {arm: read_texts(selected_folder(run, arm) / SELECTED_NAME) for arm in ARMS}
    report = _speak_and_encode(run, chosen, progress)
    budget = report_of(run, "select")["budget"]
    for arm, gamma in zip(ARMS, (run.recipe.stage_two.gamma, 0.0), strict=True):
        note(run.path("spoken", arm), {"selection": {"gamma": gamma, "budget": budget}})
    return report


# --- where things lie, and how steps report -------------------------------------------------------------------------


def texts_file(run: Run, name: str) -> Path:
    """The part of the broad texts of that name: mix, pool or heldout."""
    return run.path("texts", f"{name}.jsonl")


def probes_file(run: Run) -> Path:
    """The texts that probe the clusters."""
    return run.path("clusters", "probes.jsonl")


def selected_folder(run: Run, arm: str) -> Path:
    """What was selected for an arm of Stage II (select/selecting.py)."""
    return run.path("selected", arm)


def speech_in(run: Run, where: str) -> SpeechCorpus:
    """The encoded speech in a folder of the run."""
    return SpeechCorpus(run.path(where), run.recipe.model.encoder)


def recognizer(recipe: Recipe) -> Recognizer:
    """The recipe's ASR."""
    return Recognizer(resolve(recipe.asr), recipe.threads)


def counts(where: str, reasons: Counter[str]) -> list[dict[str, Any]]:
    """Rejections as results.json lists them."""
    return [{"where": where, "reason": reason, "count": count} for reason, count in sorted(reasons.items())]


def _align_folder(run: Run, name: str, folder_: Path, out: Path, progress: Progress) -> dict[str, Any]:
    def tell(done: int, total: int) -> None:
        progress(done, total, f"aligning {name}")

    report, rejected = align_folder(folder_, run.recipe.aligner, run.recipe.threads, out, progress=tell)
    return report | {"rejected": reasons(f"alignment of {name}", rejected)}


def _speak_and_encode(run: Run, texts: dict[str, list[Text]], progress: Progress) -> dict[str, Any]:
    recipe = run.recipe
    encoder = load_encoder(recipe.model.encoder, recipe.threads)
    report: dict[str, Any] = {"seconds": {}, "quality": {}, "rejected": []}
    for name, part in texts.items():
        made = speak_folder(
            part,
            run.path("spoken", name),
            voices=recipe.voices,
            augment=recipe.augment,
            quality=NOTHING_REFUSED if name == "probe" else recipe.quality,
            asr=recipe.asr,
            aligner=recipe.aligner,
            encoder=encoder,
            threads=recipe.threads,
            seed=recipe.seed,
            audio_dir=run.path("spoken", "audio"),
            fan_out=fan_out(recipe.engine.fan_out, run.folder),
            progress=progress,
            in_parts=True,
        )
        report["rejected"] += made["rejected"]
        report["seconds"][name], report["quality"][name] = made["seconds"], made["quality"]
    return report


def _encode_folder(name: str, there: Path, encoder: SpeechEncoder, progress: Progress) -> list[dict[str, Any]]:
    """Encode a prepared folder; what could not be, by reason."""
    made = encode_cuts(there, encoder, lambda done, total: progress(done, total, f"encoding {name}"))
    return reasons(f"encoding of {name}", made.rejected)
