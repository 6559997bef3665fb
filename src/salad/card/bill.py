"""The data bill: which corpora, hours, tokens, licences, seeds and hashes went into a model, as JSON.

It is counted, not estimated: each step's report says what the step drew of every source (`Stream.drawn`), and the
indexes of the corpora know how long each utterance is and under which licence.
"""

from __future__ import annotations

import gzip
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from salad.card.licence import licence_of_model, terms_of
from salad.deviations import deviations
from salad.files import read_json
from salad.fingerprint import content_hash
from salad.interleave.stream import DRAWN, Stream
from salad.interleave.utterances import SpeechCorpus, Utterance
from salad.model.llm import llm_folder
from salad.recipe import Recipe, StageSettings, WarmStartSettings
from salad.speech.prepared import CUTS_NAME, read_info
from salad.texts.corpus import TextCorpus
from salad.texts.text import Text

SCHEMA = 1
BILL_NAME = "data_bill.json"
VERSIONS = ("salad-speech", "torch", "transformers", "peft", "lhotse", "faster-whisper", "ctranslate2", "piper-tts")
LANGUAGES = {"english": "en"}

Bill = dict[str, Any]


def stage_bill(
    stage: str,
    stream: Stream,
    settings: StageSettings,
    warm_start: WarmStartSettings,
    rows: Sequence[Mapping[str, Any]],
) -> Bill:
    """What one stage trained on.

    Args:
        stage: its name.
        stream: what it read and heard.
        settings: its own.
        warm_start: that of the adapter before it.
        rows: the steps it made, as `StepReport`s are written; some of the first, for a checkpoint on the way.
    """
    counts = [[0] * len(DRAWN) for _ in range(len(stream.speech) + 1)]
    for row in rows:
        drawn = row.get("drawn") or stream.drawn(row["step"] - 1)
        counts = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(counts, drawn, strict=True)]
    hz = stream.builder.position_hz
    described = [*map(_speech, stream.speech), _texts(stream.texts)]
    sources = [
        source | _drawn(dict(zip(DRAWN, count, strict=True)), source["num_items"], hz)
        for source, count in zip(described, counts, strict=True)
        if source["num_items"]
    ]
    return {
        "stage": stage,
        "steps": len(rows),
        "of_steps": settings.steps,
        "seed": stream.builder.seed,
        "position_hz": hz,
        "warm_start": _warm_start(warm_start, hz),
        "sources": sources,
        **{f"num_{name}": sum(source[f"num_{name}"] for source in sources) for name in DRAWN},
        "hours_heard": sum(source["hours_heard"] for source in sources),
    }


def data_bill(recipe: Recipe, stage: str, training: Sequence[Bill]) -> Bill:
    """The bill of a model that went through the stages of `training`, none for one that is untrained."""
    models = _models(recipe, training)
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "stage": stage,
        "seed": recipe.seed,
        "models": models,
        "training": list(training),
        "licences": _licences(models, training),
        "deviations": deviations(recipe),
        "versions": versions(),
        "recipe": recipe.model_dump(mode="json"),
        "results": None,
    }


def versions() -> dict[str, str]:
    """Python's and the packages' that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def read_bill(folder: Path) -> Bill:
    """The bill of the model or checkpoint in a folder.

    Raises:
        MissingFileError: it has none.
    """
    return dict(read_json(folder / BILL_NAME))


def _drawn(counts: Mapping[str, int], num_items: int, position_hz: float) -> Bill:
    """What was drawn of a source; an epoch is as many sequences as it has items."""
    return {
        **{f"num_{name}": count for name, count in counts.items()},
        "epochs": counts["sequences"] / num_items,
        "hours_heard": counts["speech_positions"] / position_hz / 3600,
    }


def _warm_start(settings: WarmStartSettings, position_hz: float) -> Bill | None:
    if settings.steps == 0:
        return None
    hours = settings.steps * settings.batch_positions / position_hz / 3600
    return {"kind": settings.kind, "steps": settings.steps, "hours_at_most": hours}


def _speech(source: Sequence[Utterance]) -> Bill:
    if not isinstance(source, SpeechCorpus):
        seconds = sum(utterance.words[-1].end_s for utterance in source if utterance.words)
        origin = {"licence": None, "num_items": len(source), "hours": seconds / 3600, "terms": terms_of(None)}
        return {"kind": "speech", "name": "utterances in memory", "num_items": len(source), "hours": seconds / 3600} | {
            "origins": [origin]
        }
    folder = source.cuts.folder
    info = read_info(folder)
    stated = source.cuts.licences(source.rows)
    origins = [
        {"licence": own, "num_items": count, "hours": seconds / 3600, "terms": terms_of(own)}
        for licence, (count, seconds) in stated.items()
        for own in [licence or info.get("licence")]
    ]
    encoder = read_json(source.store.where / "encoder.json")
    synthetic = "voice" in info or "voices" in info
    own_name = folder.resolve().name
    # Whatever salad speaks is of the corpus "synthesized"; the folder says which of several it is.
    name = f"{info.get('corpus', 'synthesized')}: {own_name}" if synthetic else info.get("corpus") or own_name
    speakers = ("voice", "voice_fingerprint") if "voice" in info else ("voices",)
    return {
        "kind": "synthetic speech" if synthetic else "speech",
        "name": name,
        "source": info.get("source"),
        "language": _language(folder / CUTS_NAME),
        "num_items": len(source),
        "hours": sum(origin["hours"] for origin in origins),
        "origins": origins,
        "cuts_sha256": source.cuts.sha256,
        "encoder": {"name": encoder["name"], "fingerprint": encoder["fingerprint"]},
        **{key: info[key] for key in (*speakers, "selection", "quality") if key in info},
    }


def _texts(source: Sequence[Text]) -> Bill:
    found: Bill = {"kind": "text", "name": "texts in memory", "num_items": len(source), "origins": []}
    if isinstance(source, TextCorpus):
        names = [name for name, _, _ in source.origins]
        found["name"] = ", ".join(dict.fromkeys(names))
        found["sha256"] = content_hash(source.path)
        found["origins"] = [
            {"source": name, "licence": licence, "num_items": count, "terms": terms_of(licence)}
            for name, licence, count in source.origins
        ]
    return found


def _language(cuts: Path) -> str | None:
    """The language of the first utterance: one corpus is taken to be in one language."""
    with gzip.open(cuts, "rb") as lines:
        first = next(lines, None)
    spoken = json.loads(first)["supervisions"][0].get("language") if first else None
    return LANGUAGES.get(str(spoken).lower(), spoken)


def _models(recipe: Recipe, training: Sequence[Bill]) -> list[Bill]:
    """The models that went in: the text LLM, the frozen encoder, and the voice if something it said was heard."""
    llm = recipe.model.llm
    weights = {path.name: content_hash(path) for path in sorted(llm_folder(llm).glob("*.safetensors"))}
    found: list[Bill] = [{"role": "text LLM", "name": llm, "licence": licence_of_model(llm), "sha256": weights}]
    sources = [source for part in training for source in part["sources"]]
    encoder = recipe.model.encoder
    used = next((source["encoder"]["fingerprint"] for source in sources if "encoder" in source), None)
    found.append({"role": "frozen encoder", "name": encoder, "licence": _licence(encoder), "fingerprint": used})
    for voice in (voice for source in sources for voice in _voices(source, recipe)):
        if voice not in found:
            found.append(voice)
    return [model | {"terms": terms_of(model["licence"])} for model in found]


def _voices(source: Mapping[str, Any], recipe: Recipe) -> list[Bill]:
    """Who has spoken in a source: of a pool, those that were drawn at all."""
    own = recipe.voices[0].name
    voices = source.get("voices") or (
        [{"name": source["voice"], "asked": source.get("asked", own), "fingerprint": source["voice_fingerprint"]}]
        if "voice" in source
        else []
    )
    return [
        {
            "role": "voice",
            "name": voice["name"],
            "licence": _licence(voice["asked"]),
            "fingerprint": voice["fingerprint"],
        }
        for voice in voices
        if voice.get("num_texts", 1)
    ]


def _licence(name: str) -> str | None:
    return licence_of_model(name.partition(":")[0].partition("@")[0])


def _licences(models: Sequence[Bill], training: Sequence[Bill]) -> list[Bill]:
    """Every licence that something which went in stands under, once, with what stands under it."""
    found: dict[str, Bill] = {}
    stated = [(model["licence"], f"{model['role']} {model['name']}", model["terms"]) for model in models]
    for part in training:
        for source in part["sources"]:
            stated += [(origin["licence"], source["name"], origin["terms"]) for origin in source["origins"]]
    for licence, what, terms in stated:
        entry = found.setdefault(licence or "not stated", {"licence": licence, "terms": terms, "of": []})
        if what not in entry["of"]:
            entry["of"].append(what)
    return list(found.values())
