"""FFmpeg's audio filters and codecs on samples in memory, by PyAV: no program, no file."""

from __future__ import annotations

import io
from collections.abc import Iterable

import av
import av.filter
import numpy as np

from salad.errors import AudioError
from salad.speech.audio import Samples, resample


def filtered(audio: Samples, rate_hz: int, name: str, options: str) -> Samples:
    """Mono `audio` [num_samples] through one of FFmpeg's audio filters, options as its documentation has them.

    Raises:
        AudioError: FFmpeg's library has no such filter, or refuses its options.
    """
    parts: list[av.AudioFrame] = []
    try:
        graph = av.filter.Graph()
        source = graph.add_abuffer(sample_rate=rate_hz, format="flt", layout="mono", time_base=None)
        effect, sink = graph.add(name, options), graph.add("abuffersink")
        source.link_to(effect)
        effect.link_to(sink)
        graph.configure()
        graph.push(_frame(audio, rate_hz))
        graph.push(None)
        while True:
            try:
                parts.append(graph.pull())  # type: ignore[arg-type]  # a graph of audio gives audio
            except (av.BlockingIOError, av.EOFError):
                break
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"FFmpeg's filter {name}={options} can't be had ({error}); install PyAV's wheel.") from error
    return _samples(parts)


def through_codec(audio: Samples, rate_hz: int, container: str, codec: str, kbps: int | None = None) -> Samples:
    """Mono `audio` [num_samples] within ±1, coded into a file in memory and decoded again, each sample in its place.

    The container says how many samples the coder put before and behind; the decoder leaves them out.

    Raises:
        AudioError: FFmpeg's library has no such codec.
    """
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container) as coded:
            stream = coded.add_stream(codec, rate=rate_hz, layout="mono")
            assert isinstance(stream, av.AudioStream)
            if kbps is not None:
                stream.bit_rate = 1000 * kbps
            for frame in [_frame(audio, rate_hz), None]:
                coded.mux(stream.encode(frame))
        file.seek(0)
        with av.open(file, "r", format=container) as decoded:
            frames = list(decoded.decode(audio=0))
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"FFmpeg's codec {codec} can't be had ({error}); install PyAV's wheel.") from error
    made = resample(_samples(frames), frames[0].sample_rate if frames else rate_hz, rate_hz)
    return np.pad(made, (0, max(0, len(audio) - len(made))))[: len(audio)]


def _frame(audio: Samples, rate_hz: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None], np.float32), format="flt", layout="mono")
    frame.sample_rate, frame.pts = rate_hz, 0
    return frame


def _samples(frames: Iterable[av.AudioFrame]) -> Samples:
    to_float = av.AudioResampler(format="flt", layout="mono")
    parts = [piece.to_ndarray().reshape(-1) for frame in frames for piece in to_float.resample(frame)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
