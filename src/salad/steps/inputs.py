"""What the steps read from outside the run folder: corpora, texts and models, by name and with a hash of their content.

Models on the hub count by their name alone. Of a prepared folder that was brought along the list of its cuts counts
(their features carry hashes of the sound they are of); of another folder every file in it, its audio too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from salad.errors import AssetError, CheckpointError, MissingFileError
from salad.fingerprint import content_hash, fingerprint_of
from salad.model.saved import WEIGHTS_NAME, before_decay_place, model_folder
from salad.natural_speech import corpora, is_prepared
from salad.recipe import Recipe
from salad.speech.prepared import cuts_file

Inputs = Mapping[str, str | None]


def corpora_and_texts(recipe: Recipe) -> Inputs:
    """The natural speech and the broad texts."""
    found = {}
    for entry in corpora(recipe):
        hashed = content_hash(cuts_file(Path(entry))) if is_prepared(entry) else fingerprint_of(entry)
        found[f"data.human ({entry})"] = hashed
    return {**found, f"data.text ({recipe.data.text})": fingerprint_of(recipe.data.text)}


def aligner(recipe: Recipe) -> Inputs:
    """The model that times words, where it is one."""
    _, _, model = recipe.aligner.partition(":")
    return {f"aligner ({model})": fingerprint_of(model)} if model else {}


def evaluation(recipe: Recipe) -> Inputs:
    """The benchmark items that no selected text may share words with."""
    return {f"data.evaluation ({name})": fingerprint_of(name) for name in recipe.data.evaluation}


def embedder(recipe: Recipe) -> Inputs:
    """The model of sentences."""
    return {f"embedder ({recipe.embedder})": fingerprint_of(recipe.embedder)}


def voice(recipe: Recipe) -> Inputs:
    """The voices, the recognizer that checks them, and the aligner of what they say."""
    voices = {f"voice ({name})": fingerprint_of(name) for name in recipe.voice_names}
    return {**voices, f"asr ({recipe.asr})": fingerprint_of(recipe.asr), **aligner(recipe)}


def voice_and_ears(recipe: Recipe) -> Inputs:
    """The voice, the frozen encoder and the recognizer."""
    return {**voice(recipe), **ears(recipe)}


def ears(recipe: Recipe) -> Inputs:
    """The frozen encoder."""
    return {f"model.encoder ({recipe.model.encoder})": fingerprint_of(recipe.model.encoder)}


def llm(recipe: Recipe) -> Inputs:
    """The text LLM."""
    return {f"model.llm ({recipe.model.llm})": fingerprint_of(recipe.model.llm)}


def llm_and_start(recipe: Recipe) -> Inputs:
    """The text LLM, and the weights of the model that Stage I is taken over from."""
    name = recipe.stage_one.start
    return {**llm(recipe), **({f"stage_one.start ({name})": _weights(Path(name))} if name else {})}


def _weights(model: Path) -> str | None:
    """What is read of a model; what is measured of it later stands in other files."""
    with suppress(CheckpointError, AssetError, MissingFileError):
        folder = model_folder(model)
        earlier = before_decay_place(folder)
        files = [folder / WEIGHTS_NAME]
        files += [earlier / "state.json" if earlier.is_dir() else earlier] if earlier else []
        return " ".join(map(content_hash, files))
    return None
