"""Any audio file as blocks of float32 samples, decoded to its last one, or an error that says what is wrong with it.

libsndfile reads FLAC, WAV, MP3, OGG, OPUS and their kin. It does not say whether a file is whole, in these ways:

- FLAC: `frames` is the header's count; decoding raises, or ends early.
- WAV, AIFF, AU, W64, RF64: `frames` is what the file has room for; that the header promised more is in its log alone.
- NIST SPHERE: as WAV, without the log; the header's own sample_count is read.
- MP3: with a Xing, Info or VBRI header `frames` is exact, and decoding ends early when the file does. Without one
  `frames` is an estimate from the bit rate, and decoding may stop there; such files are decoded by FFmpeg's library.
  Damage that keeps the frames' headers goes unnoticed in either, as it does in WAV: these have no checksum.
- OGG, OPUS: `frames` is where the last page stands; that it is not the stream's last is in its flags. A page that was
  skipped for its checksum is in the log.

What libsndfile does not know at all (M4A, WebM, …) is decoded by FFmpeg's library, which PyAV brings along.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from salad.errors import AudioError

BLOCK_SAMPLES = 1 << 16
"""Samples of each channel that are decoded at a time: memory does not grow with the file."""

LENGTH_SLACK_S = 0.1
"""A container's length counts the encoder's delay and padding (AAC: 2,112 and up to 1,023 samples)."""

_FULL_SCALE = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / 32768, "ALAW": 32256 / 32768}
"""The largest value of formats that do not reach 32767/32768."""

_UNKNOWN_SIZE = 0x7FFFFF00  # from here on a WAV's 32-bit size means "written to a pipe, not known"
_PROMISED_SIZE = re.compile(r"^ *(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_PROMISED_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_NIST_COUNT = re.compile(rb"\nsample_count -i (\d+)\n")
_OGG_PAGE_MAX = 27 + 255 + 255 * 255
_OGG_LAST_PAGE = 0x04


@dataclass(frozen=True)
class AudioStream:
    """An open audio file. `blocks` gives [num_samples, num_channels], about ±`full_scale` at the loudest.

    When all blocks have been taken, the file was whole; else taking them raises AudioError.
    """

    rate_hz: int
    num_channels: int
    full_scale: float
    blocks: Iterator[NDArray[np.float32]]


@contextmanager
def open_audio(path: Path) -> Iterator[AudioStream]:
    """The audio of a file that exists.

    Raises:
        AudioError: here, it is no audio; from the blocks, it is cut short or damaged.
    """
    container = ffmpeg_format(path)
    opened = _open_by_ffmpeg(path, container) if container else _open_by_libsndfile(path)
    with opened as stream:
        yield stream


def ffmpeg_format(path: Path) -> str | None:
    """FFmpeg's name for the container of a file that libsndfile can't read whole, by its first bytes; else None."""
    with path.open("rb") as file:
        head = file.read(16)
        if head[4:8] == b"ftyp":
            return "mp4"
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            return "matroska"
        if head.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
            return "asf"
        if head.startswith(b"#!AMR"):
            return "amr"
        if head[:1] == b"\xff" and head[1:2] and head[1] & 0xF6 == 0xF0:
            return "aac"
        if _is_mp3(head):
            if head.startswith(b"ID3"):
                tag_bytes = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
                file.seek(10 + tag_bytes)
            else:
                file.seek(0)
            first_frame = file.read(2048)
            return None if any(mark in first_frame for mark in (b"Xing", b"Info", b"VBRI")) else "mp3"
    return None


def _is_mp3(head: bytes) -> bool:
    tagged = head.startswith(b"ID3") and len(head) >= 10
    return tagged or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


# --- libsndfile -----------------------------------------------------------------------------------------------------


@contextmanager
def _open_by_libsndfile(path: Path) -> Iterator[AudioStream]:
    try:
        with _decoder_muted(path):
            file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:  # TypeError: headerless audio by its suffix
        kind = "truncated or damaged audio" if "malformed" in str(error) else "not audio"
        raise AudioError(f"{kind}: {path} can't be decoded ({_first_line(error)}); leave it out.") from error
    with file:
        if file.format == "RAW":  # libsndfile takes any bytes named .au or .snd for µ-law
            raise AudioError(f"not audio: {path} has no header; convert it to FLAC or leave it out.")
        full_scale = _FULL_SCALE.get(file.subtype, 32767 / 32768)
        yield AudioStream(file.samplerate, file.channels, full_scale, _libsndfile_blocks(file, path))


def _libsndfile_blocks(file: soundfile.SoundFile, path: Path) -> Iterator[NDArray[np.float32]]:
    count = 0
    stated = _stated_samples(file, path)
    while True:
        try:
            with _decoder_muted(path):
                block = file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioError(
                f"truncated or damaged audio: {path} can't be decoded beyond sample {count} of {stated} "
                f"({_first_line(error)}); copy it again."
            ) from error
        if len(block) == 0:
            break
        count += len(block)
        yield block
    if count < stated:
        raise AudioError(
            f"truncated or damaged audio: {path} is cut short: {count} of {stated} samples can be read; copy it again."
        )
    if file.format == "OGG" and not _ogg_ends(path):
        raise AudioError(
            f"truncated or damaged audio: {path} is cut short: the last Ogg page is not the stream's; copy it again."
        )
    if "reports a hole" in file.extra_info:
        raise AudioError(f"truncated or damaged audio: {path} has a page with a wrong checksum; copy it again.")


def _stated_samples(file: soundfile.SoundFile, path: Path) -> int:
    """The number of samples that the header says there are."""
    frames = int(file.frames)
    if file.format == "NIST":
        with path.open("rb") as head:
            count = _NIST_COUNT.search(head.read(1024))
        return int(count[1]) if count else frames
    log = file.extra_info
    if found := _PROMISED_FRAMES.search(log):
        return int(found[2])
    if found := _PROMISED_SIZE.search(log):
        promised, there = int(found[1]), int(found[2])
        if promised > there > 0 and promised < _UNKNOWN_SIZE:
            return frames * promised // there
    return frames


def _ogg_ends(path: Path) -> bool:
    """Whether the last page is complete and marked as the last of its stream."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_PAGE_MAX))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & _OGG_LAST_PAGE) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


@contextmanager
def _decoder_muted(path: Path) -> Iterator[None]:
    """mpg123 inside libsndfile writes notes to stderr that name no file; what they mean comes as our own error."""
    if path.suffix.lower() != ".mp3":
        yield
        return
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# --- FFmpeg's library -----------------------------------------------------------------------------------------------


@contextmanager
def _open_by_ffmpeg(path: Path, container_format: str) -> Iterator[AudioStream]:
    import av
    from av.error import FFmpegError

    try:
        container = av.open(str(path), format=container_format)
    except FFmpegError as error:
        raise AudioError(
            f"truncated or damaged audio: {path} begins like {container_format} and can't be opened "
            f"({error.strerror}); copy it again or leave it out."
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"not audio: {path} has no audio stream; leave it out.")
        stream = container.streams.audio[0]
        stated_s: float | None = None
        if container_format in ("mp4", "matroska"):
            if stream.duration is not None and stream.time_base is not None:
                stated_s = float(stream.duration * stream.time_base)
            elif container.duration is not None:
                stated_s = container.duration / av.time_base
        blocks = _ffmpeg_blocks(container, path, stated_s)
        yield AudioStream(stream.rate, stream.channels, 32767 / 32768, blocks)


def _ffmpeg_blocks(container: object, path: Path, stated_s: float | None) -> Iterator[NDArray[np.float32]]:
    import av
    from av.container import InputContainer
    from av.error import FFmpegError

    assert isinstance(container, InputContainer)
    stream = container.streams.audio[0]
    to_float = av.AudioResampler(format="fltp")
    count = 0
    try:
        for frame in container.decode(stream):
            for piece in to_float.resample(frame):
                block = np.asarray(piece.to_ndarray(), dtype=np.float32).T
                count += len(block)
                yield block
    except FFmpegError as error:
        raise AudioError(
            f"truncated or damaged audio: {path} can't be decoded beyond sample {count} ({error.strerror}); "
            "copy it again."
        ) from error
    if stated_s is not None and count / stream.rate < stated_s - LENGTH_SLACK_S:
        raise AudioError(
            f"truncated or damaged audio: {path} is cut short: {count / stream.rate:.2f} of {stated_s:.2f} s can be "
            "read; copy it again."
        )


def _first_line(error: Exception) -> str:
    """libsndfile's or soundfile's words without the file's name, which stands in our own sentence."""
    said = re.sub(r"^Error (?:opening .*'|): ", "", str(error).split("\n")[0]).removesuffix(".")
    # What libsndfile says of a file named .mp3 in which its decoder finds nothing.
    return "Format not recognised" if said.startswith("File does not exist") else said or type(error).__name__
