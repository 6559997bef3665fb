"""A tiny model on the disk, clusters of made-up texts, and their speech: what a probe needs, small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tiny
from salad.files import write_json
from salad.fingerprint import content_hash
from salad.model.llm import load_llm
from salad.model.speech_lm import SpeechLM
from salad.recipe import parse_recipe
from salad.select.clusters import write_clusters
from salad.texts.text import Text, write_texts

POLICY = {"policy": "speech_prefix"}


def model_on_disk(folder: Path, encoder: str, dim: int, hz: float, voice: str = "espeak-ng", seed: int = 0) -> Path:
    """A model folder such as a run leaves, for the encoder of that name; its adapter and LoRA have moved."""
    llm = tiny.save_llm(folder / "llm")
    settings = tiny.model_settings(name=str(llm)).model_copy(update={"encoder": encoder})
    model = SpeechLM.around(load_llm(str(llm)), settings, dim, hz, tiny.SPEECH_TOKEN_ID)
    tiny.move(model, seed).save_pretrained(folder / "model")
    tree = {"name": "tiny", "model": settings.model_dump(mode="json"), "sequence": POLICY, "voice": voice}
    recipe = parse_recipe({**tree, "measure": {"batch_positions": 160}, "stage_one": {}}, "the test")
    write_json(folder / "model" / "salad.json", {"stage": "stage_one", "recipe": recipe.model_dump(mode="json")})
    return folder / "model"


def clusters_on_disk(folder: Path, texts: list[Text], labels: list[int], num_clusters: int) -> tuple[Path, Path]:
    """A corpus and a folder of its clusters."""
    corpus, out = folder / "texts.jsonl", folder / "clusters"
    write_texts(corpus, texts)
    labels_N = np.array(labels, np.int32)
    sizes = np.bincount(labels_N, minlength=num_clusters).tolist()
    rows = [
        {"cluster": c, "name": f"things of kind {c}", "size": size, "share": size / len(texts), "x": c / 10, "y": 0.5}
        for c, size in enumerate(sizes)
    ]
    out.mkdir()
    known = {"num_texts": len(texts), "num_clusters": num_clusters}
    info = {"corpus": str(corpus), "corpus_sha256": content_hash(corpus), **known}
    centres = np.zeros((num_clusters, 2), np.float32)
    write_clusters(out, texts, labels_N, np.zeros(len(texts), np.float32), centres, rows, info)
    return corpus, out


def text(name: str, words: str) -> Text:
    """A text with an id."""
    return Text(name, words, "all", "made up", "CC0-1.0")
