"""Speech, step by step: align, encode, synthesize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salad.cli.options import JsonOption, ThreadsOption, app, print_json, print_result, quiet

if TYPE_CHECKING:
    from salad.model.encoders.speech_encoder import SpeechEncoder
    from salad.speech.prepared import Rejected


@app.command()
def align(
    prepared: Annotated[Path, typer.Argument(metavar="OUT", help="A prepared folder.")],
    aligner: Annotated[
        str, typer.Option("--aligner", help="pocketsphinx (US English), whisper, whisper:MODEL, or ctc:MODEL.")
    ] = "pocketsphinx",
    min_confidence: Annotated[
        float,
        typer.Option("--min-confidence", min=0, max=1, help="Reject cuts whose words' mean is lower."),
    ] = 0.0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Worker processes, which share the threads.")] = 1,
    threads: ThreadsOption = 2,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first cut that can't be aligned.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put word timings on the cuts of a prepared folder, in place; goes on where it stopped.

    Timings that came with a cut, or from the voice that spoke it, are kept.
    """
    from salad.display import bar
    from salad.speech.align import align_folder

    if aligner.startswith("ctc"):
        quiet()
    with bar("aligning") as progress:
        report, rejected = align_folder(
            prepared, aligner, threads, jobs=jobs, min_confidence=min_confidence, strict=strict, progress=progress
        )
    if as_json:
        return print_json(report)
    print("\n".join(_alignment_lines(prepared, report, rejected)))


def _alignment_lines(prepared: Path, report: dict[str, Any], rejected: list[Rejected]) -> list[str]:
    """What a person wants to know of a folder's alignment."""
    from salad.tally import Kinds

    counts = ", ".join(f"{report[f'num_{what}']} {what}" for what in ("aligned", "kept", "rejected"))
    lines = [f"{prepared}: {report['num_cuts']} cuts: {counts}"]
    if rejected:
        kinds = Kinds()
        for row in rejected:
            kinds.add(row.reason)
        reasons = ", ".join(f"{kind['count']} {kind['reason']}" for kind in kinds.rows())
        frac = len(rejected) / report["num_cuts"]
        lines.append(f"rejected: {frac:.1%}: {reasons}; see {prepared / 'rejected.jsonl'}")
    if report["num_words"]:
        lines.append(f"{report['words_placed_frac']:.1%} of {report['num_words']} words have their place")
    if report["worst_cut"] is not None:
        middle, low, worst = (report[f"confidence_{which}"] for which in ("median", "p5", "worst"))
        lines.append(
            f"confidence of cuts: median {middle:.3f}, one in twenty under {low:.3f}, worst {worst:.3f} "
            f"({report['worst_cut']})"
        )
    lines.append("timed by: " + ", ".join(f"{who} ({count})" for who, count in report["timed_by"].items()))
    if report["speech_s"]:
        speed = f"{report['times_real_time']:.3f} × real time"
        lines.append(f"{report['speech_s'] / 60:.1f} min of speech in {report['seconds']:.1f} s, {speed}")
    return [*lines, str(prepared / "alignment.json")]


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
