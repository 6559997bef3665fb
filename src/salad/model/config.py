"""The configuration of a speech LLM, as transformers knows it."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig


class SpeechLMConfig(PretrainedConfig):
    """Frozen encoder -> adapter -> LLM.

    Args:
        llm: name or path of the text LLM (salad.assets.resolve); its weights are stored again only if they are trained.
        text_config: the LLM's own configuration.
        encoder: name of the frozen speech encoder; `encoder_dim` its width, `encoder_hz` its frames per second.
        adapter: keys of salad.recipe.AdapterSettings.
        lora: keys of salad.recipe.LoraSettings, or None.
        train_llm: frozen, lora or full; decides which weights `save_pretrained` stores.
        speech_token_id: the placeholder in `input_ids` that a speech position stands on; outside the LLM's vocabulary.
    """

    model_type = "salad_speech_lm"

    def __init__(
        self,
        llm: str = "",
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        encoder: str = "",
        encoder_dim: int = 0,
        encoder_hz: float = 0.0,
        adapter: dict[str, Any] | None = None,
        lora: dict[str, Any] | None = None,
        train_llm: str = "frozen",
        speech_token_id: int = -1,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        self.llm = llm
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.encoder = encoder
        self.encoder_dim = encoder_dim
        self.encoder_hz = encoder_hz
        self.adapter = adapter or {}
        self.lora = lora
        self.train_llm = train_llm
        self.speech_token_id = speech_token_id
        super().__init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PretrainedConfig:  # noqa: ARG002  (transformers' signature)
        """The LLM's configuration; transformers' caches and generation read their sizes from it."""
        return self.text_config if self.text_config is not None else self

    @property
    def position_hz(self) -> float:
        """LLM positions per second of speech."""
        return float(self.encoder_hz) / int(self.adapter["frames_per_position"])
