"""Makes transformers' Auto classes know the speech LLM; called at the end of salad.model.speech_lm."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    PreTrainedModel,
)

from salad.model.config import SpeechLMConfig
from salad.model.processor import SpeechFeatureExtractor, SpeechLMProcessor


def register(model: type[PreTrainedModel]) -> None:
    """Register configuration, model, feature extractor and processor. Doing it twice is harmless."""
    AutoConfig.register(SpeechLMConfig.model_type, SpeechLMConfig, exist_ok=True)
    AutoModel.register(SpeechLMConfig, model, exist_ok=True)
    AutoModelForCausalLM.register(SpeechLMConfig, model, exist_ok=True)
    AutoFeatureExtractor.register(SpeechLMConfig, SpeechFeatureExtractor, exist_ok=True)
    AutoProcessor.register(SpeechLMConfig, SpeechLMProcessor, exist_ok=True)
