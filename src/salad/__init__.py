"""Give a text LLM ears without making it dumber: SALAD (arXiv 2510.13632), and the measuring of the gap it closes.

`import salad` makes transformers' Auto classes know the speech LLM. It stays light: transformers is not imported here,
the classes are registered when transformers' Auto module is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from salad.after_import import after_import

if TYPE_CHECKING:
    from salad.answering import LoadedModel, load
    from salad.model.processor import SpeechLMProcessor
    from salad.model.speech_lm import SpeechLM

__version__ = "0.1.0"
__all__ = ["LoadedModel", "SpeechLM", "SpeechLMProcessor", "__version__", "load"]


def _register() -> None:
    import salad.model.speech_lm  # noqa: F401  (registers itself at its end, also when it is what is being imported now)


after_import("transformers.models.auto.modeling_auto", _register)


def __getattr__(name: str) -> Any:
    """`salad.load`, `salad.SpeechLM` and `salad.SpeechLMProcessor`, imported on first use."""
    if name in ("load", "LoadedModel"):
        from salad import answering

        return getattr(answering, name)
    if name == "SpeechLM":
        from salad.model.speech_lm import SpeechLM

        return SpeechLM
    if name == "SpeechLMProcessor":
        from salad.model.processor import SpeechLMProcessor

        return SpeechLMProcessor
    raise AttributeError(f"module 'salad' has no attribute {name!r}")
