"""What a licence asks of who passes a model on, as far as its name tells."""

from __future__ import annotations

import re

from salad.asset_table import ASSETS
from salad.assets import HUB_NAME, resolve
from salad.errors import AssetError
from salad.speech.corpora.hub import NOT_STATED, is_non_commercial
from salad.synthesize.voices.catalogue import licence_of_voice

TERMS = {
    "non-commercial": "forbids commercial use",
    "share-alike": "asks that what is made from it is passed on under the same licence",
    "no derivatives": "forbids passing on what is made from it",
    "not stated": "is not stated: find out before you pass anything on",
}

UPSTREAM = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""The names on the Hugging Face hub of the assets that are text LLMs."""


def terms_of(licence: str | None) -> list[str]:
    """The keys of `TERMS` that hold for a licence as corpora and cards write it; none stated is a term, too.

    A name can't tell all that a licence asks; what is found here is what must not be overlooked.
    """
    if licence is None or licence.strip().lower() in ("", NOT_STATED, "unknown", "other"):
        return ["not stated"]
    words = re.findall(r"[a-z]+", licence.lower())
    run = "".join(words)
    found = []
    if NOT_STATED in licence.lower() or "unknown" in words:
        found.append("not stated")
    if is_non_commercial(licence) or "nc" in words or "noncommercial" in run or "research" in words:
        found.append("non-commercial")
    if "sa" in words or "sharealike" in run:
        found.append("share-alike")
    if "nd" in words or "noderiv" in run:
        found.append("no derivatives")
    return found


def licence_of_model(name: str) -> str | None:
    """The licence of a model or voice by its name in the recipe: an asset's, or what the card in its folder states."""
    if name in ASSETS:
        return ASSETS[name].licence
    if of_voice := licence_of_voice(name):
        return of_voice
    try:
        folder = resolve(name)
    except AssetError:  # a program, such as espeak-ng
        return None
    if not (folder / "README.md").is_file():
        return None
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        stated = ModelCard.load(folder / "README.md").data.to_dict().get("license")
    except (YAMLError, ValueError):
        return None
    return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated) if stated else None


def is_hub_name(name: str) -> bool:
    """Whether a model's name is one on the Hugging Face hub."""
    return name not in ASSETS and HUB_NAME.fullmatch(name) is not None and not name.startswith((".", "/"))


def hub_name(llm: str) -> str | None:
    """What a text LLM is called on the hub; None where that is not known."""
    return llm if is_hub_name(llm) else UPSTREAM.get(llm)
