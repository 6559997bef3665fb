"""Prepared folders of speech whose defects are known: real speech of a voice, or tones where the ASR is not asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

from salad.speech.audio import save_flac
from salad.speech.prepared import write_prepared

HZ = 16_000
TEXT = "a surface coating for ceramics or porcelain"  # 43 characters


def tone(*parts: tuple[float, float]) -> np.ndarray:
    """A 500 Hz tone in parts of (seconds, amplitude), silence behind it."""
    loud = np.concatenate([np.full(round(seconds * HZ), amplitude) for seconds, amplitude in (*parts, (0.2, 0.0))])
    return (loud * np.sin(2 * np.pi * 500 * np.arange(len(loud)) / HZ)).astype(np.float32)


def syllables(num: int = 12, seed: int = 0) -> np.ndarray:
    """Bursts of noise of many heights with short gaps: as quick, as loud and as unclipped as speech, 0.2 s each."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(HZ // 20)]
    for _ in range(num):
        burst = rng.laplace(size=round(HZ * 0.16)) * np.hanning(round(HZ * 0.16))
        parts += [np.convolve(burst, np.hanning(20), "same"), np.zeros(round(HZ * 0.04))]
    wave = np.concatenate([*parts, np.zeros(HZ // 5)])
    return (0.8 * wave / np.abs(wave).max()).astype(np.float32)


def folder_of(out: Path, spoken: Mapping[str, tuple[np.ndarray, str]], audio: Path | None = None) -> Path:
    """A prepared folder of id → (samples, text)."""
    cuts = []
    for name, (samples, text) in spoken.items():
        path = (audio or out / "audio") / f"{name.replace('/', '-')}.flac"
        save_flac(path, samples, HZ)
        seconds = len(samples) / HZ
        recording = Recording(path.stem, [AudioSource("file", [0], str(path.resolve()))], HZ, len(samples), seconds)
        words = SupervisionSegment(name, path.stem, 0.0, seconds, text=text, language="en", speaker="a voice")
        cuts.append(MonoCut(name, 0.0, seconds, 0, [words], recording=recording))
    write_prepared(out, cuts, [], {"corpus": "synthesized", "voice": "a voice"})
    return out


def defects() -> dict[str, tuple[np.ndarray, str]]:
    """One utterance of each defect that the sound shows, named by the kind of its reason, and two that are good."""
    good = syllables()
    half = len(good) // 2
    gap = np.zeros(round(2.5 * HZ), np.float32)
    return {
        "good": (good, TEXT),
        "too fast": (syllables(5), TEXT),
        "too slow": (syllables(60), TEXT),
        "long pause": (np.concatenate([good[:half], gap, good[half:]]), TEXT + TEXT),
        "silence": (np.concatenate([gap, gap, gap, good]), TEXT),
        "clipped": (np.clip(good * 12, -0.9, 0.9), TEXT),
        "cut off": (good[: round(HZ * (0.05 + 0.2 * 10 + 0.08))], TEXT),
        "no sound": (np.zeros(HZ, np.float32), TEXT),
        "also good": (syllables(seed=1), TEXT),
    }
