"""When a Piper voice speaks each word: the added output, the phonemes of words, and the times against the sound."""

import numpy as np
import pytest

from salad.errors import AlignmentError
from salad.speech.aligner import RATE_HZ
from salad.speech.audio import resample
from salad.speech.prepared import read_cuts, words_of
from salad.speech.sphinx import SphinxAligner
from salad.synthesize.pool import synthesize
from salad.synthesize.voices import load_voice
from salad.synthesize.voices.piper_times import with_durations, word_spans
from salad.texts.text import Text


def field(number: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def node(op_type: bytes, output: bytes) -> bytes:
    return field(1, field(1, b"in") + field(2, output) + field(4, op_type))


def graph(*parts: bytes) -> bytes:
    return b"\x08\x07" + field(7, b"".join(parts)) + field(8, b"opset")  # a number, the graph, another field


def test_the_one_ceilings_output_is_added_behind_the_model():
    model = graph(node(b"Exp", b"e"), node(b"Ceil", b"w"), field(12, field(1, b"audio")))
    assert with_durations(model) == model + field(7, field(12, field(1, b"w")))


@pytest.mark.parametrize(
    "parts",
    [
        [node(b"Exp", b"e")],
        [node(b"Ceil", b"w"), node(b"Ceil", b"v")],
        [node(b"Ceil", b"w"), field(12, field(1, b"w"))],
    ],
)
def test_a_model_without_one_hidden_ceiling_stays_as_it_is(parts):
    assert with_durations(graph(*parts)) is None


@pytest.mark.parametrize(
    ("spoken", "alone", "expected"),
    [
        ("ɡˈʊd mˈɔːn.", ["ɡˈʊd", "mˈɔːn"], ["ɡˈʊd", " mˈɔːn"]),
        (" ɡˈʊd ", ["ɡˈʊd"], ["ɡˈʊd"]),
        ("ʌvðə ɹˈoʊd", ["ˈʌv", "ðə", "ɹˈoʊd"], ["ʌv", "ðə", " ɹˈoʊd"]),  # espeak joins "of the"
        ("tʃˈɛk əvə dˈɔɡ", ["tʃˈɛk", "ʌv", "ˈeɪ", "dˈɔːɡ"], ["tʃˈɛk", " əv", "ə", " dˈɔɡ"]),
        ("fɚɹ ɐ kˈæt", ["fɔːɹ", "ˈeɪ", "kˈæt"], ["fɚɹ", " ɐ", " kˈæt"]),  # other vowels in company
        ("fˈɔːɹ ɛɡzˈæmpəl, ðˈɪs", ["fˈɔːɹ ɛɡzˈæmpəl", "ðˈɪs"], ["fˈɔːɹ ɛɡzˈæmpəl", "ðˈɪs"]),  # "e.g." is two
        (" ˈɑː.   bˈiː ", ["ˈɑː", "bˈiː"], ["ˈɑː", "bˈiː"]),  # two sentences
        ("bˈʌtn̩ ɪt", ["bˈʌtn̩", "ɪt"], ["bˈʌtn̩", " ɪt"]),
    ],
)
def test_each_word_finds_its_phonemes(spoken, alone, expected):
    spans = word_spans(spoken, alone)
    assert ["".join(spoken[begin:end]) for begin, end in spans] == expected


def test_a_word_that_is_not_spoken_leaves_all_to_an_aligner():
    assert word_spans("ɡˈʊd", ["ɡˈʊd", ""]) is None
    assert word_spans("", ["ɡˈʊd"]) is None


SENTENCES = [
    "the act of moving in a straight line to the end of the road",
    "a person who is able to read, for instance a well-known author of the United States",
    "It is one of the best. Do you know what it was?",
]


@pytest.mark.assets
def test_words_lie_where_there_is_sound_and_pauses_where_there_is_none():
    voice = load_voice("piper-joe")
    audio, times = voice.speak("Good morning. How are you?")
    assert len(times) == 5
    loudness = [float(np.sqrt(np.mean(audio[round(a * 22050) : round(b * 22050)] ** 2))) for a, b in times]
    pause = audio[round(times[1][1] * 22050) + 400 : round(times[2][0] * 22050) - 400]
    assert min(loudness) > 10 * np.sqrt(np.mean(pause**2))
    assert [t for word in times for t in word] == sorted(t for word in times for t in word)
    assert times[-1][1] <= len(audio) / 22050


@pytest.mark.assets
def test_times_agree_with_a_forced_aligners():
    voice, aligner = load_voice("piper-joe"), SphinxAligner()
    differences = []
    for text in SENTENCES:
        audio, times = voice.speak(text)
        placed = aligner.align(resample(audio, voice.rate_hz, RATE_HZ), text.split())
        pairs = zip(placed, times, strict=True)
        differences += [abs(t) for word, (start, end) in pairs for t in (word.start_s - start, word.end_s - end)]
    assert len(differences) == 2 * sum(len(text.split()) for text in SENTENCES)
    assert np.median(differences) < 0.02  # 0.012 over 40 definitions
    assert max(differences) < 0.15


@pytest.mark.assets
def test_synthesized_cuts_carry_their_word_timings(tmp_path):
    texts = [Text(str(i), text, "d", "s", "l") for i, text in enumerate(SENTENCES[:2])]
    for out in ("one", "two"):  # the second finds the first's audio, and the times beside it
        synthesize(texts, "piper-joe", tmp_path / out, 1, audio_dir=tmp_path / "audio")
        cuts = read_cuts(tmp_path / out)
        for cut, text in zip(cuts, texts, strict=True):
            words = words_of(cut)
            assert [word.text for word in words] == text.text.split()
            assert 0 <= words[0].start_s < words[-1].end_s <= cut.duration
            assert cut.custom == {"timed_by": "voice en_US-joe-medium"}
            assert {item.score for item in cut.supervisions[0].alignment["word"]} == {None}
    (tmp_path / "audio" / f"{cuts[0].recording.id}.words.json").unlink()
    synthesize(texts, "piper-joe", tmp_path / "three", 1, audio_dir=tmp_path / "audio")
    with pytest.raises(AlignmentError, match="salad align"):  # audio of a version that kept no times
        words_of(read_cuts(tmp_path / "three")[0])
