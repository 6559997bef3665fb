"""The check by an ASR, on a real voice: what says its text passes, and what was broken does not."""

import shutil

import numpy as np
import pytest

from salad.assets import resolve
from salad.recipe import QualitySettings
from salad.speech.audio import resample
from salad.speech.recognize import Recognizer
from salad.synthesize.quality import check_speech
from salad.synthesize.quality_files import read_quality, read_refused
from salad.synthesize.quality_words import character_error_rate
from salad.synthesize.voices import load_voice
from spoken_folder import HZ, folder_of

ASR = "whisper-tiny.en"
TEXTS = (
    "a surface coating for ceramics or porcelain that is made of glass",
    "Check or slow down the action or effect of something that has been set in motion.",
    "the typewriter key that is used for going back one space, and forty two others",
)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    voice = load_voice("piper-joe")
    said = [resample(voice.speak(text).audio, voice.rate_hz, HZ) for text in TEXTS]
    first = round(len(said[0]) * 0.6)
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * HZ)
    spoken = {
        **{f"good {i}": (audio, text) for i, (audio, text) in enumerate(zip(said, TEXTS, strict=True))},
        "wrong text": (said[1], TEXTS[0]),
        "looped": (np.concatenate([*[said[0][:first]] * 3, said[0][first:]]), TEXTS[0]),
        "no words": (noise.astype(np.float32), TEXTS[0]),
        "other rate": (resample(said[0], HZ, HZ // 2), TEXTS[0]),
    }
    return folder_of(tmp_path_factory.mktemp("broken") / "speech", spoken)


@pytest.mark.assets
def test_an_asr_hears_what_is_not_the_text(broken, tmp_path):
    there = shutil.copytree(broken, tmp_path / "speech")
    report = check_speech(there, ASR, QualitySettings(), threads=1)
    rows = {row["id"]: [reason.partition(": ")[0] for reason in row["reasons"]] for row in read_refused(there)}
    assert rows.keys() == {"wrong text", "looped", "no words", "other rate"}
    assert rows["wrong text"] == ["misspoken"]
    assert {"repeated", "misspoken"} <= set(rows["looped"])
    assert "misspoken" in rows["no words"]
    assert "too fast" in rows["other rate"]
    quality = read_quality(there)
    assert max(quality[f"good {i}"].cer for i in range(3)) < 0.15
    assert "forty two" in quality["good 2"].hypothesis.lower().replace("-", " ")  # as the text has it
    assert report.mean_cer == pytest.approx(np.mean([row.cer for row in quality.values()]))
    assert report.cer_quantiles["p100"] == max(row.cer for row in quality.values())
    assert report.worst[0].cer == report.cer_quantiles["p100"]
    assert check_speech(there, ASR, QualitySettings(max_cer=5.0, max_repeated_words=None), threads=1).num_refused == 1


@pytest.mark.assets
def test_the_short_window_hears_the_same_words(broken):
    recognizer = Recognizer(resolve(ASR), threads=1)
    from salad.speech.audio import load_cut
    from salad.speech.prepared import read_cuts, text_of

    for cut in read_cuts(broken)[:3]:
        audio = load_cut(cut, HZ)
        whole, short = (recognizer.transcribe(audio, True, window) for window in (False, True))
        assert character_error_rate(text_of(cut), short) <= character_error_rate(text_of(cut), whole) + 0.05
    silence = np.zeros(HZ, np.float32)
    assert len(recognizer.transcribe(silence, short_window=True)) < 20
    long = np.concatenate([load_cut(cut, HZ) for cut in read_cuts(broken)[:4]])
    assert len(long) > 12 * HZ
    assert recognizer.transcribe(long, short_window=True) == recognizer.transcribe(long)
