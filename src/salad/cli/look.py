"""Looking at data: show (interleaved sequences of a prepared folder), stats (what a corpus holds)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salad.cli.options import JsonOption, app, print_json, quiet
from salad.errors import MissingFileError, RecipeError

if TYPE_CHECKING:
    from salad.model.features import FeatureStore

POLICIES = ("interleaved", "speech_prefix", "utterance", "poisson")
MAX_WIDTH = 110  # longer lines are hard to read

TokenizerOption = Annotated[str, typer.Option("--tokenizer", metavar="LLM", help="Whose tokens are counted.")]
PositionsHzOption = Annotated[float, typer.Option("--position-hz", min=0.1, help="LLM positions a second of speech.")]


@app.command()
def show(
    prepared: Annotated[Path, typer.Argument(metavar="OUT", help="A prepared, aligned folder.")],
    num: Annotated[int, typer.Option("--n", min=1, help="How many sequences.")] = 3,
    identifier: Annotated[str | None, typer.Option("--id", metavar="ID", help="This utterance alone.")] = None,
    policy: Annotated[str, typer.Option("--policy", help=", ".join(POLICIES) + ".")] = "interleaved",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    epoch: Annotated[int, typer.Option("--epoch", min=0, help="Spans are drawn anew each epoch.")] = 0,
    position_hz: PositionsHzOption = 12.5,
    tokenizer: TokenizerOption = "smollm2-135m-instruct",
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Take numbers of frames from its features [the only one's].")
    ] = None,
    positions: Annotated[bool, typer.Option("--positions", help="Every position on a line of its own.")] = False,
    wav: Annotated[
        Path | None, typer.Option("--wav", metavar="DIR", help="Write what is heard: DIR/ID-spanK.wav.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print interleaved sequences: what is read, heard (and when), and which positions carry loss."""
    from salad.interleave import show as showing
    from salad.interleave.view import SequenceView
    from salad.model.llm import document_mark, load_tokenizer
    from salad.recipe import SequenceSettings

    if policy not in POLICIES:
        raise RecipeError(f"--policy {policy!r}: choose {', '.join(POLICIES)}.")
    quiet()
    llm = load_tokenizer(tokenizer)
    settings = SequenceSettings.model_validate({"policy": policy})
    store = _store(prepared, encoder)
    view = SequenceView(llm, document_mark(llm), settings, seed, position_hz, store)
    if identifier is None:
        shown = showing.show(prepared, view, num, epoch)
    else:
        shown = showing.show_one(prepared, view, identifier, epoch)
    written = showing.write_audio(shown, wav) if wav is not None else []
    if as_json:
        return print_json(shown.as_json(view) | {"wav": [str(path) for path in written]})
    from salad.cli.drawn import sequence_lines

    _print(lambda width: sequence_lines(shown, view, width, positions))
    for path in written:
        print(path)


@app.command()
def stats(
    corpus: Annotated[Path, typer.Argument(metavar="OUT", help="A prepared folder, or a JSONL file of texts.")],
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw lengths and pace.")] = None,
    tokenizer: TokenizerOption = "smollm2-135m-instruct",
    position_hz: PositionsHzOption = 12.5,
    as_json: JsonOption = False,
) -> None:
    """Count what a corpus holds: hours, speakers, words, tokens, licence, lengths, timings, what was rejected."""
    from salad.display import bar
    from salad.speech.prepared import CUTS_NAME
    from salad.speech.stats import speech_stats
    from salad.texts.stats import text_stats

    quiet()
    if not corpus.exists():
        raise MissingFileError(f"{corpus} does not exist; name a prepared folder or a JSONL file of texts.")
    texts = corpus / "texts.jsonl" if corpus.is_dir() and not (corpus / CUTS_NAME).is_file() else corpus
    is_text = texts.is_file()
    with bar("counting") as progress:
        if is_text:
            found = text_stats(texts, _counter(tokenizer), tokenizer, progress)
        else:
            found = speech_stats(corpus, _counter(tokenizer), tokenizer, position_hz, progress)
            found["features"] = _features(corpus, found["hours"])
    if plot is not None:
        from salad.report.corpus_plot import plot_corpus

        plot_corpus(found, plot)
    if as_json:
        return print_json(found)
    from salad.cli.drawn import speech_lines, text_lines

    _print(lambda width: (text_lines if is_text else speech_lines)(found, width))


def _print(lines: Callable[[int], Any]) -> None:
    from salad.display import console

    for line in lines(min(console.width, MAX_WIDTH)):
        console.print(line, soft_wrap=True)


def _counter(tokenizer: str) -> Callable[[Sequence[str]], int]:
    from salad.model.llm import load_tokenizer

    backend: Any = load_tokenizer(tokenizer).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return lambda texts: sum(len(encoding.ids) for encoding in backend.encode_batch(texts, add_special_tokens=False))


def _encoders(prepared: Path) -> list[str]:
    """The names of the encoders that have features in a prepared folder."""
    from salad.files import read_json

    return [str(read_json(path)["name"]) for path in sorted((prepared / "features").glob("*/encoder.json"))]


def _store(prepared: Path, encoder: str | None) -> FeatureStore | None:
    from salad.model.features import FeatureStore

    if encoder is not None:
        return FeatureStore(prepared, encoder)
    names = _encoders(prepared)
    if len(names) != 1:
        return None
    try:
        return FeatureStore(prepared, names[0])
    except MissingFileError:  # encoding has not come to its end
        return None


def _features(prepared: Path, hours: float) -> list[dict[str, Any]]:
    """What encoders left in a prepared folder; `num_cuts` is None where encoding has not come to its end."""
    from salad.model.features import FeatureStore, encoder_folder

    rows: list[dict[str, Any]] = []
    for name in _encoders(prepared):
        where = encoder_folder(prepared, name)
        num_bytes = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
        row: dict[str, Any] = {"encoder": name, "num_bytes": num_bytes, "num_cuts": None}
        row |= {"feature_dim": None, "frame_hz": None, "bytes_per_hour": None}
        try:
            store = FeatureStore(prepared, name)
        except MissingFileError:
            rows.append(row)
            continue
        row |= {"num_cuts": len(store), "feature_dim": store.feature_dim, "frame_hz": store.frame_hz}
        rows.append(row | {"bytes_per_hour": num_bytes / hours if hours else None})
    return rows
