"""A pool of voices: who speaks what, how fast and how high, and that it sounds so."""

from __future__ import annotations

import numpy as np
import pytest

from salad.errors import RecipeError
from salad.recipe import AugmentSettings, VoiceSettings
from salad.speech.audio import Samples
from salad.synthesize.augment import Augmentation
from salad.synthesize.variation import Utterance, check_voices, drawn, spoken, stretched
from salad.synthesize.voices.voice import Spoken

HZ = 22_050
TEXTS = [f"This is sentence number {i} of many." for i in range(3000)]


def pool(**weights: float) -> list[VoiceSettings]:
    return [VoiceSettings(name=name, weight=weight) for name, weight in weights.items()]


def test_voices_are_drawn_by_weight_and_a_draw_is_the_texts_own() -> None:
    voices = pool(anna=3, ben=1)
    found = {text: drawn(text, voices, 0) for text in TEXTS}
    share = sum(utterance.voice == "anna" for utterance in found.values()) / len(TEXTS)
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(TEXTS)) ** 0.5
    # in another order, with fewer others, from a pool in another order: the same
    assert [drawn(text, voices[::-1], 0) for text in TEXTS[::-7]] == [found[text] for text in TEXTS[::-7]]
    assert any(drawn(text, voices, 1) != found[text] for text in TEXTS[:50])
    # one more voice takes texts over and moves none between the others
    more = [drawn(text, [*voices, *pool(carl=2)], 0).voice for text in TEXTS]
    assert abs(more.count("carl") / len(TEXTS) - 1 / 3) < 4 * (2 / 9 / len(TEXTS)) ** 0.5
    assert all(voice in ("carl", found[text].voice) for text, voice in zip(TEXTS, more, strict=True))


def test_speed_and_pitch_lie_evenly_between_their_bounds() -> None:
    voices = [VoiceSettings(name="anna", speed=(0.9, 1.2), pitch_semitones=(-2, 2))]
    found = [drawn(text, voices, 0) for text in TEXTS]
    for values, (low, high) in (
        ([utterance.speed for utterance in found], (0.9, 1.2)),
        ([utterance.semitones for utterance in found], (-2.0, 2.0)),
    ):
        assert low <= min(values) <= max(values) <= high
        counts, _ = np.histogram(values, bins=4, range=(low, high))
        assert abs(counts / len(TEXTS) - 0.25).max() < 4 * (0.25 * 0.75 / len(TEXTS)) ** 0.5
    assert abs(np.corrcoef([u.speed for u in found], [u.semitones for u in found])[0, 1]) < 0.08


def test_a_plain_utterance_keeps_its_name_and_every_change_gives_another() -> None:
    plain = Utterance("Good morning.", "anna")
    # sha256("FINGERPRINT|Good morning.")[:16], as it was before voices could vary
    assert plain.file_name("f0") == "0ffaa5f56476a1a5"
    others = [
        Utterance("Good morning!", "anna"),
        Utterance("Good morning.", "anna", speed=0.9),
        Utterance("Good morning.", "anna", semitones=0.9),
        Utterance("Good morning.", "anna", augmentation=Augmentation(telephone=True)),
        Utterance("Good morning.", "anna", augmentation=Augmentation(noise_snr_db=10.0, draw=1)),
        Utterance("Good morning.", "anna", augmentation=Augmentation(noise_snr_db=10.0, draw=2)),
    ]
    names = [utterance.file_name("f0") for utterance in [plain, *others]] + [plain.file_name("f1")]
    assert len(set(names)) == len(names)
    one = drawn("Good morning.", pool(anna=1), 0, AugmentSettings())
    assert one == plain


@pytest.mark.parametrize(
    ("voices", "message"),
    [
        ([], "no voice"),
        ([*pool(anna=1), *pool(anna=2)], "'anna' stands twice"),
        ([VoiceSettings(name="anna", speed=(0.1, 1.0))], "speed of 0.1 to 1"),
        ([VoiceSettings(name="anna", pitch_semitones=(0, 30))], "pitch of 0 to 30"),
    ],
)
def test_a_pool_that_makes_no_sense_is_refused(voices: list[VoiceSettings], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_voices(voices)


def vowel(hz: float, seconds: float = 2.0) -> Samples:
    """A voiced sound of that pitch: harmonics that fall, in syllables."""
    t = np.arange(round(seconds * HZ)) / HZ
    tone = sum(np.sin(2 * np.pi * k * hz * t + k) / k for k in range(1, 12))
    return np.asarray(0.3 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)) / 2, np.float32)


def pitch_hz(audio: Samples) -> float:
    """Median over frames of the autocorrelation's peak, by a parabola between samples."""
    size, found = round(0.06 * HZ), []
    for begin in range(size, len(audio) - 2 * size, size):
        frame = audio[begin : begin + size].astype(np.float64)
        own = np.correlate(frame, frame, "full")[size - 1 :] / np.arange(size, 0, -1)
        low, high = HZ // 450, HZ // 70
        peak = low + int(own[low:high].argmax())
        for multiple in (4, 3, 2):  # the least period that is as good
            shorter = round(peak / multiple)
            around = slice(max(low, shorter - 2), shorter + 3)
            if shorter > low and own[around].max() > 0.95 * own[peak]:
                peak = around.start + int(own[around].argmax())
                break
        left, here, right = own[peak - 1 : peak + 2]
        found.append(HZ / (peak + 0.5 * (left - right) / (left - 2 * here + right)))
    return float(np.median(found))


@pytest.mark.parametrize("semitones", [-5.0, -2.0, 0.7, 3.0])
@pytest.mark.parametrize("hz", [110.0, 210.0])
def test_pitch_moves_by_the_semitones_asked_for_and_duration_does_not(semitones: float, hz: float) -> None:
    audio = vowel(hz)
    assert pitch_hz(audio) == pytest.approx(hz, rel=0.005)
    moved = stretched(audio, HZ, 1.0, semitones)
    assert abs(len(moved) - len(audio)) <= 1
    assert 12 * np.log2(pitch_hz(moved) / hz) == pytest.approx(semitones, abs=0.1)
    assert moved.tobytes() == stretched(audio, HZ, 1.0, semitones).tobytes()


@pytest.mark.parametrize("speed", [0.7, 0.9, 1.15, 1.6])
def test_speed_changes_duration_and_not_pitch(speed: float) -> None:
    audio = vowel(150.0)
    made = stretched(audio, HZ, speed, 0.0)
    assert len(made) == round(len(audio) / speed)
    assert 12 * np.log2(pitch_hz(made) / 150) == pytest.approx(0.0, abs=0.1)


class Beeper:
    """A real, small voice: a beep a word, at times it knows; it can go up to a fifth faster by itself."""

    name, rate_hz, fingerprint, deterministic = "beeper", HZ, "b", True
    speeds, semitones = (1.0, 1.2), (0.0, 0.0)

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        assert 1.0 <= speed <= 1.2
        assert semitones == 0.0
        step = round(0.5 * HZ / speed)
        beep = vowel(200.0, 0.25 / speed)
        words = text.split()
        audio = np.zeros(step * len(words), np.float32)
        for i in range(len(words)):
            audio[i * step : i * step + len(beep)] = beep
        return Spoken(audio, [(i * step / HZ, (i * step + len(beep)) / HZ) for i in range(len(words))])


@pytest.mark.parametrize(
    ("speed", "semitones"), [(1.0, 0.0), (1.1, 0.0), (1.4, 0.0), (0.8, 0.0), (0.9, 3.0), (1.0, -3.0)]
)
def test_word_times_move_with_the_speed(speed: float, semitones: float) -> None:
    audio, words = spoken(Beeper(), Utterance("one two three four five", "beeper", speed, semitones))
    assert len(audio) / HZ == pytest.approx(2.5 / speed, abs=0.001)
    loud = np.abs(audio) > 0.02
    assert words is not None
    for start_s, end_s in words:
        # WSOLA moves sound by up to half its window of 1/24 s, and lets it begin a window early.
        inside = loud[round((start_s + 0.02) * HZ) : round((end_s - 0.02) * HZ)]
        assert inside.mean() > 0.5
        after = loud[round((end_s + 0.02) * HZ) : round((start_s + 0.5 / speed - 0.045) * HZ)]
        assert not after.any()
