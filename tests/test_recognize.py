"""Recognition and alignment: on Whisper tiny.en where it is fetched, and the parts that need no model."""

import json
from pathlib import Path

import numpy as np
import pytest

from salad.assets import resolve
from salad.errors import AlignmentError, AssetError
from salad.speech.aligner import RATE_HZ, SHORTEST_WORD_S, PlacedWord
from salad.speech.audio import load_audio
from salad.speech.recognize import Recognizer
from salad.speech.windows import plain, quiet_windows, share_words, speech_span

LJ = Path(__file__).parents[2] / "shared/data/speech/ljspeech_excerpt"
needs_lj = pytest.mark.skipif(not LJ.is_dir(), reason="the LJ Speech excerpt is not beside the checkout")


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(resolve("whisper-tiny.en"), threads=2)


def lj(count: int) -> list[tuple[np.ndarray, list[str], list[tuple[str, float, float]]]]:
    spoken = {row["id"]: row for row in map(json.loads, (LJ / "alignments.jsonl").open())}
    rows = [json.loads(line) for line in (LJ / "manifest.jsonl").open()][:count]
    return [
        (
            load_audio(LJ / row["audio"], RATE_HZ)[0],
            row["text"].split(),
            [tuple(word) for word in spoken[row["id"]]["words"] if word[0]],
        )
        for row in rows
    ]


def is_in_order(placed: list[PlacedWord], duration_s: float) -> bool:
    times = [time_s for word in placed for time_s in (word.start_s, word.end_s)]
    longer = all(word.end_s - word.start_s >= SHORTEST_WORD_S - 1e-9 for word in placed)
    return longer and times == sorted(times) and times[0] >= 0 and times[-1] <= duration_s + 1e-9


def errors_s(placed, words, reference):
    """Boundary errors where the reference's words are the transcript's."""
    if [plain(word) for word in words] != [plain(word) for word, _, _ in reference]:
        return []
    pairs = zip(placed, reference, strict=True)
    return [abs(t) for word, (_, start, end) in pairs for t in (word.start_s - start, word.end_s - end)]


@pytest.mark.assets
@needs_lj
def test_alignment_is_near_a_forced_aligners(recognizer):
    errors = []
    for audio, words, reference in lj(12):
        placed = recognizer.align(audio, words)
        assert len(placed) == len(words)
        assert is_in_order(placed, len(audio) / RATE_HZ)
        assert all(0 <= word.confidence <= 1 for word in placed)
        errors += errors_s(placed, words, reference)
    assert len(errors) > 200
    assert np.median(errors) < 0.075  # 0.06; without the corrections 0.10
    assert np.percentile(errors, 90) < 0.25


@pytest.mark.assets
@needs_lj
def test_a_clip_longer_than_a_window_is_aligned_as_well(recognizer):
    parts = lj(6)
    audio = np.concatenate([part[0] for part in parts])
    assert len(audio) > 30 * RATE_HZ
    words = [word for part in parts for word in part[1]]
    placed = recognizer.align(audio, words)
    assert is_in_order(placed, len(audio) / RATE_HZ)
    errors, first, offset_s = [], 0, 0.0
    for part, part_words, reference in parts:
        shifted = [(word, start + offset_s, end + offset_s) for word, start, end in reference]
        errors += errors_s(placed[first : first + len(part_words)], part_words, shifted)
        first, offset_s = first + len(part_words), offset_s + len(part) / RATE_HZ
    assert np.median(errors) < 0.1


@pytest.mark.assets
@needs_lj
def test_transcripts_repeat_and_spell_numbers(recognizer):
    audio = lj(7)[6][0]  # "… as in the 42-line Bible …"
    once, again = recognizer.transcribe(audio), recognizer.transcribe(audio)
    assert once == again
    assert not any(letter.isdigit() for letter in recognizer.transcribe(audio, spell_numbers=True))
    assert recognizer.transcribe(np.zeros(RATE_HZ, dtype=np.float32)) == ""


@pytest.mark.assets
def test_words_come_back_whatever_they_are(recognizer):
    words = ["“Well,”", "—", "naïve", "3.14", "日本", "don't", "..."]
    noise = np.random.default_rng(0).normal(0, 0.01, 2 * RATE_HZ).astype(np.float32)
    placed = recognizer.align(noise, words)
    assert len(placed) == len(words)
    assert is_in_order(placed, 2.0)


@pytest.mark.assets
@pytest.mark.parametrize("words", [[], ["<|endoftext|>"], ["far"] * 100, ["antidisestablishmentarianism"] * 90])
def test_what_can_not_be_aligned_says_so(recognizer, words):
    with pytest.raises(AlignmentError):
        recognizer.align(np.zeros(RATE_HZ * (1 if len(words) == 100 else 9), dtype=np.float32), words)


def test_a_folder_that_is_no_model_is_an_asset_error(tmp_path):
    with pytest.raises(AssetError, match=r"model\.bin"):
        Recognizer(tmp_path, threads=1)


def test_windows_cover_the_audio_and_cut_in_the_silence():
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, 70 * 100).astype(np.float32)
    audio[2500:2560] = 0.0
    windows = quiet_windows(audio, 100, 30.0)
    assert [start for start, _ in windows] == [0, *[end for _, end in windows[:-1]]]
    assert windows[-1][1] == len(audio)
    assert all(end - start <= 3000 for start, end in windows)
    assert 2500 < windows[0][1] < 2560


def test_words_go_to_the_window_they_were_heard_in():
    words = ["One,", "two", "three", "four", "five", "six."]
    assert share_words(words, [["one", "too", "three"], ["five", "six"]]) == [words[:4], words[4:]]
    assert share_words(words, [[], ["one"]]) == [[], words]
    assert share_words(words, [[], []]) == [words, []]


def test_speech_span_leaves_silence_out():
    audio = np.zeros(RATE_HZ, dtype=np.float32)
    assert speech_span(audio, RATE_HZ) == (0.0, 1.0)
    audio[4000:8000] = 0.5
    start_s, end_s = speech_span(audio, RATE_HZ)
    assert abs(start_s - 0.25) <= 0.02
    assert abs(end_s - 0.5) <= 0.02
