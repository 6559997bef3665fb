"""Encoding speech with a frozen encoder, and reading the features back: ours against the usual ways.

    python benchmarks/encoding.py [--json] [--only encoding|reading]

Encoding: clips of noise, drawn anew each round and the same for every variant: utterances as long as LibriSpeech's (at
a quarter of their length, so that a round takes seconds on a CPU), and single words of 0.4 to 0.8 s. Models of real
size with random weights, because the work does not depend on them. Peers: one clip after another, and batches of 6 in
the order of the corpus, padded to the longest. Variants of one model must give the same features, or the benchmark
fails. Whisper at the clips' own (full) length is set against its usual 30 s windows; these are other features.

Reading: 1,000 utterances of Mimi latents (float16, 512 wide, 12.5 Hz) in random order, whole ones and 3 s of each, from
the store, from a .npy file an utterance, and from Lhotse's Shar in its own order; the files are in the page cache.
`cpu_ratio` is the ratio of the processes' own CPU time, which a busy neighbour doesn't change.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lhotse import AudioSource, CutSet, MonoCut, Recording, SupervisionSegment
from side_by_side import Result, Round, ratio, row, run_variants, show
from transformers import MimiConfig, MimiModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from salad.errors import AssetError
from salad.model.encode import encode_cuts
from salad.model.encoder import load_encoder
from salad.model.encoders.mimi import MimiEncoder
from salad.model.encoders.speech_encoder import Features, padded
from salad.model.encoders.wav2vec2 import Wav2Vec2Encoder
from salad.model.features import FeatureStore, encoder_folder
from salad.speech.audio import Samples, save_flac
from salad.speech.prepared import write_prepared

SCALE = 0.25
CLIPS = {"utterances": 6, "words": 12}
RUNS = (("mimi", "utterances"), ("mimi", "words"), ("wav2vec2", "utterances"))
BATCH = 6
UTTERANCES = 1000
SPAN = slice(50, 88)  # 3 s of 12.5 Hz


def seconds_of(num: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths like LibriSpeech's: utterances cut near 14-16 s with a tail of shorter ones."""
    cut_s, shorter_s = rng.normal(14.2, 1.5, num), rng.uniform(1.3, 13, num)
    return np.where(rng.random(num) < 0.72, cut_s, shorter_s).clip(1.3, 20)


def clips_of(corpus: str, rate_hz: int, index: int, scale: float = SCALE) -> list[Samples]:
    """The clips of a round."""
    rng = np.random.default_rng([7, index + 1])
    num = CLIPS[corpus]
    lengths_s = scale * seconds_of(num, rng) if corpus == "utterances" else rng.uniform(0.4, 0.8, num)
    return [rng.uniform(-0.3, 0.3, int(length_s * rate_hz)).astype(np.float32) for length_s in lengths_s]


# --- encoding --------------------------------------------------------------------------------------------------------


def mimi() -> MimiEncoder:
    """Mimi's encoder at its size."""
    torch.manual_seed(0)
    return MimiEncoder(MimiModel(MimiConfig(decoder_config=None)), "mimi", "", "float32")


def wav2vec2() -> Wav2Vec2Encoder:
    """wav2vec2-base's size, with the layer norms that allow batches."""
    torch.manual_seed(0)
    model = Wav2Vec2Model(Wav2Vec2Config(feat_extract_norm="layer", conv_bias=True))
    return Wav2Vec2Encoder(model, Wav2Vec2FeatureExtractor(), "wav2vec2", "", None, "float32")


MODELS = {"mimi": mimi, "wav2vec2": wav2vec2}


def in_corpus_order(encoder: MimiEncoder | Wav2Vec2Encoder, clips: list[Samples]) -> list[Features]:
    """Batches as the clips come, padded to the longest."""
    made: list[Features] = []
    for start in range(0, len(clips), BATCH):
        batch = clips[start : start + BATCH]
        if isinstance(encoder, Wav2Vec2Encoder):
            made += encoder._encode(list(encoder._normalized(batch)))
        else:
            frames = [-(-len(clip) // encoder._frame_samples) for clip in batch]
            latents_BFE = encoder._latents(padded(batch, max(frames) * encoder._frame_samples))
            made += [row_FE[:num] for row_FE, num in zip(latents_BFE, frames, strict=True)]
    return made


WAYS: dict[str, Callable[[MimiEncoder | Wav2Vec2Encoder, list[Samples]], list[Features]]] = {
    "batches of like length": lambda encoder, clips: encoder.encode(clips),
    "one by one": lambda encoder, clips: [encoder.encode([clip])[0] for clip in clips],
    "batches in corpus order": in_corpus_order,
}


def encoding(kind: str, corpus: str, way: str) -> Round:
    """One way to encode the clips of a round."""
    torch.set_num_threads(1)
    encoder = MODELS[kind]()

    def one_round(index: int) -> dict[str, float]:
        made = WAYS[way](encoder, clips_of(corpus, encoder.sample_rate_hz, index))
        return {"checksum": float(sum(np.abs(features).sum(dtype=np.float64) for features in made))}

    return one_round


def whisper(window: str) -> Round:
    """Whisper tiny.en in CTranslate2, at the clips' own length or in 30 s windows."""
    encoder = load_encoder("whisper-tiny.en", 1, device="cpu")

    def one_round(index: int) -> None:
        for clip in clips_of("utterances", 16_000, index, scale=1.0):
            encoder.encode([clip if window == "own length" else padded([clip], 480_000)[0]])

    return one_round


def agree(results: dict[str, Result]) -> None:
    """Stop if two ways to encode the same clips differ.

    Raises:
        RuntimeError: they do.
    """
    sums = np.array([[entry["checksum"] for entry in result.rounds] for result in results.values()])
    if (np.abs(sums / sums[0] - 1) > 1e-4).any():
        raise RuntimeError(f"the variants {list(results)} don't give the same features: {sums.tolist()}")


# --- reading ---------------------------------------------------------------------------------------------------------


class Latents:
    """Stands where an encoder does and gives noise of Mimi's shape: what is measured is reading."""

    name, feature_dim, frame_hz, sample_rate_hz, causal, fingerprint = "latents", 512, 12.5, 8000, True, ""

    def encode(self, samples: list[Samples]) -> list[Features]:
        """Noise [num_frames, 512]."""
        rng = np.random.default_rng(0)
        return [rng.standard_normal((-(-len(clip) // 640), 512)).astype(np.float32) for clip in samples]


def make_corpus(folder: Path) -> list[str]:
    """A prepared and encoded folder, and the same features as a file an utterance; the ids."""
    save_flac(folder / "audio.flac", np.zeros(8000 * 20, np.float32) + 0.1, 8000)
    recording = Recording("r", [AudioSource("file", [0], str(folder / "audio.flac"))], 8000, 8000 * 20, 20.0)
    cuts = []
    for i, length_s in enumerate(seconds_of(UTTERANCES, np.random.default_rng(0)).clip(8)):
        words = SupervisionSegment(f"u{i}", "r", 0.0, round(length_s, 2), text="some words " * 15, speaker="s")
        cuts.append(MonoCut(f"u{i}", 0.0, round(length_s, 2), 0, [words], recording=recording))
    write_prepared(folder, cuts, [], {})
    encode_cuts(folder, Latents())
    store = FeatureStore(folder, "latents")
    (folder / "files").mkdir()
    for cut in cuts:
        np.save(folder / "files" / f"{cut.id}.npy", store.load(cut.id))
    return [cut.id for cut in cuts]


def reading(folder: Path, way: str, ids: list[str]) -> Round:
    """Read all utterances once; the sum of their first values."""
    store = FeatureStore(folder, "latents")
    read: dict[str, Callable[[str], np.ndarray]] = {
        "store": store.load,
        "files": lambda name: np.load(folder / "files" / f"{name}.npy"),
        "store, 3 s": lambda name: store.load(name, SPAN.start, SPAN.stop),
        "files, 3 s": lambda name: np.load(folder / "files" / f"{name}.npy")[SPAN],
        "mapped files, 3 s": lambda name: np.array(np.load(folder / "files" / f"{name}.npy", mmap_mode="r")[SPAN]),
    }

    def one_round(index: int) -> dict[str, float]:
        if way == "shar":
            shar = encoder_folder(folder, "latents") / "shar"
            return {"sum": sum(float(cut.enc.load()[0, 0]) for cut in CutSet.from_shar(in_dir=shar))}
        order = np.random.default_rng([3, index + 1]).permutation(len(ids))
        return {"sum": sum(float(read[way](ids[i])[0, 0]) for i in order)}

    return one_round


# --- the table -------------------------------------------------------------------------------------------------------


def compared(
    results: dict[str, Result], ours: str, peers: list[str], prefix: str, clips: int
) -> list[dict[str, object]]:
    """A line for ours against each peer."""
    return [
        row(
            f"{prefix}: {ours}",
            results[ours],
            results[peer],
            peer,
            cpu_ratio=round(ratio(results[ours], results[peer], "cpu_s"), 3),
            peer_peak_mib=round(results[peer].peak_mib, 1),
            items=clips,
        )
        for peer in peers
    ]


def main() -> None:
    """Run the variants and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["encoding", "reading"])
    parser.add_argument("--rounds", type=int, default=2, help="measured rounds of encoding; reading takes 5")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    if arguments.only != "reading":
        ours, *peers = WAYS
        for kind, corpus in RUNS:
            results = run_variants({way: partial(encoding, kind, corpus, way) for way in WAYS}, arguments.rounds)
            agree(results)
            rows += compared(results, ours, peers, f"{kind}, {corpus}", CLIPS[corpus])
        try:
            load_encoder("whisper-tiny.en")
            windows = {name: partial(whisper, name) for name in ("own length", "30 s windows")}
            results = run_variants(windows, arguments.rounds)
            rows += compared(
                results, "own length", ["30 s windows"], "whisper tiny.en, CTranslate2", CLIPS["utterances"]
            )
        except AssetError as error:
            notes.append(f"Whisper was not run: {error}")
    if arguments.only != "encoding":
        with tempfile.TemporaryDirectory() as folder:
            ids = make_corpus(Path(folder))
            ways = ("store", "files", "shar", "store, 3 s", "files, 3 s", "mapped files, 3 s")
            results = run_variants({way: partial(reading, Path(folder), way, ids) for way in ways}, rounds=5)
        rows += compared(results, "store", ["files", "shar"], "reading", UTTERANCES)
        rows += compared(results, "store, 3 s", ["files, 3 s", "mapped files, 3 s"], "reading", UTTERANCES)
    show(rows, arguments.json, [f"seeds 7 (clips), 0 and 3 (reading); {arguments.rounds} rounds; 1 thread", *notes])


if __name__ == "__main__":
    main()
