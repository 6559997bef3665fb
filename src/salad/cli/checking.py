"""Is synthetic speech worth training on? What is not is set aside, and can be listened to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from salad.cli.options import JsonOption, ThreadsOption, app, print_json
from salad.errors import RecipeError

if TYPE_CHECKING:
    from salad.recipe import QualitySettings
    from salad.report.listening import Section, Utterance
    from salad.synthesize.quality import QualityReport
    from salad.synthesize.quality_files import Quality

MANY = 60
"""Refused utterances on a page; half a minute of speech is 1 MB of it."""
SAMPLE = 20


def _threshold(name: str, meaning: str) -> Any:
    return typer.Option(f"--{name}", metavar="N", help=meaning)


@app.command()
def check(
    speech: Annotated[Path, typer.Argument(metavar="SPEECH", help="A prepared folder, e.g. of 'salad synthesize'.")],
    asr: Annotated[
        str, typer.Option("--asr", help="Who listens: a Whisper model for CTranslate2, or off.")
    ] = "whisper-tiny.en",
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="RECIPE", help="Take the thresholds from its quality group.")
    ] = None,
    max_cer: Annotated[str | None, _threshold("max-cer", "Character error rate [0.5].")] = None,
    seconds_per_character: Annotated[
        str | None, _threshold("seconds-per-character", "Slowest and fastest speech, LOW:HIGH [0.03:0.18].")
    ] = None,
    max_silence_frac: Annotated[str | None, _threshold("max-silence-frac", "Silent share of it [0.7].")] = None,
    max_pause_s: Annotated[str | None, _threshold("max-pause-s", "Longest pause inside, in seconds [2].")] = None,
    max_clipped_frac: Annotated[
        str | None, _threshold("max-clipped-frac", "Share of its samples near full swing [0.015].")
    ] = None,
    max_end_db: Annotated[
        str | None, _threshold("max-end-db", "Level of its last 20 ms, in dB of its speech [-20].")
    ] = None,
    max_repeated_words: Annotated[
        str | None, _threshold("max-repeated-words", "Words in a row heard again that are written once [3].")
    ] = None,
    threads: ThreadsOption = 2,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Worker processes [one a thread].")] = None,
    on: Annotated[
        Literal["processes", "ray"], typer.Option("--on", help="Workers of this machine, or of a Ray cluster.")
    ] = "processes",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Write a page to listen to what was refused.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have an ASR read synthetic speech back, measure its sound, and set aside what is not worth training on.

    What is refused goes from SPEECH/cuts.jsonl.gz to SPEECH/refused.jsonl, with its reasons; the audio stays. The
    numbers of all are in SPEECH/quality.parquet (docs/quality.md). Each threshold N is a number, or off. Looser ones
    take utterances back, in seconds: what was heard is kept.

    salad check spoken --max-cer 0.3 --max-pause-s off --html refused.html
    """
    from salad.display import bar
    from salad.ray_workers import fan_out
    from salad.synthesize.quality import check_speech

    given = {
        "max_cer": max_cer,
        "seconds_per_character": seconds_per_character,
        "max_silence_frac": max_silence_frac,
        "max_pause_s": max_pause_s,
        "max_clipped_frac": max_clipped_frac,
        "max_end_db": max_end_db,
        "max_repeated_words": max_repeated_words,
    }
    settings = _settings(recipe, {key: value for key, value in given.items() if value is not None})
    listener = None if asr == "off" else asr
    with bar("checking") as progress:
        report = check_speech(
            speech,
            listener,
            settings,
            threads=threads,
            processes=jobs or threads,
            fan_out=fan_out(on, speech),
            progress=progress,
        )
    if html is not None:
        _write_page(html, speech, report)
    if as_json:
        return print_json({**report.as_json(), "thresholds": settings.model_dump(mode="json"), "out": str(speech)})
    print("\n".join(_lines(speech, report, html)))


def _settings(recipe: Path | None, given: dict[str, str]) -> QualitySettings:
    """The thresholds; all that is wrong with them in one message."""
    from salad.recipe import load_recipe, parse_recipe

    tree: dict[str, Any] = load_recipe(recipe).model_dump(mode="json") if recipe else {"name": "check", "quality": {}}
    tree["quality"] |= {key: _value(key, value) for key, value in given.items()}
    return parse_recipe(tree, "the options" if recipe is None else f"{recipe} and the options").quality


def _value(key: str, given: str) -> float | list[float] | None:
    if given in ("off", "null"):
        return None
    try:
        numbers = [float(part) for part in given.split(":")]
    except ValueError:
        option = "--" + key.replace("_", "-")
        raise RecipeError(f"{option} {given}: write a number, LOW:HIGH for the pace, or off.") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _lines(speech: Path, report: QualityReport, html: Path | None) -> Iterator[str]:
    """What a person wants to know of it."""
    share = report.num_refused / max(1, report.num_checked)
    yield f"{speech}: {report.num_refused} of {report.num_checked} utterances refused ({share:.1%})"
    for kind, count in report.by_reason.items():
        yield f"  {count:>6}  {kind}"
    if report.mean_cer is not None:
        quantiles = ", ".join(f"{name} {value:.3f}" for name, value in report.cer_quantiles.items())
        yield f"character error rate: mean {report.mean_cer:.3f}; {quantiles}"
        for row in report.worst[:5]:
            yield f"  {row.cer:.2f}  {row.id}: {_short(row.text)!r} was heard as {_short(row.hypothesis or '')!r}"
    if report.num_refused:
        yield f"refused: {speech / 'refused.jsonl'}; looser thresholds take them back"
    if report.num_taken_back:
        yield f"taken back: {report.num_taken_back}; time and encode them with 'salad align' and 'salad encode'"
    yield f"numbers of all: {speech / 'quality.parquet'}" + (f"   to listen to: {html}" if html else "")


def _short(text: str, longest: int = 70) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _write_page(out: Path, speech: Path, report: QualityReport) -> None:
    from salad.report.listening import write_listening

    counts = list(report.by_reason.items())
    title = f"{speech}: {report.num_refused} of {report.num_checked} utterances refused"
    write_listening(out, title, counts, list(_sections(speech, report)))


def _sections(speech: Path, report: QualityReport) -> Iterator[Section]:
    """The refused, the worst of each reason first in turn, and a sample of the others, the same every time."""
    from salad.report.listening import Section
    from salad.synthesize.quality_files import all_cuts, read_quality

    others = [row for row in read_quality(speech).values() if not row.reasons]
    sample = random.Random(0).sample(others, min(SAMPLE, len(others)))
    refused = list(_in_turn(report.refused))[:MANY]
    wanted = {row.id for row in (*refused, *sample)}
    cuts = {cut.id: cut for cut in all_cuts(speech) if cut.id in wanted}
    about = "Their audio stays, and looser thresholds take them back."
    yield Section("Refused", about, [_utterance(row, cuts[row.id]) for row in refused], report.num_refused)
    about = "Drawn at random among those that were not refused, to compare with."
    yield Section("Accepted", about, [_utterance(row, cuts[row.id]) for row in sample], len(others))


def _in_turn(rows: tuple[Quality, ...]) -> Iterator[Quality]:
    """One of each reason, then a second of each, …, so that a common reason leaves room for the rare ones."""
    kinds: dict[str, list[Quality]] = {}
    for row in sorted(rows, key=lambda row: -(row.cer or 0.0)):
        kinds.setdefault(row.kinds[0], []).append(row)
    while kinds:
        for kind in list(kinds):
            yield kinds[kind].pop(0)
            if not kinds[kind]:
                del kinds[kind]


def _utterance(row: Quality, cut: Any) -> Utterance:
    from salad.report.listening import Utterance

    wordings = (
        ("character error rate", row.cer, "{:.2f}"),
        ("seconds a character", row.seconds_per_character, "{:.3f}"),
        ("silent", row.silence_frac, "{:.0%}"),
        ("longest pause", row.max_pause_s, "{:.2f} s"),
        ("near full swing", row.clipped_frac, "{:.2%}"),
        ("end", row.end_db, "{:.0f} dB"),
        ("words again", row.repeated_words, "{}"),
        ("duration", row.seconds, "{:.1f} s"),
    )
    numbers = [(name, wording.format(value)) for name, value, wording in wordings if value is not None]
    return Utterance(row.id, row.text, row.hypothesis, row.reasons, numbers, _flac(cut))


def _flac(cut: Any) -> bytes | None:
    """A cut's sound as a FLAC file; None when it can't be read."""
    import io

    import soundfile

    from salad.errors import SaladError
    from salad.speech.aligner import RATE_HZ
    from salad.speech.audio import load_cut

    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, load_cut(cut, RATE_HZ), RATE_HZ, format="FLAC", subtype="PCM_16")
    except SaladError:
        return None
    return buffer.getvalue()
