"""A whole folder: what keeps its timings, what is rejected, and that stopping or sharing the work changes nothing."""

import gzip
import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from filelock import FileLock
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from typer.testing import CliRunner

from salad.cli import app
from salad.errors import AlignmentError, DataError, MissingFileError, RecipeError
from salad.speech import align
from salad.speech.align import PARTS_NAME, align_folder, load_aligner
from salad.speech.aligner import RATE_HZ, SHORTEST_WORD_S, PlacedWord, check_room, in_words, spread
from salad.speech.audio import save_flac
from salad.speech.prepared import CUTS_NAME, Rejected, read_cuts, with_words, words_of, write_prepared
from tiny_ctc import save_tiny_ctc

EARLIER = [Rejected("gone", "empty transcript: nothing to say", "manifest.jsonl:3")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Names of two real aligners, only small ones."""
    folder = tmp_path_factory.mktemp("models")
    return [f"ctc:{save_tiny_ctc(folder / f'tiny{seed}', seed)}" for seed in range(2)]


@pytest.fixture(autouse=True)
def _small(monkeypatch, one_thread):
    monkeypatch.setattr(align, "GROUP", 4)


def speech(folder, name: str, text: str, seconds: float = 1.0) -> MonoCut:
    path = folder / "audio" / f"{name}.flac"
    rng = np.random.default_rng(sum(map(ord, name)))
    num_samples = round(seconds * RATE_HZ)
    save_flac(path, rng.uniform(-0.1, 0.1, num_samples).astype(np.float32), RATE_HZ)
    recording = Recording(name, [AudioSource("file", [0], str(path))], RATE_HZ, num_samples, seconds)
    return MonoCut(
        name, 0.0, seconds, 0, [SupervisionSegment(name, name, 0.0, seconds, text=text)], recording=recording
    )


@pytest.fixture
def folder(tmp_path):
    """Ten cuts; c3 has no file, c5 is in another script, c7 came with timings, c8 was spoken by a voice that knew."""
    cuts = [speech(tmp_path, f"c{i}", "a bad cab") for i in range(10)]
    (tmp_path / "audio/c3.flac").unlink()
    cuts[5].supervisions[0].text = "日本 —"
    with_words(cuts[7], [("a", 0.1, 0.2, None), ("bad", 0.2, 0.4, None), ("cab", 0.5, 0.9, None)])
    with_words(cuts[8], [("a", 0.1, 0.2, None), ("bad", 0.2, 0.4, None), ("cab", 0.5, 0.9, None)])
    cuts[8].custom = {"timed_by": "voice joe"}
    write_prepared(tmp_path, cuts, EARLIER, {"corpus": "tiny"})
    return tmp_path


def rejected_rows(folder) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def contents(folder) -> tuple[bytes, str]:
    return gzip.decompress((folder / CUTS_NAME).read_bytes()), (folder / "rejected.jsonl").read_text()


def test_a_folder_is_aligned_kept_and_rejected(folder, models):
    seen = []
    report, rejected = align_folder(folder, models[0], 1, progress=lambda *count: seen.append(count))
    cuts = {cut.id: cut for cut in read_cuts(folder)}
    assert list(cuts) == ["c0", "c1", "c2", "c4", "c6", "c7", "c8", "c9"]
    for name, cut in cuts.items():
        assert [word.text for word in words_of(cut)] == ["a", "bad", "cab"]
        scores = [item.score for item in cut.supervisions[0].alignment["word"]]
        if name in ("c7", "c8"):
            assert [(word.start_s, word.end_s) for word in words_of(cut)] == [(0.1, 0.2), (0.2, 0.4), (0.5, 0.9)]
            assert scores == [None] * 3
        else:
            assert all(0 < score <= 1 for score in scores)
            assert cut.custom["timed_by"] == f"{report['aligner']} {report['fingerprint'][:8]}"
    assert [(row.id, row.kind) for row in rejected] == [("c3", "audio can't be read"), ("c5", "words can't be placed")]
    assert str(folder / "audio/c3.flac") in rejected[0].place
    assert [row["id"] for row in rejected_rows(folder)] == ["gone", "c3", "c5"]
    assert (seen[0][1], seen[-1]) == (10, (10, 10))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not (folder / PARTS_NAME).exists()


def test_the_report_counts_and_names_what_it_should(folder, models):
    report, _ = align_folder(folder, models[0], 1)
    assert json.loads((folder / "alignment.json").read_text()) == report
    assert {key: report[key] for key in ("num_cuts", "num_aligned", "num_kept", "num_rejected")} == {
        "num_cuts": 10,
        "num_aligned": 6,
        "num_kept": 2,
        "num_rejected": 2,
    }
    assert report["num_words"] == 10 * 3 - 1
    assert report["words_placed_frac"] == pytest.approx(8 * 3 / 29)
    means = {
        cut.id: np.mean([item.score for item in cut.supervisions[0].alignment["word"]])
        for cut in read_cuts(folder)
        if cut.id not in ("c7", "c8")
    }
    assert report["confidence_median"] == pytest.approx(np.median(list(means.values())))
    assert report["confidence_p5"] == pytest.approx(np.quantile(list(means.values()), 0.05))
    assert report["confidence_worst"] == pytest.approx(means[report["worst_cut"]]) == min(means.values())
    assert sum(report["timed_by"].values()) == 8
    assert report["timed_by"]["voice joe"] == report["timed_by"]["came with the cut"] == 1
    assert report["speech_s"] == pytest.approx(8.0)
    assert report["times_real_time"] == pytest.approx(report["seconds"] / 8.0)


def test_again_keeps_all_and_another_aligner_makes_only_aligners_timings_anew(folder, models):
    first, _ = align_folder(folder, models[0], 1)
    before = contents(folder)
    again, rejected = align_folder(folder, models[0], 1)
    assert (again["num_kept"], again["num_aligned"], rejected) == (8, 0, [])
    assert again["confidence_median"] == first["confidence_median"]
    assert contents(folder) == before
    other, _ = align_folder(folder, models[1], 1)
    assert (other["num_kept"], other["num_aligned"]) == (2, 6)
    back, _ = align_folder(folder, models[0], 1)
    assert back["num_aligned"] == 6
    assert contents(folder) == before


def test_timings_of_other_words_are_made_anew(folder, models):
    align_folder(folder, models[0], 1)
    cuts = read_cuts(folder)
    cuts[0].supervisions[0].text = "bad cab"
    write_prepared(folder, cuts, EARLIER, {})
    report, _ = align_folder(folder, models[0], 1)
    assert report["num_aligned"] == 1
    assert [word.text for word in words_of(read_cuts(folder)[0])] == ["bad", "cab"]


def test_another_folder_gets_the_result_and_the_first_stays(folder, models, tmp_path_factory):
    before = contents(folder)
    out = tmp_path_factory.mktemp("out") / "aligned"
    align_folder(folder, models[0], 1, out)
    assert contents(folder) == before
    assert not (folder / PARTS_NAME).exists()
    assert json.loads((out / "info.json").read_text()) == {"corpus": "tiny"}
    align_folder(folder, models[0], 1)
    assert [words_of(cut) for cut in read_cuts(out)] == [words_of(cut) for cut in read_cuts(folder)]
    assert rejected_rows(out) == rejected_rows(folder)


def stop_after(count: int):
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("count", [1, 5, 9, 10])
def test_stopped_and_begun_again_is_as_if_never_stopped(folder, models, count, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    align_folder(folder, models[0], 1, whole)
    before = contents(folder)
    with pytest.raises(KeyboardInterrupt):
        align_folder(folder, models[0], 1, progress=stop_after(count))
    assert contents(folder) == before
    report, _ = align_folder(folder, models[0], 1)
    assert report["speech_s"] == pytest.approx(8.0 - {1: 0, 5: 4, 9: 7, 10: 8}[count])  # of groups that were done
    assert [words_of(cut) for cut in read_cuts(folder)] == [words_of(cut) for cut in read_cuts(whole)]
    assert rejected_rows(folder) == rejected_rows(whole)


@pytest.mark.kill
def test_killed_in_the_middle_it_goes_on(folder, models):
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from salad.speech import align
        align.GROUP = 4
        def progress(done, total):
            if done == 6:
                print("now", flush=True)
                time.sleep(60)
        align.align_folder(Path(sys.argv[1]), sys.argv[2], 1, progress=progress)
        """
    )
    running = subprocess.Popen([sys.executable, "-c", script, str(folder), models[0]], stdout=subprocess.PIPE)
    assert running.stdout.readline() == b"now\n"
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    report, _ = align_folder(folder, models[0], 1)
    assert report["speech_s"] == pytest.approx(4.0)
    assert report["num_aligned"] == 6


@pytest.mark.slow
def test_two_processes_give_what_one_gives(folder, models, tmp_path_factory):
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    align_folder(folder, models[0], 1, one)
    report, rejected = align_folder(folder, models[0], 2, two, jobs=2)
    assert [words_of(cut) for cut in read_cuts(one)] == [words_of(cut) for cut in read_cuts(two)]
    assert rejected_rows(one) == rejected_rows(two)
    assert (report["num_aligned"], len(rejected)) == (6, 2)


def test_low_confidence_is_a_reason_to_reject(folder, models):
    first, _ = align_folder(folder, models[0], 1)
    limit = first["confidence_median"]
    report, rejected = align_folder(folder, models[0], 1, min_confidence=limit)
    assert {row.kind for row in rejected} == {"low confidence"}
    assert report["num_rejected"] == len(rejected) == 3
    assert report["confidence_worst"] >= limit
    assert {"c7", "c8"} <= {cut.id for cut in read_cuts(folder)}  # without confidences


def test_strict_stops_at_the_first_and_leaves_the_folder_as_it_was(folder, models):
    before = contents(folder)
    with pytest.raises(AlignmentError, match="'c3'"):
        align_folder(folder, models[0], 1, strict=True)
    assert contents(folder) == before


def test_one_process_at_a_time(folder, models):
    (folder / PARTS_NAME).mkdir()
    with FileLock(folder / PARTS_NAME / "lock"), pytest.raises(DataError, match="another process"):
        align_folder(folder, models[0], 1)


def test_a_folder_that_was_never_prepared_stays_as_it_is(tmp_path, models):
    with pytest.raises(MissingFileError, match="salad prepare"):
        align_folder(tmp_path / "none", models[0], 1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["mfa", "ctc", "ctc:", "pocketsphinx:de"])
def test_an_unknown_aligner_is_named(name):
    with pytest.raises(RecipeError, match=name):
        load_aligner(name, 1)


def test_the_verb_prints_for_people_and_for_programs(folder, models):
    command = ["align", str(folder), "--aligner", models[0]]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "10 cuts: 6 aligned, 2 kept, 2 rejected" in done.output
    assert "82.8% of 29 words" in done.output
    report = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert (report["num_kept"], report["speech_s"], report["times_real_time"]) == (8, 0, None)


@pytest.mark.assets
def test_speech_of_another_language_is_rejected_by_an_aligner_of_english(folder):
    cuts = read_cuts(folder)[:3]
    cuts[1].supervisions[0].language = "de"
    cuts[2].supervisions[0].language = "English"
    write_prepared(folder, cuts, [], {})
    _, rejected = align_folder(folder, "whisper", 1)
    assert [row.id for row in rejected] == ["c1"]
    assert "'de'" in rejected[0].reason


# --- what all aligners share ----------------------------------------------------------------------------------------


def is_in_order(placed: list[PlacedWord], duration_s: float) -> bool:
    times = [time_s for word in placed for time_s in word[:2]]
    longer = all(word.end_s - word.start_s >= SHORTEST_WORD_S - 1e-9 for word in placed)
    return longer and times == sorted(times) and times[0] >= 0 and times[-1] <= duration_s + 1e-9


def test_spreading_keeps_good_times_and_mends_bad_ones():
    good = [PlacedWord(0.1, 0.3, 1.0), PlacedWord(0.4, 0.9, 1.0)]
    assert spread(good, 1.0) == good
    bad = [PlacedWord(*times, None) for times in [(-0.1, -0.05), (0.9, 2.0), (0.9, 0.9), (0.9, 0.9)]]
    assert is_in_order(spread(bad, 1.0), 1.0)


@pytest.mark.parametrize("words", [[], ["a"] * 51])
def test_what_has_no_room_is_refused(words):
    with pytest.raises(AlignmentError):
        check_room(words, 1.0)
    check_room(["a"] * 50, 1.0)


def test_digits_are_words_and_marks_are_none():
    assert in_words("42-line") == "forty-two-line"
    assert in_words("don’t") == "don't"
    assert in_words("<noise>") == ""
    assert in_words("3日") == "3日"
