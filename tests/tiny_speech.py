"""Small real speech data: cuts of noise files, prepared folders of them, and an encoder that needs no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from salad.errors import AudioError
from salad.model.encoders.speech_encoder import features_of_codes
from salad.model.features import encoder_folder, id_hash
from salad.speech.audio import save_flac
from salad.speech.prepared import write_prepared


class Loudness:
    """A real encoder, only a small one: the loudness of every 20 ms, twice. Counts what it encodes."""

    name = "a/loudness"
    feature_dim = 2
    frame_hz = 50.0
    sample_rate_hz = 16_000
    causal = True

    def __init__(self, fingerprint: str = "1", gain: float = 1.0) -> None:
        self.fingerprint = fingerprint
        self.gain = gain
        self.num_encoded = 0

    def encode(self, samples):
        if any(len(clip) < 320 for clip in samples):
            raise AudioError("a clip of less than 20 ms has no frame.")
        self.num_encoded += len(samples)
        return [self.gain * np.repeat(loudness(clip)[:, None], 2, 1) for clip in samples]


class LoudnessCodes(Loudness):
    """The same in 16 steps, as two codes that add up to it."""

    codebooks_QCE = np.stack([np.arange(4), np.arange(4) / 4])[:, :, None].repeat(2, 2).astype(np.float32)

    def encode_codes(self, samples):
        steps = [np.minimum(15, loudness(clip) * 40).astype(np.int16) for clip in samples]
        return [np.stack([step // 4, step % 4], 1) for step in steps]

    def encode(self, samples):
        return [features_of_codes(codes, self.codebooks_QCE) for codes in self.encode_codes(samples)]


def loudness(clip):
    return np.abs(clip[: len(clip) // 320 * 320]).reshape(-1, 320).mean(1)


def noise(seconds: float, seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).uniform(0.05, 0.6, 1 + int(seconds * 50)).repeat(320)
    return np.random.default_rng(seed).uniform(-1, 1, round(seconds * 16_000)) * steps[: round(seconds * 16_000)]


def cut_of(folder: Path, name: str, seconds: float = 1.0, start: float = 0.0, duration: float | None = None) -> MonoCut:
    """A cut of a file of its own."""
    audio = (folder if name == "inside" else folder.parent) / "audio" / f"{id_hash(name)}-{seconds}.flac"
    if not audio.exists():
        save_flac(audio, noise(seconds, id_hash(name)).astype(np.float32), 16_000)
    recording = Recording(name, [AudioSource("file", [0], str(audio))], 16_000, round(seconds * 16_000), seconds)
    duration = seconds - start if duration is None else duration
    words = SupervisionSegment(name, name, 0.0, duration, text="x")
    return MonoCut(name, start, duration, 0, [words], recording=recording)


def prepared(folder: Path, num: int, prefix: str = "c") -> list[MonoCut]:
    cuts = [cut_of(folder, f"{prefix}{i}", 0.3 + (i * 7 % 5) / 10) for i in range(num)]
    write_prepared(folder, cuts, [], {})
    return cuts


def files_of(folder: Path, name: str = Loudness.name) -> dict[str, bytes]:
    where = encoder_folder(folder, name)
    return {str(path.relative_to(where)): path.read_bytes() for path in sorted(where.rglob("*")) if path.is_file()}
