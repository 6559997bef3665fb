"""Speech, step by step: align, encode, synthesize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salad.cli.options import JsonOption, OutOption, ThreadsOption, app, print_result

if TYPE_CHECKING:
    from salad.model.encoders.speech_encoder import SpeechEncoder


@app.command()
def align(
    prepared: Annotated[Path, typer.Argument(metavar="OUT", help="A prepared folder.")],
    asr: Annotated[str, typer.Option("--asr", help="The recognizer that places the words.")] = "whisper-tiny.en",
    threads: ThreadsOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Put word timings on the cuts of a prepared folder, in place."""
    from salad.assets import resolve
    from salad.display import bar
    from salad.files import read_jsonl
    from salad.speech.align import align_cuts
    from salad.speech.prepared import Rejected, read_cuts, read_info, write_prepared
    from salad.speech.recognize import Recognizer

    cuts = read_cuts(prepared)
    with bar("aligning") as progress:
        done, rejected, summary = align_cuts(cuts, Recognizer(resolve(asr), threads), progress)
    earlier = [Rejected(**row) for row in read_jsonl(prepared / "rejected.jsonl")]
    write_prepared(prepared, done, [*earlier, *rejected], read_info(prepared))
    print_result(summary, as_json)


@app.command()
def encode(
    prepared: Annotated[Path, typer.Argument(metavar="OUT", help="A prepared folder.")],
    encoder: Annotated[str, typer.Option("--encoder", help="A frozen speech encoder.")] = "whisper-tiny.en",
    dtype: Annotated[str, typer.Option("--dtype", help="What features are kept in: float16, float32.")] = "float16",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Worker processes, each with an encoder.")] = 1,
    threads: ThreadsOption = 2,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first cut that can't be encoded.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute the frozen encoder's features of a prepared folder, once; goes on where it stopped.

    The command may run several times at once on one folder, on several machines that share its disk.
    """
    from functools import partial

    from salad.display import bar
    from salad.model.encode import encode_in_processes

    load = partial(_load_encoder, encoder, threads, device)
    with bar("encoding") as progress:
        made = encode_in_processes(prepared, load, encoder, jobs, progress, dtype, strict)
    print_result(made.summary(), as_json)


def _load_encoder(name: str, threads: int, device: str) -> SpeechEncoder:
    """The encoder in this process, a worker perhaps, with its share of the machine."""
    import torch

    from salad.model.encoder import load_encoder

    torch.set_num_threads(threads)
    return load_encoder(name, threads, device=device)


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
