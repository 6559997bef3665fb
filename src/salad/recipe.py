"""The recipe: everything a run depends on, as data. YAML in, typed and frozen here, `--set a.b=c` on top.

Unknown keys are refused with the nearest valid one; all problems of a recipe come in one message. The resolved recipe
is saved with every run. Units stand in the names: `_s`, `_h`, `_frac` (0-1), `_tokens`; `num_` counts.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from salad.errors import MissingFileError, RecipeError

Frac = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


def _upwards(bounds: tuple[int, int]) -> tuple[int, int]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the least, {bounds[0]}, is more than the most, {bounds[1]}")
    return bounds


CountRange = Annotated[tuple[Count, Count], AfterValidator(_upwards)]


class Settings(BaseModel):
    """A frozen group of recipe keys that refuses unknown ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AdapterSettings(Settings):
    """The trained part between the frozen encoder and the LLM (model/adapter.py, docs/adapters.md).

    `kind`: `mlp`, two layers over a position's frames and `context_frames` neighbours on both sides; `stack`, those
    frames into `num_layers` Llama decoder layers; `paper`, the paper's stack of 12 layers, 960 wide (118.0M parameters,
    120.5M with the projections from Mimi to a 2048-wide LLM); `conv`, strided convolutions, and a stack on top unless
    `num_layers` is 0. `frames_per_position` brings the frame rate down by any whole number. The stack's sizes say
    nothing to `mlp`. `output`: `linear`, or `embedding_shell` (unit vector x mean norm of the LLM's centred input
    embeddings + their mean).
    """

    kind: Literal["mlp", "stack", "paper", "conv"] = "mlp"
    frames_per_position: Count = 4
    context_frames: Annotated[int, Field(ge=0)] = 1
    hidden_size: Count = 960
    num_layers: Annotated[int, Field(ge=0)] = 12
    num_heads: Count = 15
    num_key_value_heads: Count = 5
    intermediate_size: Count = 2560
    output: Literal["linear", "embedding_shell"] = "embedding_shell"

    @model_validator(mode="after")
    def _sizes_make_a_stack(self) -> Self:
        if self.kind == "paper":
            names = ("hidden_size", "num_layers", "num_heads", "num_key_value_heads", "intermediate_size")
            paper = {name: type(self).model_fields[name].default for name in names}
            other = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != paper[name]]
            if other:
                own = ", ".join(f"{name}={value}" for name, value in paper.items())
                raise ValueError(
                    f"{', '.join(other)}: kind=paper is the paper's stack, {own}; set kind=stack for another"
                )
        if self.kind == "stack" and self.num_layers == 0:
            raise ValueError("num_layers=0 leaves no stack; set at least 1, or kind=mlp")
        if self.kind == "mlp" or self.num_layers == 0:
            return self
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        if self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} in num_heads={self.num_heads} makes heads of an odd width, "
                f"{self.hidden_size // self.num_heads}, which rotary positions can't turn; choose another num_heads"
            )
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads={self.num_key_value_heads} does not divide num_heads={self.num_heads}"
            )
        return self


class LoraSettings(Settings):
    """Low-rank updates of the LLM (Hu et al., 2021)."""

    rank: Count = 16
    alpha: Positive = 32.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


class LlmSizes(Settings):
    """The LLM's architecture, under the names of its config.json: `salad plan` then needs neither hub nor weights.

    `head_dim` None: hidden_size / num_attention_heads. Qwen2's biases come with its `model_type`; `attention_bias` is
    for types whose configuration has that key.
    """

    model_type: str = "llama"
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count | None = None
    intermediate_size: Count
    vocab_size: Count
    tie_word_embeddings: bool
    attention_bias: bool = False


class EncoderSizes(Settings):
    """What the encoder gives: `dim` wide frames, `hz` of them a second."""

    dim: Count
    hz: Positive


class ModelSettings(Settings):
    """Which LLM, which encoder, and how they are joined. `train_llm` says what of the LLM learns.

    `llm_sizes` and `encoder_sizes` are for planning where the models are not at hand; where they are, both must agree.
    """

    llm: str = "smollm2-135m-instruct"
    llm_sizes: LlmSizes | None = None
    encoder: str = "whisper-tiny.en"
    encoder_sizes: EncoderSizes | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    train_llm: Literal["frozen", "lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    adapter: AdapterSettings = AdapterSettings()


class DataSettings(Settings):
    """Natural speech, broad text, and how they are split.

    `human`: natural speech, one or several of: debian-prompts, a folder of audio with a manifest, a prepared and
    aligned folder (used where it lies). Several are mixed by their numbers of utterances. `text`: `wordnet`, or a JSONL
    file. `pool_texts` are what Stage II may select from; `mix_texts` are Stage I's text; `heldout_texts` are spoken for
    measuring and seen by nothing else.
    """

    human: str | Annotated[tuple[str, ...], Field(min_length=1)] = "debian-prompts"
    text: str = "wordnet"
    heldout_human: Annotated[int, Field(ge=2)] = 40
    heldout_texts: Count = 120
    mix_texts: Count = 4000
    pool_texts: Count = 4000


class SequenceSettings(Settings):
    """How one utterance becomes one mixed sequence (interleave/spans.py). Word ranges are the paper's.

    `continuation_words`: how much of the text after the utterance the `utterance` policy predicts, at most.
    """

    policy: Literal["interleaved", "speech_prefix", "utterance", "poisson"] = "interleaved"
    text_words: CountRange = (10, 30)
    speech_words: CountRange = (5, 15)
    poisson_words: Positive = 10.0
    prefix_frac: Frac = 0.6
    continuation_words: Count = 30
    min_words: Annotated[int, Field(ge=2)] = 5
    max_positions: Count = 2048


class WarmStartSettings(Settings):
    """Stage 0 (ours, optional): a warm start of the adapter (model/warm_start.py, docs/adapters.md). 0 steps: none.

    `kind`: `word_aligned` names the word under each position, and needs word timings; `ctc` only the words' order.
    Both compare directions by their cosine times `cosine_scale`. A rate or scale of null is the kind's own: 2e-3 and 12
    for word_aligned, 1e-3 and 30 for ctc.
    """

    kind: Literal["word_aligned", "ctc"] = "word_aligned"
    steps: Annotated[int, Field(ge=0)] = 400
    batch_positions: Count = 1024
    learning_rate: Positive | None = None
    cosine_scale: Positive | None = None


class OptimizerSettings(Settings):
    """AdamW with one rate for the adapter and one for the LLM; gradient clipping by the global norm."""

    adapter_rate: Positive = 1e-3
    llm_rate: Positive = 5e-5
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    beta1: Frac = 0.9
    beta2: Frac = 0.95
    clip_norm: Positive = 1.0


# What may be changed between two attempts at a step: of a stage, what changes its result by rounding alone; of a model,
# what only planning reads.
MAY_CHANGE = ("checkpoint_every", "micro_batch_positions", "llm_sizes", "encoder_sizes")


class StageSettings(Settings):
    """What both stages share: the objective, the batch, the length.

    A step's `batch_sequences` are packed into micro-batches of at most `micro_batch_positions` LLM positions: what
    stands in memory at once. It changes results by rounding alone. `divergence` from the teacher: the paper's is
    forward_kl; `jsd_beta` is the teacher's weight in the mixture of jsd. A checkpoint is written every
    `checkpoint_every` steps.
    """

    alpha: Frac = 1.0
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    jsd_beta: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    steps: Count = 40
    batch_sequences: Count = 12
    micro_batch_positions: Count = 2048
    checkpoint_every: Count = 10
    optimizer: OptimizerSettings = OptimizerSettings()


class StageOneSettings(StageSettings):
    """Stage I: distillation on natural speech, `text_frac` of the sequences being text; warmup-stable-decay."""

    text_frac: Frac = 1 / 3
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    decay_frac: Frac = 0.2
    warm_start: WarmStartSettings = WarmStartSettings()

    @model_validator(mode="after")
    def _a_step_stands_before_the_decay(self) -> Self:
        if self.steps * self.decay_frac + 0.5 >= self.steps:
            raise ValueError(
                f"decay_frac={self.decay_frac:g} of steps={self.steps} leaves no step before the decay, where Stage II "
                "begins; lower decay_frac, or take more steps"
            )
        return self


class StageTwoSettings(StageSettings):
    """Stage II: cluster, probe, select by misalignment^gamma, synthesize, distill on from the pre-decay checkpoint.

    `budget_frac` is the synthetic speech in proportion to the natural speech of Stage I (the paper: 0.01).
    """

    num_clusters: Count = 8
    probe_texts: Count = 12
    gamma: Annotated[float, Field(ge=0.0)] = 5.0
    budget_frac: Positive = 0.01
    max_cer: Positive = 0.3
    warm_start: WarmStartSettings = WarmStartSettings()


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
    decay. Every `watch_every` steps (0: never) M, F and hearing are taken on `watch_items` held-out human utterances.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    gradient_checkpointing: bool = False
    teacher: Literal["auto", "separate", "cached"] = "auto"
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
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
    probe speech. `aligner` times words: pocketsphinx (US English), whisper, whisper:MODEL, ctc:MODEL.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Count = 2
    loader_workers: Annotated[int, Field(ge=0)] = 0
    asr: str = "whisper-tiny.en"
    aligner: str = "pocketsphinx"
    voice: str = "piper-joe"
    embedder: str = "minilm-l6"
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    sequence: SequenceSettings = SequenceSettings()
    stage_one: StageOneSettings = StageOneSettings()
    stage_two: StageTwoSettings = StageTwoSettings()
    measure: MeasureSettings = MeasureSettings()
    engine: EngineSettings = EngineSettings()
    expected: ExpectedSettings = ExpectedSettings()

    @model_validator(mode="after")
    def _sequences_fit_into_micro_batches(self) -> Self:
        longest = self.sequence.max_positions
        stages = {"stage_one": self.stage_one, "stage_two": self.stage_two}
        small = [
            f"{k}.micro_batch_positions={s.micro_batch_positions}"
            for k, s in stages.items()
            if s.micro_batch_positions < longest
        ]
        if small:
            raise ValueError(
                f"{' and '.join(small)} must be at least sequence.max_positions={longest}, the longest sequence"
            )
        return self


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML file with `a.b=value` overrides applied, values read as YAML.

    Raises:
        MissingFileError: no such file.
        RecipeError: unreadable YAML, unknown keys, values out of range; all of them in one message.
    """
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" In that folder: {', '.join(near)}." if near else ""
        raise MissingFileError(f"no recipe at {path}.{hint}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds no recipe; it should be a mapping of keys such as 'name' and 'stage_one'.")
    for override in overrides:
        _apply(tree, override)
    return parse_recipe(tree, str(path))


def parse_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from plain data; `where` names its origin in messages.

    Raises:
        RecipeError: unknown keys or values out of range; all of them in one message.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [_sentence(dict(problem)) for problem in error.errors()]
        raise RecipeError(f"{where}: {' '.join(problems)}") from None


def save_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: write it as key=value, e.g. --set stage_one.alpha=0.5.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is not readable as YAML.") from None
    node = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {override}: {part!r} is a value, not a group of keys.")
        node = child
    node[parts[-1]] = parsed


def _sentence(problem: dict[str, Any]) -> str:
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place)
    if problem["type"] != "extra_forbidden":
        message = str(problem["msg"]).removeprefix("Value error, ")
        if not key:  # about several keys, which the message names
            return f"{message}."
        if isinstance(problem["input"], dict) and problem["type"] == "value_error":  # the same, within a group
            return f"{key}: {message}."
        return f"{key}: {message[:1].lower()}{message[1:]}, got {problem['input']!r}."
    known = _keys_at(place[:-1])
    near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.0)
    prefix = ".".join(place[:-1])
    hint = f" The nearest valid key is {'.'.join(filter(None, [prefix, near[0]]))!r}." if near else ""
    return f"unknown key {key!r}.{hint}"


def _keys_at(place: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
