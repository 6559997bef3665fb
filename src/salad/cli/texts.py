"""What `salad prepare text` does: texts from anywhere into OUT/texts.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from salad.cli.options import print_json

if TYPE_CHECKING:
    from salad.texts.rows import TextSettings

NUM_REASONS = 5


def prepare_texts(settings: TextSettings, out: Path, as_json: bool = False) -> None:
    """Prepare texts with a bar, and say what was taken and what not; goes on where it stopped.

    Raises:
        SaladError: see `salad.texts.sources.prepare_text`.
    """
    from salad.display import bar
    from salad.tally import Kinds
    from salad.texts.readers import JsonLines
    from salad.texts.sources import prepare_text

    with bar("reading texts") as progress:
        info = prepare_text(settings, out, progress)
    if as_json:
        return print_json(info)
    print(f"{out / 'texts.jsonl'}: {info['num_texts']} texts, {info['num_words']} words; licence: {info['licence']}")
    kinds = Kinds()
    for row in JsonLines(out / "rejected.jsonl", "rejected").rows(None):
        kinds.add(str(row.columns["reason"]))
    if kinds.count:
        reasons = ", ".join(f"{row['count']} {row['reason']}" for row in kinds.rows()[:NUM_REASONS])
        frac = kinds.count / (kinds.count + info["num_texts"])
        print(f"rejected: {kinds.count} ({frac:.1%}): {reasons}; see {out / 'rejected.jsonl'}")
    if info["left_out"]:
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(info["left_out"].items()))
        print(f"left out by the source's own reader: {left_out}")
