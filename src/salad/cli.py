"""The `salad` command: a thin verb for each step. A verb takes paths and names and writes a folder.

Exit codes: 0 done; 2 the user can mend it (one sentence on stderr); 1 our fault (traceback); 130 interrupted.
Nothing heavy is imported before a verb needs it, so `salad --help` is quick.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from salad import __version__
from salad.errors import RecipeError, SaladError

app = typer.Typer(
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


def main() -> None:
    """The console entry point: maps errors to one sentence and an exit code."""
    # OpenMP threads spin a fraction of a millisecond at a barrier, then sleep. The default spins sixty times as long,
    # which makes a machine that is also busy elsewhere tens of times slower. Read when torch is first loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        app()
    except SaladError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({error.filename})" if error.filename else ""
            _stop(f"no space left on the disk{where}; free some and run the same command again, it goes on from here.")
        if error.errno in (errno.EACCES, errno.EROFS):
            _stop(f"{error.filename or 'a file'} can't be written or read ({error.strerror}); choose another folder.")
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            _stop(f"{error.filename} is a file where a folder is needed, or a folder where a file is; choose another.")
        raise


def _stop(sentence: str) -> None:
    print(f"salad: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


# --- a whole run ---------------------------------------------------------------------------------------------------


@app.command()
def run(
    recipe: RecipeArgument,
    settings: SetOption = [],  # noqa: B006  (typer reads the default, nobody changes it)
    out: RunOutOption = None,
    only: Annotated[str | None, typer.Option("--only", metavar="STEP", help="Do this step alone, again.")] = None,
) -> None:
    """Do all steps of a recipe in order; goes on where an interrupted run stopped."""
    from salad.display import RunDisplay
    from salad.recipe import load_recipe

    loaded = load_recipe(recipe, tuple(settings))
    display = RunDisplay(loaded.name)
    display.introduce(recipe)
    _quiet()
    from salad.results import deviations
    from salad.run import Run, execute
    from salad.steps import STEPS

    display.deviations(deviations(loaded))
    folder = _run_folder(loaded.name, out)
    with display:
        execute(Run(loaded, folder), STEPS, only, display.announce, display.finished)
    if (folder / "results.json").is_file():
        display.conclude(folder)


@app.command()
def steps(
    recipe: RecipeArgument,
    settings: SetOption = [],  # noqa: B006
    out: RunOutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the steps of a recipe, what each is for, and how far its run is."""
    from salad.recipe import load_recipe
    from salad.run import Run, states
    from salad.steps import STEPS

    loaded = load_recipe(recipe, tuple(settings))
    found = states(Run(loaded, _run_folder(loaded.name, out)), STEPS)
    rows = [{"step": s.step.name, "state": s.state, "wall_s": s.wall_s, "purpose": s.step.purpose} for s in found]
    if as_json:
        return _print_json(rows)
    for row in rows:
        seconds = "" if row["wall_s"] is None else f"{row['wall_s']:.0f} s"
        print(f"{row['step']:<18} {row['state']:<8} {seconds:>6}  {row['purpose']}")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/demo.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The page [RUN/report.html].")] = None,
) -> None:
    """Draw a run's results as one self-contained page."""
    from salad.report.page import write_report

    page = out or run_folder / "report.html"
    write_report(run_folder / "results.json", page)
    print(page)


# --- speech and text -----------------------------------------------------------------------------------------------


@app.command()
def prepare(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="debian-prompts, wordnet, or folder.")],
    out: OutOption,
    source: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="For folder: audio and a manifest.")] = None,
    manifest: Annotated[str, typer.Option("--manifest", help="For folder: the manifest's name.")] = "manifest.jsonl",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad item.")] = False,
) -> None:
    """Make a corpus a prepared folder: cuts with transcripts (wordnet: OUT/texts.jsonl)."""
    if corpus == "wordnet":
        return _prepare_wordnet(out)
    if corpus == "debian-prompts":
        from salad.speech.corpora import debian_prompts

        debian_prompts.prepare(out)
    elif corpus == "folder":
        from salad.speech.corpora import folder

        if source is None:
            raise RecipeError("'salad prepare folder' needs the folder: salad prepare folder DIR --out OUT.")
        folder.prepare(source, out, manifest, strict)
    else:
        raise RecipeError(f"no corpus is called {corpus!r}; choose debian-prompts, wordnet, or folder DIR.")
    from salad.files import read_jsonl
    from salad.speech.prepared import read_cuts

    cuts = read_cuts(out)
    rejected = len(read_jsonl(out / "rejected.jsonl"))
    hours = sum(cut.duration for cut in cuts) / 3600
    print(f"{out}: {len(cuts)} utterances, {hours:.2f} h; {rejected} rejected, see {out / 'rejected.jsonl'}")


def _prepare_wordnet(out: Path) -> None:
    from salad.assets import resolve
    from salad.texts import wordnet
    from salad.texts.text import write_texts

    texts, left_out = wordnet.load(resolve("wordnet"))
    write_texts(out / "texts.jsonl", texts)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    print(f"{out / 'texts.jsonl'}: {len(texts)} texts; left out: {reasons}")


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
    _print_result(summary, as_json)


@app.command()
def encode(
    prepared: Annotated[Path, typer.Argument(metavar="OUT", help="A prepared folder.")],
    encoder: Annotated[str, typer.Option("--encoder", help="A frozen speech encoder.")] = "whisper-tiny.en",
    threads: ThreadsOption = 2,
) -> None:
    """Compute the frozen encoder's features of a prepared folder, once; goes on where it stopped."""
    from salad.display import bar
    from salad.model.encoder import load_encoder
    from salad.model.features import encode_cuts

    with bar("encoding") as progress:
        encode_cuts(prepared, load_encoder(encoder, threads), progress)
    print(prepared / "features" / encoder)


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


# --- Stage II, step by step ----------------------------------------------------------------------------------------


@app.command()
def cluster(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="JSONL with id and text.")],
    out: OutOption,
    k: Annotated[int, typer.Option("--k", min=1, help="Number of clusters.")] = 128,
    embedder: Annotated[str, typer.Option("--embedder", help="A sentence-transformers model.")] = "minilm-l6",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Partition a text corpus by meaning into clusters of equal size: OUT/labels.jsonl, OUT/clusters.json."""
    from salad.display import bar
    from salad.files import write_json, write_jsonl
    from salad.select.balanced_kmeans import balanced_kmeans
    from salad.select.embed import embed
    from salad.select.naming import cluster_names
    from salad.texts.text import read_texts

    _quiet()
    corpus = read_texts(texts)
    if k > len(corpus):
        raise RecipeError(f"--k {k}: {texts} holds {len(corpus)} texts; ask for at most as many clusters.")
    with bar("embedding") as progress:
        embeddings = embed([text.text for text in corpus], embedder, progress)
    clustering = balanced_kmeans(embeddings, k, seed)
    names = cluster_names([text.text for text in corpus], clustering.labels, k)
    labels = [{"id": t.id, "cluster": int(c)} for t, c in zip(corpus, clustering.labels, strict=True)]
    write_jsonl(out / "labels.jsonl", labels)
    sizes = [int((clustering.labels == c).sum()) for c in range(k)]
    summary = {"names": names, "sizes": sizes, "inertia": clustering.inertia, "seed": seed, "embedder": embedder}
    write_json(out / "clusters.json", summary)
    _print_result(summary, as_json)


@app.command()
def probe(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder or run.")],
    clusters: Annotated[Path, typer.Option("--clusters", metavar="DIR", help="A folder made by 'salad cluster'.")],
    speech: Annotated[
        Path, typer.Option("--speech", metavar="DIR", help="Spoken probe texts: synthesized and aligned.")
    ],
    out: OutOption,
    max_cer: Annotated[
        float, typer.Option("--max-cer", min=0, help="Leave out clusters spoken worse than this.")
    ] = 0.3,
    threads: ThreadsOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Measure in which clusters a model mishears: OUT/probe.json, M(c) with its standard error."""
    from salad.files import write_json
    from salad.verbs import probe_folder

    _quiet()
    rows = probe_folder(model, clusters, speech, max_cer, threads)
    write_json(out / "probe.json", rows)
    _print_result(rows, as_json)


@app.command()
def select(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="The clustered corpus, JSONL.")],
    clusters: Annotated[Path, typer.Option("--clusters", metavar="DIR", help="A folder made by 'salad cluster'.")],
    probes: Annotated[Path, typer.Option("--probe", metavar="DIR", help="A folder made by 'salad probe'.")],
    out: OutOption,
    budget: Annotated[str, typer.Option("--budget", help="Hours of speech, e.g. 0.5h.")],
    gamma: Annotated[float, typer.Option("--gamma", min=0, help="0: uniform; the paper: 5.")] = 5.0,
    pace: Annotated[
        float, typer.Option("--seconds-per-character", min=0.001, help="How fast the voice speaks.")
    ] = 0.065,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw texts by misalignment^gamma until a budget of speech is reached: OUT/selected.jsonl."""
    from salad.texts.text import write_texts
    from salad.verbs import hours, select_folder

    chosen = select_folder(texts, clusters, probes, gamma, hours(budget) * 3600, pace, seed)
    write_texts(out / "selected.jsonl", chosen.texts)
    summary = {
        "num_texts": len(chosen.texts),
        "estimated_h": chosen.estimated_s / 3600,
        "target": chosen.target,
        "per_cluster": chosen.per_cluster,
        "exhausted_clusters": chosen.exhausted_clusters,
    }
    _print_result(summary, as_json)


# --- measuring and using -------------------------------------------------------------------------------------------


@app.command()
def measure(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder or run.")],
    speech: Annotated[Path, typer.Option("--speech", metavar="DIR", help="A prepared, aligned, encoded folder.")],
    policy: Annotated[str | None, typer.Option("--policy", help="Sequence policy [the model's own].")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Only so many utterances.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    threads: ThreadsOption = 2,
    as_json: JsonOption = False,
    deaf_ok: Annotated[bool, typer.Option("--deaf-ok", help="Exit 0 even if the model does not hear.")] = False,
) -> None:
    """Measure misalignment, forgetting and hearing of a model on spoken texts."""
    from salad.verbs import measure_folder

    _quiet()
    result = measure_folder(model, speech, policy, limit, seed, threads)
    _print_result(result, as_json)
    if not result["hears"] and not deaf_ok:
        _stop("THIS MODEL DOES NOT HEAR: other audio serves it as well as its own (--deaf-ok: exit 0).")


@app.command()
def ask(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder or run.")],
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="A WAV, FLAC, OGG or MP3 file.")],
    prompt: Annotated[str, typer.Option("--prompt", help="Text after the speech.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 64,
    sample: Annotated[bool, typer.Option("--sample", help="Sample (top-k 250, temperature 0.7); else greedy.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    continue_text: Annotated[
        bool, typer.Option("--continue", help="Continue the speech instead of answering.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a spoken question (instruct LLM), or continue what was said (base LLM)."""
    from salad.verbs import answer

    _quiet()
    text = answer(model, audio, prompt, max_tokens, sample, seed, continue_text)
    if as_json:
        return _print_json({"answer": text})
    print(text)


@app.command()
def assets(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Assets to fetch.")] = None,
    fetch_all: Annotated[bool, typer.Option("--all", help="Fetch all of them.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Hash every file again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the offline models and corpora, or fetch and check some."""
    from dataclasses import asdict

    from salad.assets import cache_dir, fetch, status

    if names or fetch_all:
        for name, folder in fetch(names or [], lambda name, doing: print(f"{name}: {doing}", file=sys.stderr)).items():
            print(f"{name}: {folder}")
        return
    rows = [asdict(row) for row in status(check)]
    if as_json:
        return _print_json([{key: _plain(value) for key, value in row.items()} for row in rows])
    print(f"cache: {cache_dir()} (set SALAD_CACHE to move it)")
    for row in rows:
        state = "verified" if row["verified"] else "present, not verified" if row["present"] else "not fetched"
        print(f"{row['name']:<24} {row['kind']:<9} {row['size_mb']:>5.0f} MB  {state:<22} {row['licence']}")


# --- helpers -------------------------------------------------------------------------------------------------------


def _run_folder(name: str, out: Path | None) -> Path:
    return out if out is not None else Path("runs") / name


def _quiet() -> None:
    """No progress bars of the libraries between ours."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def _print_result(value: Any, as_json: bool) -> None:
    if as_json:
        return _print_json(value)
    for row in value if isinstance(value, list) else [value]:
        print("  ".join(f"{key}: {_short(item)}" for key, item in row.items()))


def _short(item: Any) -> str:
    if isinstance(item, dict) and {"value", "low", "high"} <= item.keys():
        return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}] (n={item['n']})"
    return f"{item:.4g}" if isinstance(item, float) else str(item)
