"""Prepared and encoded folders of made-up utterances with LibriSpeech-like lengths, for benchmarks: seconds, not hours.

The cuts are what `salad prepare` and `salad align` write, line by line; the features lie in one shard that is read in
the same way as a real one (model/features.py). Nobody could hear them: the frames are noise and the audio files are not
there.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from salad.errors import AssetError
from salad.files import write_json
from salad.model.features import IndexRow, encoder_folder
from salad.model.llm import load_tokenizer
from salad.speech.identity import id_hash, sound_hash
from salad.speech.prepared import CUTS_NAME

ENCODER = "synthetic"
FRAME_HZ = 50.0
WORDS_PER_S = 2.7  # read speech
LLM = "smollm2-135m-instruct"


def tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2's, or where it is not there a byte-level one, trained on the spot on made-up words."""
    try:
        return load_tokenizer(LLM)
    except AssetError:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=20_000,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        rng = np.random.default_rng(0)
        syllables = [a + b for a in "b d f g h l m n p r s t th w".split() for b in "aeiou"]
        bpe.train_from_iterator(["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(40_000)], trainer)
        return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")


def vocabulary() -> list[str]:
    """Words that are one token, the frequent ones first as BPE merged them; every fourth with a second token behind."""
    own = tokenizer()
    tokens = own.convert_ids_to_tokens(range(len(own)))
    words = [token[1:] for token in tokens if re.fullmatch("Ġ[a-z]+", token)]
    endings = [token for token in tokens if re.fullmatch("[a-z]{2,4}", token)]
    return [word + endings[i % len(endings)] if i % 4 == 3 else word for i, word in enumerate(words)]


def running_text(num_words: int, seed: int) -> list[str]:
    """Words with the frequencies of running text: the r-th has a share of 1 / (r + 2.7) (Zipf, Mandelbrot)."""
    words = vocabulary()
    weights = 1 / (np.arange(len(words)) + 2.7)
    return [words[i] for i in np.random.default_rng(seed).choice(len(words), num_words, p=weights / weights.sum())]


def librispeech_durations(num: int, seed: int) -> NDArray[np.float64]:
    """Seconds: most clips 12 to 16.5 s and a tail of short ones; mean 12.3 s, as in LibriSpeech's train sets."""
    rng = np.random.default_rng(seed)
    long = rng.uniform(11.5, 16.5, num)
    short = rng.uniform(2.0, 11.5, num)
    return np.round(np.where(rng.random(num) < 0.76, long, short), 2)


def cut_line(number: int, duration_s: float, words: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What `sound_hash` reads of a cut, and its line; forty to a document, the words evenly spread."""
    document = f"book{number // 40:06d}"
    name = f"{document}-{number:08d}"
    step = duration_s / len(words)
    times = ",".join(f'["{word}",{i * step:.4f},{step * 0.9:.4f},0.97]' for i, word in enumerate(words))
    num_samples = round(duration_s * 16000)
    source = {"type": "file", "channels": [0], "source": f"audio/{name}.flac"}
    recording = {"sources": [source], "sampling_rate": 16000, "num_samples": num_samples}
    heard = {"id": name, "recording": recording, "start": 0.0, "duration": duration_s, "channel": 0}
    line = (
        f'{{"id":"{name}","start":0.0,"duration":{duration_s},"channel":0,"supervisions":[{{"id":"{name}",'
        f'"recording_id":"{name}","start":0.0,"duration":{duration_s},"channel":0,"text":"{" ".join(words)}",'
        f'"language":"en","speaker":"{document}","alignment":{{"word":[{times}]}}}}],"recording":{{"id":"{name}",'
        f'"sources":[{{"type":"file","channels":[0],"source":"audio/{name}.flac"}}],"sampling_rate":16000,'
        f'"num_samples":{num_samples},"duration":{duration_s},"channel_ids":[0]}},'
        f'"custom":{{"document":"{document}"}},"type":"MonoCut"}}\n'
    )
    return heard, line


def cut_lines(durations_s: NDArray[np.float64], seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """`cut_line`s of random words."""
    drawn = running_text(400_000, seed)
    begins = np.random.default_rng(seed).integers(len(drawn) - 100, size=len(durations_s)).tolist()
    for number, (begin, duration_s) in enumerate(zip(begins, durations_s.tolist(), strict=True)):
        yield cut_line(number, duration_s, drawn[begin : begin + max(5, round(duration_s * WORDS_PER_S))])


def write_corpus(folder: Path, durations_s: NDArray[np.float64], feature_dim: int, seed: int, shared: bool) -> None:
    """A prepared, aligned and encoded folder, in one pass over its cuts.

    Args:
        folder: to fill.
        durations_s: of each cut, at most 37 s.
        feature_dim: of the encoder; frames are float16.
        seed: of words and frames.
        shared: all cuts have the same frames on the disk, so that a million of them need little room.
    """
    folder.mkdir(parents=True)
    num_frames = np.ceil(durations_s * FRAME_HZ).astype(np.uint64)
    index = np.zeros((len(IndexRow), len(durations_s)), np.uint64)
    with gzip.open(folder / CUTS_NAME, "wb", compresslevel=1) as file:
        for row, (cut, line) in enumerate(cut_lines(durations_s, seed)):
            file.write(line.encode())
            index[IndexRow.ID, row] = id_hash(cut["id"])
            index[IndexRow.SOUND, row] = sound_hash(cut, folder)
    ends = np.cumsum(num_frames)
    if not shared:
        index[IndexRow.OFFSET] = (ends - num_frames) * np.uint64(2 * feature_dim)
    index[IndexRow.PLACE] = num_frames
    where = encoder_folder(folder, ENCODER)
    (where / "shar").mkdir(parents=True)
    _write_frames(where / "shar" / "enc.000000.tar", int(num_frames.max() if shared else ends[-1]), feature_dim, seed)
    (where / "rejected.jsonl").touch()
    mark = {"name": ENCODER, "feature_dim": feature_dim, "frame_hz": FRAME_HZ, "dtype": "float16", "width": feature_dim}
    write_json(where / "encoder.json", mark | {"fingerprint": "synthetic"})
    np.save(where / "index.npy", index[:, np.argsort(index[IndexRow.ID])])


def _write_frames(path: Path, num_frames: int, feature_dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with path.open("wb") as shard:
        for begin in range(0, num_frames, 100_000):
            shape = min(100_000, num_frames - begin), feature_dim
            shard.write(rng.standard_normal(shape, np.float32).astype(np.float16).tobytes())
