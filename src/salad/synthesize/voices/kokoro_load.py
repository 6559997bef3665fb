"""A Kokoro voice by its name: which files it is made of, and which program computes it."""

from __future__ import annotations

import difflib
import importlib.util

from salad.errors import AssetError
from salad.synthesize.voices.kokoro import KokoroVoice
from salad.synthesize.voices.kokoro_files import NAMES, OFFLINE, asset_files, hub_files


def kokoro_voice(voice: str, threads: int, device: str) -> KokoroVoice:
    """The voice of that name, from the asset when it has it, else from the hub.

    On "cuda" it is computed by the `kokoro` package when that is installed, else by onnxruntime-gpu.

    Raises:
        AssetError: no such voice, or its files can't be had; says which voices need no hub.
    """
    if voice not in NAMES:
        near = difflib.get_close_matches(voice, NAMES, n=3, cutoff=0.5) or OFFLINE
        like = ", ".join(f"kokoro-{name}" for name in near)
        raise AssetError(f"Kokoro has no voice {voice!r}; there are {like} ('salad voices' lists all).")
    if device != "cpu" and importlib.util.find_spec("kokoro") is not None:
        from salad.synthesize.voices.kokoro_torch import TorchKokoro, torch_files

        files, config = torch_files(voice)
        return KokoroVoice(voice, files, TorchKokoro(files.model, config, device))
    files = asset_files(voice) if voice in OFFLINE else hub_files(voice)
    return KokoroVoice(voice, files, threads=threads, device=device)
