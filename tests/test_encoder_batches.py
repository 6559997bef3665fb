"""A clip's features do not depend on what is encoded with it, and are what the models' own classes give."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    HubertConfig,
    HubertModel,
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

from salad.errors import AssetError, AudioError
from salad.model.encode import encode_cuts
from salad.model.encoder import load_encoder
from salad.model.encoders import mimi as mimi_module
from salad.model.encoders import wav2vec2 as wav2vec2_module
from salad.model.encoders.log_mel import LogMelEncoder
from salad.model.encoders.mimi import MimiCodesEncoder, MimiEncoder
from salad.model.encoders.speech_encoder import LIKE_LENGTH, CodeEncoder, features_of_codes, like_length_batches
from salad.model.encoders.wav2vec2 import Wav2Vec2Encoder
from salad.model.encoders.whisper import WhisperEncoder
from salad.model.features import FeatureStore
from salad.model.processor import SpeechFeatureExtractor
from tiny_speech import prepared

pytestmark = pytest.mark.usefixtures("one_thread")
TOLERANCE = 1e-4  # of the clip's largest value, in float32


def noise(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate_hz)).astype(np.float32)


def mimi_model() -> MimiModel:
    torch.manual_seed(0)
    config = MimiConfig(
        hidden_size=32, num_filters=4, num_hidden_layers=2, intermediate_size=64, num_attention_heads=2,
        num_key_value_heads=2, codebook_size=16, codebook_dim=8, vector_quantization_hidden_dimension=8,
        num_quantizers=4, upsample_groups=32, sliding_window=6,
    )  # fmt: skip
    model = MimiModel(config).eval()
    for part in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        for layer in part.layers:  # an untrained codebook is all zeros
            layer.codebook.embed_sum.normal_(std=0.1)
    return model


def wav2vec2_model(kind=Wav2Vec2Model, config=Wav2Vec2Config, norm="layer", stable=False, **settings):
    torch.manual_seed(0)
    return kind(
        config(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=8,
            conv_dim=(8, 8, 8), conv_kernel=(10, 8, 4), conv_stride=(8, 8, 5), feat_extract_norm=norm,
            conv_bias=norm == "layer", do_stable_layer_norm=stable, num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2, num_feat_extract_layers=3, **settings,
        )
    ).eval()  # fmt: skip


EXTRACTOR = Wav2Vec2FeatureExtractor(do_normalize=True)


def wav2vec2(norm="layer", stable=False, layer=None, compute_type="float32", **settings) -> Wav2Vec2Encoder:
    return Wav2Vec2Encoder(
        wav2vec2_model(norm=norm, stable=stable, **settings), EXTRACTOR, "w", "", layer, compute_type
    )


def whisper(compute_type="float32") -> WhisperEncoder:
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, num_mel_bins=80,
    )  # fmt: skip
    return WhisperEncoder(WhisperModel(config), WhisperFeatureExtractor(), "tiny-whisper", "", compute_type)


def of(kind, config, norm, **settings):
    return lambda: Wav2Vec2Encoder(wav2vec2_model(kind, config, norm, **settings), EXTRACTOR, "w", "")


ENCODERS = {
    "mimi": lambda: MimiEncoder(mimi_model(), "m", ""),
    "mimi codes": lambda: MimiCodesEncoder(mimi_model(), "m", "", 3),
    "whisper": whisper,
    "wav2vec2, layer norm": lambda: wav2vec2("layer"),
    "wav2vec2, stable layer norm": lambda: wav2vec2("layer", stable=True),
    "wav2vec2, group norm": lambda: wav2vec2("group"),
    "hubert, group norm": of(HubertModel, HubertConfig, "group"),
    "hubert, batch norm": of(HubertModel, HubertConfig, "layer", conv_pos_batch_norm=True),
    "wavlm": of(WavLMModel, WavLMConfig, "layer", stable=True),
    "log-mel": LogMelEncoder,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_clip_is_encoded_as_if_it_were_alone(name):
    encoder = ENCODERS[name]()
    seconds = (1.0, 0.63, 1.1, 0.6, 1.12, 2.37, 0.63)
    clips = [noise(length, encoder.sample_rate_hz, seed) for seed, length in enumerate(seconds)]
    together = encoder.encode(clips)
    for clip, features in zip(clips, together, strict=True):
        alone = encoder.encode([clip])[0]
        assert features.dtype == np.float32
        assert features.flags.c_contiguous
        assert alone.shape == features.shape == (len(features), encoder.feature_dim)
        assert abs(len(features) - len(clip) / encoder.sample_rate_hz * encoder.frame_hz) <= 1
        assert np.abs(features - alone).max() <= TOLERANCE * np.abs(alone).max()
    with pytest.raises(AudioError):
        encoder.encode([clips[0], np.zeros(0, dtype=np.float32)])


def test_the_same_clips_share_batches():
    frames = [13, 8, 14, 8, 14, 30, 8]  # Mimi's of the clips above
    assert list(like_length_batches(frames, 500)) == [[1, 3, 6], [0, 2, 4], [5]]


@given(st.lists(st.integers(1, 2000), max_size=60), st.integers(1, 4000))
def test_batches_hold_every_clip_once_and_little_padding(lengths, most):
    batches = list(like_length_batches(lengths, most))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        assert len(batch) == 1 or max(sizes) * len(batch) <= most
        assert max(sizes) <= LIKE_LENGTH * min(sizes)
    assert [lengths[batch[0]] for batch in batches] == sorted(lengths[batch[0]] for batch in batches)


def test_padding_does_change_what_group_norm_gives():
    """What the tests above would see if a group-norm model's convolutions were run on a padded batch."""
    encoder = wav2vec2("group")
    short, long = noise(1.0), noise(1.1, seed=1)
    alone = encoder.encode([short])[0]
    encoder._pads_convolutions = True
    together = encoder.encode([short, long])[0]
    assert np.abs(together - alone).max() > 100 * TOLERANCE * np.abs(alone).max()


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_wav2vec2_gives_what_transformers_gives_behind_any_layer(norm, stable):
    clip = noise(0.9)
    inputs = EXTRACTOR(clip, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        out = wav2vec2_model(norm=norm, stable=stable)(inputs, output_hidden_states=True)
    states = {None: out.last_hidden_state, 3: out.last_hidden_state, 1: out.hidden_states[1], 0: out.hidden_states[0]}
    for layer, expected in states.items():
        got = wav2vec2(norm, stable, layer).encode([clip])[0]
        assert np.abs(got - expected[0].numpy()).max() < 1e-5
    with pytest.raises(AssetError, match="no layer 4; the model has 3"):
        wav2vec2(norm, stable, 4)


@pytest.mark.parametrize(("kind", "config"), [(HubertModel, HubertConfig), (WavLMModel, WavLMConfig)])
def test_hubert_and_wavlm_give_what_transformers_gives(kind, config):
    clip = noise(0.9)
    inputs = EXTRACTOR(clip, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        expected = wav2vec2_model(kind, config)(inputs).last_hidden_state[0].numpy()
    assert np.abs(of(kind, config, "layer")().encode([clip])[0] - expected).max() < 1e-5


def test_wav2vec2_hears_normalized_audio():
    encoder, clip = wav2vec2(), noise(0.5)
    assert np.abs(encoder.encode([0.1 * clip])[0] - encoder.encode([clip])[0]).max() < 1e-3
    encoder._extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    assert np.abs(encoder.encode([0.1 * clip])[0] - encoder.encode([clip])[0]).max() > 1e-2


def test_wav2vec2_cuts_long_clips_on_its_own_grid_of_frames(monkeypatch):
    encoder, clip = wav2vec2(), noise(1.3)
    whole = encoder.encode([clip])[0]
    monkeypatch.setattr(wav2vec2_module, "WINDOW_S", 0.5)
    windows = encoder.encode([clip])[0]
    assert len(windows) == len(whole) == encoder._num_frames(len(clip))
    bare = wav2vec2_model().feature_extractor(
        torch.from_numpy(EXTRACTOR(clip, sampling_rate=16_000).input_values[0])[None]
    )
    parts = [
        wav2vec2_model().feature_extractor(torch.from_numpy(np.ascontiguousarray(window))[None])
        for window in encoder._windows(EXTRACTOR(clip, sampling_rate=16_000).input_values[0])
    ]
    assert len(parts) == 3
    assert torch.allclose(torch.cat(parts, 2), bare, atol=1e-6)


def test_wav2vec2_refuses_less_than_one_frame():
    encoder = wav2vec2()
    shortest = encoder._window_samples(1)
    assert encoder._num_frames(shortest) == 1
    assert encoder._num_frames(shortest - 1) == 0
    assert encoder.encode([noise(1)[:shortest]])[0].shape == (1, 16)
    with pytest.raises(AudioError, match=f"{shortest - 1} samples can't be encoded, {shortest} are needed"):
        encoder.encode([noise(1)[: shortest - 1]])


def test_mimi_in_steps_gives_the_same_frames(monkeypatch):
    encoder = MimiEncoder(mimi_model(), "m", "")
    clips = [noise(seconds, 24_000) for seconds in (5.3, 5.1, 0.9)]
    whole = encoder.encode(clips)
    monkeypatch.setattr(mimi_module, "STEP_S", 2.0)
    for one, other in zip(encoder.encode(clips), whole, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(other).max()


def test_mimi_codes_stand_for_the_quantizers_own_latents():
    model = mimi_model()
    clip = noise(1.6, 24_000)  # whole frames: nothing to fill
    for num_codebooks in (1, 3, 4):
        encoder = MimiCodesEncoder(model, "m", "", num_codebooks)
        assert isinstance(encoder, CodeEncoder)
        codes = encoder.encode_codes([clip])[0]
        with torch.inference_mode():
            theirs = model.encode(torch.from_numpy(clip)[None, None], num_quantizers=num_codebooks).audio_codes
            latents = model.quantizer.decode(theirs)[0].T.numpy()
        assert codes.dtype == np.int16
        assert (codes == theirs[0].T.numpy()).all()
        assert len(np.unique(codes)) > 3
        assert np.abs(features_of_codes(codes, encoder.codebooks_QCE) - latents).max() < 1e-6
        assert (encoder.encode([clip])[0] == features_of_codes(codes, encoder.codebooks_QCE)).all()
    assert not isinstance(MimiEncoder(model, "m", ""), CodeEncoder)
    with pytest.raises(AssetError, match="5 codebooks; this model has 4, take 1 to 4"):
        MimiCodesEncoder(model, "m", "", 5)


def test_what_is_kept_of_codes_is_what_the_processor_hears(tmp_path):
    name = f"{save(tmp_path / 'mimi', mimi_model())}:codes=3"
    cuts = prepared(tmp_path / "f", 3)
    encode_cuts(tmp_path / "f", load_encoder(name, device="cpu"))
    store = FeatureStore(tmp_path / "f", name)
    heard = SpeechFeatureExtractor(name)([cut.load_audio()[0] for cut in cuts], sampling_rate=16_000)
    for cut, features, length in zip(cuts, heard["speech_features"], heard["speech_lengths"], strict=True):
        assert store.num_frames(cut.id) == length
        assert np.abs(store.load(cut.id) - features[:length].numpy()).max() < 1e-6
    assert {path.name for path in store.where.iterdir()} >= {"codebooks.npy", "index.npy"}


def test_log_mel_is_whispers_at_the_clips_own_length():
    clip = noise(30.0)  # the length at which Whisper's extractor pads nothing
    expected = WhisperFeatureExtractor()(clip, sampling_rate=16_000).input_features[0].T
    encoder = LogMelEncoder()
    assert np.abs(encoder.encode([clip])[0] - expected).max() < 1e-6
    assert [len(features) for features in encoder.encode([noise(0.1), noise(0.0309), noise(31)])] == [10, 3, 3100]
    with pytest.raises(AudioError, match="399 samples"):
        encoder.encode([noise(1)[:399]])


@pytest.mark.parametrize("make", [whisper, wav2vec2, lambda c: MimiEncoder(mimi_model(), "m", "", c)])
def test_bfloat16_is_near_float32(make):
    """On a CPU, but by the same autocast that a GPU takes by default."""
    make = make if make is not wav2vec2 else lambda c: wav2vec2(compute_type=c)
    encoder = make("float32")
    clip = noise(1.0, encoder.sample_rate_hz)
    exact, near = encoder.encode([clip])[0], make("bfloat16").encode([clip])[0]
    assert near.dtype == np.float32
    assert 1e-5 < np.abs(exact - near).max() / np.abs(exact).max() < 0.1
    with pytest.raises(AssetError, match="auto, float32 or bfloat16"):
        make("int8")


def save(folder, model, extractor=None):
    model.save_pretrained(folder)
    if extractor is not None:
        extractor.save_pretrained(folder)
    return str(folder)


def test_encoders_are_found_by_name(tmp_path):
    mimi = save(tmp_path / "mimi", mimi_model())
    speech = save(tmp_path / "w", wav2vec2_model(norm="group"), EXTRACTOR)
    fingerprints = set()
    for name, kind, width in [
        (mimi, MimiEncoder, 32),
        (f"{mimi}:codes=2", MimiCodesEncoder, 32),
        (f"{mimi}:codes=4", MimiCodesEncoder, 32),
        (speech, Wav2Vec2Encoder, 16),
        (f"{speech}@2", Wav2Vec2Encoder, 16),
        (f"{speech}@0", Wav2Vec2Encoder, 16),
        ("log-mel", LogMelEncoder, 80),
    ]:
        encoder = load_encoder(name, device="cpu")
        assert type(encoder) is kind
        assert (encoder.name, encoder.feature_dim) == (name, width)
        assert encoder.encode([noise(0.2, encoder.sample_rate_hz)])[0].shape[1] == width
        fingerprints.add(encoder.fingerprint)
    assert len(fingerprints) == 7
    assert load_encoder(mimi, compute_type="bfloat16").fingerprint not in fingerprints
    clip = noise(0.5)
    assert (load_encoder(f"{speech}@2").encode([clip])[0] == wav2vec2("group", layer=2).encode([clip])[0]).all()


@pytest.mark.parametrize(
    ("suffix", "message"),
    [("/w:codes", "no codes; only Mimi"), ("/mimi@3", "not of type 'mimi'"), ("/mimi:codes=40", "this model has 4")],
)
def test_what_a_model_has_not_is_named(tmp_path, suffix, message):
    save(tmp_path / "mimi", mimi_model())
    save(tmp_path / "w", wav2vec2_model(), EXTRACTOR)
    with pytest.raises(AssetError, match=message):
        load_encoder(f"{tmp_path}{suffix}")


def test_a_wav2vec2_without_its_extractors_settings_is_refused(tmp_path):
    with pytest.raises(AssetError, match="preprocessor_config"):
        load_encoder(save(tmp_path / "w", wav2vec2_model()))


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    folder = save(tmp_path / "w", wav2vec2_model(), EXTRACTOR)
    (tmp_path / "w" / "model.safetensors").rename(tmp_path / "w" / "pytorch_model.bin")
    with pytest.raises(AssetError, match="no weights as safetensors"):
        load_encoder(folder)


def test_a_folder_named_like_a_choice_stands_for_itself(tmp_path):
    folder = save(tmp_path / "my@2", wav2vec2_model(), EXTRACTOR)
    assert load_encoder(folder)._model.encoder.layers.__len__() == 3
