"""Debian's telephone prompts, one US woman at 16 kHz with transcripts: human speech that needs no hub.

Package `asterisk-core-sounds-en-g722` has G.722 files, `asterisk-core-sounds-en` one line `name: transcript` for each.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from salad.asset_table import ASSETS
from salad.assets import resolve
from salad.errors import AudioError, DataError, SaladError
from salad.speech.audio import Samples, save_flac
from salad.speech.candidate import Candidate
from salad.speech.intake import Summary, prepare_corpus
from salad.speech.prepared import Rejected
from salad.texts.normalize import spoken_form

ASSET = "debian-prompts"
RATE_HZ = 16_000
SPEAKER = "allison"

_STAGE_DIRECTION = re.compile(r"^\s*[\[(<].*[\])>]\s*$")
_ASIDE = re.compile(r"\s*(\[[^\]]*\]|\((?:note:[^)]*|[^)]* plays)\))")


def candidates(out: Path) -> Iterator[Candidate | Rejected]:
    """Fetch the prompts, decode each to 16-bit FLAC in `out/audio`, and give it with its transcript.

    Audio that is there already is not decoded again.

    Raises:
        AssetError: the packages can't be had.
    """
    folder = resolve(ASSET)
    transcripts = folder / "core-sounds-en.txt.gz"
    named: set[str] = set()
    for number, name, written in _transcripts(transcripts):
        identifier = name.replace("/", "_")
        place = f"{transcripts}:{number}"
        try:
            if name in named:
                raise DataError("duplicate id: the same name as an earlier line")
            named.add(name)
            text = transcript_of(written)
            audio = _decoded(folder / "sounds" / f"{name}.g722", out / "audio" / f"{identifier}.flac")
        except SaladError as error:
            yield Rejected(identifier, str(error), place)
            continue
        yield Candidate(identifier, place, audio, text, speaker=SPEAKER, language="English")
    yield from _without_transcript(folder / "sounds", named)


def info() -> dict[str, str]:
    """What info.json says of the whole."""
    asset = ASSETS[ASSET]
    return {
        "corpus": ASSET,
        "licence": asset.licence,
        "source": f"Debian {' + '.join(asset.package)} {asset.version}",
    }


def prepare(out: Path) -> Summary:
    """Write the prepared folder `out`.

    Raises:
        AssetError: the packages can't be had.
    """
    return prepare_corpus(candidates(out), out, info())


def transcript_of(written: str) -> str:
    """What is said in a prompt, as words.

    Raises:
        DataError: nothing is: the line describes a tone or a noise, or is empty, or can't be put into words.
    """
    if not written.strip():
        raise DataError("empty transcript: the line has none")
    if _STAGE_DIRECTION.match(written):
        raise DataError(f"not speech: {written.strip()}")
    text = spoken_form(_ASIDE.sub("", written))
    if not text:
        raise DataError(f"empty transcript: {written.strip()!r} has no words")
    return text


def _transcripts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, name and transcript of every line that is not blank or a comment."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith(";"):
                name, _, written = line.partition(":")
                yield number, name.strip(), written.strip()


def _decoded(source: Path, target: Path) -> Path:
    if not source.is_file():
        raise DataError("no audio: the package has none for it")
    if not target.is_file():
        save_flac(target, decode_g722(source), RATE_HZ)
    return target


def decode_g722(path: Path) -> Samples:
    """A G.722 file as mono float32 [num_samples] at 16 kHz within ±1.

    Raises:
        AudioError: it can't be decoded or is empty.
    """
    try:
        with av.open(str(path), format="g722") as container:
            blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    except FFmpegError as error:
        raise AudioError(f"{path} can't be decoded as G.722 ({error}).") from error
    if not blocks:
        raise AudioError(f"{path} holds no audio.")
    return np.concatenate(blocks).astype(np.float32) / 32768.0


def _without_transcript(sounds: Path, named: set[str]) -> list[Rejected]:
    files = sorted(path.relative_to(sounds).with_suffix("").as_posix() for path in sounds.rglob("*.g722"))
    return [
        Rejected(name.replace("/", "_"), "no transcript: the list has none for it", str(sounds / f"{name}.g722"))
        for name in files
        if name not in named
    ]
