"""The speech LLM as one transformers model: frozen-encoder features -> adapter -> LLM.

The frozen encoder itself lives in the processor (model/processor.py): its features are computed once and cached, so the
trained model begins where learning begins.

Axes: B sequences, T positions, D documents of a flat row of T positions, S speech spans in reading order, F encoder
frames, E encoder width, H LLM width, V its vocabulary.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from salad.errors import AudioError, CheckpointError
from salad.model.adapter import Adapter
from salad.model.attention import attend_per_document, read_documents
from salad.model.config import SpeechLMConfig
from salad.model.llm import DTYPES, load_llm
from salad.model.register import register
from salad.model.saved import (
    ONE_FILE,
    WEIGHTS_NAME,
    check_weights,
    device_of,
    dtype_of,
    refuse_others,
    saving,
)
from salad.recipe import AdapterSettings, ModelSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import LoraConfig


class SpeechLM(PreTrainedModel, GenerationMixin):
    """A text LLM with ears.

    Where the configuration's `dtype` is bfloat16 its passes run in bfloat16, whoever asks for them, and what is trained
    is kept in float32: adapter and LoRA over a bfloat16 LLM, or the whole LLM.

    `from_pretrained(dir)` loads the trained weights and, unless the whole LLM was trained, the base LLM by the name in
    the configuration. `generate` takes `input_ids` with placeholders and `speech_features`, `speech_lengths`.
    """

    config_class = SpeechLMConfig
    base_model_prefix = "language_model"
    _supports_sdpa = True
    _supports_flash_attn = True
    supports_gradient_checkpointing = True

    def __init__(self, config: SpeechLMConfig, language_model: PreTrainedModel | None = None) -> None:
        """A model with random weights, or around a loaded LLM."""
        super().__init__(config)
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(config.text_config, dtype=_llm_dtype(config))
        self.language_model = language_model
        attend_per_document(language_model)
        llm_dim = config.get_text_config().hidden_size
        self.adapter = Adapter(AdapterSettings(**config.adapter), config.encoder_dim, llm_dim)
        self.post_init()
        if config.lora is not None:  # after post_init, which would overwrite LoRA's zeros with noise
            self.language_model.add_adapter(_lora_config(config.lora))
        self._set_trainable()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave torch's own initialization alone: the LLM is loaded, LoRA and adapter initialize themselves."""

    def _set_trainable(self) -> None:
        for name, parameter in self.language_model.named_parameters():
            train = self.config.train_llm == "full" or (self.config.train_llm == "lora" and "lora_" in name)
            parameter.requires_grad_(train)
            if train:  # an update of bfloat16 weights by a small rate rounds to none; peft gives LoRA its base's type
                parameter.data = parameter.data.float()

    @classmethod
    def from_llm(
        cls, settings: ModelSettings, encoder_dim: int, encoder_hz: float, speech_token_id: int, seed: int = 0
    ) -> SpeechLM:
        """A new, untrained speech LLM around the recipe's LLM: adapter random under `seed`, LoRA zero."""
        llm = load_llm(settings.llm, "float32" if settings.train_llm == "full" else settings.dtype)
        return cls.around(llm, settings, encoder_dim, encoder_hz, speech_token_id, seed)

    @classmethod
    def around(
        cls,
        llm: PreTrainedModel,
        settings: ModelSettings,
        encoder_dim: int,
        encoder_hz: float,
        speech_token_id: int,
        seed: int = 0,
    ) -> SpeechLM:
        """`from_llm` around an LLM that is already in memory; the LLM is taken over, not copied."""
        config = SpeechLMConfig(
            llm=settings.llm,
            text_config=llm.config,
            encoder=settings.encoder,
            encoder_dim=encoder_dim,
            encoder_hz=encoder_hz,
            adapter=settings.adapter.model_dump(),
            lora=settings.lora.model_dump() if settings.train_llm == "lora" else None,
            train_llm=settings.train_llm,
            speech_token_id=speech_token_id,
            dtype=DTYPES[settings.dtype],
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config, language_model=llm)
        if model.adapter.shell is not None:
            table = model.get_input_embeddings()
            with torch.no_grad():  # what is read, which Gemma scales, and not the table
                model.adapter.shell.fit(table(torch.arange(len(model.table_VH), device=model.table_VH.device)))
        model.eval()
        return model

    # --- loading and saving: only what was trained is stored, the base LLM is named --------------------------------

    def trained_state(self) -> dict[str, Tensor]:
        """The tensors that training changes or made: the adapter, and LoRA or the whole LLM."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        state = self.state_dict()
        return {name: state[name] for name in state if name in trained or name.startswith("adapter.")}

    def load_trained_state(self, state: dict[str, Tensor], where: str) -> None:
        """Put stored tensors in place.

        Raises:
            CheckpointError: names or shapes are not this model's.
        """
        own = self.trained_state()
        missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        bent = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
        if missing or foreign or bent:
            examples = (missing + foreign + bent)[:3]
            raise CheckpointError(
                f"{where} does not belong to this model: {len(missing)} tensors missing, {len(foreign)} unknown, "
                f"{len(bent)} of another shape (e.g. {', '.join(examples)})."
            )
        self.load_state_dict(state, strict=False)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Write config.json, the trained weights as safetensors, and their hash; `state_dict` stands for the weights.

        Raises:
            CheckpointError: the disk takes no more; what was there is as it was.
        """
        folder = Path(save_directory)
        given = kwargs.pop("state_dict", None) or self.trained_state()
        state = {name: tensor.contiguous() for name, tensor in given.items()}
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", folder.name)
        with saving(folder) as fresh:
            super().save_pretrained(fresh, state_dict=state, **kwargs | {"max_shard_size": ONE_FILE})

    @classmethod
    def from_pretrained(  # type: ignore[override]  # a narrower signature than transformers'
        cls,
        folder: str | Path,
        *,
        config: SpeechLMConfig | None = None,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> SpeechLM:
        """Load a saved speech LLM from a folder or the hub, in eval mode.

        The base LLM comes by the name in its config, unless the whole LLM was trained and is among the saved weights.

        Args:
            folder: where it was saved, or its name on the hub.
            config: instead of the saved one.
            dtype: of all its weights; that of the saved ones where it is None or "auto".
            torch_dtype: its older name.
            device_map: "auto" (a GPU where there is one), or the one device to put it on; the CPU unless told.
            revision: taken only where it is what the hub's cache holds.
            kwargs: keys of the configuration, such as `llm`, where the base LLM is now.

        Raises:
            CheckpointError: the folder is no speech LLM, its weights are damaged or don't fit, or it can't be loaded
                in the way that is asked for.
        """
        from salad.assets import resolve

        asked, device = dtype_of(dtype if dtype is not None else torch_dtype), device_of(device_map)
        path = resolve(str(folder))
        if not (path / "config.json").is_file() or not (path / WEIGHTS_NAME).is_file():
            raise CheckpointError(f"{path} is no saved speech LLM: it needs config.json and {WEIGHTS_NAME}.")
        attention = kwargs.pop("attn_implementation", None)
        if config is None:
            config, kwargs = SpeechLMConfig.from_pretrained(path, return_unused_kwargs=True, **kwargs)
        if not isinstance(config, SpeechLMConfig) or config.model_type != SpeechLMConfig.model_type:
            raise CheckpointError(f"{path} holds another kind of model ({config.model_type}).")
        refuse_others(kwargs | {"attn_implementation": None if attention == "sdpa" else attention}, path, revision)
        check_weights(path)
        if asked is not None:
            config.dtype = asked
        base_llm = None if config.train_llm == "full" else load_llm(config.llm, _dtype_name(config))
        model = cls(config, language_model=base_llm)
        try:
            state = load_file(path / WEIGHTS_NAME)
        except Exception as error:  # safetensors has its own untyped error
            raise CheckpointError(f"{path / WEIGHTS_NAME} is damaged ({error}); copy or train it again.") from error
        model.load_trained_state(state, str(path))
        model.eval()
        nn.Module.to(model, device, asked)  # in place; transformers' own is typed as its base class's
        return model

    # --- how it computes --------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """What its passes run in: bfloat16 also where the weights are float32 because they are trained."""
        return torch.bfloat16 if str(self.config.dtype).endswith("bfloat16") else super().dtype

    def _precision(self) -> AbstractContextManager[object]:
        """What a pass runs in: bfloat16 products over whatever weights, or the weights' own type."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == torch.bfloat16 else nullcontext()

    def checkpoint_activations(self) -> None:
        """In training, keep only what goes into each layer of the LLM and of the adapter's stack.

        The rest is computed again for the backward pass: the same gradients to the bit, for a second forward pass.
        """
        self.activation_checkpointing_enable({"use_reentrant": False})

    # --- reading and hearing ---------------------------------------------------------------------------------------

    def get_input_embeddings(self) -> nn.Module:
        """The LLM's input embedding table."""
        return cast("nn.Module", self.language_model.get_input_embeddings())

    def get_output_embeddings(self) -> nn.Module:
        """The LLM's head."""
        return cast("nn.Module", self.language_model.get_output_embeddings())

    @property
    def table_VH(self) -> Tensor:
        """The input embedding table [V, H]."""
        return cast("Tensor", self.get_input_embeddings().weight)

    @property
    def head_VH(self) -> Tensor:
        """The head's weight [V, H]."""
        return cast("Tensor", self.get_output_embeddings().weight)

    def embed(
        self, input_ids_BT: Tensor, speech_features_SFE: Tensor | None, speech_lengths_S: Tensor | None
    ) -> Tensor:
        """Text and speech merged into LLM input embeddings [B, T, H].

        Placeholders are masked before the lookup (their id is outside the table) and filled, in reading order, with the
        adapter's positions of the spans.

        Raises:
            AudioError: the number of placeholders is not the number of speech positions.
        """
        placeholder = input_ids_BT == self.config.speech_token_id
        embedded = self.get_input_embeddings()(input_ids_BT.masked_fill(placeholder, 0))
        if speech_features_SFE is None or speech_lengths_S is None:
            if bool(placeholder.any()):
                raise AudioError("the input holds speech placeholders but no speech_features were given.")
            return cast("Tensor", embedded)
        heard = self.adapter(speech_features_SFE)
        positions_S = -(-speech_lengths_S // self.adapter.settings.frames_per_position)
        valid = torch.arange(heard.shape[1], device=heard.device) < positions_S[:, None]
        if int(placeholder.sum()) != int(valid.sum()):
            raise AudioError(
                f"the input holds {int(placeholder.sum())} speech placeholders, the speech has {int(valid.sum())} "
                "positions; build the input with the model's processor."
            )
        return cast("Tensor", embedded.masked_scatter(placeholder[..., None], heard[valid].to(embedded.dtype)))

    def last_hidden(
        self,
        ids_T: Tensor,
        lengths_D: Tensor,
        speech_features_SFE: Tensor | None = None,
        speech_lengths_S: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [T, H] of documents in a flat row (interleave/batch.py), without the head.

        In training the adapter takes part in every pass: where nothing is heard it hears one frame of zeros, times 0.
        A rank whose documents are all text then has gradients for the same parameters as the others, and none waits
        for it.
        """
        with self._precision():
            embedded_TH = self.embed(ids_T[None], speech_features_SFE, speech_lengths_S)[0]
            if self.training and speech_features_SFE is None:
                silence = self.table_VH.new_zeros(1, 1, self.config.encoder_dim)
                embedded_TH = embedded_TH + 0.0 * self.adapter(silence).sum().to(embedded_TH.dtype)
            return read_documents(self.language_model, embedded_TH, lengths_D)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        speech_features: Tensor | None = None,
        speech_lengths: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """transformers' causal-LM forward; speech_features [S, F, E] zero-padded, speech_lengths [S] in frames.

        `logits_to_keep` is the LLM's: of a prompt `generate` asks for the last position's logits alone.
        """
        with self._precision():
            if inputs_embeds is None:
                if input_ids is None:
                    raise ValueError("give input_ids or inputs_embeds.")
                inputs_embeds = self.embed(input_ids, speech_features, speech_lengths)
            output: CausalLMOutputWithPast = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                labels=labels,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **kwargs,
            )
        return output

    def prepare_inputs_for_generation(  # type: ignore[override]  # arguments by name; the mixin's are narrower
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        speech_features: Tensor | None = None,
        speech_lengths: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Speech goes in at the prefill only; afterwards it is in the cache."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]  # its self is a protocol
            cast("torch.LongTensor", input_ids),
            past_key_values=past_key_values,
            attention_mask=cast("torch.LongTensor | None", attention_mask),
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if is_first_iteration:
            inputs |= {"speech_features": speech_features, "speech_lengths": speech_lengths}
        return inputs

    @contextmanager
    def as_text_llm(self) -> Iterator[PreTrainedModel]:
        """The LLM with its LoRA switched off: the original text LLM, without a second copy.

        Only the layers' own switches are turned. peft's and transformers' functions also turn the gradients of LoRA off
        and on, and a parameter that FSDP2 first meets without gradient never gets one.

        Raises:
            CheckpointError: the whole LLM is trained, so the original is gone.
        """
        if self.config.train_llm == "full":
            raise CheckpointError("this model's LLM was fully trained; load the text LLM separately as the teacher.")
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self.language_model.modules() if isinstance(module, BaseTunerLayer)]
        before = [layer._disable_adapters for layer in layers]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield self.language_model
        finally:
            for layer, was in zip(layers, before, strict=True):
                layer._disable_adapters = was

    @torch.no_grad()
    def original_hidden(self, ids_T: Tensor, lengths_D: Tensor) -> Tensor:
        """Last hidden states [T, H] of text documents in a flat row as the original LLM has them: no LoRA, no dropout.

        Raises:
            CheckpointError: see `as_text_llm`.
        """
        with self.as_text_llm() as llm:
            training = llm.training
            llm.eval()
            try:
                return read_documents(llm, self.get_input_embeddings()(ids_T), lengths_D)
            finally:
                llm.train(training)


def _llm_dtype(config: SpeechLMConfig) -> torch.dtype:
    """What the LLM's weights are kept in: float32 where they are trained."""
    return torch.float32 if config.train_llm == "full" else DTYPES[_dtype_name(config)]


def _dtype_name(config: SpeechLMConfig) -> str:
    return str(config.dtype or "float32").removeprefix("torch.")


def _lora_config(lora: dict[str, Any]) -> LoraConfig:
    from peft import LoraConfig  # here: peft imports transformers' Auto classes, which import this module

    return LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        target_modules=list(lora["targets"]),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


register(SpeechLM)
