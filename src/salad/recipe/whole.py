"""A whole run's recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from salad.recipe.base import Count, Positive, Settings
from salad.recipe.data import DataSettings, SequenceSettings
from salad.recipe.model import ModelSettings
from salad.recipe.stages import StageOneSettings, StageSettings, StageThreeSettings, StageTwoSettings
from salad.recipe.synthesis import AugmentSettings, QualitySettings, VoiceSettings

ONE_VOICE, VOICE_POOL = "(one voice)", "(a pool)"  # the two ways to give `voice`


class MeasureSettings(Settings):
    """Intervals by bootstrap over documents; the definition task's size; what a forward pass takes.

    `batch_positions` of packed sequences where divergences are measured, `batch_documents` prompts in the task.
    """

    num_bootstrap: Count = 2000
    task_items: Count = 40
    batch_positions: Count = 2048
    batch_documents: Count = 12


class EngineSettings(Settings):
    """How the arithmetic is done; nothing here changes what is computed by more than rounding.

    `device`: auto takes a GPU where there is one. `parallel`, with several processes (torchrun): ddp keeps the whole
    model on each, fsdp (FSDP2) shards parameters, gradients and optimizer state. `gradient_checkpointing` computes the
    LLM's layers twice to keep their activations once. `teacher`: auto is the student with its LoRA switched off, or a
    frozen copy where the whole LLM is trained; separate is always a copy; cached computes its hidden states once and
    keeps them in 2 bytes a number. `keep_checkpoints`: how many of the latest are kept, besides the one before the
    decay. `fan_out`: who embeds, speaks and probes: worker processes of this machine, or those of a Ray cluster
    (docs/many-machines.md), `workers` of them, by default one a thread. Every `watch_every` steps (0: never) M, F and
    hearing are taken on `watch_items` held-out human utterances.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    gradient_checkpointing: bool = False
    teacher: Literal["auto", "separate", "cached"] = "auto"
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    fan_out: Literal["processes", "ray"] = "processes"
    workers: Count | None = None
    watch_every: Annotated[int, Field(ge=0)] = 0
    watch_items: Annotated[int, Field(ge=2)] = 8


class ExpectedSettings(Settings):
    """What `salad plan` takes the data to be like; training reads none of it.

    `natural_h` hours of natural speech in utterances of `utterance_s` seconds, `words_per_s` spoken in each second;
    texts, read or spoken, of `text_words` words; the tokenizer's `tokens_per_word`.
    """

    natural_h: Positive | None = None
    utterance_s: Positive = 12.0
    words_per_s: Positive = 2.7
    text_words: Positive = 600.0
    tokens_per_word: Positive = 1.3


class Recipe(Settings):
    """A whole run. See recipes/*.yaml.

    `threads` of the training process; `loader_workers`, processes that make its batches before they are asked for (0:
    it makes them itself). Batches are the same with any number of workers. `asr` transcribes: the cascade, the check of
    synthetic speech. `aligner` times words: pocketsphinx (US English), whisper, whisper:MODEL, ctc:MODEL. `voice`: one
    by its name, or a pool of them (docs/voices.md). `stage_three`: null, there is none.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Count = 2
    loader_workers: Annotated[int, Field(ge=0)] = 0
    asr: str = "whisper-tiny.en"
    aligner: str = "pocketsphinx"
    voice: Annotated[
        Annotated[str, Tag(ONE_VOICE)] | Annotated[tuple[VoiceSettings, ...], Field(min_length=1), Tag(VOICE_POOL)],
        Discriminator(
            lambda given: ONE_VOICE if isinstance(given, str) else VOICE_POOL
        ),  # so that one of them complains
    ] = "piper-joe"
    augment: AugmentSettings = AugmentSettings()
    quality: QualitySettings = QualitySettings()
    embedder: str = "minilm-l6"
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    sequence: SequenceSettings = SequenceSettings()
    stage_one: StageOneSettings = StageOneSettings()
    stage_two: StageTwoSettings = StageTwoSettings()
    stage_three: StageThreeSettings | None = None
    measure: MeasureSettings = MeasureSettings()
    engine: EngineSettings = EngineSettings()
    expected: ExpectedSettings = ExpectedSettings()

    @property
    def voices(self) -> tuple[VoiceSettings, ...]:
        """The voices that speak, one or a pool."""
        return (VoiceSettings(name=self.voice),) if isinstance(self.voice, str) else self.voice

    @property
    def workers(self) -> int:
        """How many worker processes embed, speak and probe."""
        return self.engine.workers or self.threads

    @property
    def voice_names(self) -> tuple[str, ...]:
        """What the voices are called."""
        return tuple(voice.name for voice in self.voices)

    @property
    def stages(self) -> dict[str, StageSettings]:
        """The stages there are, by their keys."""
        every = {"stage_one": self.stage_one, "stage_two": self.stage_two, "stage_three": self.stage_three}
        return {name: stage for name, stage in every.items() if stage is not None}

    @model_validator(mode="after")
    def _what_is_heard_can_be_shortened(self) -> Self:
        growing = [f"{name}.curriculum" for name, stage in self.stages.items() if stage.curriculum is not None]
        if growing and self.sequence.policy == "utterance":
            raise ValueError(
                f"{' and '.join(growing)}: the policy utterance hears everything at once and has no span to shorten; "
                "set it to null, or take another sequence.policy"
            )
        return self

    @model_validator(mode="after")
    def _sequences_fit_into_micro_batches(self) -> Self:
        longest = self.sequence.max_positions
        small = [
            f"{k}.micro_batch_positions={s.micro_batch_positions}"
            for k, s in self.stages.items()
            if s.micro_batch_positions < longest
        ]
        if small:
            raise ValueError(
                f"{' and '.join(small)} must be at least sequence.max_positions={longest}, the longest sequence"
            )
        return self
