"""Frozen speech encoders by name: audio → features. What each gives, and what it costs to keep: docs/encoders.md.

whisper-tiny.en        an asset          kyutai/mimi              Mimi's latents
org/name, ./folder     hub, or local     kyutai/mimi:codes        its first 8 codebooks (:codes=16 for others)
log-mel                no model          microsoft/wavlm-large@9  the hidden states behind layer 9
"""

from __future__ import annotations

import re
from pathlib import Path

from salad.assets import resolve
from salad.errors import AssetError
from salad.files import read_json
from salad.model.encoders.log_mel import LogMelEncoder
from salad.model.encoders.mimi import DEFAULT_CODEBOOKS, MimiCodesEncoder, MimiEncoder
from salad.model.encoders.speech_encoder import SpeechEncoder
from salad.model.encoders.wav2vec2 import FAMILY, Wav2Vec2Encoder
from salad.model.encoders.whisper import CTranslate2WhisperEncoder, WhisperEncoder

_NAME = re.compile(r"(?P<model>.+?)(?P<codes>:codes(=(?P<num_codebooks>\d+))?)?(@(?P<layer>\d+))?")


def load_encoder(name: str, threads: int = 1, compute_type: str = "auto", device: str = "auto") -> SpeechEncoder:
    """The encoder of that name: an asset, a hub name, or a local folder, with what is to be taken of it.

    What it is follows from its files. `NAME:codes` and `NAME:codes=Q` keep codes (Mimi), `NAME@LAYER` takes an inner
    layer (wav2vec2, HuBERT, WavLM).

    Args:
        name: see the module.
        threads: CPU threads of CTranslate2; the encoders in PyTorch use PyTorch's own setting.
        compute_type: in what it computes. "auto": int8 in CTranslate2, bfloat16 in PyTorch on a GPU, float32 on a CPU.
        device: "auto" (a GPU when there is one), "cpu" or "cuda".

    Raises:
        AssetError: there is no such model, it is no speech encoder that is known here, or has not what is asked of it.
    """
    if name == "log-mel":
        return LogMelEncoder(name)
    taken = _NAME.fullmatch(name)
    if taken is None or Path(name).expanduser().exists():
        taken = re.fullmatch(r"(?P<model>.*)(?P<codes>)(?P<num_codebooks>)(?P<layer>)", name)
        assert taken is not None
    folder = resolve(taken["model"])
    kind = _kind(folder)
    if taken["codes"] and kind != "mimi":
        raise AssetError(f"{name!r}: {folder} is of type {kind!r} and has no codes; only Mimi has.")
    if taken["layer"] and kind not in FAMILY:
        raise AssetError(f"{name!r}: a layer can be chosen of {', '.join(FAMILY)} models, not of type {kind!r}.")
    if kind == "mimi" and taken["codes"]:
        num_codebooks = int(taken["num_codebooks"] or DEFAULT_CODEBOOKS)
        return MimiCodesEncoder.load(folder, name, num_codebooks, device, compute_type)
    if kind == "mimi":
        return MimiEncoder.load(folder, name, device, compute_type)
    if kind == "whisper":
        return WhisperEncoder.load(folder, name, device, compute_type)
    if kind == "ctranslate2 whisper":
        return CTranslate2WhisperEncoder(folder, name, threads, compute_type, device)
    if kind in FAMILY:
        return Wav2Vec2Encoder.load(folder, name, int(taken["layer"]) if taken["layer"] else None, device, compute_type)
    raise AssetError(
        f"{name!r} ({folder}) is of type {kind!r}, not a speech encoder known here; name a Mimi, Whisper, wav2vec2, "
        "HuBERT or WavLM model, a Whisper converted to CTranslate2, or log-mel."
    )


def _kind(folder: Path) -> str | None:
    """transformers' model type, "ctranslate2 whisper", or None."""
    if (folder / "model.bin").is_file() and (folder / "tokenizer.json").is_file():
        return "ctranslate2 whisper"
    config = folder / "config.json"
    kind: str | None = read_json(config).get("model_type") if config.is_file() else None
    return kind
