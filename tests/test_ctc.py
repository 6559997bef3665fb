"""CTC alignment: the dynamic programme against every path, the spelling, and a tiny acoustic model from a folder."""

import itertools

import numpy as np
import pytest
import torch

from salad.errors import AlignmentError, AssetError
from salad.speech import ctc
from salad.speech.align import load_aligner
from salad.speech.aligner import RATE_HZ, SHORTEST_WORD_S
from salad.speech.ctc import CtcAligner, Spelling, best_path, place, spell
from tiny_ctc import save_tiny_ctc

BLANK = 0


def collapsed(tokens) -> list[int]:
    """CTC's map from frames to text: runs become one, then blanks go."""
    return [token for token, _ in itertools.groupby(tokens) if token != BLANK]


def best_of_all(log_probs_FV: np.ndarray, targets: list[int]) -> float:
    """The reference: the likeliest of all V^F ways to label the frames that collapse to the targets."""
    num_frames, num_tokens = log_probs_FV.shape
    scores = [
        log_probs_FV[np.arange(num_frames), labels].sum()
        for labels in itertools.product(range(num_tokens), repeat=num_frames)
        if collapsed(labels) == targets
    ]
    return max(scores, default=-np.inf)


def random_log_probs(rng: np.random.Generator, num_frames: int, num_tokens: int) -> np.ndarray:
    logits = rng.normal(0, 2, (num_frames, num_tokens))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize("targets", [[1], [1, 2], [1, 1], [2, 1, 2], [1, 1, 2], [2, 2, 2], [1, 2, 2, 1]])
def test_the_path_is_the_best_of_all_paths(targets):
    rng = np.random.default_rng(len(targets))
    needed = len(targets) + sum(a == b for a, b in itertools.pairwise(targets))
    for num_frames in range(1, 8):
        log_probs_FV = random_log_probs(rng, num_frames, 3)
        if num_frames < needed:
            assert best_of_all(log_probs_FV, targets) == -np.inf
            with pytest.raises(AlignmentError, match="fit"):
                best_path(log_probs_FV, targets, BLANK)
            continue
        states_F = best_path(log_probs_FV, targets, BLANK)
        labels = [BLANK if state % 2 == 0 else targets[state // 2] for state in states_F]
        assert collapsed(labels) == targets
        score = log_probs_FV[np.arange(num_frames), labels].sum()
        assert score == pytest.approx(best_of_all(log_probs_FV, targets), abs=1e-12)


def test_what_would_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(ctc, "MAX_CELLS", 100)
    with pytest.raises(AlignmentError, match="shorter cuts"):
        best_path(np.zeros((50, 3)), [1], BLANK)


def emissions(labels: list[int], num_tokens: int, sure: float = 0.9) -> np.ndarray:
    """Log-probabilities of a model that hears just these labels."""
    probs_FV = np.full((len(labels), num_tokens), (1 - sure) / (num_tokens - 1))
    probs_FV[np.arange(len(labels)), labels] = sure
    return np.log(probs_FV)


def test_known_words_come_back_to_the_frame_with_their_probability():
    #               c  c     a        t  |  o  o     o  |  |  x
    labels = [0, 0, 1, 1, 0, 2, 0, 0, 3, 4, 5, 5, 0, 5, 4, 4, 6, 0, 0]
    words = Spelling([1, 2, 3, 4, 5, 5, 4, 6], [(0, 3), (4, 6), (7, 8)])
    placed = place(emissions(labels, 8), words, BLANK)
    assert [(begin, end) for begin, end, _ in placed] == [(2, 9), (10, 14), (16, 17)]
    assert [confidence for *_, confidence in placed] == pytest.approx([0.9] * 3)


def test_the_confidence_is_the_mean_over_the_words_character_frames():
    log_probs_FV = emissions([1, 1, 0, 2], 3, sure=0.8)
    log_probs_FV[1] = np.log([0.3, 0.5, 0.2])
    ((begin, end, confidence),) = place(log_probs_FV, Spelling([1, 2], [(0, 2)]), BLANK)
    assert (begin, end) == (0, 4)
    assert confidence == pytest.approx((0.8 + 0.5 + 0.8) / 3)


def test_a_wildcard_takes_what_lies_between_its_neighbours():
    wildcard = 5
    labels = [0, 1, 2, 0, 3, 3, 4, 3, 0, 1, 0]  # "ab", something, "a"
    placed = place(emissions(labels, 5), Spelling([1, 2, wildcard, 1], [(0, 2), (2, 3), (3, 4)]), BLANK)
    assert placed[0][:2] == (1, 3)
    assert placed[2][:2] == (9, 10)
    assert placed[1][0] <= 4 < 8 <= placed[1][1]
    assert placed[1][2] is None


UPPER = {letter: index for index, letter in enumerate("_|ABCDEFGHIJKLMNOPQRSTUVWXYZ'")}
LOWER = {letter: index for index, letter in enumerate("_abcdefghijklmnopqrstuvwxyzß")}


@pytest.mark.parametrize(
    ("word", "vocabulary", "expected"),
    [
        ("Don’t,", UPPER, "DON'T"),
        ("naïve", UPPER, "NAIVE"),
        ("42nd", UPPER, "FORTYSECOND"),
        ("Straße", LOWER, "straße"),
        ("Straße", UPPER, "STRASSE"),
        ("ＡＢ", LOWER, "ab"),
        ("don't", LOWER, "dont"),
        ("日本", UPPER, None),
        ("—", UPPER, None),
        ("<noise>", UPPER, None),
    ],
)
def test_a_word_is_spelled_in_the_models_own_characters(word, vocabulary, expected):
    spelling = spell([word], vocabulary, len(vocabulary), None)
    letters = {index: letter for letter, index in vocabulary.items()}
    assert "".join(letters.get(token, "*") for token in spelling.ids) == (expected or "*")
    assert spelling.spans == [(0, len(spelling.ids))]


def test_words_are_parted_by_the_models_delimiter():
    spelling = spell(["a", "—", "bc"], UPPER, 99, UPPER["|"])
    assert spelling.ids == [UPPER["A"], 1, 99, 1, UPPER["B"], UPPER["C"]]
    assert spelling.spans == [(0, 1), (2, 3), (4, 6)]


@pytest.fixture(scope="module")
def acoustic_model(tmp_path_factory):
    return save_tiny_ctc(tmp_path_factory.mktemp("ctc") / "tiny-wav2vec2")


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.1, 3 * RATE_HZ).astype(np.float32)


@pytest.mark.usefixtures("one_thread")
def test_a_model_from_a_folder_places_every_word_in_order(acoustic_model, noise):
    aligner = load_aligner(f"ctc:{acoustic_model}", threads=1)
    words = ["Abe", "can", "日本", "come", "too,", "—", "a", "aa"]
    placed = aligner.align(noise, words)
    assert len(placed) == len(words)
    times = [time_s for word in placed for time_s in word[:2]]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= 3.0
    assert all(word.end_s - word.start_s >= SHORTEST_WORD_S - 1e-9 for word in placed)
    assert [word.confidence is None for word in placed] == [w in ("日本", "—") for w in words]
    assert aligner.align(noise, words) == placed
    assert CtcAligner(acoustic_model, 1).fingerprint == aligner.fingerprint


@pytest.mark.usefixtures("one_thread")
def test_frames_are_as_many_as_transformers_says_and_stand_where_they_hear(acoustic_model, noise):
    aligner = CtcAligner(acoustic_model, threads=1)
    for num_samples in (1, 399, 400, 719, 720, 16_000, 30_001):
        log_probs_FV = aligner.log_probs(noise[:num_samples])
        frames = int(aligner.model._get_feat_extract_output_lengths(torch.tensor(max(400, num_samples))))
        assert log_probs_FV.shape == (frames, aligner.model.config.vocab_size)
        assert np.exp(log_probs_FV).sum(axis=1) == pytest.approx(1, abs=1e-5)
    # 400 samples are heard for 320: a frame's own stretch begins 40 samples in.
    (word,) = aligner.align(noise[:RATE_HZ], ["—a"])
    frame = (word.start_s * RATE_HZ - 40) / 320
    assert frame == pytest.approx(round(frame), abs=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_windows_with_context_hear_what_one_window_hears(acoustic_model, noise, monkeypatch):
    aligner = CtcAligner(acoustic_model, threads=1)
    aligner.model.wav2vec2.encoder.layers = torch.nn.ModuleList()  # attention reaches further than any context
    whole_FV = aligner.log_probs(noise)
    monkeypatch.setattr(ctc, "WINDOW_S", 0.5)
    monkeypatch.setattr(ctc, "CONTEXT_S", 0.1)
    assert aligner.log_probs(noise) == pytest.approx(whole_FV, abs=1e-4)
    monkeypatch.setattr(ctc, "CONTEXT_S", 0.0)
    assert np.abs(aligner.log_probs(noise) - whole_FV).max() > 1e-3


@pytest.mark.usefixtures("one_thread")
def test_what_can_not_be_aligned_says_so(acoustic_model, noise, tmp_path):
    aligner = CtcAligner(acoustic_model, threads=1)
    for words, message in [([], "empty"), (["日本"], "script"), (["a"] * 151, "fit"), (["abcdef"] * 30, "fit")]:
        with pytest.raises(AlignmentError, match=message):
            aligner.align(noise, words)
    with pytest.raises(AssetError, match="CTC"):
        CtcAligner(tmp_path, threads=1)
