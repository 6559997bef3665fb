"""`salad prepare`: any corpus becomes a prepared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from salad.cli.options import OutOption, app
from salad.errors import RecipeError


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
