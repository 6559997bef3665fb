"""Voices: text that is already normalized → speech. The same text gives the same samples, or it is not a voice here."""

from __future__ import annotations

from pathlib import Path

from salad.assets import resolve
from salad.errors import AssetError
from salad.synthesize.voices.voice import Voice


def load_voice(name: str, threads: int = 1) -> Voice:
    """The voice of that name: "piper-…" (an asset), "espeak-ng" or "espeak-ng:VOICE", or a folder with a Piper voice.

    Loading is quick: the model itself is read when it first speaks.

    Raises:
        AssetError: no such voice, or its program or files are not there.
    """
    from salad.synthesize.voices.espeak import EspeakVoice
    from salad.synthesize.voices.piper import PiperVoice

    if name == "espeak-ng" or name.startswith("espeak-ng:"):
        return EspeakVoice(name.partition(":")[2] or "en-us")
    if Path(name).is_dir():
        return PiperVoice(Path(name), threads)
    if not name.startswith("piper-"):
        raise AssetError(f"there is no voice {name!r}; name 'piper-joe', 'espeak-ng', or a folder with a Piper voice.")
    return PiperVoice(resolve(name), threads)
