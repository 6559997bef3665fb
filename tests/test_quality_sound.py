"""What speech sounds like: levels, silences, clipping and ends, on waves whose answer is known, and on a real voice."""

import json

import numpy as np
import pytest
import soxr

from salad.errors import AudioError
from salad.speech.audio import load_audio, resample
from salad.synthesize.quality_sound import measure_sound
from salad.synthesize.voices import load_voice

HZ = 16_000


def seconds_of(numbers: list[tuple[float, float]]) -> np.ndarray:
    """A 500 Hz tone in parts of (seconds, amplitude)."""
    loud = np.concatenate([np.full(round(seconds * HZ), amplitude) for seconds, amplitude in numbers])
    return (loud * np.sin(2 * np.pi * 500 * np.arange(len(loud)) / HZ)).astype(np.float32)


def noise_at(audio: np.ndarray, snr_db: float, exponent: float, seed: int = 0) -> np.ndarray:
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(audio)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (exponent / 2)
    noise = np.fft.irfft(spectrum, len(audio))
    power = np.mean(audio[np.abs(audio) > 0.01] ** 2)
    return (audio + noise * np.sqrt(power / 10 ** (snr_db / 10) / np.mean(noise**2))).astype(np.float32)


def test_silences_are_counted_where_they_are():
    sound = measure_sound(seconds_of([(0.5, 0), (1, 0.5), (1.5, 0), (1, 0.5), (1, 0)]), HZ)
    assert sound.seconds == 5
    assert sound.max_pause_s == pytest.approx(1.5, abs=0.06)  # not the silence before or after
    assert sound.silence_frac == pytest.approx(3 / 5, abs=0.04)
    assert sound.speech_s == pytest.approx(3.5, abs=0.06)
    assert sound.end_db < -100


@pytest.mark.parametrize("gain", [0.001, 1.0])
def test_silence_is_relative_to_the_utterance(gain):
    parts = [(1, 0.5), (1, 0.001), (1, 0.5)]
    assert measure_sound(seconds_of(parts) * np.float32(gain), HZ).max_pause_s == pytest.approx(1, abs=0.06)
    soft = [(1, 0.5), (1, 0.05), (1, 0.5), (0.3, 0)]
    assert measure_sound(seconds_of(soft) * np.float32(gain), HZ).max_pause_s == 0  # soft, not silent


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_a_pause_in_noise_is_a_pause(exponent):
    speech = seconds_of([(1, 0.5), (2.5, 0), (1, 0.5), (0.3, 0)])
    sound = measure_sound(noise_at(speech, 10, exponent), HZ)
    assert sound.max_pause_s == pytest.approx(2.5, abs=0.1)
    assert sound.end_db < -30  # the noise goes on to the end, the speech does not


def test_an_end_in_the_middle_of_a_sound_is_heard():
    assert measure_sound(seconds_of([(0.5, 0), (1, 0.5)]), HZ).end_db > -6
    assert measure_sound(seconds_of([(0.5, 0), (1, 0.5), (0.1, 0)]), HZ).end_db < -60


def test_sound_that_is_none_says_so():
    for samples in (np.zeros(HZ, np.float32), np.full(HZ, 0.25, np.float32), np.zeros(0, np.float32)):
        with pytest.raises(AudioError, match="no sound"):
            measure_sound(samples, HZ)
    assert measure_sound(np.array([0, 1], np.float32), HZ).seconds == 2 / HZ  # shorter than any frame


def test_clipping_is_seen_after_resampling_and_at_any_level():
    rng = np.random.default_rng(0)
    wave = np.convolve(rng.laplace(size=3 * HZ), np.hanning(24), "same") * np.repeat(rng.uniform(0.2, 1, 30), HZ // 10)
    wave = (wave / np.abs(wave).max()).astype(np.float32)
    clean = measure_sound(wave, HZ).clipped_frac
    clipped = np.clip(wave * 5, -1, 1)
    assert clean < 0.01
    for bad in (clipped, clipped * np.float32(0.3), soxr.resample(clipped, 22_050, HZ)):
        assert measure_sound(bad, HZ).clipped_frac > 0.03
    assert measure_sound(wave * np.float32(0.3), HZ).clipped_frac == pytest.approx(clean, abs=1e-4)


@pytest.mark.assets
def test_a_real_voice_passes_and_what_was_broken_does_not():
    voice = load_voice("piper-joe")
    texts = [
        "a surface coating for ceramics or porcelain",
        "the region of the sphenoid, or the temple; where several bones of the skull meet",
        "Check or slow down the action or effect of something.",
    ]
    for text in texts:
        audio = resample(voice.speak(text).audio, voice.rate_hz, HZ)
        good = measure_sound(audio, HZ)
        assert good.silence_frac < 0.45
        assert good.max_pause_s < 0.8
        assert good.clipped_frac < 0.012
        assert good.end_db < -40
        assert 0.04 < good.speech_s / len(text) < 0.08
        half = len(audio) // 2
        pause = np.concatenate([audio[:half], np.zeros(3 * HZ, np.float32), audio[half:]])
        assert measure_sound(pause, HZ).max_pause_s >= 2.9
        assert measure_sound(noise_at(pause, 10, 0), HZ).max_pause_s >= 2.9
        assert measure_sound(np.clip(audio / np.abs(audio).max() * 4, -1, 1), HZ).clipped_frac > 0.015
        loud = np.convolve(np.abs(audio), np.ones(320), "same")
        assert measure_sound(audio[: half + int(np.argmax(loud[half:]))], HZ).end_db > -10  # in the loudest vowel


def test_human_speech_passes(shared_data):
    """Of 35 readings of LJ Speech none is refused for its sound."""
    folder = shared_data / "speech" / "ljspeech_excerpt"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        sound = measure_sound(load_audio(folder / row["audio"], HZ)[0], HZ)
        assert sound.silence_frac < 0.7, row["id"]
        assert sound.max_pause_s < 2, row["id"]
        assert sound.clipped_frac < 0.015, row["id"]
        assert sound.end_db < -20, row["id"]
