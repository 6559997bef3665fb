"""A benchmark's items to speech that is fixed by hash: salad speak."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salad.cli.options import JsonOption, app, print_json
from salad.errors import RecipeError
from salad.files import check_items_file

if TYPE_CHECKING:
    from salad.measure.tasks.conditions import Condition
    from salad.measure.tasks.item import Item
    from salad.measure.tasks.speaking import Check, Tell
    from salad.measure.tasks.spoken import Rendition
    from salad.speech.prepared import Rejected

NUM_SHOWN = 5


@app.command()
def speak(
    task_name: Annotated[
        str, typer.Argument(metavar="TASK", help="A task (docs/tasks.md): openbookqa, hellaswag, mmsu, …")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write, or to add to.")],
    items: Annotated[
        Path | None,
        typer.Option("--items", metavar="FILE", help="JSONL of items [those in DIR, else the task's from the hub]."),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Take the speech a published set comes with: 'hub', a folder or a Parquet file in its layout.",
        ),
    ] = None,
    voice: Annotated[
        list[str] | None,
        typer.Option("--voice", metavar="NAME", help="Who speaks (docs/voices.md); each item by each; repeatable."),
    ] = None,
    speed: Annotated[
        list[str] | None,
        typer.Option("--speed", metavar="FACTOR", help="Also at 0.8 times the speed, same pitch; repeatable."),
    ] = None,
    noise_snr_db: Annotated[
        list[float] | None,
        typer.Option("--noise-snr-db", metavar="DB", help="Also in pink noise at this SNR; repeatable."),
    ] = None,
    telephone: Annotated[bool, typer.Option("--telephone", help="Also by telephone: 300-3400 Hz, mu-law.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many items.")] = None,
    check: Annotated[
        bool | None,
        typer.Option("--check/--no-check", help="Have an ASR read it back, and refuse what is badly spoken [as DIR]."),
    ] = None,
    asr: Annotated[str | None, typer.Option("--asr", help="Who checks [whisper-tiny.en].")] = None,
    max_cer: Annotated[
        float | None, typer.Option("--max-cer", min=0, help="Refuse a rendition above this error rate [0.5].")
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Worker processes, a core each [all].")] = None,
    as_json: JsonOption = False,
) -> None:
    """Speak a benchmark's items with one voice or several, and fix the audio by hash, so that all score the same bytes.

    What of an item is spoken is the task's to say (docs/tasks.md). DIR/manifest.jsonl has a line for each item, voice
    and condition; DIR/unspoken.jsonl what could not be spoken, or was refused by the check, each with its reason. A
    condition (--speed, --noise-snr-db, --telephone) is made from the clean sound of all voices in DIR. The same command
    goes on where it stopped; another --voice, or another condition, adds to DIR.

    salad speak openbookqa --items openbookqa.jsonl --voice piper-joe --voice flite:slt --check --out spoken/openbookqa

    salad speak openbookqa --speed 0.8 --speed 1.25 --noise-snr-db 10 --telephone --out spoken/openbookqa

    salad speak sd_qa --from hub --out spoken/sd_qa
    """
    if items is not None:
        check_items_file(items)
    from salad.display import bar
    from salad.measure.tasks.speaking import Check, earlier_check

    before = earlier_check(out)
    if check is False and (asr is not None or max_cer is not None):
        raise RecipeError("--no-check and --asr or --max-cer contradict each other; leave one out.")
    if max_cer == 0:
        raise RecipeError("--max-cer 0: nothing passes such a check; give a number above 0.")
    wants = check if check is not None else asr is not None or max_cer is not None or before is not None
    base = before or Check()
    how = Check(asr or base.asr, base.max_cer if max_cer is None else max_cer) if wants else None
    conditions = _conditions(speed or [], noise_snr_db or [], telephone)
    rejected: list[Rejected] = []
    with bar(task_name) as progress:

        def tell(done: int, total: int, what: str) -> None:
            progress.note(what)
            progress(done, total)

        work = _Work(task_name, out, conditions, how, jobs or _cores(), tell)
        if given is not None:
            if items is not None or voice:
                raise RecipeError("--from brings items and speech; leave --items and --voice out.")
            info = _take(work, given, limit)
        else:
            info = _speak(work, items, voice or [], limit, rejected)
    _tell_all(out, info, rejected, as_json)


class _Work:
    """What is asked for."""

    def __init__(
        self, task: str, out: Path, conditions: list[Condition], check: Check | None, processes: int, tell: Tell
    ) -> None:
        self.task, self.out, self.conditions = task, out, conditions
        self.check, self.processes, self.tell = check, processes, tell


def _speak(
    work: _Work, file: Path | None, voices: list[str], limit: int | None, rejected: list[Rejected]
) -> dict[str, Any]:
    from salad.measure.tasks import task
    from salad.measure.tasks.speaking import add_conditions, open_folder, speak_task
    from salad.measure.tasks.spoken import read_info, read_spoken_items
    from salad.synthesize.voices import load_voice

    is_there = (work.out / "manifest.jsonl").is_file() and (work.out / "info.json").is_file()
    if not voices and is_there and file is None:
        if not work.conditions:
            raise RecipeError(f"{work.out} is there; say what to add to it: --voice, --speed, --noise-snr-db, …")
        info = read_info(work.out)
        named = {key: info[key] for key in ("task", "task_version")} | {"task": work.task}
        folder = open_folder(work.out, read_spoken_items(work.out), named)
        return add_conditions(folder, work.conditions, work.check, work.processes, work.tell)
    asked = task(work.task)
    if not voices:
        raise RecipeError("name who speaks, e.g. --voice piper-joe ('salad voices' lists all).")
    for name in voices:
        load_voice(name)
    chosen = _items(work, file, limit, is_there, rejected)
    return speak_task(
        asked,
        chosen,
        voices,
        work.out,
        conditions=work.conditions,
        check=work.check,
        processes=work.processes,
        tell=work.tell,
    )


def _items(work: _Work, file: Path | None, limit: int | None, is_there: bool, rejected: list[Rejected]) -> list[Item]:
    from salad.measure.tasks.hub import load_task_items
    from salad.measure.tasks.item import Item, read_items
    from salad.measure.tasks.spoken import read_spoken_items

    if file is not None:
        return read_items(file, rejected)[:limit]
    if is_there:
        return [item for item in read_spoken_items(work.out) if isinstance(item, Item)][:limit]
    loaded = load_task_items(work.task, limit=limit)
    rejected.extend(loaded.rejected)
    return loaded.items


def _take(work: _Work, given: str, limit: int | None) -> dict[str, Any]:
    from salad.measure.tasks.spoken_sets import take_spoken_set

    return take_spoken_set(
        work.task,
        None if given == "hub" else Path(given),
        work.out,
        limit=limit,
        conditions=work.conditions,
        check=work.check,
        processes=work.processes,
        tell=work.tell,
    )


def _conditions(speeds: list[str], snrs_db: list[float], telephone: bool) -> list[Condition]:
    from salad.measure.tasks.conditions import Condition

    found = [Condition(speed=_one_speed(given)) for given in speeds]
    found += [Condition(noise_snr_db=snr_db) for snr_db in snrs_db]
    found += [Condition(telephone=True)] if telephone else []
    for condition in found:
        condition.check()
    return [condition for condition in dict.fromkeys(found) if condition.name != "clean"]


def _one_speed(given: str) -> float:
    """FACTOR, or FACTOR:FACTOR as 'salad synthesize' has it."""
    try:
        low, high = (float(part) for part in (given if ":" in given else f"{given}:{given}").split(":"))
    except ValueError:
        raise RecipeError(f"--speed {given}: write it as a factor, e.g. --speed 0.8.") from None
    if low != high:
        raise RecipeError(f"--speed {given}: a condition has one speed; give --speed {low:g} --speed {high:g}.")
    return low


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell_all(out: Path, info: dict[str, Any], rejected: list[Rejected], as_json: bool) -> None:
    from salad.measure.tasks.spoken import read_manifest, read_unspoken

    rows, lost = read_manifest(out), read_unspoken(out)
    if as_json:
        faults = [{"id": fault.id, "reason": fault.reason, "place": fault.place} for fault in rejected]
        return print_json({**info, "faulty_items": faults, "unspoken": lost, "out": str(out)})
    print(f"{info['title']}, version {info['task_version']}: {info['num_items']} items; spoken: {info['spoken']}")
    for voice, condition in dict.fromkeys((row.voice, row.condition) for row in rows):
        print(
            "  " + _line([row for row in rows if (row.voice, row.condition) == (voice, condition)], info["num_items"])
        )
    if lost:
        kinds = Counter(row["reason"].partition(": ")[0] for row in lost)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(NUM_SHOWN))
        print(f"not spoken, or refused: {len(lost)} ({told}); see {out / 'unspoken.jsonl'}")
    if rejected:
        print(f"faulty items, left out: {len(rejected)}")
        for fault in rejected[:NUM_SHOWN]:
            print(f"  {fault.place}: {fault.reason}")
    worst = sorted((row for row in rows if row.cer), key=lambda row: -(row.cer or 0.0))[:3]
    for row in worst:
        print(f"  worst heard: {row.cer:.2f}  {row.voice} {row.condition}  {row.item}  {out / row.audio}")
    print(f"{out / 'manifest.jsonl'}   speech sha256 {info['speech_sha256'][:16]}… (in info.json)")


def _line(rows: list[Rendition], num_items: int) -> str:
    seconds = sum(row.seconds for row in rows)
    cers = [row.cer for row in rows if row.cer is not None]
    heard = f", character error rate {sum(cers) / len(cers):.3f} mean, {max(cers):.2f} worst" if cers else ""
    return f"{rows[0].voice}, {rows[0].condition}: {len(rows)} of {num_items} items, {seconds / 60:.1f} min{heard}"
