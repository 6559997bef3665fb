"""The `salad` command: a thin verb for each step. A verb takes paths and names and writes a folder.

Exit codes: 0 done; 2 the user can mend it (one sentence on stderr); 1 our fault (traceback); 130 interrupted by Ctrl-C,
143 by SIGTERM.
Nothing heavy is imported before a verb needs it, so `salad --help` is quick.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from salad import __version__
from salad.cli import (  # noqa: F401  (each adds its verbs to the app)
    asking,
    checking,
    cleaning,
    clustering,
    comparing,
    doctor,
    look,
    mapping,
    measuring,
    planning,
    prepare,
    probing,
    pushing,
    runs,
    scoring,
    selection,
    speaking,
    speech,
    synthesis,
    talking,
    using,
    voices,
)
from salad.cli.options import app, is_main_process, num_processes, stop, write_what_the_terminal_can
from salad.errors import InterruptedRunError, SaladError
from salad.interrupts import TERMINATED, end_on_sigterm

INTERRUPTED = 130
# What these verbs had done is not kept, so there is nothing to go on from.
BEGIN_ANEW = frozenset({"ask", "chat", "doctor", "explain", "law", "plan", "serve", "show", "stats", "steps", "voices"})
ENDED_BY = {INTERRUPTED: "Interrupted", TERMINATED: "Stopped by SIGTERM"}  # 130 is what typer makes of Ctrl-C


def main() -> None:
    """The console entry point: maps errors to one sentence and an exit code."""
    # OpenMP threads spin a fraction of a millisecond at a barrier, then sleep. The default spins sixty times as long,
    # which makes a machine that is also busy elsewhere tens of times slower. Read when torch is first loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    end_on_sigterm()
    write_what_the_terminal_can()
    try:
        app()
    except InterruptedRunError as error:
        stop(str(error), 128 + error.signal_number)
    except SaladError as error:
        stop(str(error))
    except SystemExit as end:
        if end.code in ENDED_BY and is_main_process():
            on = "" if BEGIN_ANEW.intersection(sys.argv[1:2]) else "; the same command goes on from here"
            print(f"\n{ENDED_BY[end.code]}{on}.", file=sys.stderr)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({error.filename})" if error.filename else ""
            stop(f"no space left on the disk{where}; free some and run the same command again, it goes on from here.")
        if error.errno in (errno.EACCES, errno.EROFS):
            stop(f"{error.filename or 'a file'} can't be written or read ({error.strerror}); choose another folder.")
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            stop(f"{error.filename} is a file where a folder is needed, or a folder where a file is; choose another.")
        raise
    except RuntimeError as error:
        from salad.ranks import is_lost_rank

        if num_processes() > 1 and is_lost_rank(error):
            stop("another process of this run has ended, and the rest with it; its own message says why.", 1)
        raise


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if num_processes() > 1 and context.invoked_subcommand not in (None, "run"):
        stop(f"'salad {context.invoked_subcommand}' works in one process; start it without torchrun.")
