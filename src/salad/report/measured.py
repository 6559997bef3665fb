"""What measured.json holds (`salad measure`), as types; what an older or a newer version does not have is None.

Accuracies and differences are fractions, divergences nats per text position. Keys not named here are let through
unread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from salad.errors import DataError
from salad.files import read_json
from salad.report.results import Estimate, Record, told

NAME = "measured.json"


class Split(Record):
    """Four accuracies, the gap and its three parts, on the same items."""

    topline: Estimate
    own_text: Estimate
    own_transcript: Estimate
    speech: Estimate
    gap: Estimate
    forgotten: Estimate
    heard_wrong: Estimate
    misaligned: Estimate


class TaskGap(Record):
    """The split of a task over all, by voice, and by each grouping of its items."""

    voices: list[str] = Field(default_factory=list)
    whole: Split
    by_voice: dict[str, Split] = Field(default_factory=dict)
    by_group: dict[str, dict[str, Split]] = Field(default_factory=dict)
    num_missing: dict[str, int] = Field(default_factory=dict)


class Listening(Record):
    """Whether the model can be shown to listen, as a sentence."""

    listens: bool
    sentence: str = ""


class Condition(Record):
    """One voice under one condition: accuracy, gap to the topline, and M where it was measured."""

    voice: str
    condition: str
    speech: Estimate
    gap: Estimate
    misalignment: Estimate | None = None


class Nats(Record):
    """F and M of a task, nats per token; `by_group`: grouping → label → the same; `why_not`: what is None, and why."""

    forgetting: Estimate | None = None
    misalignment: Estimate | None = None
    by_group: dict[str, dict[str, dict[str, Estimate | None]]] = Field(default_factory=dict)
    why_not: dict[str, str] = Field(default_factory=dict)


class Written(Record):
    """How an arm's written answers were read: the unread are wrong; `accuracy_by_rule`: the declared rule's counts."""

    num_answers: int
    num_unread: int
    accuracy_by_rule: dict[str, float] = Field(default_factory=dict)


class MeasuredTask(Record):
    """One task; `unscorable`: arm → item → why it has no score; `written`: arm → how its answers were read."""

    task: str
    task_version: int | str
    listening: Listening
    gap: TaskGap
    cascade: Estimate | None = None
    cascade_gap: Estimate | None = None
    nats_per_token: Nats | None = None
    conditions: list[Condition] = Field(default_factory=list)
    p_value: float | None = None
    resolved: str = ""
    chance: float | None = None
    caution: str | None = None
    unscorable: dict[str, dict[str, str]] = Field(default_factory=dict)
    written: dict[str, Written] = Field(default_factory=dict)


class OpenArm(Record):
    """Free answers of one arm, voice and condition: what holds a reference, token F1, and how likely and alike."""

    arm: str
    voice: str = ""
    condition: str = ""
    num_answered: int = 0
    contains: Estimate | None = None
    f1: Estimate | None = None
    nll_nats: Estimate | None = None
    likeness: Estimate | None = None
    num_empty: int = 0
    unanswered: dict[str, str] = Field(default_factory=dict)


class Open(Record):
    """Free answers to one task's questions; `guard` says whether other speech changes them."""

    arms: list[OpenArm] = Field(default_factory=list)
    listens: bool = True
    guard: str = ""
    likeness_by: str = ""


class Measured(Record):
    """A whole measured.json; `open`: free answers by task, `corpus`: F, M and hearing on a folder of speech."""

    model: str
    seed: int = 0
    base: str | None = None
    asr: str | None = None
    rule: str | None = None
    shots: int | None = None
    tasks: dict[str, MeasuredTask] = Field(default_factory=dict)
    open: dict[str, Open] = Field(default_factory=dict)
    corpus: dict[str, Any] | None = None
    mean: Split | None = None
    p_value_holm: dict[str, float] = Field(default_factory=dict)
    speech_sha256: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)
    command: str | list[str] | None = None


def read_measured(path: Path) -> Measured:
    """The measurement in a file, or in a folder that `salad measure` wrote.

    Raises:
        MissingFileError: no such file.
        DataError: it holds something else.
    """
    file = path / NAME if path.is_dir() else path
    value = read_json(file)
    if not isinstance(value, dict) or not (value.keys() & {"tasks", "open"}):
        raise DataError(f"{file} is no measurement of salad's: it has no 'tasks'; give what 'salad measure' wrote.")
    try:
        return Measured.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{file} does not hold what it should: {told(error)}.") from error
