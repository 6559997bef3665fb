"""Sentence embeddings of texts by a sentence-transformers model."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from salad.assets import resolve
from salad.errors import AssetError
from salad.workers import gpu_of_worker

BATCH = 64
Device = Literal["auto", "cpu", "cuda"]
Progress = Callable[[int, int | None], None]


def silent(_done: int, _total: int | None) -> None:
    """No progress shown."""


class Embedder:
    """A sentence-transformers model that gives unit vectors and says what it did not see whole."""

    def __init__(self, folder: Path, device: Device = "auto", threads: int | None = None) -> None:
        """Load the model of a local folder; on a GPU it computes in float16.

        Args:
            folder: a folder with modules.json.
            device: "auto" is a GPU where there is one.
            threads: CPU threads; None leaves them as they are.

        Raises:
            AssetError: the folder holds no such model, or there is no GPU where one was asked for.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        if threads is not None:
            torch.set_num_threads(threads)
        where = device_for(device)
        try:
            self.model: Any = SentenceTransformer(str(folder), device=where, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise AssetError(f"{folder} is not readable as a sentence-transformers model ({reason}).") from error
        if where.startswith("cuda"):
            self.model.half()
        self.max_tokens: int | None = _finite(self.model.max_seq_length)
        self._special: int = self.model.tokenizer.num_special_tokens_to_add(pair=False)

    def embed(self, texts: Sequence[str], progress: Progress = silent) -> np.ndarray:
        """Unit vectors, float32 [N, d], in the order of the texts; batches are of texts of about the same length."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: np.ndarray | None = None
        for begin in range(0, len(order), BATCH):
            chosen = order[begin : begin + BATCH]
            batch = self.model.encode(
                [texts[i] for i in chosen], batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
            )
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), np.float32)
            vectors[chosen] = batch
            progress(begin + len(chosen), len(texts))
        return np.empty((0, 0), np.float32) if vectors is None else vectors

    def is_truncated(self, text: str) -> bool:
        """Whether the model reads only the beginning of a text. A token is never less than a byte."""
        if self.max_tokens is None or len(text.encode("utf-8", "replace")) <= self.max_tokens - self._special:
            return False
        return len(self._tokens(text)) > self.max_tokens - self._special

    def is_unread(self, text: str) -> bool:
        """Whether the model knows no part of a text: it gives it no token, or unknown ones alone."""
        if re.search(r"[a-z0-9]", text, re.IGNORECASE | re.ASCII):
            return False
        unknown: int | None = self.model.tokenizer.unk_token_id
        return set(self._tokens(text)) <= {unknown}

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self.model.tokenizer(
            text, add_special_tokens=False, truncation=False, verbose=False
        ).input_ids
        return tokens


def _finite(length: Any) -> int | None:
    return None if length is None or length > 1e9 else int(length)


def device_for(device: Device) -> str:
    """The torch device that "auto", "cpu" or "cuda" means for this process; worker processes share out the GPUs.

    Raises:
        AssetError: "cuda" where there is none.
    """
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise AssetError("--device cuda: torch sees no GPU here; use --device cpu, or install torch for CUDA.")
    return f"cuda:{gpu_of_worker(torch.cuda.device_count()) or 0}"


def embedder_folder(name: str) -> Path:
    """The local folder of a sentence-transformers model: a path, an asset, or a name on the Hugging Face hub.

    Raises:
        AssetError: nothing of that name can be had, or it is another kind of model.
    """
    folder = resolve(name)
    if not (folder / "modules.json").is_file():
        raise AssetError(
            f"{name} is no sentence-transformers model: {folder} has no modules.json; "
            "name one such as minilm-l6 or BAAI/bge-large-en-v1.5."
        )
    return folder


def embed(texts: Sequence[str], embedder: str, progress: Progress = silent) -> np.ndarray:
    """Unit-length embeddings, float32 [N, d], by a sentence-transformers model given by name or path, in memory."""
    return Embedder(embedder_folder(embedder)).embed(texts, progress)
