"""The text LLM: a Hugging Face folder, a hub name, or a GGUF asset turned into safetensors once.

Source of the GGUF path: transformers dequantizes on load (`gguf_file=`); the quantization marks must then be removed or
`save_pretrained` refuses.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from salad.assets import cache_dir, resolve
from salad.errors import AssetError

if TYPE_CHECKING:  # transformers' Auto classes are imported where they are used: `import salad` hooks on to them
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def llm_folder(name: str) -> Path:
    """The local folder of an LLM in Hugging Face layout; a GGUF file is dequantized to float32 safetensors once.

    Raises:
        AssetError: nothing of that name, or no weights in it.
    """
    folder = resolve(name)
    if (folder / "config.json").is_file():
        return folder
    gguf_files = sorted(folder.glob("*.gguf"))
    if not gguf_files:
        raise AssetError(f"{folder} holds neither a config.json nor a .gguf file; name a causal LLM.")
    converted = cache_dir() / "converted" / f"{gguf_files[0].stem}-float32"
    if not (converted / "config.json").is_file():
        _convert_gguf(folder, gguf_files[0].name, converted)
    return converted


def _convert_gguf(folder: Path, gguf_name: str, converted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    temporary = converted.parent / f".tmp-{os.getpid()}-{converted.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_name)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf_name, dtype=torch.float32)
    del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    if converted.exists():
        shutil.rmtree(temporary)  # another process was faster
    else:
        temporary.replace(converted)


def load_llm(name: str, dtype: str = "float32", attention: str = "sdpa") -> PreTrainedModel:
    """The LLM in eval mode. `dtype` is a key of `DTYPES`; `attention` is transformers' name of the implementation."""
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        llm_folder(name), dtype=DTYPES[dtype], attn_implementation=attention
    )
    model.eval()
    return model


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The LLM's own tokenizer."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(llm_folder(name))
    return tokenizer


def document_mark(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token id every sequence starts with: the pre-training document separator where the vocabulary has one."""
    for token in ("<|endoftext|>", tokenizer.bos_token, tokenizer.eos_token):
        if token is not None and token in tokenizer.get_vocab():
            return tokenizer.get_vocab()[token]
    raise AssetError("the tokenizer has no <|endoftext|>, bos or eos token to start a sequence with.")
