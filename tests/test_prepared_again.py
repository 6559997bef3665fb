"""A prepared folder in later hands: what follows a rejected utterance, stereo as Lhotse hears it, prepared again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from salad.errors import DataError, MissingFileError
from salad.model.encode import encode_in_processes
from salad.speech.audio import load_cut
from salad.speech.corpora import folder
from salad.speech.index import IndexedCuts
from salad.speech.prepared import ALIGNMENT_NAME, follows, read_cuts

RATE_HZ = 8000


def corpus(root: Path, texts: list[str], missing: int | None = None, channels: int = 1) -> Path:
    root.mkdir()
    rows = [{"id": f"u{n}", "audio": f"u{n}.wav", "text": text, "document": "d"} for n, text in enumerate(texts)]
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for n in range(len(texts)):
        if n != missing:
            noise = np.random.default_rng(n).uniform(-0.3, 0.3, (RATE_HZ * 2, channels))
            noise[:, :-1] = 0.0
            soundfile.write(root / f"u{n}.wav", noise, RATE_HZ, subtype="PCM_16")
    return root


def test_a_rejected_utterance_ends_the_text_that_follows(tmp_path: Path) -> None:
    texts = ["one two three", "four five", "six seven", "eight nine"]
    folder.prepare(corpus(tmp_path / "whole", texts), tmp_path / "a")
    assert IndexedCuts(tmp_path / "a").continuation(0, frozenset(), 10) == "four five six seven eight nine"
    folder.prepare(corpus(tmp_path / "gap", texts, missing=1), tmp_path / "b")
    cuts = IndexedCuts(tmp_path / "b")
    assert [cut.id for cut in cuts[:]] == ["u0", "u2", "u3"]
    assert cuts.continuation(0, frozenset(), 10) == ""
    assert cuts.continuation(1, frozenset(), 10) == "eight nine"


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        (None, None, False),
        ({"document": "a"}, {"document": "a"}, True),
        ({"document": "a"}, {"document": "b"}, False),
        ({"document": "a", "number": 3}, {"document": "a", "number": 4}, True),
        ({"document": "a", "number": 3}, {"document": "a", "number": 5}, False),
        ({"document": "a", "number": 3}, {"document": "a"}, True),
    ],
)
def test_what_follows_what(earlier: dict | None, later: dict | None, expected: bool) -> None:
    assert follows(earlier, later) is expected


def test_lhotse_hears_all_channels_of_a_stereo_cut(tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder.prepare(corpus(tmp_path / "stereo", ["one two three"], channels=2), out)
    theirs = next(iter(CutSet.from_file(out / "cuts.jsonl.gz"))).load_audio()
    assert theirs.shape == (2, 2 * RATE_HZ)
    np.testing.assert_allclose(load_cut(read_cuts(out)[0], RATE_HZ), theirs.mean(axis=0), atol=1e-6)
    folder.prepare(out, tmp_path / "again", "cuts.jsonl.gz")  # and salad takes its own cut
    assert [cut.id for cut in read_cuts(tmp_path / "again")] == ["u0"]


def test_timings_are_not_lost_by_preparing_again(tmp_path: Path) -> None:
    source, out = corpus(tmp_path / "source", ["one two three"]), tmp_path / "out"
    folder.prepare(source, out)
    folder.prepare(source, out)  # nothing to lose yet
    (out / ALIGNMENT_NAME).write_text("{}")
    with pytest.raises(DataError, match=r"would lose its word timings and features; delete .*cuts\.jsonl\.gz"):
        folder.prepare(source, out)
    assert read_cuts(out)
    (out / "cuts.jsonl.gz").unlink()
    folder.prepare(source, out)
    assert not (out / ALIGNMENT_NAME).exists()


def test_encoding_what_is_no_folder_makes_none(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="holds no cuts"):
        encode_in_processes(tmp_path / "typo", lambda: pytest.fail("loaded an encoder"), "whisper-tiny.en", 1)
    assert not (tmp_path / "typo").exists()
