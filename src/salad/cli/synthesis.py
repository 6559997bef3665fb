"""Texts to speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import OutOption, ThreadsOption, app


@app.command()
def synthesize(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="JSONL with id and text.")],
    out: OutOption,
    voice: Annotated[str, typer.Option("--voice", help="piper-joe, espeak-ng, or a Piper folder.")] = "piper-joe",
    threads: ThreadsOption = 2,
) -> None:
    """Speak texts into a prepared folder, one worker process a thread; goes on where it stopped."""
    from salad.display import bar
    from salad.files import read_jsonl
    from salad.speech.prepared import read_cuts
    from salad.synthesize.pool import synthesize as speak
    from salad.texts.text import read_texts

    with bar("speaking") as progress:
        speak(read_texts(texts), voice, out, threads, progress)
    cuts = read_cuts(out)
    minutes = sum(cut.duration for cut in cuts) / 60
    rejected = len(read_jsonl(out / "rejected.jsonl"))
    print(f"{out}: {len(cuts)} utterances, {minutes:.1f} min; {rejected} rejected, see {out / 'rejected.jsonl'}")
