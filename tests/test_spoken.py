"""Texts → speech the model can hear: what is refused is neither timed nor encoded, and a second call makes nothing."""

import json

import pytest

from salad.errors import DataError
from salad.model.features import FeatureStore
from salad.recipe import AugmentSettings, QualitySettings
from salad.speech.prepared import read_cuts, read_info, words_of
from salad.spoken import speak_folder
from salad.synthesize.quality_files import read_quality, read_refused
from salad.texts.text import Text
from tiny_speech import Loudness

SAID = {
    "a": "a surface coating for ceramics or porcelain",
    "b": "Check or slow down the action of 42 others.",
    "strange": "Wzgrnk plq mbfth vrrt, xqzrtv bldgmp hnnk.",
    "none": "☃",
}
TEXTS = [Text(name, text, "all", "test", "CC0", None) for name, text in SAID.items()]


def speak(texts, out, told=None, encoder=None, **quality):
    return speak_folder(
        texts,
        out,
        voices="piper-joe",
        augment=AugmentSettings(),
        quality=QualitySettings(**quality),
        asr="whisper-tiny.en",
        aligner="pocketsphinx",
        encoder=encoder or Loudness(),
        threads=1,
        seed=0,
        audio_dir=out.parent / "audio",
        progress=lambda done, total, note="": told.append(note) if told is not None else None,
    )


def files_of(out):
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths if path.name != "alignment.json"}


@pytest.mark.assets
def test_what_is_refused_is_neither_timed_nor_encoded(tmp_path):
    out, told, encoder = tmp_path / "spoken" / "some", [], Loudness()
    report = speak(TEXTS, out, told, encoder)
    cuts = read_cuts(out)
    assert [cut.id for cut in cuts] == ["a", "b"]
    assert [len(words_of(cut)) for cut in cuts] == [7, 9]  # "forty-two" is one
    assert encoder.num_encoded == 2
    assert [row["id"] for row in read_refused(out)] == ["strange"]
    assert [json.loads(line)["id"] for line in (out / "rejected.jsonl").read_text().splitlines()] == ["none"]
    assert list(dict.fromkeys(told)) == ["speaking some", "checking some", "aligning some", "encoding some"]
    assert [(row["where"], row["count"]) for row in report["rejected"]] == [
        ("synthesis of some", 1),
        ("quality of some", 1),
    ]
    assert report["num_cuts"] == 2
    assert report["seconds"] == pytest.approx(sum(cut.duration for cut in cuts))
    assert report["quality"]["num_checked"] == 3
    assert report["quality"]["mean_cer"] == pytest.approx(sum(row.cer for row in read_quality(out).values()) / 3)
    assert read_info(out)["licence"].startswith("texts: CC0; voice: ")
    assert FeatureStore(out, "a/loudness") is not None

    before, again = files_of(out), Loudness()
    assert speak(TEXTS, out, encoder=again) == report
    assert again.num_encoded == 0
    assert files_of(out) == before

    # looser thresholds: what was refused is taken back, timed and encoded; nothing else is
    speak(TEXTS, out, encoder=again, max_cer=None, seconds_per_character=None)
    assert [cut.id for cut in read_cuts(out)] == ["a", "b", "strange"]
    assert again.num_encoded == 1


@pytest.mark.assets
def test_when_all_are_refused_it_says_how_to_go_on(tmp_path):
    with pytest.raises(DataError, match=r"all 1 utterances are refused, most for.*salad check"):
        speak(TEXTS[2:3], tmp_path / "spoken" / "bad")
    assert [row["id"] for row in read_refused(tmp_path / "spoken" / "bad")] == ["strange"]
