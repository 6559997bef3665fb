"""`salad stats`: every number against a plain count, reasons grouped so that they can still be read, bars that fit."""

from __future__ import annotations

import json
import random
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import MonoCut, Recording, SupervisionSegment
from typer.testing import CliRunner

import tiny
from salad.cli import app
from salad.cli.drawn import histogram_lines, speech_lines, text_lines
from salad.errors import DataError, MissingFileError, RecipeError
from salad.report.corpus_plot import plot_corpus
from salad.speech import stats as counting
from salad.speech.prepared import Rejected, with_words, write_prepared
from salad.speech.stats import speech_stats
from salad.tally import MAX_KINDS, Kinds, Tally
from salad.texts.stats import text_stats

# --- counting ---------------------------------------------------------------------------------------------------------

numbers = st.lists(st.floats(0, 2000).map(lambda value: round(value, 2)), min_size=1, max_size=200)


@given(numbers)
def test_a_tally_agrees_with_all_the_numbers(values):
    tally = Tally(0.01)
    for value in values:
        tally.add(value)
    summary = tally.summary()
    for name, frac in (("p5", 0.05), ("median", 0.5), ("p95", 0.95)):
        assert summary[name] == pytest.approx(np.quantile(values, frac), abs=0.0051)
    assert (summary["min"], summary["max"]) == (min(values), max(values))
    assert summary["mean"] == pytest.approx(np.mean(values))


@given(numbers)
def test_a_histogram_holds_every_number_once(values):
    tally = Tally(0.01)
    for value in values:
        tally.add(value)
    histogram = tally.histogram()
    edges, counts = histogram["edges"], histogram["counts"]
    assert edges == sorted(set(edges))
    assert len(edges) == len(counts) + 1 <= 20
    expected = np.histogram(values, bins=[edge - 1e-6 for edge in edges[:-1]] + [edges[-1] + 1e-6])[0]
    assert counts == expected.tolist()


def test_one_long_item_does_not_flatten_the_histogram():
    tally = Tally(0.01)
    for value in [*np.linspace(1, 14.9, 999), 1800.0]:
        tally.add(float(value))
    histogram = tally.histogram()
    assert histogram["edges"][-2:] == [15.0, 1800.0]
    assert histogram["counts"][-1] == 1
    assert len([count for count in histogram["counts"] if count > 50]) >= 10


def test_nothing_to_count():
    assert set(Tally(1).summary().values()) == {None}
    assert Tally(1).histogram() == {"edges": [], "counts": []}
    assert list(histogram_lines(Tally(1).histogram(), "s", "x", 80)) == []


# --- reasons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "kinds"),
    [
        (["fewer than 5 words"] * 3, {"fewer than 5 words": 3}),
        (
            [f"{n} words, fewer than sequence.min_words=5" for n in (4, 1, 3)],
            {"1–4 words, fewer than sequence.min_words=5": 3},
        ),
        (["too short: 0.031 s, at least 0.1 s", "too short: 0.020 s, at least 0.1 s"], {"too short": 2}),
        (["duplicate id: 'a' stands earlier", "duplicate id: 'b' stands earlier"], {"duplicate id": 2}),
        (["'x' is missing", "'x' is missing"], {"'x' is missing": 2}),
        (["'x' is missing", "'y is' is missing", "'it\\'s' is missing"], {"… is missing": 3}),
        (
            ["/data/a b/c.flac is gone.", "/data/d.flac is gone."],
            {"/data/a b/c.flac is gone": 1, "/data/d.flac is gone": 1},
        ),
        (["/data/c.flac is gone.", "/data/d.flac is gone."], {"… is gone": 2}),
        (["mp3 of 16000 Hz", "mp3 of 8000 Hz", "mp3 of 16000 Hz"], {"mp3 of 8000–16000 Hz": 3}),
        (
            ["more than 40 words", "fewer than 6 words", "more than 40 words"],
            {"more than 40 words": 2, "fewer than 6 words": 1},
        ),
        ([""], {"no reason given": 1}),
    ],
)
def test_reasons_are_grouped_and_keep_what_all_of_a_kind_share(reasons, kinds):
    counted = Kinds()
    for number, reason in enumerate(reasons):
        counted.add(reason, f"id {number}", f"place {number}")
    rows = counted.rows()
    assert {row["reason"]: row["count"] for row in rows} == kinds
    assert counted.count == len(reasons)
    assert rows[0]["example"]["reason"] in reasons


def test_more_kinds_than_can_be_are_counted_together():
    counted = Kinds()
    letters = "abcdefghijklmnopqrstuvwxyz"
    for i in range(MAX_KINDS + 7):
        counted.add(f"odd {letters[i % 26]}{letters[i // 26 % 26]}")
    rows = counted.rows()
    assert len(rows) == MAX_KINDS + 1
    assert rows[-1] == {"reason": "other reasons", "count": 7, "example": None}


# --- a prepared folder ------------------------------------------------------------------------------------------------


def make_cut(
    name: str, duration_s: float, text: str, rate_hz: int = 16000, timed: bool = True, **more: object
) -> MonoCut:
    """A cut whose audio nobody opens."""
    recording = Recording(name, [], rate_hz, round(duration_s * rate_hz), duration_s)
    supervision = SupervisionSegment(name, name, 0.0, duration_s, text=text, **{"language": "English", **more})
    cut = MonoCut(name, 0.0, duration_s, 0, recording=recording, supervisions=[supervision])
    scores = [0.5, 0.9, None]
    words = [(word, i / 10, (i + 1) / 10, scores[i % 3]) for i, word in enumerate(text.split())]
    return with_words(cut, words) if timed else cut


def small(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [
        make_cut("a", 1.0, "One two THREE", speaker="x"),
        make_cut("b", 2.0, "one, don't two", speaker="x", rate_hz=8000),
        make_cut("c", 4.0, "drei vier fünf sechs", speaker="y", language="German"),
        make_cut("d", 3600.0, "one", timed=False),
    ]
    cuts[1].custom = {"licence": "CC0"}
    rejected = [Rejected("e", "too short: 0.01 s", "f:1"), Rejected("g", "too short: 0.02 s", "f:2")]
    write_prepared(folder, cuts, rejected, {"corpus": "small", "licence": "MIT", "source": "here"})
    return folder


def count_characters(texts):
    return sum(map(len, texts))


def test_every_number_of_a_folder(tmp_path):
    stats = speech_stats(small(tmp_path), count_characters, "characters")
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats
    assert (stats["corpus"], stats["num_cuts"], stats["hours"]) == ("small", 4, pytest.approx(3607 / 3600))
    assert (stats["num_words"], stats["num_distinct_words"]) == (11, 8)  # one two three don't drei vier fünf sechs
    assert (stats["num_speakers"], stats["num_cuts_without_speaker"]) == (2, 1)
    assert stats["top_speakers"] == [
        {"speaker": "y", "num_cuts": 1, "hours": pytest.approx(4 / 3600)},
        {"speaker": "x", "num_cuts": 2, "hours": pytest.approx(3 / 3600)},
    ]
    assert {row["licence"]: row["num_cuts"] for row in stats["licences"]} == {"MIT": 3, "CC0": 1}
    assert {row["language"]: row["num_cuts"] for row in stats["languages"]} == {"English": 3, "German": 1}
    assert {row["rate_hz"]: row["num_cuts"] for row in stats["sample_rates_hz"]} == {"16000": 3, "8000": 1}
    assert stats["words_per_second"]["max"] == 3.0
    assert stats["words_per_second"]["median"] == pytest.approx(1.25)  # of 0.00, 1, 1.5, 3
    timings = stats["word_timings"]
    assert (timings["num_cuts"], timings["frac"], timings["num_words"], timings["num_scored"]) == (3, 0.75, 10, 7)
    assert timings["confidence"]["median"] == 0.5
    characters = len("One two THREE" + "one, don't two" + "drei vier fünf sechs" + "one")
    assert stats["tokens"]["num_tokens"] == characters
    assert stats["tokens"]["num_positions"] == round(3607 * 12.5)
    assert stats["tokens"]["positions_per_token"] == pytest.approx(3607 * 12.5 / characters)
    assert sum(stats["length_histogram_s"]["counts"]) == 4
    (reason,) = stats["rejected"]["reasons"]
    assert (stats["rejected"]["num"], stats["rejected"]["frac"]) == (2, pytest.approx(1 / 3))
    assert (reason["reason"], reason["count"], reason["example"]["place"]) == ("too short", 2, "f:1")


def test_an_empty_folder_and_one_that_is_none(tmp_path):
    write_prepared(tmp_path / "empty", [], [Rejected("a", "empty transcript", "f:1")], {})
    stats = speech_stats(tmp_path / "empty", count_characters, "characters")
    assert (stats["num_cuts"], stats["rejected"]["frac"], stats["duration_s"]["median"]) == (0, 1.0, None)
    assert any("empty transcript" in line.plain for line in speech_lines({**stats, "features": []}, 80))
    with pytest.raises(MissingFileError, match="salad prepare"):
        speech_stats(tmp_path)
    with pytest.raises(RecipeError, match="empty"):
        plot_corpus(stats, tmp_path / "x.png")


@pytest.mark.parametrize("line", [b'{"id": "a"}\n', b"{\n", b"[]\n"])
def test_a_line_that_is_no_cut_is_named(tmp_path, line):
    import gzip

    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(line))
    with pytest.raises(DataError, match=r"cuts\.jsonl\.gz:1 is not"):
        speech_stats(tmp_path)


def test_cuts_that_end_too_early_are_not_counted_as_all(tmp_path):
    path = small(tmp_path) / "cuts.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="ends too early"):
        speech_stats(tmp_path)


def test_memory_does_not_grow_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "TEXTS_AT_ONCE", 20)
    rng = random.Random(0)
    peaks = []
    for size in (50, 200, 800):  # the first warms up
        cuts = [
            make_cut(str(i), 1 + i % 15, " ".join(rng.choices(tiny.WORDS, k=20)), speaker=str(i % 50))
            for i in range(size)
        ]
        write_prepared(tmp_path / str(size), cuts, [], {})
        tracemalloc.start()
        speech_stats(tmp_path / str(size))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1]


# --- texts ------------------------------------------------------------------------------------------------------------


def test_every_number_of_a_file_of_texts(tmp_path):
    rows = [
        {"id": "a", "text": "One two three", "domain": "d"},
        {"id": "b", "text": "one\u2028two", "domain": "d", "licence": "CC0"},
        {"id": "c", "text": "Four!", "domain": "e"},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (tmp_path / "rejected.jsonl").write_text('{"id": "x", "reason": "empty text", "place": "f:9"}\n')
    stats = text_stats(path, count_characters, "characters")
    assert (stats["num_texts"], stats["num_words"], stats["num_distinct_words"]) == (3, 6, 4)
    assert stats["tokens"]["num_tokens"] == 25
    assert stats["top_domains"] == [{"domain": "d", "num_texts": 2}, {"domain": "e", "num_texts": 1}]
    assert {row["licence"]: row["num_texts"] for row in stats["licences"]} == {"CC0": 1, "not stated": 2}
    assert stats["words_per_text"]["median"] == 2
    assert stats["rejected"] | {"reasons": None} == {"num": 1, "frac": 0.25, "reasons": None}
    path.write_text('{"id": "a", "text": 3}\n')
    with pytest.raises(DataError, match=r"texts\.jsonl:1: 'text' must be a string"):
        text_stats(path)


# --- what is printed and drawn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 110])
def test_everything_fits_the_terminal(tmp_path, width):
    stats = speech_stats(small(tmp_path), count_characters, "characters")
    stats["features"] = [
        {
            "encoder": "mimi",
            "num_bytes": 12345678,
            "num_cuts": 4,
            "feature_dim": 512,
            "frame_hz": 12.5,
            "bytes_per_hour": 3e7,
        },
        {
            "encoder": "whisper",
            "num_bytes": 99,
            "num_cuts": None,
            "feature_dim": None,
            "frame_hz": None,
            "bytes_per_hour": None,
        },
    ]
    stats["rejected"]["reasons"] += [{"reason": "a very long reason " * 9, "count": 1, "example": None}] * 12
    printed = [line.plain for line in speech_lines(stats, width)]
    assert max(map(len, printed)) <= width
    said = "\n".join(printed)
    for part in (
        "60.1 min",
        "MIT (3)",
        "8000 Hz (1)",
        "median",
        "2 × too short",
        "mimi: 4",
        "12.3 MB",
        "not finished",
        "5 other",
    ):
        assert part in said.replace("1.0 h", "60.1 min"), part


def test_bars_are_as_long_as_their_counts_and_none_is_lost():
    histogram = {"edges": [0, 1, 2, 3, 4], "counts": [1000, 500, 1, 0]}
    bars = [re.sub(r"[^█▏▎▍▌▋▊▉]", "", line.plain) for line in histogram_lines(histogram, "s", "clips", 80)][1:]
    assert len(bars[0]) == 2 * len(bars[1]) > 50
    assert (len(bars[2]), bars[3]) == (1, "")


def test_the_plot_is_a_picture_with_the_numbers_of_the_table(tmp_path):
    stats = speech_stats(small(tmp_path))
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        plot_corpus(stats, tmp_path / "new" / f"plot{suffix}")
        assert (tmp_path / "new" / f"plot{suffix}").read_bytes().startswith(magic)
    with pytest.raises(RecipeError, match="must end in"):
        plot_corpus(stats, tmp_path / "plot.jpeg2")


def test_the_command_on_speech_and_on_texts(tmp_path, shared_data):
    llm = ["--tokenizer", str(tiny.save_llm(tmp_path / "llm"))]
    command = CliRunner()
    done = command.invoke(app, ["stats", str(small(tmp_path / "s")), "--json", "--plot", str(tmp_path / "p.png"), *llm])
    assert done.exit_code == 0, done.output
    stats = json.loads(done.stdout)
    assert (stats["num_cuts"], stats["features"], stats["rejected"]["num"]) == (4, [], 2)
    assert stats["tokens"]["num_tokens"] > 11
    assert (tmp_path / "p.png").is_file()
    done = command.invoke(app, ["stats", str(shared_data / "text" / "gum_genres.jsonl"), *llm])
    assert done.exit_code == 0, done.output
    assert "1,328" in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    wrong = command.invoke(app, ["stats", str(tmp_path / "nothing"), *llm])
    assert isinstance(wrong.exception, MissingFileError)


def test_real_speech(tmp_path, shared_data):
    source = shared_data / "speech" / "speechocean762_adults_train" / "manifest.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    cuts = [make_cut(r["id"], r["duration"], r["text"], speaker=r["speaker"], timed=False) for r in rows]
    write_prepared(tmp_path, cuts, [], {"licence": rows[0]["licence"]})
    stats = speech_stats(tmp_path)
    assert stats["num_speakers"] == len({row["speaker"] for row in rows}) == 67
    assert stats["hours"] * 60 == pytest.approx(43.5, abs=0.05)
    assert stats["num_words"] == sum(len(row["text"].split()) for row in rows)
    assert list(text_lines(text_stats(shared_data / "text" / "gum_genres.jsonl"), 80))
