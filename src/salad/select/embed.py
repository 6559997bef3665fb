"""Sentence embeddings of a text corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from salad.assets import resolve

BATCH = 64


def embed(texts: Sequence[str], embedder: str, on_progress: Callable[[int, int], None] = lambda *_: None) -> np.ndarray:
    """Unit-length embeddings, float32 [N, d], by a sentence-transformers model given by name or path."""
    from sentence_transformers import SentenceTransformer  # here, because it is slow to import

    model = SentenceTransformer(str(resolve(embedder)), device=None)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    parts: list[np.ndarray] = []
    for begin in range(0, len(order), BATCH):
        chunk = [texts[i] for i in order[begin : begin + BATCH]]
        parts.append(model.encode(chunk, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False))
        on_progress(min(begin + BATCH, len(order)), len(order))
    stacked = np.concatenate(parts).astype(np.float32)
    embeddings = np.empty_like(stacked)
    embeddings[order] = stacked
    return embeddings
