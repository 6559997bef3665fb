"""Forced alignment by the character probabilities of an acoustic model trained with CTC.

The transcript's characters, with a blank before, between and after them, are the states; a path stays in a state, goes
to the next, or skips a blank between two different characters. The likeliest path that begins at the start and ends at
the end is found by dynamic programming (Viterbi), exactly, over the whole clip. A word lasts from the first to the last
frame of its characters, blanks after it left out, and its confidence is the mean probability of those frames'
characters.

A word with no character that the model knows is a wildcard: it matches anything at no cost, and has no confidence
(as in torchaudio's forced alignment tutorial).

Models are transformers' `…ForCTC` with a convolutional front end on samples: Wav2Vec2, HuBERT, WavLM and what is
built like them (facebook/wav2vec2-base-960h, the MMS aligners with one vocabulary).
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from salad.assets import digest_of
from salad.errors import AlignmentError, AssetError
from salad.speech.aligner import RATE_HZ, PlacedWord, check_room, in_words, spread
from salad.speech.audio import Samples
from salad.workers import gpu_of_worker

MAX_CELLS = 1 << 30
"""Frames × states of one alignment, one byte each: about 14 minutes of speech at 50 Hz and 15 characters a second."""
WINDOW_S = 30.0
CONTEXT_S = 2.0


class Spelling(NamedTuple):
    """A transcript in a model's characters: `ids`, and for each word the first and one past the last of its ids."""

    ids: list[int]
    spans: list[tuple[int, int]]


class CtcAligner:
    """Places words by an acoustic model's character probabilities.

    Args:
        model: a folder as transformers' `save_pretrained` leaves it, with the tokenizer and the feature extractor.
        threads: PyTorch's CPU threads, for the process; ignored on a GPU.
        name: what to call it; the folder's name when left out.
        device: "auto" (a GPU where there is one), "cpu", "cuda" ….

    Raises:
        AssetError: the folder holds no such model, or its vocabulary is not the model's.
    """

    def __init__(self, model: Path, threads: int, name: str | None = None, device: str = "auto") -> None:
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda":
            device = f"cuda:{gpu_of_worker(torch.cuda.device_count()) or 0}"
        try:
            self.model = AutoModelForCTC.from_pretrained(model).to(device).eval()
            tokenizer = AutoTokenizer.from_pretrained(model)
            self._extractor = AutoFeatureExtractor.from_pretrained(model)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise AssetError(f"{model} can't be loaded as a CTC acoustic model ({reason}).") from error
        config = self.model.config
        vocabulary = tokenizer.get_vocab()
        _check(model, self.model, self._extractor, vocabulary)
        # Tokens that a tokenizer adds on its own have no output of the model.
        self._vocabulary: dict[str, int] = {c: token for c, token in vocabulary.items() if token < config.vocab_size}
        self._delimiter: int | None = self._vocabulary.get(getattr(tokenizer, "word_delimiter_token", None) or "|")
        # CTC models of transformers use the padding token; some that were trained elsewhere have one of its own.
        self._blank: int = self._vocabulary.get("<blank>", config.pad_token_id)
        self._stride: int = math.prod(config.conv_stride)
        self._reach = 1  # samples that one frame hears before the transformer
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self._reach = (self._reach - 1) * stride + kernel
        self._folder = model
        self._name = name or model.name

    @property
    def name(self) -> str:
        """For instance "ctc:facebook/wav2vec2-base-960h"."""
        return f"ctc:{self._name}"

    @property
    def english_only(self) -> bool:
        """No: characters that its vocabulary lacks are not placed."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model's folder and of the windows it is heard through."""
        return hashlib.sha256(f"{digest_of(self._folder)} {WINDOW_S} {CONTEXT_S}".encode()).hexdigest()

    def align(self, audio: Samples, words: Sequence[str]) -> list[PlacedWord]:
        """When each of `words` is spoken in `audio` [num_samples] at 16 kHz; see `salad.speech.aligner.Aligner`.

        Raises:
            AlignmentError: no words, none with a character that the model knows, more than the clip has room for, or
                speech so long that the search would not fit into memory (`MAX_CELLS`).
        """
        duration_s = len(audio) / RATE_HZ
        check_room(words, duration_s)
        log_probs_FV = self.log_probs(audio)
        wildcard = log_probs_FV.shape[1]
        spelling = spell(words, self._vocabulary, wildcard, self._delimiter)
        if all(token in (wildcard, self._delimiter) for token in spelling.ids):
            raise AlignmentError(
                f"no word of the transcript has a character that {self.name} knows; is it in another script?"
            )
        # A frame stands for its stride, which lies in the middle of the samples that it hears.
        lead_s, frame_s = (self._reach - self._stride) / 2 / RATE_HZ, self._stride / RATE_HZ
        placed = [
            PlacedWord(begin * frame_s + lead_s, end * frame_s + lead_s, confidence)
            for begin, end, confidence in place(log_probs_FV, spelling, self._blank)
        ]
        return spread(placed, duration_s)

    def log_probs(self, audio: Samples) -> NDArray[np.float32]:
        """Log-probabilities of the vocabulary, [num_frames, num_tokens], for `audio` [num_samples] at 16 kHz.

        Long audio is heard in windows of `WINDOW_S` with `CONTEXT_S` on both sides, whose frames are thrown away.
        """
        padded = np.pad(audio, (0, max(0, self._reach - len(audio))))
        if self._extractor.do_normalize:
            padded = (padded - padded.mean()) / np.sqrt(padded.var() + 1e-7)
        num_frames = 1 + (len(padded) - self._reach) // self._stride
        hop, context = (round(length_s * RATE_HZ / self._stride) for length_s in (WINDOW_S, CONTEXT_S))
        pieces = []
        for begin in range(0, num_frames, hop):
            end = min(begin + hop, num_frames)
            first, last = max(0, begin - context), min(end + context, num_frames)
            window = padded[first * self._stride : (last - 1) * self._stride + self._reach]
            pieces.append(self._run(window)[begin - first : end - first])
        return np.concatenate(pieces)

    @torch.inference_mode()
    def _run(self, window: Samples) -> NDArray[np.float32]:
        values = torch.from_numpy(np.asarray(window, dtype=np.float32))[None].to(self.model.device, self.model.dtype)
        logits_FV = self.model(values).logits[0].float()
        return np.asarray(torch.log_softmax(logits_FV, dim=-1).cpu())


def _check(folder: Path, model: Any, extractor: object, vocabulary: dict[str, Any]) -> None:
    if not hasattr(model.config, "conv_stride") or getattr(extractor, "sampling_rate", RATE_HZ) != RATE_HZ:
        raise AssetError(
            f"{folder} is no acoustic model on {RATE_HZ} Hz samples ({type(model).__name__}); name one of the kind of "
            "Wav2Vec2, HuBERT or WavLM."
        )
    if model.config.pad_token_id is None or not all(isinstance(token, int) for token in vocabulary.values()):
        raise AssetError(f"{folder} has a vocabulary for each of several languages; name a model with one.")


def spell(words: Sequence[str], vocabulary: Mapping[str, int], wildcard: int, delimiter: int | None) -> Spelling:
    """`words` in the model's characters; a word that has none of them is the one token `wildcard`.

    Between two words stands `delimiter`, where the model has one.
    """
    ids: list[int] = []
    spans: list[tuple[int, int]] = []
    for word in words:
        if ids and delimiter is not None:
            ids.append(delimiter)
        first = len(ids)
        ids += _characters(word, vocabulary) or [wildcard]
        spans.append((first, len(ids)))
    return Spelling(ids, spans)


def _characters(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """The ids of a word's characters in the nearest form that the vocabulary has; what it hasn't is left out."""
    found: list[int] = []
    for letter in in_words(word):
        bare = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
        for form in (letter, letter.upper(), letter.lower(), bare.upper(), bare.lower()):
            known = [vocabulary[c] for c in form if _is_letter(c) and c in vocabulary]
            if known and len(known) == len(form):
                found += known
                break
    return found


def _is_letter(character: str) -> bool:
    return character.isalpha() or character == "'" or unicodedata.category(character).startswith("M")


def place(log_probs_FV: NDArray[np.floating], spelling: Spelling, blank: int) -> list[tuple[int, int, float | None]]:
    """The first and one past the last frame of each word, and its confidence: None for a wildcard.

    A wildcard's id is the number of tokens.

    Raises:
        AlignmentError: as `best_path`.
    """
    wildcard = log_probs_FV.shape[1]
    log_probs_FW = np.pad(log_probs_FV, ((0, 0), (0, 1)))  # a wildcard's log-probability is 0 everywhere
    states_F = best_path(log_probs_FW, spelling.ids, blank)
    tokens_F = np.repeat(spelling.ids, 2)[np.minimum(states_F, 2 * len(spelling.ids) - 1)]
    placed: list[tuple[int, int, float | None]] = []
    for first, past in spelling.spans:
        begin, end = np.searchsorted(states_F, (2 * first + 1, 2 * past))
        frames = np.arange(begin, end)[states_F[begin:end] % 2 == 1]  # in a character, not in a blank between two
        sure = frames[tokens_F[frames] != wildcard]
        confidence = float(np.exp(log_probs_FW[sure, tokens_F[sure]]).mean()) if len(sure) else None
        placed.append((int(begin), int(end), confidence))
    return placed


def best_path(log_probs_FV: NDArray[np.floating], targets: Sequence[int], blank: int) -> NDArray[np.int64]:
    """The likeliest path through the blank-extended targets: the state of each frame, [num_frames].

    State 2i + 1 is target i; the even states are blanks. The path begins in state 0 or 1, ends in one of the last two,
    and from frame to frame stays, goes one state on, or two: over a blank between two different targets.

    Args:
        log_probs_FV: log-probabilities [num_frames, num_tokens].
        targets: token ids, at least one, none of them `blank`.
        blank: the blank's id.

    Raises:
        AlignmentError: fewer frames than the targets need, or more than `MAX_CELLS` frames × states.
    """
    num_frames, num_states = len(log_probs_FV), 2 * len(targets) + 1
    if num_frames * num_states > MAX_CELLS:
        raise AlignmentError(
            f"{len(targets)} characters in {num_frames} frames are too long to align in one piece "
            f"({num_frames * num_states / MAX_CELLS:.1f} × what is allowed); cut the recording into shorter cuts."
        )
    labels_S = np.full(num_states, blank)
    labels_S[1::2] = targets
    may_skip_S = np.zeros(num_states, dtype=bool)
    may_skip_S[3::2] = labels_S[3::2] != labels_S[1:-2:2]
    if num_frames < len(targets) + np.count_nonzero(~may_skip_S[3::2]):
        raise AlignmentError(
            f"{len(targets)} characters do not fit into {num_frames} frames; do text and audio belong together?"
        )
    steps_FS = np.zeros((num_frames, num_states), dtype=np.uint8)
    score_S = np.full(num_states + 2, -np.inf)  # two states before the first, which nothing reaches
    score_S[2:4] = log_probs_FV[0, labels_S[:2]]
    for frame in range(1, num_frames):
        candidates_3S = np.stack((score_S[2:], score_S[1:-1], np.where(may_skip_S, score_S[:-2], -np.inf)))
        steps_FS[frame] = steps_S = candidates_3S.argmax(axis=0)
        score_S[2:] = np.take_along_axis(candidates_3S, steps_S[None], axis=0)[0] + log_probs_FV[frame, labels_S]
    states_F = np.empty(num_frames, dtype=np.int64)
    state = num_states - 1 if score_S[-1] >= score_S[-2] else num_states - 2
    for frame in reversed(range(num_frames)):
        states_F[frame] = state
        state -= int(steps_FS[frame, state])
    return states_F
