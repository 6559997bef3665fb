"""`salad prepare`: any corpus becomes a prepared folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salad.cli.options import JsonOption, OutOption, app, print_json
from salad.errors import RecipeError

if TYPE_CHECKING:
    from salad.speech.candidate import Candidate
    from salad.speech.intake import Summary
    from salad.speech.prepared import Rejected

Opened = tuple["Iterator[Candidate | Rejected]", dict[str, Any]]
"""A corpus's utterances and what info.json says of the whole."""

NUM_REASONS = 5


@dataclass(frozen=True)
class _Request:
    """What the command line asks for, besides the checks."""

    corpus: str
    source: Path
    out: Path
    splits: tuple[str, ...]
    language: str | None
    limit: int | None
    accept_licence: bool
    more: dict[str, str]  # options of one corpus or another, those that were given


@dataclass(frozen=True)
class _Corpus:
    """How a corpus is opened and which options it has."""

    open: Callable[[_Request], Opened]
    needs_dir: bool = True
    options: frozenset[str] = field(default_factory=frozenset)


# --- the verb -------------------------------------------------------------------------------------------------------


@app.command()
def prepare(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="folder, or a corpus by name; see below.")],
    out: OutOption,
    source: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Where the corpus lies.")] = None,
    split: Annotated[list[str], typer.Option("--split", help="A split or subset; repeatable.")] = [],  # noqa: B006
    language: Annotated[
        str | None, typer.Option("--language", help="Of utterances; common-voice, emilia: which.")
    ] = None,
    manifest: Annotated[str | None, typer.Option("--manifest", help="folder: its name [manifest.jsonl].")] = None,
    style: Annotated[
        str | None, typer.Option("--format", help="folder: jsonl, csv, tsv, lhotse, kaldi or text [by its looks].")
    ] = None,
    alignments: Annotated[
        Path | None, typer.Option("--alignments", help="folder, librispeech: word timings kept apart.")
    ] = None,
    audio_root: Annotated[Path | None, typer.Option("--audio-root", help="libriheavy: Libri-Light's audio.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="hub: the dataset, org/name or a folder.")] = None,
    config: Annotated[str | None, typer.Option("--config", help="hub: its configuration.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="hub: branch, tag or commit.")] = None,
    data_files: Annotated[str | None, typer.Option("--data-files", help="hub: a pattern of its files [all].")] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="hub [text].")] = None,
    audio_column: Annotated[str | None, typer.Option("--audio-column", help="hub [audio].")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Of a corpus for non-commercial use.")
    ] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Worker processes [all CPUs].")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many of the first utterances.")] = None,
    max_duration: Annotated[
        float | None, typer.Option("--max-duration", help="Seconds [120]; longer: rejected.")
    ] = None,
    max_clipped: Annotated[float | None, typer.Option("--max-clipped", help="Share of clipped samples [0.01].")] = None,
    any_script: Annotated[bool, typer.Option("--any-script", help="Take transcripts in any script.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad item.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a corpus a prepared folder: checked cuts with transcripts (wordnet: OUT/texts.jsonl).

    CORPUS: folder (audio with any manifest), debian-prompts, wordnet, librispeech, libriheavy, emilia, emilia-yodas,
    common-voice, hub. What can't be used goes to OUT/rejected.jsonl; the same command goes on after a stop.
    """
    if corpus == "wordnet":
        return _prepare_wordnet(out)
    options = {
        "split": ",".join(split),
        "language": language,
        "manifest": manifest,
        "format": style,
        "alignments": alignments,
        "audio-root": audio_root,
        "name": name,
        "config": config,
        "revision": revision,
        "data-files": data_files,
        "text-column": text_column,
        "audio-column": audio_column,
    }
    given = {option: str(value) for option, value in options.items() if value}
    chosen = _chosen(corpus, source, given)
    request = _Request(corpus, source or Path(), out, tuple(split), language, limit, accept_licence, given)
    from salad.display import bar
    from salad.speech.candidate import Checks
    from salad.speech.intake import prepare_corpus

    candidates, info = chosen.open(request)
    limits: dict[str, Any] = {"max_duration_s": max_duration, "max_clipped_frac": max_clipped}
    limits |= {"min_script_frac": 0.0 if any_script else None, "language": language if corpus == "folder" else None}
    checks = Checks(strict=strict, **{key: value for key, value in limits.items() if value is not None})
    with bar("checking utterances") as told:
        summary = prepare_corpus(
            islice(candidates, limit), out, info, checks, jobs or _num_cpus(), lambda done: told(done, None)
        )
    _tell(summary, as_json)


def _chosen(corpus: str, source: Path | None, given: dict[str, str]) -> _Corpus:
    if corpus not in _CORPORA:
        raise RecipeError(f"no corpus is called {corpus!r}; choose {', '.join([*_CORPORA, 'wordnet'])}.")
    chosen = _CORPORA[corpus]
    if chosen.needs_dir and source is None:
        raise RecipeError(f"'salad prepare {corpus}' needs the folder: salad prepare {corpus} DIR --out OUT.")
    if not chosen.needs_dir and source is not None:
        raise RecipeError(f"'salad prepare {corpus}' takes no folder, and {source} is one; leave it out.")
    for option in given:
        if option not in chosen.options:
            known = ", ".join(f"--{name}" for name in sorted(chosen.options)) or "none of its own"
            raise RecipeError(f"--{option} is no option of {corpus}; it has {known}.")
    return chosen


def _tell(summary: Summary, as_json: bool) -> None:
    if as_json:
        return print_json(
            {
                "out": str(summary.out),
                "num_utterances": summary.num_cuts,
                "hours": summary.hours,
                "num_speakers": summary.num_speakers,
                "licence": summary.licence,
                "num_rejected": summary.num_rejected,
                "rejected_frac": summary.rejected_frac,
                "rejected": dict(summary.reasons),
            }
        )
    print(
        f"{summary.out}: {summary.num_cuts} utterances, {summary.hours:.2f} h, {summary.num_speakers} speakers; "
        f"licence: {summary.licence}"
    )
    if not summary.num_rejected:
        return print("nothing rejected")
    reasons = [f"{count} {kind}" for kind, count in summary.reasons[:NUM_REASONS]]
    more = len(summary.reasons) - len(reasons)
    print(
        f"rejected: {summary.num_rejected} of {summary.num_cuts + summary.num_rejected} ({summary.rejected_frac:.1%}): "
        f"{', '.join(reasons)}{f', and {more} more kinds' if more else ''}; see {summary.out / 'rejected.jsonl'}"
    )


def _num_cpus() -> int:
    return len(os.sched_getaffinity(0))


# --- the corpora ----------------------------------------------------------------------------------------------------


def _accepted(request: _Request, licence: str, non_commercial: bool) -> dict[str, Any]:
    """What info.json says of a licence's acceptance.

    Raises:
        RecipeError: it must be accepted and was not.
    """
    if not non_commercial:
        return {}
    if not request.accept_licence:
        raise RecipeError(
            f"{request.corpus} is under {licence}, which forbids commercial use; for other use, add --accept-licence."
        )
    return {"licence_accepted": True, "licence_accepted_on": datetime.now(UTC).date().isoformat()}


def _folder(request: _Request) -> Opened:
    from salad.speech.corpora import folder

    alignments = request.more.get("alignments")
    return folder.open_folder(
        request.source,
        request.more.get("manifest"),
        request.more.get("format"),
        None if alignments is None else Path(alignments),
    )


def _debian_prompts(request: _Request) -> Opened:
    from salad.speech.corpora import debian_prompts

    return debian_prompts.candidates(request.out), debian_prompts.info()


def _librispeech(request: _Request) -> Opened:
    from salad.speech.corpora import librispeech

    alignments = request.more.get("alignments")
    found = librispeech.candidates(request.source, request.splits, None if alignments is None else Path(alignments))
    return found, dict(librispeech.INFO)


def _libriheavy(request: _Request) -> Opened:
    from salad.speech.corpora import libriheavy

    root = request.more.get("audio-root")
    found = libriheavy.candidates(request.source, request.splits, None if root is None else Path(root))
    return found, dict(libriheavy.INFO)


def _emilia(request: _Request) -> Opened:
    from salad.speech.corpora import emilia

    yodas = request.corpus == "emilia-yodas"
    accepted = {} if yodas else _accepted(request, emilia.LICENCE, emilia.NON_COMMERCIAL)
    wanted = emilia.Wanted(yodas=yodas, language=request.language and request.language.lower())
    info = {**emilia.INFO, "corpus": request.corpus, **accepted}
    return emilia.candidates(request.source, request.out, wanted), info


def _common_voice(request: _Request) -> Opened:
    from salad.speech.corpora import common_voice

    found = common_voice.candidates(request.source, request.splits or ("train",), request.language)
    return found, dict(common_voice.INFO)


def _hub(request: _Request) -> Opened:
    from salad.speech.corpora import hub

    if "name" not in request.more:
        raise RecipeError("'salad prepare hub' needs the dataset: salad prepare hub --name ORG/DATASET --out OUT.")
    if len(request.splits) > 1:
        raise RecipeError(f"--split {' --split '.join(request.splits)}: hub takes one; prepare the others apart.")
    columns = {
        "text_column": request.more.get("text-column"),
        "audio_column": request.more.get("audio-column"),
        "config": request.more.get("config"),
        "revision": request.more.get("revision"),
        "data_files": request.more.get("data-files"),
        "split": request.more.get("split"),
        "language": request.language,
    }
    dataset = hub.HubDataset(request.more["name"], **{key: value for key, value in columns.items() if value})
    licence = hub.licence_of(dataset)
    accepted = _accepted(request, licence, hub.is_non_commercial(licence))
    info = {"corpus": dataset.name, "licence": licence, "source": dataset.source, **accepted}
    return hub.candidates(dataset, request.out, request.limit, licence), info


_CORPORA = {
    "folder": _Corpus(_folder, options=frozenset({"manifest", "format", "alignments", "language"})),
    "debian-prompts": _Corpus(_debian_prompts, needs_dir=False),
    "librispeech": _Corpus(_librispeech, options=frozenset({"split", "alignments"})),
    "libriheavy": _Corpus(_libriheavy, options=frozenset({"split", "audio-root"})),
    "emilia": _Corpus(_emilia, options=frozenset({"language"})),
    "emilia-yodas": _Corpus(_emilia, options=frozenset({"language"})),
    "common-voice": _Corpus(_common_voice, options=frozenset({"split", "language"})),
    "hub": _Corpus(
        _hub,
        needs_dir=False,
        options=frozenset(
            {"name", "config", "revision", "split", "data-files", "text-column", "audio-column", "language"}
        ),
    ),
}


def _prepare_wordnet(out: Path) -> None:
    from salad.assets import resolve
    from salad.texts import wordnet
    from salad.texts.text import write_texts

    texts, left_out = wordnet.load(resolve("wordnet"))
    write_texts(out / "texts.jsonl", texts)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    print(f"{out / 'texts.jsonl'}: {len(texts)} texts; left out: {reasons}")
