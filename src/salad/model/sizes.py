"""How large a recipe's models are, before anything of them is loaded.

The LLM's sizes stand in the recipe (`model.llm_sizes`), or in a configuration that is at hand: a local folder, a
fetched asset, the hub's cache. Nothing is fetched and no weight is read; the classes that train are built on the meta
device, where a tensor has a shape and no storage, so that what is counted is what a run makes.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from salad.asset_table import ASSETS
from salad.assets import HUB_NAME, asset_dir, cache_dir
from salad.errors import RecipeError
from salad.files import read_json
from salad.model.config import SpeechLMConfig
from salad.model.llm import DTYPES
from salad.model.speech_lm import SpeechLM
from salad.recipe import EncoderSizes, LlmSizes, ModelSettings

WHISPER_HZ = 50.0
WHISPER_WIDTHS = {"tiny": 384, "base": 512, "small": 768, "medium": 1024, "large": 1280}
"""Radford et al. 2022, table 1; converted models (CTranslate2) don't say it beside their weights."""


def llm_config(settings: ModelSettings) -> PretrainedConfig:
    """The LLM's configuration by `llm_sizes`, or the one at hand; both, where there are both, agree.

    Raises:
        RecipeError: there is neither, they disagree, or transformers knows no such `model_type`.
    """
    found = _config_at_hand(settings.llm)
    if settings.llm_sizes is None:
        if found is None:
            raise RecipeError(
                f"model.llm: {settings.llm!r} is not at hand, so its sizes are not known; fetch it, or write "
                "model.llm_sizes (hidden_size, num_hidden_layers, ... as in its config.json)."
            )
        return found
    stated = _config_of(settings.llm_sizes)
    if found is not None:
        _agree("model.llm_sizes", _llm_sizes_of(stated), _llm_sizes_of(found), settings.llm)
    return stated


def encoder_sizes(settings: ModelSettings) -> EncoderSizes:
    """The width and rate of the encoder's frames, by the recipe or by what is at hand.

    Raises:
        RecipeError: there is neither, or they disagree.
    """
    found = _encoder_at_hand(settings.encoder)
    stated = settings.encoder_sizes
    if stated is None and found is None:
        raise RecipeError(
            f"model.encoder: {settings.encoder!r} is not at hand, so its sizes are not known; write "
            "model.encoder_sizes (dim: width of a frame, hz: frames per second)."
        )
    if stated is not None and found is not None:
        _agree("model.encoder_sizes", stated.model_dump(), found.model_dump(), settings.encoder)
    sizes = stated or found
    assert sizes is not None
    return sizes


def student_config(settings: ModelSettings) -> SpeechLMConfig:
    """The configuration that a run of these settings gives its student."""
    encoder = encoder_sizes(settings)
    config = llm_config(settings)
    return SpeechLMConfig(
        llm=settings.llm,
        text_config=config,
        encoder=settings.encoder,
        encoder_dim=encoder.dim,
        encoder_hz=encoder.hz,
        adapter=settings.adapter.model_dump(),
        lora=settings.lora.model_dump() if settings.train_llm == "lora" else None,
        train_llm=settings.train_llm,
        speech_token_id=config.vocab_size,
        dtype=DTYPES[settings.dtype],
    )


def on_meta(config: SpeechLMConfig) -> SpeechLM:
    """The student of a configuration on the meta device: every module and parameter, no storage."""
    with torch.device("meta"):
        return SpeechLM(config)


def _config_of(sizes: LlmSizes) -> PretrainedConfig:
    keys = {key: value for key, value in sizes.model_dump().items() if value is not None}
    try:
        own = AutoConfig.for_model(sizes.model_type)
    except ValueError as error:
        raise RecipeError(f"model.llm_sizes.model_type: {sizes.model_type!r} is unknown to transformers.") from error
    if not hasattr(own, "attention_bias"):
        if sizes.attention_bias:
            raise RecipeError(f"model.llm_sizes.attention_bias: a {sizes.model_type} has no such key; leave it out.")
        del keys["attention_bias"]
    config: PretrainedConfig = AutoConfig.for_model(**keys)
    return config


def _llm_sizes_of(config: PretrainedConfig) -> dict[str, Any]:
    sizes = {key: getattr(config, key, None) for key in LlmSizes.model_fields}
    sizes["head_dim"] = sizes["head_dim"] or config.hidden_size // config.num_attention_heads
    sizes["attention_bias"] = bool(sizes["attention_bias"])
    return sizes


def _agree(group: str, stated: dict[str, Any], found: dict[str, Any], name: str) -> None:
    wrong = [
        f"{group}.{key} is {stated[key]!r}, {name} has {found[key]!r}" for key in stated if stated[key] != found[key]
    ]
    if wrong:
        raise RecipeError(f"{'; '.join(wrong)}; correct the recipe, or leave {group} out.")


def _config_at_hand(name: str) -> PretrainedConfig | None:
    """The configuration of an LLM that lies here already; None where it doesn't."""
    folder = _folder_at_hand(name)
    if folder is None:
        return None
    for gguf in sorted(folder.glob("*.gguf")):
        converted = cache_dir() / "converted" / f"{gguf.stem}-float32"  # as salad.model.llm converts it
        folder = converted if (converted / "config.json").is_file() else folder
    if (folder / "config.json").is_file():
        return _read(folder)
    return None


def _folder_at_hand(name: str) -> Path | None:
    """What `salad.assets.resolve` would give without fetching anything."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name in ASSETS:
        return asset_dir(name) if asset_dir(name).is_dir() else None
    if HUB_NAME.fullmatch(name):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json")
        return Path(found).parent if isinstance(found, str) else None
    return None


def _read(folder: Path) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(folder)
    return config


def _encoder_at_hand(name: str) -> EncoderSizes | None:
    if name == "log-mel":
        return EncoderSizes(dim=80, hz=100.0)
    model = re.sub(r"(:codes(=\d+)?)?(@\d+)?$", "", name)
    whisper = re.search(r"whisper-(tiny|base|small|medium|large)", model)
    folder = _folder_at_hand(model)
    if folder is None or (folder / "model.bin").is_file():
        return EncoderSizes(dim=WHISPER_WIDTHS[whisper[1]], hz=WHISPER_HZ) if whisper else None
    if not (folder / "config.json").is_file() or "model_type" not in read_json(folder / "config.json"):
        return None
    config: Any = _read(folder)
    if config.model_type == "mimi":
        return EncoderSizes(dim=config.hidden_size, hz=config.frame_rate)
    if config.model_type == "whisper":
        return EncoderSizes(dim=config.d_model, hz=WHISPER_HZ)
    strides = getattr(config, "conv_stride", None)  # wav2vec2, HuBERT, WavLM: at 16 kHz
    return EncoderSizes(dim=config.hidden_size, hz=16_000 / math.prod(strides)) if strides else None
