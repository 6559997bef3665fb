"""A trained model from Python in three lines.

from salad import load
model = load("runs/demo")
print(model.answer("question.wav"))
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from salad import take_home
from salad.assets import resolve
from salad.measure.models.base import TEMPERATURE, TOP_K, Speech
from salad.serve.conversation import Turn
from salad.serve.drawing import Sampling
from salad.serve.rows import Piece
from salad.serve.shown import emptiness, silence
from salad.serve.sound import read_clip
from salad.serve.talker import Talker

Audio = str | Path | np.ndarray[Any, np.dtype[np.float32]]
"""A file, or samples [num_samples] at 16 kHz between -1 and 1."""


class LoadedModel:
    """A speech LLM with its processor, ready to answer; `with` ends its engine, and so does the end of the process."""

    def __init__(self, talker: Talker) -> None:
        """Around what is loaded; `load` does that."""
        self.talker = talker

    def stream(
        self, audio: Audio | None = None, prompt: str = "", max_tokens: int = 64, sample: bool = False, seed: int = 0
    ) -> Iterator[str]:
        """The answer in pieces, as it is made.

        Args:
            audio: the question; None: only the prompt is read.
            prompt: text after the speech, or instead of it.
            max_tokens: of the answer.
            sample: top-k 250 at temperature 0.7, as the paper evaluates; else greedy.
            seed: of the sampling.

        Warns (UserWarning) of a clip that holds no sound, and of an answer without words.

        Raises:
            AudioError: the audio can't be read.
            TooLongError: it is longer than the encoder hears, or than the LLM's window.
        """
        yield from self._pieces(audio, prompt, max_tokens, sample, seed)

    def answer(
        self, audio: Audio | None = None, prompt: str = "", max_tokens: int = 64, sample: bool = False, seed: int = 0
    ) -> str:
        """The whole answer; arguments and errors as those of `stream`."""
        return "".join(self._pieces(audio, prompt, max_tokens, sample, seed)).strip()

    def _pieces(self, audio: Audio | None, prompt: str, max_tokens: int, sample: bool, seed: int) -> Iterator[str]:
        """What `stream` and `answer` give; a warning is at the line that called them, two frames up."""
        parts = [] if audio is None else [_clip(audio)]
        for sentence in silence(parts):
            warnings.warn(sentence, stacklevel=3)
        heard = self.talker.hear([Turn("user", (*parts, prompt) if prompt or not parts else tuple(parts))])
        how = Sampling(TEMPERATURE, TOP_K, seed=seed) if sample else Sampling()
        whole = ""
        for event in self.talker.events(heard, max_tokens, sampling=how):
            if isinstance(event, Piece):
                whole += event.text
                yield event.text
            else:
                for sentence in emptiness(whole.strip(), event):
                    warnings.warn(sentence, stacklevel=3)

    def close(self) -> None:
        """End the engine's thread."""
        self.talker.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def load(path: str | Path = take_home.NAME, device: str = "auto") -> LoadedModel:
    """The model in a model's or a run's folder, or of a name on the hub (org/name), on the GPU if there is one.

    Without a path it is the one that comes with the package (docs/take-home.md).

    Raises:
        AssetError: it is no folder, and can't be had from the hub.
        CheckpointError: there is no model, or its files are damaged.
    """
    return LoadedModel(Talker.load(resolve(str(path)), device=device, max_rows=1))


def _clip(audio: Audio) -> Speech:
    if isinstance(audio, np.ndarray):
        return Speech(np.asarray(audio, np.float32), "samples")
    return read_clip(Path(audio))
