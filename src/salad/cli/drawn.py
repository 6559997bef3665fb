"""Sequences and corpora drawn in a terminal: 80 columns suffice, and nothing is said by colour alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.text import Text

if TYPE_CHECKING:
    from salad.interleave.show import Shown
    from salad.interleave.view import SequenceView, ShownPosition, ShownSequence, ShownSpan

STYLES = {"mark": "dim", "text": "", "speech": "cyan"}
LABEL = 16  # columns of what stands left of a number


# --- sequences --------------------------------------------------------------------------------------------------------


def sequence_lines(shown: Shown, view: SequenceView, width: int, every_position: bool) -> Iterator[Text]:
    """The sequences, span by span or position by position, under a legend and above the totals."""
    yield from _legend(view, width, every_position)
    for number, sequence in enumerate(shown.sequences, start=1):
        yield Text()
        yield from _heading(sequence, f"{number}/{len(shown.sequences)}", width)
        if every_position:
            yield from _table(sequence)
        else:
            for span in sequence.spans:
                yield from _span(span, width)
    yield Text()
    yield from _totals(shown, view, width)


def _legend(view: SequenceView, width: int, every_position: bool) -> Iterator[Text]:
    frame_ms = 1000 / view.position_hz
    what = f"Policy {view.settings.policy}, seed {view.seed}. | text is read token by token; » speech is heard, a "
    what += f"position every {frame_ms:g} ms. A position with loss predicts the text token after it, as the teacher "
    what += "does, who reads all as text"
    what += ": its position stands beside." if every_position else "."
    yield from _wrapped(what, width, "dim")


def _heading(sequence: ShownSequence, number: str, width: int) -> Iterator[Text]:
    speaker = f", speaker {sequence.speaker}" if sequence.speaker else ""
    epoch = f", epoch {sequence.epoch}" if sequence.epoch else ""
    yield from _wrapped(f"{number}  {sequence.id}  {sequence.duration_s:.2f} s{speaker}{epoch}", width, "bold")
    num = len(sequence.positions)
    counts = (
        f"{num} positions, {sequence.num_loss} with loss ({sequence.num_loss / num:.0%}), {sequence.heard_s:.2f} s "
    )
    counts += f"heard; map to the teacher's {sequence.num_teacher_positions} checked."
    yield from _wrapped(counts, width)
    if sequence.note:
        yield from _wrapped(f"Note: {sequence.note}.", width, "yellow")


def _span(span: ShownSpan, width: int) -> Iterator[Text]:
    where = _range(span.positions[0].student, span.positions[-1].student)
    loss = f"loss at {_range(*span.loss)}" if span.loss else "no loss"
    times = "" if span.start_s is None else f"  heard at {span.start_s:.2f}–{span.end_s:.2f} s"
    yield Text(f"  {span.number:>2} {span.kind:<6} positions {where}, {loss}{times}", "dim")
    mark = "»" if span.kind == "speech" else "|"
    yield from _wrapped(span.text, width, STYLES[span.kind], f"     {mark} ")


def _table(sequence: ShownSequence) -> Iterator[Text]:
    yield Text(
        f"{'student':>7}  {'kind':<6}  {'reads or hears':<20} {'seconds':<13} {'teacher':>7}  loss: predicts", "dim"
    )
    for position in sequence.positions:
        yield _row(position)


def _row(position: ShownPosition) -> Text:
    heard = position.kind == "speech"
    reads = f"» {position.reads or '(pause)'}" if heard else _quoted(position.reads)
    seconds = f"{position.start_s:.2f}–{position.end_s:.2f}" if heard else ""
    teacher = "" if position.teacher is None else str(position.teacher)
    loss = "" if position.predicts is None else f"* {_cut(_quoted(position.predicts), 19)}"
    line = f"{position.student:>7}  {position.kind:<6}  {_cut(reads, 20):<20} {seconds:<13} {teacher:>7}  {loss}"
    return Text(line.rstrip(), STYLES[position.kind])


def _totals(shown: Shown, view: SequenceView, width: int) -> Iterator[Text]:
    totals = shown.as_json(view)["totals"]
    said = f"{totals['num_sequences']} sequence{'s' * (totals['num_sequences'] > 1)}: "
    said += f"{totals['num_positions']} positions, {totals['num_loss']} with loss "
    said += f"({totals['loss_frac']:.0%}), {totals['heard_s']:.1f} of {totals['speech_s']:.1f} s heard."
    yield from _wrapped(said, width, "bold")
    if shown.not_made.count:
        reasons = "; ".join(f"{row['count']} × {_reason(row)}" for row in totals["not_made"])
        of = f"{shown.not_made.count} of the {shown.num_seen} utterances looked at have no sequence: {reasons}."
        yield from _wrapped(of, width, "yellow")
    frames = f"encoded features ({view.store.encoder_name})" if view.store else "the clips' durations"
    yield from _wrapped(f"Numbers of speech positions are from {frames}.", width, "dim")


def _reason(row: dict[str, Any]) -> str:
    """A single one in its own words."""
    return str(row["example"]["reason"] if row["count"] == 1 else row["reason"])


# --- corpora ----------------------------------------------------------------------------------------------------------


def speech_lines(stats: dict[str, Any], width: int) -> Iterator[Text]:
    """What `salad stats` prints of a prepared folder."""
    yield from _wrapped(stats["folder"] + (f": {stats['corpus']}" if stats["corpus"] else ""), width, "bold")
    length, pace, timed = stats["duration_s"], stats["words_per_second"], stats["word_timings"]
    clips = f"{stats['num_cuts']:,} utterances, {_hours(stats['hours'])}"
    yield from _entry("speech", clips + _quantiles("; ", length, "s a clip"), width)
    speakers = f"{stats['num_speakers']:,}"
    if stats["num_cuts_without_speaker"]:
        speakers += f"; {stats['num_cuts_without_speaker']:,} utterances name none"
    if stats["num_speakers"] > 1:
        top = [f"{row['speaker']} {_hours(row['hours'])}" for row in stats["top_speakers"][:5]]
        speakers += "; most: " + ", ".join(top)
    yield from _entry("speakers", speakers, width)
    words = f"{stats['num_words']:,}, {stats['num_distinct_words']:,} distinct"
    yield from _entry("words", words + _quantiles("; ", pace, "a second of clip"), width)
    if stats["tokens"]:
        yield from _entry("tokens", _tokens(stats["tokens"]), width)
    for title, key, what in (
        ("licence", "licences", "licence"),
        ("language", "languages", "language"),
        ("sample rate", "sample_rates_hz", "rate_hz"),
    ):
        yield from _entry(title, _shares(stats[key], what, "num_cuts", " Hz" * (what == "rate_hz")), width)
    aligned = f"{timed['num_cuts']:,} utterances ({timed['frac']:.1%})"
    if timed["num_scored"]:
        confidence = timed["confidence"]
        aligned += f"; confidence median {confidence['median']:.2f}, p5 {confidence['p5']:.2f}"
    yield from _entry("word timings", aligned, width)
    yield from _features(stats["features"], width)
    yield from _rejected(stats["rejected"], width)
    yield Text()
    yield from histogram_lines(stats["length_histogram_s"], "seconds", "utterances", width)


def text_lines(stats: dict[str, Any], width: int) -> Iterator[Text]:
    """What `salad stats` prints of a file of texts."""
    yield from _wrapped(stats["file"], width, "bold")
    yield from _entry(
        "texts", f"{stats['num_texts']:,}" + _quantiles("; ", stats["words_per_text"], "words a text"), width
    )
    yield from _entry("words", f"{stats['num_words']:,}, {stats['num_distinct_words']:,} distinct", width)
    if stats["tokens"]:
        tokens = stats["tokens"]
        per = f", {tokens['num_tokens'] / stats['num_words']:.2f} a word" if stats["num_words"] else ""
        yield from _entry("tokens", f"{tokens['num_tokens']:,}{per} ({tokens['tokenizer']})", width)
    domains = f"{stats['num_domains']:,}; " if stats["num_domains"] > 1 else ""
    yield from _entry("domains", domains + _shares(stats["top_domains"], "domain", "num_texts"), width)
    yield from _entry("licence", _shares(stats["licences"], "licence", "num_texts"), width)
    yield from _rejected(stats["rejected"], width)
    yield Text()
    yield from histogram_lines(stats["length_histogram_words"], "words", "texts", width)


def histogram_lines(histogram: dict[str, list[Any]], unit: str, what: str, width: int) -> Iterator[Text]:
    """A bar a bin: its range, how many, and a row of blocks; any bin that is not empty shows at least a sliver."""
    edges, counts = histogram["edges"], histogram["counts"]
    if not counts:
        return
    names = [f"{low:g}–{high:g}" for low, high in pairwise(edges)]
    left = max(*map(len, names), len(unit))
    numbers = [f"{count:,}" for count in counts]
    middle = max(*map(len, numbers), len(what))
    room = max(10, width - left - middle - 6)
    yield Text(f"  {unit:>{left}}  {what:>{middle}}", "dim")
    for name, number, count in zip(names, numbers, counts, strict=True):
        eighths = max(1, round(count / max(counts) * room * 8)) if count else 0
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        yield Text(f"  {name:>{left}}  {number:>{middle}}  {bar}".rstrip())


def _tokens(tokens: dict[str, Any]) -> str:
    said = f"{tokens['num_tokens']:,} ({tokens['tokenizer']})"
    if tokens["positions_per_token"]:
        said += f", {tokens['tokens_per_second']:.2f} a second; {tokens['num_positions']:,} positions of speech at "
        said += f"{tokens['position_hz']:g} Hz, {tokens['positions_per_token']:.1f} for each token"
    return said


def _features(features: list[dict[str, Any]], width: int) -> Iterator[Text]:
    if not features:
        yield from _entry("features", "none", width)
    for row in features:
        said = f"{row['encoder']}: "
        if row["num_cuts"] is None:
            said += f"not finished, {_size(row['num_bytes'])} so far"
        else:
            said += f"{row['num_cuts']:,} utterances, {row['feature_dim']} wide at {row['frame_hz']:g} Hz, "
            said += f"{_size(row['num_bytes'])}"
            said += f" ({_size(row['bytes_per_hour'])} an hour)" if row["bytes_per_hour"] else ""
        yield from _entry("features", said, width)


def _rejected(rejected: dict[str, Any], width: int) -> Iterator[Text]:
    yield from _entry("rejected", f"{rejected['num']:,} ({rejected['frac']:.1%})", width)
    for row in rejected["reasons"][:8]:
        yield from _wrapped(f"{row['count']:,} × {row['reason']}", width, "", " " * LABEL, " " * (LABEL + 4))
    if len(rejected["reasons"]) > 8:
        rest = rejected["reasons"][8:]
        count = sum(row["count"] for row in rest)
        yield from _wrapped(f"{count:,} × {len(rest)} other reasons (--json)", width, "", " " * LABEL)


def _entry(title: str, said: str, width: int) -> Iterator[Text]:
    yield from _wrapped(said, width, "", f"  {title:<{LABEL - 2}}", " " * LABEL)


def _quantiles(before: str, summary: dict[str, Any], unit: str) -> str:
    if summary["median"] is None:
        return ""
    return f"{before}median {summary['median']:.3g} {unit} (p5 {summary['p5']:.3g}, p95 {summary['p95']:.3g})"


def _shares(rows: list[dict[str, Any]], what: str, number: str, unit: str = "") -> str:
    if len(rows) == 1:
        return f"{rows[0][what]}{unit}"
    listed = [f"{row[what]}{unit} ({row[number]:,})" for row in rows[:6]]
    return ", ".join(listed) + (f" and {len(rows) - 6} more" if len(rows) > 6 else "")


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.1f} s"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


# --- lines ------------------------------------------------------------------------------------------------------------


def _wrapped(text: str, width: int, style: str = "", first: str = "", rest: str | None = None) -> Iterator[Text]:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_on_hyphens=False,
    )
    yield from (Text(line, style) for line in lines or [first.rstrip()])


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"


def _quoted(token: str) -> str:
    return json.dumps(token, ensure_ascii=False)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
