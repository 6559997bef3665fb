"""What is done to the sound: each effect measured by the definition of its own number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import correlate

from salad.randomness import generator
from salad.recipe import AugmentSettings
from salad.speech.audio import Samples, resample
from salad.synthesize.augment import (
    LOUDEST,
    Augmentation,
    augmented,
    by_telephone,
    coloured_noise,
    draw_augmentation,
    room,
    speech_power,
    with_noise,
)

HZ = 16_000


def speech_like(seconds: float = 3.0, level: float = 0.3) -> Samples:
    """Harmonics under a syllable envelope, with a pause of half a second after each second; wide-band onsets."""
    t = np.arange(round(seconds * HZ)) / HZ
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 25))
    envelope = np.clip(np.sin(2 * np.pi * 4 * t), 0, None) ** 2 * (t % 1.5 < 1.0)
    audio = tone * envelope
    return np.asarray(level * audio / np.abs(audio).max(), np.float32)


def test_noise_is_at_the_ratio_asked_for_and_pauses_do_not_count() -> None:
    speech = speech_like()
    for snr_db in (0.0, 10.0, 25.0):
        noise = with_noise(speech, HZ, snr_db, 1.0, generator(0, "n")) - speech
        power = np.square(speech, dtype=np.float64).reshape(-1, 320).mean(axis=1)
        loud = power > power.max() / 1000  # 30 dB
        assert 10 * np.log10(power[loud].mean() / np.square(noise, dtype=np.float64).mean()) == pytest.approx(
            snr_db, abs=0.01
        )
    twice_the_pause = np.concatenate([speech, np.zeros_like(speech)])
    assert speech_power(twice_the_pause, HZ) == pytest.approx(speech_power(speech, HZ))
    assert np.square(speech).mean() < 0.7 * speech_power(speech, HZ)  # the plain mean would be another number


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_has_its_colour(exponent: float) -> None:
    noise = coloured_noise(HZ * 20, HZ, exponent, generator(1, "n")).astype(np.float64)
    assert np.square(noise).mean() == pytest.approx(1.0, rel=1e-4)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / HZ)
    bands = [(100, 200), (400, 800), (1600, 3200)]
    db = [10 * np.log10(power[(hz >= low) & (hz < high)].mean()) for low, high in bands]
    assert np.diff(db) == pytest.approx([-exponent * 10 * np.log10(4)] * 2, abs=0.5)


@pytest.mark.parametrize("reverb_s", [0.15, 0.4, 0.8])
def test_a_room_decays_by_60_db_in_its_time(reverb_s: float) -> None:
    slopes = []
    for draw in range(8):
        response = room(HZ, reverb_s, generator(draw, "room"))
        assert np.square(response).sum() == pytest.approx(1.0)
        assert np.abs(response).argmax() == 0
        tail = response[1:]
        left_db = 10 * np.log10(np.cumsum(np.square(tail)[::-1])[::-1] / np.square(tail).sum())  # Schroeder
        span = (left_db < -5) & (left_db > -25)
        slopes.append(np.polyfit(np.flatnonzero(span) / HZ, left_db[span], 1)[0])
    assert -60 / np.mean(slopes) == pytest.approx(reverb_s, rel=0.05)


EFFECTS = [
    Augmentation(reverb_s=0.5, draw=3),
    Augmentation(noise_snr_db=15.0, noise_exponent=1.0, draw=3),
    Augmentation(telephone=True),
    Augmentation(codec="mp3", codec_kbps=16),
    Augmentation(codec="mp3", codec_kbps=32),
    Augmentation(codec="opus", codec_kbps=12),
    Augmentation(codec="opus", codec_kbps=32),
    Augmentation(0.3, 10.0, 2.0, True, "opus", 16, 3),
]


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda effect: "+".join(effect.as_dict()))
@pytest.mark.parametrize("num_samples", [40_000, 33_333])
def test_words_stay_where_they_are_and_nothing_clips(effect: Augmentation, num_samples: int) -> None:
    loud = speech_like(3.0, level=0.99)[:num_samples]
    made = augmented(loud, HZ, effect)
    assert made.dtype == np.float32
    assert len(made) == num_samples
    assert np.abs(made).max() <= LOUDEST
    assert made.tobytes() == augmented(loud, HZ, effect).tobytes()
    # Delay at a tenth of a millisecond's resolution: the place of the greatest cross-correlation.
    fine = 4
    one, other = (resample(audio, HZ, fine * HZ).astype(np.float64) for audio in (loud, made))
    lag = int(correlate(other, one, mode="full", method="fft").argmax()) - (len(one) - 1)
    assert abs(lag) / (fine * HZ) < 0.001
    assert not np.array_equal(made, loud)


def test_a_telephone_passes_its_band_alone() -> None:
    t = np.arange(HZ) / HZ
    for hz, least, most in ((100, 0, 0.05), (1000, 0.9, 1.05), (3000, 0.8, 1.05), (4500, 0, 0.02), (7000, 0, 0.02)):
        tone = (0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32)
        passed = by_telephone(tone, HZ)[2000:-2000]
        assert least <= passed.std() / tone.std() <= most, hz


def test_silence_and_a_click_are_no_trouble() -> None:
    click = np.zeros(400, np.float32)
    click[5] = 1.0
    for effect in EFFECTS:
        for audio in (np.zeros(400, np.float32), click):
            made = augmented(audio, HZ, effect)
            assert len(made) == 400
            assert np.isfinite(made).all()


def test_shares_and_parameters_are_drawn_as_asked() -> None:
    settings = AugmentSettings(
        noise_frac=0.3, noise_snr_db=(5, 15), reverb_frac=0.5, codec_frac=0.2, codecs=("mp3",), telephone_frac=0.1
    )
    texts = [f"text number {i}" for i in range(4000)]
    found = [draw_augmentation(text, settings, 0) or Augmentation() for text in texts]
    for name, share in (("noise_snr_db", 0.3), ("reverb_s", 0.5), ("codec", 0.2)):
        count = sum(getattr(effect, name) is not None for effect in found)
        assert abs(count / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5, name
    levels = [effect.noise_snr_db for effect in found if effect.noise_snr_db is not None]
    assert 5 <= min(levels) < 5.5
    assert 14.5 < max(levels) <= 15
    assert {effect.codec_kbps for effect in found if effect.codec} == {16, 24, 32}
    # each kind draws for itself, and a draw is the text's alone
    more = settings.model_copy(update={"telephone_frac": 1.0})
    for text, effect in zip(texts[:50], found, strict=False):
        other = draw_augmentation(text, more, 0)
        assert other is not None
        assert other.telephone
        assert {**other.as_dict(), "telephone": 0} == {**effect.as_dict(), "telephone": 0}
    assert draw_augmentation(texts[0], more, 1) != draw_augmentation(texts[0], more, 0)
    assert draw_augmentation("a", AugmentSettings(), 0) is None
    assert draw_augmentation("a", None, 0) is None
