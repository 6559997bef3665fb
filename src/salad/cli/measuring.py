"""How deaf is a model, and why: measure."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salad.cli.measured_lines import lines_of, open_lines, short
from salad.cli.measured_tasks import domains_of, item_files, speak_here, spoken_tasks
from salad.cli.options import JsonOption, ThreadsOption, app, print_json, quiet, stop
from salad.errors import RecipeError

if TYPE_CHECKING:
    from salad.measure.open_result import Embed, OpenResult
    from salad.measure.tasks.item import Item
    from salad.measure.tasks.spoken import SpokenTask
    from salad.measuring import Measured

EMBEDDER = "minilm-l6"
EVERY_S = 30.0  # how often a line is written where none can change


@app.command()
def measure(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder or run, or KIND:… (docs/models.md).")],
    base: Annotated[
        str | None, typer.Option("--base", metavar="LLM", help="The text LLM it came from [the model's own].")
    ] = None,
    spoken: Annotated[
        list[Path] | None,
        typer.Option("--spoken", metavar="DIR", help="A task that 'salad speak' has spoken, or a folder of several."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="A,B", help="Which tasks: of --spoken [all]; without it they are spoken here."),
    ] = None,
    items: Annotated[
        list[str] | None,
        typer.Option("--items", metavar="TASK=FILE", help="To speak here: a task's items [its own, from the hub]."),
    ] = None,
    voice: Annotated[
        list[str] | None,
        typer.Option("--voice", metavar="NAME", help="To speak here: who, into OUT/spoken, unchecked [piper-joe]."),
    ] = None,
    asr: Annotated[str, typer.Option("--asr", help="Who transcribes for the cascade.")] = "whisper-tiny.en",
    shots: Annotated[int, typer.Option("--shots", min=0, help="Solved examples; as many as fit 2048 positions.")] = 5,
    domains: Annotated[
        Path | None, typer.Option("--domains", metavar="FILE", help="JSON, category to domain: also split by domain.")
    ] = None,
    rule: Annotated[str, typer.Option("--rule", help="token, raw, character, byte, unconditional.")] = "token",
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Only so many items or utterances.")] = None,
    number: Annotated[
        int | None,
        typer.Option("--open", metavar="N", min=2, help="Also have the first N questions answered in free words."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT", help="Where items' results go [measured/MODEL].")
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option(
            "--speech", metavar="DIR", help="Measure F, M and hearing on this prepared, aligned, encoded folder."
        ),
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="With --speech: sequences [the model's own].")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of examples, guards and intervals.")] = 0,
    threads: ThreadsOption = 2,
    workers: Annotated[int, typer.Option("--workers", min=1, help="So many items at once, of an endpoint.")] = 1,
    deaf_ok: Annotated[bool, typer.Option("--deaf-ok", help="Exit 0 even if the model does not listen.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the gap between a text LLM on text and a speech LLM on speech, and what it is made of.

    gap = topline - speech = forgotten + heard wrong + misaligned, each with its 95 % interval; beside it the cascade of
    an ASR and the text LLM, every voice and condition that is spoken, and whether the model listens at all. F and M
    in nats per token of the tasks' text, where the model gives whole distributions; with --speech also of a corpus, for
    a model that salad made. Every item's scores lie in OUT; the same command goes on where it stopped.

    salad speak openbookqa --items obqa.jsonl --voice piper-joe --out spoken/openbookqa

    salad measure runs/demo --spoken spoken --json

    salad measure runs/demo --tasks openbookqa --items obqa.jsonl --voice piper-joe --limit 200
    """
    if speech is None and not spoken and tasks is None:
        raise RecipeError(
            "give --spoken, benchmarks made by 'salad speak', --tasks to speak here, or --speech, a corpus."
        )
    if (items or voice) and (spoken or tasks is None):
        raise RecipeError("--items and --voice are for tasks that are spoken here: give --tasks, and no --spoken.")
    files = item_files(items or [], tasks)  # what is wrong with them shows before anything is loaded
    quiet()
    result: dict[str, Any] = {"model": model, "seed": seed}
    lines: list[str] = []
    warnings: list[str] = []
    out = out or Path("measured") / Path(model).name
    corpus, there = None, _tasks(spoken, tasks, files, voice, out / "spoken", limit, threads)
    if there:
        how = _How(asr, rule, shots, limit, seed, threads, workers, domains_of(domains), number)
        found = _measure_tasks(model, base, there, how, out)
        result |= found.told
        warnings += found.warnings
    if speech is not None:
        from salad.verbs import measure_folder

        corpus = measure_folder(Path(model), speech, policy, limit, seed, threads)
        result |= {"corpus": corpus} if there else corpus
        if not corpus["hears"]:
            warnings.append("THIS MODEL DOES NOT HEAR: other audio serves it as well as its own.")
    if there:
        from salad.card.bill import versions
        from salad.files import write_json

        made_by = {"command": " ".join(["salad", *sys.argv[1:]]), "versions": versions()}
        write_json(out / "measured.json", result | made_by)
        lines += lines_of(found.measured, found.told, corpus) if found.measured is not None else []
        lines += [line for one in found.opened.values() for line in open_lines(one)]
        lines.append(f"every item's scores: {out}; as JSON: {out}/measured.json")
    if corpus is not None:
        lines += [f"{key}: {short(value)}" for key, value in corpus.items()]
    for warning in warnings:
        print(warning, file=sys.stderr)
    if as_json:
        print_json(result)
    elif deaf_ok or not warnings:
        print("\n".join(lines))
    if warnings and not deaf_ok:
        stop("no number of a model that does not listen is about its hearing (--deaf-ok: print them, exit 0).")


@dataclass(frozen=True)
class _How:
    """How tasks are measured."""

    asr: str
    rule: str
    shots: int
    limit: int | None
    seed: int
    threads: int
    workers: int
    domains: dict[str, str] | None
    number: int | None


@dataclass(frozen=True)
class _Found:
    """What came of the tasks: those with choices, those asked in free words, and all of it as plain data."""

    measured: Measured | None
    opened: dict[str, OpenResult]
    told: dict[str, Any]

    @property
    def warnings(self) -> list[str]:
        """Why numbers are not about hearing."""
        tasks = {} if self.measured is None else self.measured.tasks
        deaf = [f"{name}: {one.listening.sentence}" for name, one in tasks.items() if not one.listening.listens]
        return deaf + [f"{name}, open: {one.guard}" for name, one in self.opened.items() if not one.listens]


def _tasks(
    spoken: list[Path] | None,
    names: str | None,
    files: dict[str, Path],
    voices: list[str] | None,
    out: Path,
    limit: int | None,
    threads: int,
) -> dict[str, tuple[SpokenTask, Sequence[Item] | None]]:
    """The tasks by name, each with all its items where more may be spoken later."""
    if spoken:
        return {name: (one, None) for name, one in spoken_tasks(spoken, names).items()}
    if names is None:
        return {}
    return {**speak_here(names, files, voices, out, limit, threads)}


def _measure_tasks(
    model: str, base: str | None, spoken: dict[str, tuple[SpokenTask, Sequence[Item] | None]], how: _How, out: Path
) -> _Found:
    import torch

    from salad.measure.arms import Measuring, Writer
    from salad.measure.item_scores import WRITTEN_RULES
    from salad.measure.models.load import load_asr
    from salad.measure.open_arms import measure_open
    from salad.measure.score_task import ScoreSettings
    from salad.measure.transcripts import Transcripts
    from salad.measuring import base_of, load_models, measure_task, summarize

    for name, (task, _) in spoken.items():
        if task.task is None and how.number is None:
            raise RecipeError(f"{task.folder} holds {name}, whose answers are free: give --open N, so many questions.")
    torch.set_num_threads(how.threads)
    settings = ScoreSettings(how.rule, how.shots, how.seed)
    base = base or base_of(model)
    transcripts = Transcripts(load_asr(how.asr, how.threads))
    models = load_models(model, base)
    measuring = Measuring(*models, transcripts, out, settings, how.limit, _Progress(), how.workers, how.domains)
    told: dict[str, Any] = {"base": base, "asr": how.asr, "rule": how.rule, "shots": how.shots, "out": str(out)}
    told["speech_sha256"] = {name: task.speech_sha256 for name, (task, _) in spoken.items()}
    results = {name: measure_task(measuring, *own) for name, own in spoken.items() if own[0].task is not None}
    measured = summarize(results, settings) if results else None
    if measured is not None:
        told |= {
            "listens": measured.listens,
            "tasks": {name: result.as_json() for name, result in measured.tasks.items()},
            "mean": measured.mean_json(),
            "p_value_holm": measured.holm,
        }
    opened: dict[str, OpenResult] = {}
    if how.number is not None:
        embed, by = _embedder()
        opened = {
            name: measure_open(measuring, task, how.number, embed, by, every) for name, (task, every) in spoken.items()
        }
        told["open"] = {name: result.as_json() for name, result in opened.items()}
    if isinstance(measuring.model, Writer):
        told |= {"rule": WRITTEN_RULES[0], "shots": 0}
        told["attempts_that_failed"] = getattr(measuring.model.listener, "counts", {})
    return _Found(measured, opened, told)


def _embedder() -> tuple[Embed | None, str]:
    """Who compares answers, and its name; or nobody, and why."""
    from salad.errors import AssetError
    from salad.select.embed import Embedder, embedder_folder

    try:
        return Embedder(embedder_folder(EMBEDDER)).embed, EMBEDDER
    except AssetError as error:
        return None, f"not measured: {error}"


class _Progress:
    """Items of the arm that is scored: a line that changes on a terminal, else one every half minute."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, arm: str, done: int, num: int) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{arm}: {done}/{num} items", end="" if done < num else "\n", file=sys.stderr, flush=True)
        elif time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            print(f"{arm}: {done}/{num} items", file=sys.stderr, flush=True)
