"""Frozen encoders and the store of their features."""

import numpy as np
import pytest

from salad.assets import resolve
from salad.errors import AssetError, AudioError
from salad.model.encoder import load_encoder
from salad.model.encoders.mimi import MimiEncoder
from salad.model.encoders.whisper import CTranslate2WhisperEncoder, WhisperEncoder


def noise(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate_hz)).astype(np.float32)


@pytest.fixture(scope="module")
def ct2():
    return load_encoder("whisper-tiny.en", threads=2)


@pytest.fixture(scope="module")
def mimi():
    torch = pytest.importorskip("torch")
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    config = MimiConfig(
        hidden_size=32, num_filters=4, num_hidden_layers=2, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=2, codebook_size=16, codebook_dim=8, vector_quantization_hidden_dimension=8,
        num_quantizers=2, upsample_groups=32, sliding_window=6,
    )  # fmt: skip
    return MimiEncoder(MimiModel(config), "tiny-mimi", "random")


@pytest.fixture(scope="module")
def whisper():
    torch = pytest.importorskip("torch")
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, num_mel_bins=80,
    )  # fmt: skip
    return WhisperEncoder(WhisperModel(config), WhisperFeatureExtractor(), "tiny-whisper", "random")


def assert_clips_are_encoded_each_by_itself(encoder):
    clips = [noise(seconds, encoder.sample_rate_hz, seed) for seed, seconds in enumerate((1.0, 0.01, 2.37))]
    together = encoder.encode(clips)
    for clip, features in zip(clips, together, strict=True):
        assert features.dtype == np.float32
        assert features.shape[1] == encoder.feature_dim
        assert abs(len(features) - max(1, len(clip) / encoder.sample_rate_hz * encoder.frame_hz)) < 1
        assert encoder.encode([clip])[0].tobytes() == features.tobytes()
        assert np.isfinite(features).all()
    with pytest.raises(AudioError):
        encoder.encode([np.zeros(0, dtype=np.float32)])


@pytest.mark.assets
def test_ct2_whisper_encodes_each_clip_by_itself(ct2):
    assert (ct2.feature_dim, ct2.frame_hz, ct2.sample_rate_hz, ct2.causal) == (384, 50.0, 16_000, False)
    assert_clips_are_encoded_each_by_itself(ct2)


@pytest.mark.assets
def test_ct2_whisper_cuts_long_clips_into_windows(ct2):
    clip = noise(31.5)
    features = ct2.encode([clip])[0]
    assert features.shape == (1575, 384)
    assert (features[1500:] == ct2.encode([clip[30 * 16_000 :]])[0]).all()


@pytest.mark.assets
def test_fingerprint_follows_the_settings(ct2):
    assert ct2.fingerprint == CTranslate2WhisperEncoder(resolve("whisper-tiny.en"), threads=1).fingerprint
    assert ct2.fingerprint != load_encoder("whisper-tiny.en", compute_type="float32").fingerprint


def test_whisper_encodes_each_clip_by_itself(whisper):
    assert_clips_are_encoded_each_by_itself(whisper)
    assert whisper.encode([noise(30.5)])[0].shape == (1525, 16)


def test_mimi_encodes_each_clip_by_itself(mimi):
    assert (mimi.feature_dim, mimi.frame_hz, mimi.sample_rate_hz, mimi.causal) == (32, 12.5, 24_000, True)
    assert_clips_are_encoded_each_by_itself(mimi)


def test_mimi_hears_nothing_of_what_comes_later(mimi):
    clip = noise(2.0, 24_000)
    whole = mimi.encode([clip])[0]
    start = mimi.encode([clip[: 10 * 1920]])[0]
    assert np.abs(whole[:10] - start).max() < 1e-5
    assert np.abs(whole[10] - whole[9]).max() > 1e-4


def test_mimi_in_streaming_steps_gives_the_same_frames(mimi):
    import torch

    clip = noise(1.6, 24_000)
    whole = mimi.encode([clip])[0]
    steps, caches = [], {}
    for start in range(0, len(clip), 1920 * 4):
        with torch.inference_mode():
            step = mimi._encoder(
                torch.from_numpy(clip[start : start + 1920 * 4])[None, None], use_streaming=True, **caches
            )
        caches = {"past_key_values": step.past_key_values, "padding_cache": step.padding_cache}
        steps.append(step.latents[0].T.numpy())
    assert np.abs(np.concatenate(steps) - whole).max() < 1e-5


def test_mimi_and_whisper_load_from_their_folders(mimi, tmp_path):
    from transformers import MimiConfig, MimiModel

    config = MimiConfig(**{k: v for k, v in mimi._encoder.config.to_dict().items() if k in MimiConfig().to_dict()})
    model = MimiModel(config)
    model.save_pretrained(tmp_path)
    loaded = load_encoder(str(tmp_path), device="cpu")
    clip = noise(0.5, 24_000)
    assert np.abs(loaded.encode([clip])[0] - MimiEncoder(model, "m", "f").encode([clip])[0]).max() < 1e-6


def test_what_is_no_encoder_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(AssetError, match="bert"):
        load_encoder(str(tmp_path))
