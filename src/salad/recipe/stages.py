"""What the stages learn, how long, and what Stage II selects."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from salad.recipe.base import Count, Frac, Positive, Settings


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


class CurriculumSettings(Settings):
    """Ours, optional: what is heard is short at first and grows with the steps, linearly.

    From `start_frac` of its length to the whole of it after `steps_frac` of the stage's steps. That is, of the policy
    speech_prefix `prefix_frac`, of interleaved `speech_words`, of poisson all spans; utterance has nothing to shorten.
    """

    start_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    steps_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class StageSettings(Settings):
    """What all stages share: the objective, the batch, the length.

    A step's `batch_sequences` are packed into micro-batches of at most `micro_batch_positions` LLM positions: what
    stands in memory at once. It changes results by rounding alone. `divergence` from the teacher: the paper's is
    forward_kl; `jsd_beta` is the teacher's weight in the mixture of jsd. A checkpoint is written every
    `checkpoint_every` steps. `curriculum`: spans that grow, or null.
    """

    alpha: Frac = 1.0
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    jsd_beta: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    steps: Count = 40
    batch_sequences: Count = 12
    micro_batch_positions: Count = 2048
    checkpoint_every: Count = 10
    curriculum: CurriculumSettings | None = None
    optimizer: OptimizerSettings = OptimizerSettings()


class StageOneSettings(StageSettings):
    """Stage I: distillation on natural speech, `text_frac` of the sequences being text; warmup-stable-decay.

    `start`: a finished model, a run, or salad-smollm2-135m, which is taken over instead (docs/training.md); nothing
    else here is then read.
    """

    start: str | None = None
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

    The pool's `num_clusters` have sizes that differ by at most one, or by the share `balance_tolerance`. Of each,
    `probe_texts` are spoken to find out how deaf the model is there, and no more selected from. A cluster whose probes
    have a mean character error rate above `max_cer` is left out. `score` is what clusters are weighed by
    (select/scores.py). Against a few clusters taking all: `coverage_frac` of the draws follow the corpus, and no
    cluster is drawn more than `max_boost` times as often as there. How much is synthesized is one of `budget_frac`, in
    proportion to the natural speech of Stage I (the paper: 0.01), `budget_h` hours, `budget_tokens` of the LLM. Texts
    that share `contamination_words` words in a row with an evaluation set are not selected.
    """

    num_clusters: Count = 8
    balance_tolerance: Frac = 0.0
    probe_texts: Count = 12
    score: Literal["misalignment", "self_misalignment", "jsd", "nll_gap", "controlled", "uniform"] = "misalignment"
    gamma: Annotated[float, Field(ge=0.0)] = 5.0
    coverage_frac: Frac = 0.0
    max_boost: Annotated[float, Field(ge=1.0)] | None = None
    budget_frac: Positive | None = 0.01
    budget_h: Positive | None = None
    budget_tokens: Count | None = None
    contamination_words: Count = 13
    max_cer: Positive = 0.3
    warm_start: WarmStartSettings = WarmStartSettings()

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        budgets = {"budget_frac": self.budget_frac, "budget_h": self.budget_h, "budget_tokens": self.budget_tokens}
        given = [f"{name}={value:g}" for name, value in budgets.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'no budget'}: give one of budget_frac, budget_h and budget_tokens, and "
                "null for the others"
            )
        return self


class StageThreeSettings(StageSettings):
    """Stage III (ours, optional): the student goes on in its own words from what it hears, the text LLM scores them.

    `text_frac` of the sequences are text, the others speech, natural and selected in equal parts. Of those
    `on_policy_frac` are cut after a speech span and continued by the student, by at most `continuation_tokens` tokens
    drawn at `temperature` (0: the likeliest); the rest, with 0 all, are as in Stage II. The student's words are made
    anew every `refresh_steps` steps, `rollouts_at_once` in a batch. The rate rises over `warmup_steps`, then falls
    linearly to 0.
    """

    text_frac: Frac = 1 / 3
    on_policy_frac: Frac = 1.0
    continuation_tokens: Count = 32
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    refresh_steps: Count = 10
    rollouts_at_once: Count = 16
    warmup_steps: Annotated[int, Field(ge=0)] = 5

    @model_validator(mode="after")
    def _own_words_are_scored_by_the_teacher_alone(self) -> Self:
        if self.on_policy_frac > 0 and self.alpha < 1:
            raise ValueError(
                f"alpha={self.alpha:g} would train the student to repeat its own words (NLL); with on_policy_frac "
                "above 0 alpha must be 1"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} leaves none of steps={self.steps} for the fall to 0")
        return self
