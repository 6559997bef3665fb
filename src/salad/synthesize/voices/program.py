"""Programs that speak: run without a shell, within a time, their failures in their own words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from salad.errors import AssetError, AudioError

LONGEST_RUN_S = 60
"""What one text may take; its speech is at most half a minute, and these programs are many times faster than speech."""


def installed(program: str, remedy: str) -> str:
    """Where `program` is.

    Raises:
        AssetError: it is not on this machine; the sentence ends in `remedy`.
    """
    found = shutil.which(program)
    if found is None:
        raise AssetError(f"the program {program} is not installed; {remedy}.")
    return found


def run(
    command: Sequence[str], text: str, said_to: bytes | None, folder: Path | None = None, limit_s: float = LONGEST_RUN_S
) -> bytes:
    """What a program writes to its standard output; its arguments are a list, and no shell reads any of it.

    Args:
        command: the program and its arguments.
        text: what is being spoken, for messages.
        said_to: what stands on its standard input; None: nothing.
        folder: where it runs, this process's folder when None.
        limit_s: it is ended after so long.

    Raises:
        AudioError: it fails, or takes longer; the message has its exit code and what it said.
        AssetError: it can't be started at all.
    """
    who = Path(command[0]).name
    try:
        done = subprocess.run(
            list(command), input=said_to or b"", capture_output=True, check=False, timeout=limit_s, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise AudioError(f"{who} did not finish within {limit_s:g} s on {shortened(text)}.") from error
    except (OSError, ValueError) as error:
        raise AssetError(
            f"{command[0]} can't be started ({error}); check the voice's name and that program."
        ) from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-200:].rstrip(".")
        told = f"exit code {done.returncode}" + (f": {said}" if said else "")
        raise AudioError(f"{who} can't speak {shortened(text)} ({told}).")
    return done.stdout


def shortened(text: str) -> str:
    """The beginning of a text, quoted, for messages."""
    return repr(text[:60]) + ("…" if len(text) > 60 else "")
