"""Embeddings of texts."""

import numpy as np
import pytest

import tiny


@pytest.mark.assets
def test_embeddings_are_unit_vectors_in_the_order_of_the_texts():
    from salad.select.embed import embed

    texts = [" ".join(tiny.WORDS[i : i + 1 + i % 7]) for i in range(30)] * 3  # more than a batch, of mixed lengths
    told = []
    vectors = embed(texts, "minilm-l6", lambda done, total: told.append((done, total)))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(90), abs=1e-5)
    assert vectors[:30] == pytest.approx(vectors[30:60], abs=1e-5)
    assert vectors[4] == pytest.approx(embed([texts[4]], "minilm-l6")[0], abs=1e-5)
    assert told[-1] == (90, 90)
