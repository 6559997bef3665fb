"""Kokoro by its authors' package, in PyTorch: the way to a GPU. Needs the extra `kokoro` and the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salad.errors import AssetError
from salad.files import read_json
from salad.synthesize.voices.kokoro import STYLE_DIM, Files, Uttered
from salad.synthesize.voices.kokoro_files import HUB_TORCH, hub_file
from salad.synthesize.voices.kokoro_text import MOST_SIGNS


def torch_files(voice: str) -> tuple[Files, dict[str, Any]]:
    """A voice's files in the authors' own repository, and the model's configuration.

    Raises:
        AssetError: they can't be had, or the voice's table is damaged.
    """
    config = read_json(hub_file(voice, HUB_TORCH, "config.json"))
    styles = load_styles(hub_file(voice, HUB_TORCH, f"voices/{voice}.pt"))
    return Files(hub_file(voice, HUB_TORCH, "kokoro-v1_0.pth"), styles, config["vocab"]), config


def load_styles(path: Path) -> NDArray[np.float32]:
    """A voice's styles [510, 256] from its .pt; nothing but a tensor is unpickled.

    Raises:
        AssetError: it holds something else.
    """
    import torch

    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
        return np.asarray(table.float().numpy().reshape(MOST_SIGNS, STYLE_DIM), dtype=np.float32)
    except Exception as error:  # torch raises what its readers raise: RuntimeError, UnpicklingError, EOFError, …
        raise AssetError(f"{path} is no table of a Kokoro voice ({type(error).__name__}); fetch it anew.") from error


class TorchKokoro:
    """Kokoro's `KModel` on a device, loaded when it first speaks.

    Its source of excitation has noise; it is drawn from a generator set anew for each piece, so that the same text
    gives the same samples on the same kind of device.

    Args:
        weights: the .pth file.
        config: the model's own configuration, config.json.
        device: as PyTorch names it.
    """

    def __init__(self, weights: Path, config: dict[str, Any], device: str) -> None:
        self._weights, self._config, self._device = weights, config, device
        self._model: Any = None

    def utter(self, ids: list[int], style: NDArray[np.float32], speed: float) -> Uttered:
        """The sound of `ids` [num_ids], 0 at both ends, in a style [256].

        Raises:
            AssetError: the weights can't be loaded.
        """
        import torch

        if self._model is None:
            self._model = self._loaded()
        devices = [torch.device(self._device)] if self._device != "cpu" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            tokens = torch.tensor([ids], device=self._device)
            row = torch.tensor(style[None], device=self._device)
            audio, frames = self._model.forward_with_tokens(tokens, row, speed)
        sound = np.asarray(audio.float().cpu().numpy(), dtype=np.float32).ravel()
        return Uttered(sound, np.asarray(frames.cpu().numpy(), dtype=np.int64).ravel())

    def _loaded(self) -> Any:
        try:
            from kokoro import KModel

            model = KModel(repo_id=HUB_TORCH, config=self._config, model=str(self._weights))
            return model.to(self._device).eval()
        except Exception as error:  # a missing part of the package, damaged weights, a device that is not there
            why = " ".join(str(error).split())[:160].rstrip(".")
            raise AssetError(
                f"Kokoro can't be loaded from {self._weights} on {self._device!r} ({type(error).__name__}: {why}); "
                "install the extra kokoro, fetch the file anew, or speak on the CPU."
            ) from error
