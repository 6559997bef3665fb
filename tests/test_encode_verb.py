"""`salad encode` as it is typed: what it prints, and how it ends."""

import json
import sys
from pathlib import Path

import pytest

from salad.cli import main
from salad.model.features import FeatureStore
from tiny_speech import prepared

pytestmark = pytest.mark.usefixtures("one_thread")  # the verb sets the number of threads


def salad(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    """Exit code, what is said, and what is complained of."""
    monkeypatch.setattr(sys, "argv", ["salad", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


@pytest.fixture
def folder(tmp_path):
    prepared(tmp_path / "f", 4)
    return tmp_path / "f"


def audio_of(folder: Path) -> list[Path]:
    return sorted((folder.parent / "audio").iterdir())


def test_it_prints_what_was_made(folder, monkeypatch, capsys):
    code, out, _ = salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel", "--json", "--threads", 1)
    made = json.loads(out)
    store = FeatureStore(folder, "log-mel")
    assert code == 0
    assert made["cuts"] == made["new"] == len(store) == 4
    assert made["frames"] == sum(store.num_frames(f"c{i}") for i in range(4))
    assert made["hours"] == pytest.approx(sum(0.3 + (i * 7 % 5) / 10 for i in range(4)) / 3600, abs=1e-4)
    assert made["bytes_per_hour"] > 100 * 80 * 2 * 3600  # the frames themselves, and the tar around them
    assert (made["rejected"], made["rejected_frac"], made["folder"]) == (0, 0.0, str(store.where))
    code, out, _ = salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel")
    assert (code, "new: 0" in out) == (0, True)


def test_it_says_what_share_it_lost(folder, monkeypatch, capsys):
    audio_of(folder)[0].write_bytes(b"no audio")
    code, out, _ = salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel")
    assert (code, "rejected: 1  rejected_frac: 0.25" in out) == (0, True)
    rows = (folder / "features" / "log-mel" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["reason"].startswith("audio can't be read: ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--strict"], "can't be encoded: audio can't be read"),
        (["--dtype", "bfloat16"], "features can't be kept in bfloat16; NumPy has no bfloat16"),
        (["--encoder", "no-such-encoder"], "'no-such-encoder' is neither"),
    ],
)
def test_it_stops_with_a_sentence(folder, monkeypatch, capsys, options, sentence):
    audio_of(folder)[0].write_bytes(b"no audio")
    code, out, err = salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err


def test_a_full_disk_is_said(folder, monkeypatch, capsys):
    shards = folder / "features" / "log-mel" / "shards"
    shards.mkdir(parents=True)
    (shards / "000000.writing.tar").symlink_to("/dev/full")
    code, _, err = salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel")
    assert code == 2
    assert err.startswith("salad: no space left on the disk")
    assert "goes on from here" in err
    assert salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel")[0] == 0


def test_it_works_in_several_processes(folder, monkeypatch, capsys):
    code, out, _ = salad(monkeypatch, capsys, "encode", folder, "--encoder", "log-mel", "--jobs", 2, "--json")
    assert (code, json.loads(out)["new"]) == (0, 4)
