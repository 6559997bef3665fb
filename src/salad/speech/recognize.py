"""Speech recognition and forced alignment by Whisper in CTranslate2 (faster-whisper).

Alignment places a *given* transcript: CTranslate2 runs the decoder over its tokens and finds the monotone path through
the cross-attention (dynamic time warping). faster-whisper's `find_alignment` does the same but splits tokens into words
by its own rule; here every word is tokenized by itself (" " + word), so which token belongs to which word is known by
construction and the words come back as they were given.

Three corrections are made to the raw times, measured together against a phone-level forced aligner (median / 90th
percentile of the absolute error over starts and ends, Whisper tiny.en):

- every boundary is moved `ATTENTION_LAG_S` earlier, for cross-attention settles on a word after it has begun;
- a word ends where its trailing punctuation begins: Whisper spends the pause on the comma;
- the first word does not begin, and the last does not end, in silence.

LJ Speech (1,148 boundaries, on which the lag was chosen): 100 / 240 → 60 / 200 ms. Two other sets, not used for
choosing: 110 / 230 → 50 / 160 ms (142 boundaries) and 110 / 285 → 60 / 230 ms (366).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salad.assets import digest_of
from salad.errors import AlignmentError, AssetError
from salad.speech.aligner import RATE_HZ, PlacedWord, check_room, spread
from salad.speech.audio import Samples
from salad.speech.time import samples as to_samples
from salad.speech.windows import quiet_windows, share_words, speech_span
from salad.workers import gpu_of_worker

if TYPE_CHECKING:
    import ctranslate2
    from faster_whisper import WhisperModel

WINDOW_S = 30.0
SHORT_WINDOW_S, SHORT_CLIP_S = 15.0, 12.0
LOOPING_COMPRESSION = 2.4
"""zlib makes text that repeats itself so many times smaller; Whisper's own threshold."""
FRAME_HZ = 50.0
ATTENTION_LAG_S = 0.08
MAX_TEXT_TOKENS = 440
"""Whisper's decoder has 448 positions; the rest is for its prefix and end."""


class Recognizer:
    """A Whisper model in CTranslate2 format that transcribes English speech and aligns transcripts to it.

    Args:
        model: a folder with model.bin, config.json, tokenizer.json and the vocabulary.
        threads: CPU threads; ignored on a GPU.
        compute_type: CTranslate2's: "int8", "float32", "float16" (GPU) ….
        device: "auto" (a GPU when CTranslate2 sees one), "cpu" or "cuda".

    Raises:
        AssetError: the folder is not a CTranslate2 Whisper model.
    """

    def __init__(self, model: Path, threads: int, compute_type: str = "int8", device: str = "auto") -> None:
        self.whisper = load_whisper(model, threads, compute_type, device)
        self._folder = model
        self._compute_type = compute_type
        tokenizer = self.whisper.hf_tokenizer
        prefix = ["<|startoftranscript|>"]
        if self.whisper.model.is_multilingual:
            prefix += ["<|en|>", "<|transcribe|>"]
        self._prefix_ids = [tokenizer.token_to_id(token) for token in prefix]
        self._end_id: int = tokenizer.token_to_id("<|endoftext|>")
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        self._number_ids = sorted(i for token, i in vocabulary.items() if any(c.isdigit() or c in "%$£" for c in token))

    @property
    def name(self) -> str:
        """For instance "whisper:whisper-tiny.en"."""
        return f"whisper:{self._folder.name}"

    @property
    def english_only(self) -> bool:
        """Yes: the decoder is told that the speech is English."""
        return True

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model's folder, the compute type, and the correction made to its times."""
        made_of = f"{digest_of(self._folder)} {self._compute_type} {ATTENTION_LAG_S}"
        return hashlib.sha256(made_of.encode()).hexdigest()

    def transcribe(self, audio: Samples, spell_numbers: bool = False, short_window: bool = False) -> str:
        """What is said in `audio` [num_samples] at 16 kHz; empty when nothing is heard.

        Greedy, without sampling fallback or carried context: the same samples give the same text on the same machine.

        With `spell_numbers` the tokens with digits, per cent and currency signs are forbidden and Whisper writes "forty
        two", as a normalized transcript has it. With `short_window` a clip of at most 12 s is heard in a window of 15 s
        instead of Whisper's 30, at a third of the cost; the text may differ in a letter here and there. Without some
        silence behind the clip Whisper does not know when to stop; where it repeats itself, the whole window is heard.
        """
        if short_window and len(audio) <= to_samples(SHORT_CLIP_S, RATE_HZ):
            text = self._transcribe_short(audio, spell_numbers)
            if text is not None:
                return text
        suppressed = [-1, *self._number_ids] if spell_numbers else [-1]
        segments, _ = self.whisper.transcribe(
            audio,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=len(audio) <= to_samples(WINDOW_S, RATE_HZ),
            suppress_tokens=suppressed,
        )
        return " ".join(text for text in (segment.text.strip() for segment in segments) if text)

    def _transcribe_short(self, audio: Samples, spell_numbers: bool) -> str | None:
        """As `transcribe`, of a clip in the short window; None when the text repeats itself."""
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens

        whisper = self.whisper
        tokenizer = Tokenizer(whisper.hf_tokenizer, whisper.model.is_multilingual, task="transcribe", language="en")
        suppressed = get_suppressed_tokens(tokenizer, [-1, *(self._number_ids if spell_numbers else [])])
        padded = np.pad(audio, (0, to_samples(SHORT_WINDOW_S, RATE_HZ) - len(audio)))
        found = whisper.model.generate(
            whisper.encode(log_mel(whisper, padded)),
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps]],
            beam_size=1,
            suppress_tokens=suppressed,
            max_length=whisper.max_length,
        )[0]
        text: str = tokenizer.decode([token for token in found.sequences_ids[0] if token < tokenizer.eot]).strip()
        return text if not text or get_compression_ratio(text) <= LOOPING_COMPRESSION else None

    def align(self, audio: Samples, words: Sequence[str]) -> list[PlacedWord]:
        """When each of `words` is spoken in `audio` [num_samples] at 16 kHz; see `salad.speech.aligner.Aligner`.

        The window is the clip's own length. A clip over 30 s is cut at quiet places, transcribed, and its words are
        dealt to the windows they were heard in (see `salad.speech.windows`). Clips are not batched: they would have to
        be padded to one length, which costs more than it saves.

        Raises:
            AlignmentError: no words, a word that is a Whisper control token, more tokens than the decoder holds, or
                more words than the clip has room for.
        """
        duration_s = len(audio) / RATE_HZ
        check_room(words, duration_s)
        windows = quiet_windows(audio, RATE_HZ, WINDOW_S)
        shares = [list(words)]
        if len(windows) > 1:
            shares = share_words(words, [self.transcribe(audio[start:end]).split() for start, end in windows])
        placed: list[PlacedWord] = []
        for (start, end), share in zip(windows, shares, strict=True):
            offset_s = start / RATE_HZ
            placed += [
                PlacedWord(word.start_s + offset_s, word.end_s + offset_s, word.confidence)
                for word in self._align_window(audio[start:end], share)
            ]
        return spread(placed, duration_s)

    def _align_window(self, audio: Samples, words: list[str]) -> list[PlacedWord]:
        """Raw, corrected times of `words` in one window of at most 30 s; they may still touch or leave the window."""
        if not words:
            return []
        tokens, num_spoken = zip(*(self._tokens_of(word) for word in words), strict=True)
        text_ids = [token for ids in tokens for token in ids]
        if len(text_ids) > MAX_TEXT_TOKENS:
            raise AlignmentError(
                f"{len(words)} words in {len(audio) / RATE_HZ:.1f} s are {len(text_ids)} tokens, over Whisper's "
                f"{MAX_TEXT_TOKENS}; do text and audio belong together?"
            )
        mel = log_mel(self.whisper, audio)
        result = self.whisper.model.align(self.whisper.encode(mel), self._prefix_ids, [text_ids], mel.shape[1])[0]
        token_starts_s = _token_starts(result, len(text_ids)) / FRAME_HZ - ATTENTION_LAG_S
        firsts = [0, *accumulate(len(ids) for ids in tokens)]
        onset_s, offset_s = speech_span(audio, RATE_HZ)
        placed = []
        for index, first in enumerate(firsts[:-1]):
            start_s = token_starts_s[first] if index else onset_s
            end_s = min(token_starts_s[first + num_spoken[index]], offset_s)
            confidence = float(np.mean(result.text_token_probs[first : firsts[index + 1]]))
            placed.append(PlacedWord(min(start_s, end_s), end_s, confidence))
        return placed

    def _tokens_of(self, word: str) -> tuple[list[int], int]:
        """The token ids of one word, and how many of them come before its trailing punctuation (at least one)."""
        tokenizer = self.whisper.hf_tokenizer
        ids: list[int] = tokenizer.encode(" " + word, add_special_tokens=False).ids
        if not word or max(ids) >= self._end_id:
            raise AlignmentError(f"{word!r} is not a word that Whisper can place; take it out of the transcript.")
        num_spoken = len(ids)
        while num_spoken > 1 and not any(c.isalnum() or c == "\ufffd" for c in tokenizer.decode([ids[num_spoken - 1]])):
            num_spoken -= 1
        return ids, num_spoken


def load_whisper(folder: Path, threads: int, compute_type: str, device: str) -> WhisperModel:
    """faster-whisper's model from a local folder; nothing is fetched. Worker processes share out the GPUs.

    Raises:
        AssetError: a file is missing, or CTranslate2 can't read the model.
    """
    import ctranslate2
    from faster_whisper import WhisperModel

    missing = [name for name in ("model.bin", "config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing:
        raise AssetError(f"{folder} is not a CTranslate2 Whisper model: {', '.join(missing)} missing.")
    gpu = 0 if device == "cpu" else gpu_of_worker(ctranslate2.get_cuda_device_count()) or 0
    try:
        return WhisperModel(
            str(folder), device=device, device_index=gpu, compute_type=compute_type, cpu_threads=threads
        )
    except (RuntimeError, ValueError) as error:
        raise AssetError(f"{folder} can't be loaded as a Whisper model ({error}).") from error


def log_mel(whisper: WhisperModel, audio: Samples) -> np.ndarray:
    """The log-mel spectrogram [num_bins, num_mel_frames] at 100 Hz of at most 30 s of 16 kHz audio, at its own length.

    No padding to 30 s: it costs time and changes the features of short clips.
    """
    shortest = to_samples(1 / FRAME_HZ, RATE_HZ)
    padded = np.pad(audio, (0, max(0, shortest - len(audio))))
    mel: np.ndarray = whisper.feature_extractor(padded, padding=0)[:, : round(WINDOW_S * 2 * FRAME_HZ)]
    return mel


def _token_starts(result: ctranslate2.models.WhisperAlignmentResult, num_tokens: int) -> np.ndarray:
    """The frame at which the path first reaches each token, [num_tokens + 1]; the last is the end token's."""
    tokens, frames = np.array(result.alignments).T
    starts = np.searchsorted(tokens, np.arange(num_tokens + 1))
    return np.asarray(frames[np.minimum(starts, len(frames) - 1)], dtype=np.float64)
