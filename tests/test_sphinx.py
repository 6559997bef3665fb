"""PocketSphinx as an aligner: pronunciations, boundaries against another aligner's, and what it says of wrong text."""

import itertools
import json
from contextlib import suppress

import numpy as np
import pytest

from salad.errors import AlignmentError
from salad.speech.aligner import RATE_HZ, check_language
from salad.speech.audio import load_audio
from salad.speech.sphinx import SphinxAligner, arpabet
from salad.speech.windows import plain


@pytest.fixture(scope="module")
def aligner():
    return SphinxAligner()


@pytest.fixture(scope="module")
def lj(shared_data):
    """The excerpt of LJ Speech: audio, words of the transcript, and a Montreal aligner's words with their times."""
    folder = shared_data / "speech/ljspeech_excerpt"
    timed = {row["id"]: row["words"] for row in map(json.loads, (folder / "alignments.jsonl").open())}
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").open()]
    return [
        (
            load_audio(folder / row["audio"], RATE_HZ)[0],
            row["text"].split(),
            [tuple(word) for word in timed[row["id"]] if word[0]],
        )
        for row in rows
    ]


def mean_confidence(placed) -> float:
    return float(np.mean([word.confidence for word in placed]))


@pytest.mark.parametrize(
    ("phonemes", "expected"),
    [
        ("wˈɜːd", "W ER D"),
        ("tʃˈɜːtʃ", "CH ER CH"),
        ("ˌɪntəɹnˈæʃənəl", "IH N T AH R N AE SH AH N AH L"),
        ("bˈʌɾɚ", "B AH T ER"),
        ("fˈɛɹi", "F EH R IY"),
        ("bˈʌʔn\u0329", "B AH T AH N"),
        ("ɹˈʌʃə.", "R AH SH AH"),
        ("…", ""),
    ],
)
def test_espeaks_phonemes_become_the_dictionarys(phonemes, expected):
    assert arpabet(phonemes) == expected


def test_every_phone_is_one_that_the_models_know(aligner):
    from salad.speech.sphinx import _ARPABET

    known = set("AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY".split())
    known |= set("P R S SH T TH UH UW V W Y Z ZH".split())
    assert {phone for phones in _ARPABET.values() for phone in phones.split()} <= known


def test_boundaries_are_near_another_forced_aligners(aligner, lj):
    errors = []
    for audio, words, reference in lj[:10]:
        placed = aligner.align(audio, words)
        assert len(placed) == len(words)
        times = [time_s for word in placed for time_s in word[:2]]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= len(audio) / RATE_HZ + 1e-9
        if [plain(word) for word in words] == [plain(word) for word, _, _ in reference]:
            pairs = zip(placed, reference, strict=True)
            errors += [abs(t) for word, (_, s, e) in pairs for t in (word.start_s - s, word.end_s - e)]
    assert len(errors) > 200
    assert np.median(errors) < 0.02  # 0.012 over the whole excerpt
    assert np.percentile(errors, 90) < 0.06  # 0.038


def test_wrong_words_are_not_found_or_have_no_confidence(aligner, lj):
    right = [mean_confidence(aligner.align(audio, words)) for audio, words, _ in lj[:6]]
    wrong = []
    for (audio, _, _), (_, words, _) in itertools.pairwise(lj[:7]):
        with suppress(AlignmentError):
            wrong.append(mean_confidence(aligner.align(audio, words)))
    assert min(right) > 0.2
    assert max(wrong, default=0.0) < 0.1


def test_the_same_speech_is_placed_the_same_whatever_came_before(aligner, lj):
    audio, words, _ = lj[1]
    once = aligner.align(audio, words)
    aligner.align(*lj[2][:2])
    assert aligner.align(audio, words) == once
    assert SphinxAligner().align(audio, words) == once
    assert SphinxAligner().fingerprint == aligner.fingerprint


def test_words_that_no_dictionary_has_are_placed_too(aligner, lj):
    audio, words, _ = lj[1]  # "in being comparatively modern."
    before = aligner.align(audio, words)
    strange = ["“In”", "—", "beïng", "comparatiffly", "<noise>", "modern."]
    placed = aligner.align(audio, strange)
    for was, now in zip((0, 1, 2, 3), (0, 2, 3, 5), strict=True):
        assert placed[now].start_s == pytest.approx(before[was].start_s, abs=0.05)
        assert placed[now].confidence > 0.1
    assert placed[1].confidence is placed[4].confidence is None


def test_numbers_and_compounds_are_placed_whole(aligner, lj):
    audio, words, reference = next(part for part in lj if '"forty-two' in part[1])
    begin = next(start_s for word, start_s, _ in reference if word == "forty")
    end = next(end_s for word, _, end_s in reference if word == "two")
    for form in ("forty-two", "42"):
        written = [form if word == '"forty-two' else word for word in words]
        placed = aligner.align(audio, written)[written.index(form)]
        assert placed[:2] == pytest.approx((begin, end), abs=0.1)


@pytest.mark.parametrize("words", [[], ["日本", "—"], ["word"] * 200])
def test_what_can_not_be_aligned_says_so(aligner, words):
    with pytest.raises(AlignmentError):
        aligner.align(np.zeros(2 * RATE_HZ, dtype=np.float32), words)


def test_after_an_utterance_that_fails_the_next_is_placed_as_ever(aligner, lj):
    audio, words, _ = lj[1]
    before = aligner.align(audio, words)
    with pytest.raises(AlignmentError, match="can't work"):
        aligner._heard(audio, ["aword", "notinthedictionary"])
    assert aligner.align(audio, words) == before


def test_another_language_is_not_taken_for_english(aligner):
    for language in (None, "English", "en", "en-US", "en_GB"):
        check_language(aligner, language)
    for language in ("German", "de", "zh-CN"):
        with pytest.raises(AlignmentError, match="ctc:MODEL"):
            check_language(aligner, language)
