"""Audio files in and out, and the rounding rule."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import AudioSource, MonoCut, Recording

from salad.errors import AudioError, MissingFileError
from salad.speech import time
from salad.speech.audio import load_audio, load_cut, save_flac

HZ = 16_000


def tone(seconds: float, rate_hz: int = HZ, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def test_flac_keeps_16_bit_samples_exactly(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    save_flac(tmp_path / "a.flac", (pcm / 32768).astype(np.float32), HZ)
    audio, rate_hz = load_audio(tmp_path / "a.flac")
    assert rate_hz == HZ
    assert audio.dtype == np.float32
    assert (np.round(audio * 32768) == pcm).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]


@pytest.mark.parametrize("from_hz", [8_000, 22_050, 44_100])
def test_resampling_keeps_time_and_pitch(tmp_path, from_hz):
    soundfile.write(tmp_path / "a.wav", tone(1.0, from_hz), from_hz, subtype="FLOAT")
    audio, rate_hz = load_audio(tmp_path / "a.wav", HZ)
    assert rate_hz == HZ
    assert abs(len(audio) - HZ) <= 1
    middle = slice(2000, 14000)
    assert np.abs(audio[middle] - tone(1.0)[middle]).max() < 2e-3


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(0.1), -tone(0.1)], axis=1), HZ, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav")[0]).max() == 0


def test_a_cut_gets_its_own_span(tmp_path):
    path = tmp_path / "a.wav"
    audio = np.arange(16000, dtype=np.float32) / 16000
    soundfile.write(path, audio, HZ, subtype="FLOAT")
    recording = Recording("r", [AudioSource("file", [0], str(path))], HZ, 16000, 1.0)
    cut = MonoCut("c", start=0.25, duration=0.5, channel=0, recording=recording)
    assert (load_cut(cut, HZ) == audio[4000:12000]).all()


def test_what_is_refused_names_the_file(tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF but no more")
    empty = tmp_path / "empty.wav"
    soundfile.write(empty, np.zeros(0, dtype=np.float32), HZ)
    with_nan = tmp_path / "nan.wav"
    soundfile.write(with_nan, np.array([0, np.nan, 0], dtype=np.float32), HZ, subtype="FLOAT")
    short = tmp_path / "short.flac"
    save_flac(short, np.random.default_rng(0).uniform(-0.9, 0.9, HZ).astype(np.float32), HZ)
    short.write_bytes(short.read_bytes()[:8000])
    for path in (broken, empty, with_nan, short):
        with pytest.raises(AudioError, match=path.name):
            load_audio(path)
    with pytest.raises(MissingFileError, match="nowhere"):
        load_audio(tmp_path / "nowhere.wav")


@pytest.mark.parametrize("bad", [np.zeros(0), np.array([0.0, 1.5]), np.array([0.0, np.inf])])
def test_what_is_not_written_leaves_nothing_behind(tmp_path, bad):
    with pytest.raises(AudioError, match=r"a\.flac"):
        save_flac(tmp_path / "a.flac", bad.astype(np.float32), HZ)
    assert not list(tmp_path.iterdir())


def test_halves_round_up_even_where_floats_fall_short():
    assert 0.29 * 50 < 14.5
    assert time.frames(0.29, 50) == 15
    assert [time.samples(x, 1) for x in (0.5, 1.5, 2.5)] == [1, 2, 3]


@given(st.integers(0, 10**9), st.sampled_from([12.5, 50, 8_000, 16_000, 22_050, 24_000]))
def test_counts_survive_seconds_and_back(count, rate_hz):
    assert time.samples(time.seconds(count, rate_hz), rate_hz) == count
    assert time.frames(time.seconds(count, rate_hz), rate_hz) == count
