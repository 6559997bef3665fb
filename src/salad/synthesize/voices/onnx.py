"""Opening a voice's ONNX model: its threads, its durations among its outputs, and what a damaged file is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from salad.errors import AssetError
from salad.synthesize.voices.piper_times import with_durations

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


def open_model(path: Path, threads: int, durations: str, device: str = "cpu") -> onnxruntime.InferenceSession:
    """A session of the model at `path`; the frames of each phoneme are its last output where they can be had.

    Args:
        path: the .onnx file.
        threads: onnxruntime's threads; without a number it takes one for each core.
        durations: the type of the one node whose output they are, as for `with_durations`.
        device: "cpu" or "cuda", which needs the onnxruntime-gpu package.

    Raises:
        AssetError: the file is damaged, or the device can't be had.
    """
    import onnxruntime

    provider = _PROVIDERS[device][0]
    if provider not in onnxruntime.get_available_providers():
        raise AssetError(f"onnxruntime has no {provider} here; install onnxruntime-gpu, or speak on the CPU.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is in the exception
    try:
        model: bytes | str = with_durations(path.read_bytes(), durations) or str(path)
        return onnxruntime.InferenceSession(model, options, providers=_PROVIDERS[device])
    except Exception as error:  # the classes are the library's own and change with its versions
        why = " ".join(str(error).split())[:160].rstrip(".")
        raise AssetError(f"{path} can't be read as an ONNX model ({why}); fetch it anew.") from error
