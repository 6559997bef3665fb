"""What the verbs share: options by their type, results as JSON or a line, libraries kept quiet."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from salad.cli.headings import Grouped

app = typer.Typer(
    cls=Grouped,
    help="Give a text LLM ears without making it dumber (SALAD, arXiv 2510.13632).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, e.g. recipes/demo.yaml.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; repeatable.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="OUT", help="The folder to write.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")]
RunOutOption = Annotated[Path | None, typer.Option("--out", metavar="RUN", help="The run folder [runs/NAME].")]


def num_processes() -> int:
    """How many processes torchrun has started for this command; 1 without it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # a container may say WORLD_SIZE of something else
        return 1
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the process that prints: the only one, or the first of torchrun's."""
    return os.environ.get("RANK", "0") == "0"


def stop(sentence: str, status: int = 2) -> None:
    """One sentence on stderr, exit 2 (or `status`); of many processes with the same to say one says it."""
    sentence = " ".join(sentence.split())
    if num_processes() > 1:
        from salad.ranks import first_to_say

        if not first_to_say(sentence):
            sys.exit(status)
    who = "" if is_main_process() else f" (rank {os.environ['RANK']})"
    print(f"salad{who}: {sentence}", file=sys.stderr)
    sys.exit(status)


def run_folder(name: str, out: Path | None) -> Path:
    """Where a recipe's run lies unless `--out` says otherwise."""
    return out if out is not None else Path("runs") / name


@contextlib.contextmanager
def folder_for(out: Path) -> Iterator[Path]:
    """The folder `out` to write to; one that was made for nothing, since all was refused, goes again."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield out
    except BaseException:
        with contextlib.suppress(OSError):  # it holds something
            out.rmdir()
        raise


def quiet() -> None:
    """No progress bars of the libraries between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def write_what_the_terminal_can() -> None:
    """Let a letter that stdout's encoding lacks, or a file's name in another, be written escaped, as stderr does it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_json(value: Any) -> None:
    """A result as indented JSON, in ASCII where stdout is not in UTF-8."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=ascii_only, indent=1))


def print_result(value: Any, as_json: bool) -> None:
    """A result as JSON, or its keys and values on one line for each row."""
    if as_json:
        return print_json(value)
    for row in value if isinstance(value, list) else [value]:
        print("  ".join(f"{key}: {_short(item)}" for key, item in row.items()))


def _short(item: Any) -> str:
    if isinstance(item, dict) and {"value", "low", "high"} <= item.keys():
        return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}] (n={item['n']})"
    return f"{item:.4g}" if isinstance(item, float) else str(item)
