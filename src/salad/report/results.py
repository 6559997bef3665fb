"""What results.json holds, as types: docs/results-schema.md in code, with one sentence for a file that departs from it.

All divergences are nats per text position, accuracies fractions, durations seconds. Keys the schema does not name are
let through unread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from salad.errors import DataError
from salad.files import read_json

SCHEMA = 1

ArmName = Literal["untrained", "stage_one", "stage_two", "stage_two_uniform", "stage_three"]


class Record(BaseModel):
    """Plain data: frozen, no conversions (a string is not a number), no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Estimate(Record):
    """A value, its 95 % interval, and the number of documents or items it rests on."""

    value: float
    low: float
    high: float
    n: int


class CurvePoint(Record):
    """One step of a distillation; of its `positions` so many were heard."""

    step: int
    kl_nats: float
    positions: int
    seconds: float
    speech_positions: int | None = None


class WatchPoint(Record):
    """What was seen of a few held-out utterances while the arm was trained; `alarm`: it was deaf and should not be."""

    step: int
    misalignment_nats: Estimate
    forgetting_nats: Estimate | None
    hearing_nats: Estimate
    alarm: str | None


class WarmStartPoint(Record):
    """One step of a warm start; `right_frac` of the positions found their word."""

    step: int
    loss_nats: float
    right_frac: float


class TaskScores(Record):
    """Accuracy of one arm on the task's text and on its speech."""

    text: Estimate
    speech: Estimate


class GapSplit(Record):
    """The gap of an arm and its two parts, paired by item: read worse than the text LLM, and heard worse than read."""

    gap: Estimate
    forgotten: Estimate
    heard: Estimate


class Law(Record):
    """M = E + B·D^(−β) of the looks in training, D in tokens; `unfit` says why there is none."""

    E_nats: Estimate | None = None
    B: Estimate | None = None
    beta: Estimate | None = None
    r2: float | None = None
    warnings: list[str] = []
    unfit: str | None = None


class Source(Record):
    """What a stage drew of one source."""

    kind: str
    name: str
    num_items: int
    num_sequences: int = 0
    epochs: float | None = None
    hours: float | None = None
    hours_heard: float = 0.0
    num_speech_positions: int = 0
    num_text_positions: int = 0
    origins: list[dict[str, Any]] = []


class WarmStartBill(Record):
    """What the adapter alone can have heard before a stage, at most."""

    kind: str
    steps: int
    hours_at_most: float


class OnPolicyBill(Record):
    """What the student itself wrote for a stage: how often, how many tokens, and the FLOPs of writing them."""

    rollouts: int
    tokens: int
    ended: int
    flops: float


class StageBill(Record):
    """The data bill of one stage (docs/data-bill.md), of this run or of the model that it started from.

    `train_flops` and `on_policy` are Stage III's.
    """

    stage: str
    taken_over_from: str | None = None
    steps: int
    position_hz: float | None = None
    warm_start: WarmStartBill | None = None
    sources: list[Source] = []
    train_flops: float | None = None
    on_policy: OnPolicyBill | None = None


class Arm(Record):
    """One model of the run and all that was measured on it; None where there was nothing to measure on.

    `taken_over_from`: the model that the run started from, where it trained no Stage I.
    """

    name: ArmName
    misalignment_nats: Estimate
    misalignment_swapped_nats: Estimate
    hearing_nats: Estimate
    misalignment_human_nats: Estimate | None
    hearing_human_nats: Estimate | None
    forgetting_nats: Estimate | None
    hears: bool
    task: TaskScores | None
    curve: list[CurvePoint]
    watch: list[WatchPoint] = []
    warm_start: list[WarmStartPoint]
    split: GapSplit | None = None
    law: Law | None = None
    taken_over_from: str | None = None


class Speech(Record):
    """Corpus and voice of a held-out set."""

    corpus: str
    voice: str


class Conditions(Record):
    """What M may be compared within."""

    policy: str
    broad: Speech
    human: Speech
    warm_start: bool


class Task(Record):
    """The benchmark, and the accuracy of guessing."""

    name: str
    version: int | str
    chance: float


class Comparison(Record):
    """Paired, `than` minus `better`: above 0, `better` is better."""

    better: str
    than: str
    metric: str
    difference: Estimate


class Probe(Record):
    """What a probe found in a cluster: M(c) and its standard error, nats per text position.

    M(c) is None without a text, its error with fewer than two.
    """

    misalignment_nats: float | None
    standard_error_nats: float | None


class Sample(Record):
    """A probe's text, its speech (relative to the file of the results), M on it, and the recognizer's error rate."""

    text: str
    audio: str | None
    misalignment_nats: float | None
    cer: float | None


class ProbedCluster(Probe):
    """One cluster of the broad text and its probe.

    `share` of the corpus; `x` and `y`, its place on the map, 0-1; `after`: what probes of later models found, by name.
    """

    cluster: int
    name: str
    teacher_entropy_nats: float | None
    mean_cer: float | None
    num_probes: int
    excluded: str | None
    share: float | None = None
    x: float | None = None
    y: float | None = None
    after: dict[str, Probe] = {}
    samples: list[Sample] = []


class Cluster(ProbedCluster):
    """One cluster of a run: its size, its target probability, and the texts drawn by each arm of Stage II."""

    size: int
    examples: list[str]
    target: float
    selected: float
    selected_uniform: float


class Amounts(Record):
    """Seconds of speech."""

    human_s: float | None
    synthetic_s: float | None
    synthetic_uniform_s: float | None
    heldout_s: float | None
    probe_s: float | None


class Rejected(Record):
    """How many items were left out, where, and why."""

    where: str
    reason: str
    count: int


class TrainedOn(Record):
    """How many processes a stage was trained on, how they shared the work (None: one alone), and the device of each."""

    ranks: int
    parallel: str | None
    device: str

    def __str__(self) -> str:
        way = {"ddp": "DDP", "fsdp": "FSDP2"}.get(self.parallel or "", self.parallel)
        return f"{self.ranks} × {self.device}{f', {way}' if way else ''}"


class Results(Record):
    """A whole results.json. See docs/results-schema.md."""

    name: str
    seed: int
    command: str | list[str]
    versions: dict[str, Any]
    recipe: dict[str, Any]
    deviations: list[str]
    conditions: Conditions
    arms: list[Arm]
    topline: Estimate | None
    cascade: Estimate | None
    task: Task
    comparisons: list[Comparison]
    clusters: list[Cluster]
    speech: Amounts
    rejected: list[Rejected]
    wall_s: dict[str, float]
    trained_on: dict[str, TrainedOn] = {}
    bill: list[StageBill] = []

    def position_hz(self, arm: str) -> float | None:
        """Positions per second of speech of an arm; None where the run did not write it down."""
        return next((part.position_hz for part in self.bill if part.stage == arm), None)

    def speech_s(self, stage: str) -> float | None:
        """Seconds of speech that a stage had to learn from, heard or not; None where the run did not write it down."""
        own = self.speech
        chosen = ("stage_two", "stage_three")
        later = own.synthetic_s if stage in chosen else own.synthetic_uniform_s if stage == "stage_two_uniform" else 0.0
        return None if own.human_s is None or later is None else own.human_s + later

    @property
    def last(self) -> Arm | None:
        """The arm that the run came to: the last stage (the uniform control is none), or what there is."""
        stages = [arm for arm in self.arms if arm.name != "stage_two_uniform"]
        return stages[-1] if stages else None

    def arm(self, name: str) -> Arm | None:
        """The arm of that name, or None where the run has not come to it."""
        return next((arm for arm in self.arms if arm.name == name), None)


def read_results(path: Path) -> Results:
    """The results in a file.

    Raises:
        MissingFileError: no such file.
        DataError: not JSON, another schema, or a key that is missing or holds something else; says which.
    """
    return parse_results(read_json(path), str(path))


def parse_results(value: Any, where: str = "the results") -> Results:
    """Results from plain data; `where` names its origin in messages.

    Raises:
        DataError: as `read_results`.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where} holds no results: it should be an object of keys such as 'arms' and 'clusters'.")
    if "schema" not in value:
        raise DataError(f"{where} has no 'schema', so it is not a results.json of salad's; give one that a run wrote.")
    if value["schema"] != SCHEMA or isinstance(value["schema"], bool):
        raise DataError(
            f"{where} has schema {value['schema']!r}, and this version of salad reads {SCHEMA}; "
            "report it with the version that wrote it, or measure again."
        )
    try:
        return Results.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{where} does not hold what it should: {told(error)}.") from error


def told(error: ValidationError) -> str:
    """What is wrong with a file, key by key, the first five."""
    problems = [_told(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()]
    rest = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + rest


def _told(location: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return f"{key} is missing" if kind == "missing" else f"{key}: {message[:1].lower()}{message[1:]}"
