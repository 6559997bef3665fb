"""The steps that make data: natural speech and broad texts prepared, timed, clustered, spoken and encoded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from salad.assets import resolve
from salad.card.licence import licence_of_model
from salad.files import read_jsonl, write_json, write_jsonl
from salad.interleave.utterances import SpeechCorpus
from salad.measure.cascade import transcripts
from salad.model.encode import encode_cuts
from salad.model.encoder import load_encoder
from salad.model.encoders.speech_encoder import SpeechEncoder
from salad.natural_speech import aligned_folders, corpora, hold_out, is_prepared, prepare_human
from salad.recipe import Recipe
from salad.run import Progress, Run, report_of
from salad.speech.align import align_folder
from salad.speech.corpora.hub import NOT_STATED
from salad.speech.prepared import Rejected, kind_of, read_cuts, read_info, stream_cuts, text_of
from salad.speech.recognize import Recognizer
from salad.stage_two import cluster
from salad.synthesize.pool import synthesize
from salad.synthesize.quality import character_error_rate
from salad.tally import Kinds
from salad.texts import wordnet
from salad.texts.split import split
from salad.texts.text import Text, read_texts, write_texts

ARMS = ("stage_two", "stage_two_uniform")


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
    progress(2, 3, "splitting")
    for name, rows in split(texts, sizes, run.recipe.seed).items():
        write_texts(run.path("texts", f"{name}.jsonl"), (texts[row] for row in rows))
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
    pool, candidates = read_texts(texts_file(run, "pool")), read_texts(texts_file(run, "probe"))
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


def encode_human(run: Run, progress: Progress) -> dict[str, Any]:
    """The frozen encoder hears the human speech once."""
    encoder = load_encoder(run.recipe.model.encoder, run.recipe.threads)
    rejected: list[dict[str, Any]] = []
    for name, there in zip(corpora(run.recipe), aligned_folders(run), strict=True):
        rejected += _encode_folder(name, there, encoder, progress)
    return {"rejected": rejected}


def speak(run: Run, progress: Progress) -> dict[str, Any]:
    """The held-out and probe texts, spoken by the voice, aligned and encoded."""
    texts = {
        "heldout": read_texts(texts_file(run, "heldout")),
        "probe": read_texts(run.path("clusters", "probes.jsonl")),
    }
    report = _speak_and_encode(run, texts, progress)
    cuts = read_cuts(run.path("spoken", "probe"))

    def tell(done: int, total: int) -> None:
        progress(done, total, "recognizing probe speech")

    heard = transcripts(cuts, recognizer(run.recipe), tell)
    cer = {cut.id: character_error_rate(text_of(cut), heard[cut.id]) for cut in cuts}
    write_json(run.path("spoken", "probe", "cer.json"), cer)
    return report | {"mean_probe_cer": sum(cer.values()) / max(1, len(cer))}


def run_synthesize(run: Run, progress: Progress) -> dict[str, Any]:
    """The selected texts of both arms, spoken, aligned and encoded."""
    chosen = {arm: read_texts(run.path("selected", f"{arm}.jsonl")) for arm in ARMS}
    report = _speak_and_encode(run, chosen, progress)
    budget_s = report_of(run, "select")["budget_s"]
    for arm, gamma in zip(ARMS, (run.recipe.stage_two.gamma, 0.0), strict=True):
        _note(run.path("spoken", arm), {"selection": {"gamma": gamma, "budget_s": budget_s}})
    return report


# --- where things lie, and how steps report -------------------------------------------------------------------------


def texts_file(run: Run, name: str) -> Path:
    """The part of the broad texts of that name: mix, pool, probe or heldout."""
    return run.path("texts", f"{name}.jsonl")


def speech_in(run: Run, where: str) -> SpeechCorpus:
    """The encoded speech in a folder of the run."""
    return SpeechCorpus(run.path(where), run.recipe.model.encoder)


def recognizer(recipe: Recipe) -> Recognizer:
    """The recipe's ASR."""
    return Recognizer(resolve(recipe.asr), recipe.threads)


def counts(where: str, reasons: Counter[str]) -> list[dict[str, Any]]:
    """Rejections as results.json lists them."""
    return [{"where": where, "reason": reason, "count": count} for reason, count in sorted(reasons.items())]


def reasons(where: str, rejected: Iterable[Rejected]) -> list[dict[str, Any]]:
    """What was rejected, by reason, as results.json lists it."""
    kinds = Kinds()
    for row in rejected:
        kinds.add(re.sub(r"^utterance '[^']*': ", "", row.reason), row.id, row.place)
    return [{"where": where, "reason": kind["reason"], "count": kind["count"]} for kind in kinds.rows()]


def _align_folder(run: Run, name: str, folder_: Path, out: Path, progress: Progress) -> dict[str, Any]:
    def tell(done: int, total: int) -> None:
        progress(done, total, f"aligning {name}")

    report, rejected = align_folder(folder_, run.recipe.aligner, run.recipe.threads, out, progress=tell)
    return report | {"rejected": reasons(f"alignment of {name}", rejected)}


def _speak_and_encode(run: Run, texts: dict[str, list[Text]], progress: Progress) -> dict[str, Any]:
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
        licences = [*dict.fromkeys(text.licence for text in part), licence_of_model(run.recipe.voice) or NOT_STATED]
        _note(out, {"licence": f"texts: {', '.join(licences[:-1])}; voice: {licences[-1]}"})
    for name in texts:
        report["rejected"] += _encode_folder(name, run.path("spoken", name), encoder, progress)
    return report


def _note(folder: Path, known: dict[str, Any]) -> None:
    """Have the card know it, too: what info.json says of a prepared folder goes into the data bill."""
    write_json(folder / "info.json", {**read_info(folder), **known})


def _encode_folder(name: str, there: Path, encoder: SpeechEncoder, progress: Progress) -> list[dict[str, Any]]:
    """Encode a prepared folder; what could not be, by reason."""
    made = encode_cuts(there, encoder, lambda done, total: progress(done, total, f"encoding {name}"))
    return reasons(f"encoding of {name}", made.rejected)
