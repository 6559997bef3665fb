"""Verbs in processes of their own, as a user starts them: what is imported first differs from verb to verb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = [
    {"id": str(i), "text": text, "domain": "d", "source": "s", "licence": "l"}
    for i, text in enumerate(["a red fish", "a blue fish", "a king of men", "a queen of men"])
]


def salad(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "salad", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.assets
@pytest.mark.slow
def test_cluster_and_select_in_processes_of_their_own(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = salad("cluster", str(texts), "--k", "2", "--out", str(tmp_path / "clusters"), "--json")
    assert done.returncode == 0, done.stderr
    where = ["--clusters", str(tmp_path / "clusters"), "--gamma", "0", "--out", str(tmp_path / "o"), "--json"]
    done = salad("select", str(texts), *where, "--budget", "1s")
    assert done.returncode == 0, done.stderr
    chosen = (tmp_path / "o" / "selected.jsonl").read_text().splitlines()
    assert len(chosen) == json.loads(done.stdout)["num_texts"] == 2  # 10 to 14 characters, 0.065 s each
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**ROWS[0], "id": "unknown"}) + "\n")
    wrong = salad("select", str(other), *where, "--budget", "1s")
    assert wrong.returncode == 2, wrong.stderr
    assert "of another corpus" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = salad("prepare", "folder", str(tmp_path), "--out", str(file))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
