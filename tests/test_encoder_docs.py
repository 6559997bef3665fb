"""What docs/encoders.md says of each encoder, computed from the classes themselves at their real size."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    MimiConfig,
    MimiModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from salad.model.encode import encode_cuts
from salad.model.encoder import load_encoder
from salad.model.encoders.log_mel import LogMelEncoder
from salad.model.encoders.mimi import MimiCodesEncoder, MimiEncoder
from salad.model.encoders.speech_encoder import CodeEncoder
from salad.model.encoders.wav2vec2 import Wav2Vec2Encoder
from salad.model.encoders.whisper import WhisperEncoder
from tiny_speech import prepared

PAGE = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8")
ROWS = {
    name: [cell.strip() for cell in row.strip("| ").split("|")]
    for row in PAGE.splitlines()
    if row.startswith("| `")
    for name in re.findall(r"`([^`]+)`", row.split("|")[1])
}


def of_size(kind, config):
    """A model of that size without its weights."""
    with torch.device("meta"):
        return kind(config)


def wav2vec2(kind, config):
    return Wav2Vec2Encoder(of_size(kind, config), Wav2Vec2FeatureExtractor(), "w", "", None, "float32")


@cache
def mimi_model():
    return MimiModel(MimiConfig())


def mimi_codes(num_codebooks):
    return MimiCodesEncoder(mimi_model(), "m", "", num_codebooks)


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "feat_extract_norm": "layer"}
WHISPER_LARGE = {"d_model": 1280, "encoder_attention_heads": 20, "decoder_attention_heads": 20, "num_mel_bins": 128}
ENCODERS = {
    "kyutai/mimi": lambda: MimiEncoder(of_size(MimiModel, MimiConfig()), "m", "", "float32"),
    "kyutai/mimi:codes": lambda: mimi_codes(8),
    "kyutai/mimi:codes=32": lambda: mimi_codes(32),
    "openai/whisper-large-v3": lambda: WhisperEncoder(
        of_size(WhisperModel, WhisperConfig(**WHISPER_LARGE)), WhisperFeatureExtractor(128), "w", "", "float32"
    ),
    "facebook/wav2vec2-base": lambda: wav2vec2(Wav2Vec2Model, Wav2Vec2Config()),
    "microsoft/wavlm-large": lambda: wav2vec2(WavLMModel, WavLMConfig(**LARGE)),
    "log-mel": LogMelEncoder,
}


def check(name, encoder):
    _, _, frame_hz, width, kept, megabytes, causal = ROWS[name]
    codes = isinstance(encoder, CodeEncoder)
    per_frame = 2 * (len(encoder.codebooks_QCE) if codes else encoder.feature_dim)
    assert (float(frame_hz), int(width), causal == "yes") == (encoder.frame_hz, encoder.feature_dim, encoder.causal)
    assert kept == (f"{len(encoder.codebooks_QCE)} × int16" if codes else "float16")
    assert float(megabytes) == pytest.approx(encoder.frame_hz * per_frame * 3600 / 1e6, rel=0.002)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_table_is_what_the_classes_are(name):
    check(name, ENCODERS[name]())


@pytest.mark.assets
def test_the_table_is_right_on_whisper_in_ctranslate2():
    check("whisper-tiny.en", load_encoder("whisper-tiny.en"))


def test_the_table_holds_no_encoder_that_is_not_checked():
    like = {"facebook/hubert-base-ls960", "facebook/wav2vec2-large-lv60"}  # of one row with another
    assert ROWS.keys() - like == ENCODERS.keys() | {"whisper-tiny.en"}


def test_the_page_says_how_near_the_tar_is_to_its_arrays(tmp_path):
    prepared(tmp_path / "f", 64)
    encoder = LogMelEncoder()
    made = encode_cuts(tmp_path / "f", encoder)
    overhead = (made.num_bytes - made.num_frames * 160) / 64
    assert "about 2 kB an\nutterance" in PAGE
    assert 1500 < overhead < 2500


def test_the_code_on_the_page_runs(tmp_path):
    prepared(tmp_path / "f", 2)
    encode_cuts(tmp_path / "f", LogMelEncoder())
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    scope = {"OUT": tmp_path / "f", "ENCODER": "log-mel"}
    exec(code, scope)
    assert (scope["features"] == scope["frames"]).all()
    assert np.array_equal(scope["some"], scope["features"][10:20])
