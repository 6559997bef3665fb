"""Voices: text that is already normalized → speech. Each by its name; docs/voices.md has them all."""

from __future__ import annotations

import difflib
from pathlib import Path

from salad.asset_table import ASSETS
from salad.errors import AssetError
from salad.synthesize.voices.voice import Voice


def load_voice(name: str, threads: int = 1, device: str = "cpu") -> Voice:
    """The voice of that name, as docs/voices.md lists them; or a folder with a Piper voice.

    Loading is quick once its files are here: the model itself is read when it first speaks.

    Args:
        name: "piper-joe", "piper-en_US-lessac-medium", "kokoro-af_heart", "espeak-ng:VOICE", "flite:VOICE",
            "command:TEMPLATE", "openai:URL#MODEL/VOICE", or a folder.
        threads: of a model that runs here; more voices in more processes are worth more than threads.
        device: where a Kokoro model runs, "cpu" or "cuda"; the others run on the CPU.

    Raises:
        AssetError: no such voice, or its program or files are not there.
    """
    kind, _, which = name.partition(":")
    if kind == "command":
        from salad.synthesize.voices.command import CommandVoice

        return CommandVoice(which)
    if kind == "openai":
        from salad.synthesize.voices.endpoint import EndpointVoice

        return EndpointVoice(which)
    if kind == "espeak-ng":
        from salad.synthesize.voices.espeak import EspeakVoice

        return EspeakVoice(which or "en-us")
    if kind == "flite":
        from salad.synthesize.voices.flite import FliteVoice

        return FliteVoice(which or "slt")
    if Path(name).is_dir() or name.startswith("piper-"):
        from salad.synthesize.voices.piper import PiperVoice
        from salad.synthesize.voices.piper_files import piper_folder

        return PiperVoice(Path(name) if Path(name).is_dir() else piper_folder(name), threads)
    if name.startswith("kokoro-") and name not in ASSETS:
        from salad.synthesize.voices.kokoro_load import kokoro_voice

        return kokoro_voice(name.removeprefix("kokoro-"), threads, device)
    raise AssetError(_no_voice(name))


def _no_voice(name: str) -> str:
    from salad.synthesize.voices.catalogue import known_names

    names = known_names()
    near = [known for known in names if known.startswith(name)][:3] or difflib.get_close_matches(name, names, n=3)
    like = f"the nearest are {', '.join(near)}" if near else "there are piper-joe, kokoro-af_heart, espeak-ng, flite, …"
    return f"there is no voice {name!r}; {like} ('salad voices' lists all), or name a folder with a Piper voice."
