"""Files and folders are there as a whole, old or new, whatever cuts their writing off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from salad.errors import DataError
from salad.files import folder_atomic, open_atomic, read_jsonl, settle, sweep, write_atomic


def filled(folder, text):
    with folder_atomic(folder) as new:
        (new / "a").write_text(text)
        (new / "deep").mkdir()
        (new / "deep" / "b").write_text(text)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = filled(tmp_path / "model", "old")
    (folder / "only in the old one").write_text("")
    filled(folder, "new")
    assert names(folder) == ["a", "deep"]
    assert (folder / "deep" / "b").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_after_an_error_the_older_folder_is_as_it_was(tmp_path):
    folder = filled(tmp_path / "model", "old")

    def fill():
        with folder_atomic(folder) as new:
            (new / "a").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert (folder / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_replacement_that_was_cut_off_is_settled(tmp_path):
    folder, old = filled(tmp_path / "model", "old"), tmp_path / ".old-model"
    folder.rename(old)  # killed between the two renames
    settle(folder)
    assert (folder / "a").read_text() == "old"
    folder.rename(old)
    filled(folder, "new")  # killed after the second one
    assert names(tmp_path) == ["model"]
    assert (folder / "a").read_text() == "new"
    settle(tmp_path / "never there")
    assert names(tmp_path) == ["model"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The order a power cut needs: files, their folders, the rename, the folder that holds the new name."""
    flushed = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd))
    )
    filled(tmp_path / "model", "new")
    temporary = f"{tmp_path}/.tmp-{os.getpid()}-model"
    assert flushed[-1] == str(tmp_path)
    assert set(flushed[:-1]) == {temporary, f"{temporary}/a", f"{temporary}/deep", f"{temporary}/deep/b"}
    flushed.clear()
    write_atomic(tmp_path / "file", "x")
    assert flushed == [f"{tmp_path}/.tmp-{os.getpid()}-file", str(tmp_path)]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_atomic(tmp_path / "file", "old")

    def write():
        with open_atomic(tmp_path / "file") as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_what_dead_processes_left_is_swept_and_nothing_else(tmp_path):
    dead, living = dead_process(), os.getppid()
    (tmp_path / f".tmp-{dead}-model").mkdir()
    (tmp_path / f".tmp-{dead}-model" / "a").write_text("half")
    for name in (f".tmp-{dead}-file", f".tmp-{os.getpid()}-mine", f".tmp-{living}-theirs", ".tmp-other", "kept"):
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert names(tmp_path) == [f".tmp-{living}-theirs", ".tmp-other", "kept"]


def test_a_line_that_is_not_utf8_is_one_sentence(tmp_path):
    (tmp_path / "texts.jsonl").write_bytes(b'{"id": "a"}\n{"id": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"texts\.jsonl:2 is not UTF-8 .*byte 11 of the line.*convert it"):
        read_jsonl(tmp_path / "texts.jsonl")


def test_lines_end_at_newlines_alone(tmp_path):
    (tmp_path / "texts.jsonl").write_bytes('{"id": "a\u2028b"}\r\n\n{"id": "c"}'.encode())
    assert [row["id"] for row in read_jsonl(tmp_path / "texts.jsonl")] == ["a\u2028b", "c"]
