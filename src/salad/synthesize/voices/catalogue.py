"""Every voice that has a name: what it is, what it can do, and whether it can be used here and now."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from salad.asset_table import ASSETS
from salad.assets import asset_dir
from salad.synthesize.voices import kokoro_files
from salad.synthesize.voices.kokoro_files import HUB_ONNX, HUB_TORCH, NAMES, OFFLINE

PIPER_HUB_LICENCE = "not stated (see the voice's MODEL_CARD)"
_LANGUAGES = {
    "a": "en-US", "b": "en-GB", "e": "es", "f": "fr", "h": "hi", "i": "it", "j": "ja", "p": "pt-BR", "z": "zh",
}  # fmt: skip
_APACHE = "Apache-2.0"
_TO_FILL_IN = re.compile("[A-Z]{3,}")


@dataclass(frozen=True)
class Entry:
    """One row of `salad voices`.

    `name` has a part in capitals where the user fills it in. `made_for`: the language it was made for; all speak
    English here. `rate_hz` is None where it differs. `ready`: it can speak now, without fetching or installing
    anything; None: only an attempt tells. `needs` says what is missing, or where it comes from. `real_time_factor`:
    seconds of one core for a second of speech, None where it is not this machine's work or was not measured.
    """

    name: str
    kind: str
    licence: str
    made_for: str
    rate_hz: int | None
    speed: bool
    pitch: bool
    word_times: bool
    deterministic: bool
    ready: bool | None
    needs: str
    real_time_factor: float | None


def catalogue() -> list[Entry]:
    """All voices, those without a hub first. Asks nobody: looks at the cache and for programs alone."""
    return [*_piper(), *_kokoro(), *_programs(), *_others()]


def known_names() -> list[str]:
    """The names of the voices that can be written as they are."""
    return [entry.name for entry in catalogue() if not _TO_FILL_IN.search(entry.name)]


def licence_of_voice(name: str) -> str | None:
    """The licence of what a voice speaks with; None for what is no voice's name, or where none is stated."""
    kind = name.partition(":")[0]
    if name in ASSETS:
        return ASSETS[name].licence
    if name.startswith("kokoro-"):
        return _APACHE
    return {"espeak-ng": "GPL-3.0 (program)", "flite": "BSD-style (CMU)"}.get(kind)


def _piper() -> Iterator[Entry]:
    for name, asset in ASSETS.items():
        if name.startswith("piper-"):
            ready = asset_dir(name).is_dir()
            needs = "" if ready else f"salad assets {name} ({asset.size_mb:.0f} MB)"
            yield Entry(name, "piper", asset.licence, "en-US", 22_050, True, False, True, True, ready, needs, 0.11)
    yield Entry(
        "piper-LOCALE-VOICE-QUALITY", "piper", PIPER_HUB_LICENCE, "many", None, True, False, True, True, None,
        "the hub: rhasspy/piper-voices, e.g. piper-en_US-lessac-medium", None,
    )  # fmt: skip


def _kokoro() -> Iterator[Entry]:
    size_mb = ASSETS[kokoro_files.ASSET].size_mb
    fetched = asset_dir(kokoro_files.ASSET).is_dir()
    for name in sorted(NAMES, key=lambda name: (name not in OFFLINE, name[0] not in "ab", name)):
        if name in OFFLINE:
            ready, needs = (
                fetched,
                "" if fetched else f"salad assets {kokoro_files.ASSET} ({size_mb:.0f} MB)",
            )
        else:
            ready = _in_hub_cache(HUB_ONNX, f"voices/{name}.bin") and _in_hub_cache(HUB_ONNX, "onnx/model.onnx")
            needs = "" if ready else f"the hub: {HUB_ONNX}; on a GPU {HUB_TORCH} with the extra kokoro"
        yield Entry(
            f"kokoro-{name}",
            "kokoro",
            _APACHE,
            _LANGUAGES[name[0]],
            24_000,
            True,
            False,
            True,
            True,
            ready,
            needs,
            None,
        )


def _programs() -> Iterator[Entry]:
    from salad.synthesize.voices.flite import VOICES

    there = shutil.which("espeak-ng") is not None
    needs = "" if there else "the system's package espeak-ng"
    licence = licence_of_voice("espeak-ng") or ""
    for name in ("espeak-ng", "espeak-ng:VOICE"):
        yield Entry(name, "program", licence, "many", 22_050, True, True, False, True, there, needs, None)
    there = shutil.which("flite") is not None
    needs = "" if there else "the system's package flite"
    licence = licence_of_voice("flite") or ""
    for name in VOICES:
        rate_hz = 8_000 if name == "kal" else 16_000
        yield Entry(f"flite:{name}", "program", licence, "en", rate_hz, True, False, False, True, there, needs, None)


def _others() -> Iterator[Entry]:
    yield Entry(
        "command:TEMPLATE", "command", "not stated", "any", 24_000, False, False, False, False, None,
        "a program that reads a text and gives a WAV", None,
    )  # fmt: skip
    key = "set" if os.environ.get("OPENAI_API_KEY") else "not set"
    yield Entry(
        "openai:URL#MODEL/VOICE", "server", "not stated", "any", 24_000, True, False, False, False, None,
        f"a speech server; its key in OPENAI_API_KEY ({key})", None,
    )  # fmt: skip


def _in_hub_cache(repo: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, name), str)
