"""A plan as a table of plain columns."""

from __future__ import annotations

import textwrap
from typing import Any

LABEL = 40
TIGHT = 0.93  # of a GPU: fragments of the cache come on top, and a GPU has less free than its name says


def lines(plan: dict[str, Any], width: int) -> list[str]:
    """The plan's lines, none longer than `width`."""
    said = ["", *_parameters(plan["parameters"]), "", *_memory(plan["memory"], width)]
    for key, title in (("stage_one", "Stage I"), ("stage_two", "Stage II"), ("stage_three", "Stage III")):
        said += ["", title, *_stage(plan[key])] if key in plan else []
    said += ["", *_rest(plan), "", "assumed"]
    for sentence in plan["assumptions"]:
        said += textwrap.wrap(sentence, width, initial_indent="- ", subsequent_indent="  ")
    for sentence in plan["warnings"]:
        said += textwrap.wrap(f"WARNING: {sentence}", width, subsequent_indent="  ")
    return said


def number(value: float) -> str:
    """1.23B, 45.6M, 7.89k; under a thousand as it is."""
    for limit, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}" if value < 999.5 * limit else f"{value / limit:.0f}{unit}"
    return f"{value:.3g}"


def hours(value: float) -> str:
    """Seconds, minutes, hours or days."""
    if 0 < 3600 * value < 0.5:
        return "under 1 s"
    if value < 1 / 60:
        return f"{3600 * value:.0f} s"
    if value < 1:
        return f"{60 * value:.0f} min"
    return f"{value:,.1f} h" if value < 48 else f"{value:,.0f} h ({value / 24:,.1f} days)"


def speech(value_h: float) -> str:
    """Hours of speech; less than one as minutes or seconds."""
    return hours(value_h) if value_h < 1 else f"{value_h:,.0f} h"


def size(value_gib: float) -> str:
    """GiB; less than one as MiB."""
    return f"{value_gib:,.1f} GiB" if value_gib >= 1 else f"{1024 * value_gib:,.0f} MiB"


def _row(label: str, *cells: str) -> str:
    return f"{label:<{LABEL}}{''.join(f'{cell:>13}' for cell in cells)}".rstrip()


def _parameters(found: dict[str, Any]) -> list[str]:
    rows = [_row("parameters")]
    rows += [_row(f"  {name}", number(count)) for name, count in found.items() if count]
    return rows


def _memory(found: dict[str, Any], width: int) -> list[str]:
    ways = found["ways"]
    rows = [_row("memory of a GPU, GiB", *ways)]
    names = list(dict.fromkeys(name for way in ways.values() for name in way["parts_gib"]))
    for name in names:
        cells = [way["parts_gib"].get(name, 0.0) for way in ways.values()]
        if any(cell >= 0.005 for cell in cells):
            rows.append(_row(f"  {name}", *(f"{cell:.2f}" if cell else "-" for cell in cells)))
    rows.append(_row("  together", *(f"{way['total_gib']:.2f}" for way in ways.values())))
    tight = TIGHT * found["gpu_memory_gib"]
    verdicts = (
        "too much" if not way["fits"] else "tight" if way["total_gib"] > tight else "fits" for way in ways.values()
    )
    rows.append(_row(f"  in {found['gpu_memory_gib']:g} GiB", *verdicts))
    checkpointed = "checkpointed" if found["gradient_checkpointing"] else "not checkpointed"
    chosen = f"{found['parallel']}, {checkpointed}, micro-batches of {found['micro_batch_positions']} positions"
    rows.append(f"  the recipe: {chosen}")
    if not found["fits"]:
        rows += textwrap.wrap(_remedy(found["remedy"]), width, initial_indent="  ", subsequent_indent="  ")
    return rows


def _remedy(remedy: dict[str, Any] | None) -> str:
    if remedy is None:
        return (
            "It does not fit, and no sharding, checkpointing or smaller micro-batch makes it: use more or larger GPUs."
        )
    keys = " ".join(f"--set {key}={str(value).lower()}" for key, value in remedy["settings"].items())
    return f"It does not fit. This does, in {remedy['total_gib']:.1f} GiB: {keys}"


def _stage(found: dict[str, Any]) -> list[str]:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found["share_of_positions"].items())
    rows = [
        _row("  steps", f"{found['steps']:,}"),
        _row("  sequences a step", f"{found['batch_sequences']:,}"),
        _row("  tokens a sequence, mean", f"{found['positions_per_sequence']:.0f}"),
        _row("  tokens a step", number(found["positions_per_step"])),
        _row("  tokens in all", number(found["positions"])),
        f"    of them: {shares}",
        _row("  micro-batches a step and GPU", f"{found['micro_batches_per_gpu']:,}"),
        _row("  speech in its items", speech(found["speech_drawn_h"])),
        _row("  of it heard", speech(found["speech_heard_h"])),
    ]
    if found["natural_speech_epochs"] is not None:
        rows.append(_row("  times through the natural speech", f"{found['natural_speech_epochs']:.2f}"))
    rows += [
        _row("  model FLOPs a step", f"{found['flops_per_step']:.3g}"),
        _row("  model FLOPs in all", f"{found['flops']:.3g}"),
    ]
    if "own_tokens" in found:
        rows.append(_row("  tokens it writes itself, at most", number(found["own_tokens"])))
        rows.append(_row("  FLOPs of writing them, besides", f"{found['rollout_flops']:.3g}"))
    return [*rows, _row("  time", hours(found["duration_h"]))]


def _rest(plan: dict[str, Any]) -> list[str]:
    disk = plan["disk"]
    rows = [
        _row("a checkpoint", size(disk["checkpoint_gib"])),
        _row("the trained model", size(disk["model_gib"])),
    ]
    if disk["teacher_cache_gib"] is not None:
        rows.append(_row("the teacher's cache", size(disk["teacher_cache_gib"])))
    if plan["budget_h"] is not None:
        rows.append(_row("budget of selected speech", speech(plan["budget_h"])))
    return rows
