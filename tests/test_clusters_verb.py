"""`salad cluster` as it is typed: its sources, what it prints, what other tools read, a stop in its middle."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

import tiny
import tiny_embedder
from salad.cli import app
from salad.errors import AssetError, RecipeError
from salad.select.clusters import Clusters
from salad.texts.text import Text, read_texts, write_texts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_embedder.save(tmp_path_factory.mktemp("embedder") / "tiny"))


def texts(num=40):
    return [Text(f"t{i}", *tiny_embedder.text(i), "tiny", "CC0-1.0") for i in range(num)]


def cluster(source, out, model, *more):
    """What it prints on stdout and on stderr; an error is raised."""
    arguments = ["cluster", str(source), "--out", str(out), "--embedder", model, "--device", "cpu", "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False, standalone_mode=False)
    assert done.exit_code == 0
    return done.stdout, done.stderr


def test_json_is_what_info_holds_and_more(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", texts())
    stdout, _ = cluster(tmp_path / "t.jsonl", tmp_path / "out", model, "--k", "4", "--json")
    told = json.loads(stdout)
    info = json.loads((tmp_path / "out" / "info.json").read_text())
    assert {key: told[key] for key in info} == info
    assert sorted(told.keys() - info.keys()) == ["num_rejected", "out", "seconds"]
    assert told["sizes"] == [10, 10]


def test_sentences_say_what_was_made(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", [*texts(), Text("long", "sea " * 99, "sea", "s", "l")])
    out = tmp_path / "out"
    told, _ = cluster(tmp_path / "t.jsonl", out, model, "--k", "4")
    assert "41 texts in 4 clusters of 10 to 11 texts" in told
    assert "P_web is constant, and gamma alone decides" in told
    assert "Against the texts' 4 domains: purity" in told
    assert "Of 1 texts (2.4%) the embedder read the first 16 tokens alone" in told
    assert "× plain k-means'" in told
    for name in [*Clusters.read(out).names, str(out / "labels.parquet")]:
        assert name in told
    again, said = cluster(tmp_path / "t.jsonl", out, model, "--k", "3", "--tolerance", "0.3")
    assert "P_web is constant" not in again
    assert "the clusters that were there (k 4, seed 0) were replaced" in said


def test_other_sources_are_brought_to_a_file_of_texts_first(tmp_path, model):
    rows = [{"text": text.text, "domain": text.domain} for text in texts()] + [{"text": " ", "domain": "sea"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    stdout, stderr = cluster(tmp_path / "rows.parquet", tmp_path / "out", model, "--k", "4", "--json")
    assert json.loads(stdout)["num_rejected"] == 1 + 40 - len({text.text for text in texts()})
    assert str(tmp_path / "out" / "texts" / "rejected.jsonl") in stderr
    made = read_texts(tmp_path / "out" / "texts" / "texts.jsonl")
    assert Clusters.read(tmp_path / "out").ids == [text.id for text in made]
    stdout, _ = cluster(tmp_path / "out" / "texts", tmp_path / "again", model, "--k", "4", "--json")
    assert json.loads(stdout)["num_texts"] == len(made)


def test_an_llm_names_clusters_where_it_is_asked_to(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", texts())
    llm = str(tiny.save_llm(tmp_path / "llm"))
    stdout, _ = cluster(tmp_path / "t.jsonl", tmp_path / "out", model, "--k", "4", "--name-with", llm, "--json")
    told, rows = json.loads(stdout), Clusters.read(tmp_path / "out").rows
    assert told["names_by"] == llm
    by_terms = [row["name"] == ", ".join(row["terms"][:3]) for row in rows]
    assert sum(by_terms) == told["num_named_by_terms"]
    assert len({row["name"] for row in rows}) == 4


def test_other_tools_read_the_folder_as_its_page_says(tmp_path, model, repo, monkeypatch):
    write_texts(tmp_path / "t.jsonl", texts())
    cluster(tmp_path / "t.jsonl", tmp_path / "clusters", model, "--k", "4")
    (block,) = re.findall(r"```python\n(.*?)```", (repo / "docs" / "clustering.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    read = {}
    exec(block, read)
    assert read["labels"].column_names == ["id", "cluster", "distance", "num_chars"]
    assert read["clusters"]["cluster"].tolist() == [0, 1, 2, 3]
    assert read["shard"].shape == (40, tiny_embedder.DIM)


def test_wishes_that_cannot_be_met_are_refused_before_the_work(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", texts(5))
    with pytest.raises(RecipeError, match="6 clusters of 5 texts"):
        cluster(tmp_path / "t.jsonl", tmp_path / "out", model, "--k", "6")
    with pytest.raises(AssetError, match="'no-model' is neither"):
        cluster(tmp_path / "t.jsonl", tmp_path / "out", "no-model", "--k", "2")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_ray_the_files_are_the_same(tmp_path, model):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'salad-speech[ray]'")
    alone = ["unshare", *([] if os.getuid() == 0 else ["--map-root-user"]), "--net", "sh", "-c"]
    if subprocess.run([*alone, "ip link set lo up"], capture_output=True).returncode:
        pytest.skip("a network namespace is needed, and is not to be had here")
    write_texts(tmp_path / "t.jsonl", texts(2500))  # three shards
    cluster(tmp_path / "t.jsonl", tmp_path / "here", model, "--k", "8")
    command = [sys.executable, "-m", "salad", "cluster", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "ray")]
    command += ["--embedder", model, "--device", "cpu", "--threads", "1", "--k", "8", "--on", "ray", "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_memory_monitor_refresh_ms": "0"}
    inside = [*alone, 'ip link set lo up && exec "$@"', "sh", *command, "--json"]
    done = subprocess.run(inside, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["num_texts"] == 2500
    for name in ("00000.npy", "00001.npy", "00002.npy", "index.json"):
        there = (tmp_path / "ray" / "embeddings" / name).read_bytes()
        assert there == (tmp_path / "here" / "embeddings" / name).read_bytes()


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_killed_in_the_middle_the_same_command_ends_with_the_same_files(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", texts(2500))  # three shards
    command = [sys.executable, "-m", "salad", "cluster", str(tmp_path / "t.jsonl"), "--embedder", model]
    command += ["--device", "cpu", "--threads", "1", "--k", "16", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def files(folder):
        found = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    subprocess.run([*command, str(tmp_path / "alone")], check=True, env=environment, capture_output=True)
    out = tmp_path / "killed"
    for sign in ("embeddings/00000.npy", "embeddings/00002.npy", "labels.parquet"):
        process = subprocess.Popen([*command, str(out)], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (out / sign).exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(out)], check=True, env=environment, capture_output=True)
    assert files(out) == files(tmp_path / "alone")
