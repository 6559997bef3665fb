"""`salad cluster`: a corpus becomes a folder of equal clusters that other tools read, and bad input a sentence."""

import json
import subprocess

import numpy as np
import pandas
import pyarrow.parquet as parquet
import pytest
from filelock import FileLock

import tiny_embedder
from salad.errors import AssetError, DataError, MissingFileError, RecipeError
from salad.fingerprint import content_hash
from salad.select import partition as module
from salad.select.clusters import Clusters, write_clusters
from salad.select.embed import embed
from salad.select.embed_corpus import EmbedSettings
from salad.select.partition import PartitionSettings, partition
from salad.texts.text import Text, read_texts, write_texts

pytestmark = pytest.mark.usefixtures("one_thread")
NUM = 62


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_embedder.save(tmp_path_factory.mktemp("embedder") / "tiny"))


def settings(model, num_clusters=4, **more):
    return PartitionSettings(num_clusters, embedding=EmbedSettings(model, "cpu", 1, "float32"), **more)


def corpus(folder, num=NUM, name="texts.jsonl"):
    texts = [Text(f"t{i}", *tiny_embedder.text(i), "tiny", "CC0-1.0") for i in range(num)]
    write_texts(folder / name, texts)
    return folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory, model):
    """Texts, the folder of their clusters, and what `partition` gave."""
    folder = tmp_path_factory.mktemp("made")
    path = corpus(folder)
    return path, folder / "out", partition(path, folder / "out", settings(model))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is in the folder ------------------------------------------------------------------------------------------


def test_every_text_has_a_label_and_sizes_differ_by_at_most_one(made):
    path, out, info = made
    table = parquet.read_table(out / "labels.parquet")
    assert [str(field.type) for field in table.schema] == ["string", "int32", "float", "int32"]
    assert table.column_names == ["id", "cluster", "distance", "num_chars"]
    texts = read_texts(path)
    assert table["id"].to_pylist() == [text.id for text in texts]
    assert table["num_chars"].to_pylist() == [len(text.text) for text in texts]
    sizes = np.bincount(table["cluster"])
    assert [sizes.min(), sizes.max()] == info["sizes"] == [15, 16]
    assert info["num_texts"] == NUM
    frame = pandas.read_parquet(out / "labels.parquet")  # as others read it
    assert frame.groupby("cluster").size().tolist() == sizes.tolist()


def test_distances_and_inertia_are_those_of_the_embeddings(made, model):
    path, out, info = made
    clusters = Clusters.read(out, path)
    vectors = embed([text.text for text in read_texts(path)], model)
    assert clusters.centres_Kd.dtype == np.float32
    for cluster in range(4):
        assert clusters.centres_Kd[cluster] == pytest.approx(vectors[clusters.labels_N == cluster].mean(0), abs=1e-4)
    distances = np.linalg.norm(vectors - clusters.centres_Kd[clusters.labels_N], axis=1)
    assert clusters.distances_N == pytest.approx(distances, abs=1e-4)
    assert info["inertia"] == pytest.approx((distances.astype(np.float64) ** 2).sum(), rel=1e-4)
    assert info["plain_kmeans"]["inertia_ratio"] > 0.9
    assert (clusters.nearest(clusters.centres_Kd) == np.arange(4)).all()
    assert (clusters.nearest(vectors) == clusters.labels_N).mean() > 0.8


def test_rows_say_what_each_cluster_is_about(made):
    path, out, _ = made
    clusters = Clusters.read(out)
    by_id = {text.id: text.text for text in read_texts(path)}
    for number, row in enumerate(clusters.rows):
        assert list(row) == ["cluster", "name", "size", "share", "terms", "examples", "x", "y"]
        own = np.flatnonzero(clusters.labels_N == number)
        assert [row["cluster"], row["size"], row["share"]] == [number, len(own), len(own) / NUM]
        assert row["name"] == ", ".join(row["terms"][:3])
        words = " ".join(by_id[clusters.ids[i]] for i in own).split()
        assert {word for term in row["terms"] for word in term.split()} <= set(words)
        assert 0 <= row["x"] <= 1
        assert 0 <= row["y"] <= 1
        examples = row["examples"]
        assert [by_id[example["id"]] for example in examples] == [example["text"] for example in examples]
        assert len({example["text"] for example in examples}) == len(examples) == 5
        assert examples[0]["distance"] == pytest.approx(float(clusters.distances_N[own].min()), abs=1e-3)
        assert [e["distance"] for e in examples] == sorted(e["distance"] for e in examples)
    assert clusters.names == [row["name"] for row in clusters.rows]
    assert clusters.shares.sum() == pytest.approx(1.0)
    assert clusters.cluster_of["t7"] == clusters.labels_N[7]
    assert len(clusters) == NUM


def test_words_of_one_topic_fall_together(made):
    info = made[2]
    assert info["domains"]["num_domains"] == 4
    assert info["domains"]["purity"] > 0.6 > info["domains"]["purity_of_one"]


def test_of_a_long_text_the_beginning_is_the_example(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", [Text("a", "ship " * 200, "all", "s", "l"), Text("b", "court", "all", "s", "l")])
    info = partition(tmp_path / "t.jsonl", tmp_path / "out", settings(model, 2))
    texts = [row["examples"][0]["text"] for row in Clusters.read(tmp_path / "out").rows]
    assert sorted(len(text) for text in texts) == [5, 300]
    assert any(text.endswith("ship…") for text in texts)
    assert info["num_truncated"] == 1
    assert info["domains"] is None  # one domain says nothing


# --- again ----------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(made, model, monkeypatch):
    path, out, info = made
    monkeypatch.setattr(module, "embed_corpus", lambda *_: pytest.fail("embedded again"))
    before = {name: (out / name).stat().st_mtime_ns for name in ("info.json", "labels.parquet")}
    assert partition(path, out, settings(model)) == info
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before


def test_the_same_corpus_gives_the_same_files(made, model, tmp_path):
    path, out, _ = made
    partition(path, tmp_path / "again", settings(model))
    assert files(tmp_path / "again") == files(out)


def test_other_clusters_of_the_same_corpus_keep_its_embeddings(tmp_path, model, monkeypatch):
    path, out = corpus(tmp_path), tmp_path / "out"
    partition(path, out, settings(model))
    monkeypatch.setattr("salad.select.embed_corpus.Embedder", lambda *_: pytest.fail("embedded again"))
    info = partition(path, out, settings(model, 3, tolerance=0.2, seed=1))
    assert Clusters.read(out).num_clusters == info["num_clusters"] == 3
    sizes = np.bincount(Clusters.read(out).labels_N)
    assert info["sizes"] == [sizes.min(), sizes.max()]
    assert sizes.min() >= NUM / 3 * 0.8
    assert sizes.max() <= NUM / 3 * 1.2


def test_stopped_while_it_writes_it_goes_on(made, tmp_path, model, monkeypatch):
    path, out = made[0], tmp_path / "out"

    def fail(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("salad.select.clusters.write_jsonl", fail)
        with pytest.raises(OSError, match="power cut"):
            partition(path, out, settings(model))
    with pytest.raises(MissingFileError, match="its clusters are not finished"):
        Clusters.read(out)
    ended = subprocess.Popen(["true"])
    ended.wait()
    (out / f".tmp-{ended.pid}-clusters.jsonl").write_text("half")  # as a killed process leaves it
    partition(path, out, settings(model))
    assert files(out) == files(made[1])


def test_a_damaged_file_is_refused_and_made_again(made, tmp_path, model):
    path, out = made[0], tmp_path / "out"
    partition(path, out, settings(model))
    whole = (out / "labels.parquet").read_bytes()
    (out / "labels.parquet").write_bytes(whole[:-5])
    with pytest.raises(DataError, match=r"labels\.parquet is damaged"):
        Clusters.read(out)
    (out / "labels.parquet").write_bytes(whole[:-5] + b".....")
    with pytest.raises(DataError, match=r"labels\.parquet is not readable"):
        _ = Clusters.read(out).labels_N
    (out / "centres.npy").unlink()
    with pytest.raises(MissingFileError, match=r"centres\.npy does not exist"):
        Clusters.read(out)
    partition(path, out, settings(model))
    assert files(out) == files(made[1])


# --- what can't be --------------------------------------------------------------------------------------------------


def test_as_many_clusters_as_texts_and_no_more(tmp_path, model):
    path = corpus(tmp_path, 9)
    info = partition(path, tmp_path / "all", settings(model, 9))
    assert info["sizes"] == [1, 1]
    assert info["inertia"] == pytest.approx(0.0, abs=1e-6)
    began = sorted(tmp_path.iterdir())
    with pytest.raises(RecipeError, match=r"10 clusters of 9 texts \(.*ask for at most as many"):
        partition(path, tmp_path / "more", settings(model, 10))
    assert sorted(tmp_path.iterdir()) == began  # refused before anything is made


def test_one_text_in_one_cluster(tmp_path, model):
    info = partition(corpus(tmp_path, 1), tmp_path / "out", settings(model, 1))
    assert info["sizes"] == [1, 1]
    row = Clusters.read(tmp_path / "out").rows[0]
    assert [row["share"], row["x"], row["y"], len(row["examples"])] == [1.0, 0.5, 0.5, 1]


def test_texts_that_are_all_the_same(tmp_path, model):
    write_texts(tmp_path / "t.jsonl", [Text(f"t{i}", "the ship", "all", "s", "l") for i in range(6)])
    with pytest.raises(DataError, match="all 6 points are the same"):
        partition(tmp_path / "t.jsonl", tmp_path / "out", settings(model, 2))
    assert partition(tmp_path / "t.jsonl", tmp_path / "one", settings(model, 1))["num_duplicates"] == 5


def test_duplicates_are_counted_and_keep_their_labels(tmp_path, model):
    texts = [Text(f"t{i}", tiny_embedder.text(i // 2)[0], "all", "s", "l") for i in range(40)]
    write_texts(tmp_path / "t.jsonl", texts)
    info = partition(tmp_path / "t.jsonl", tmp_path / "out", settings(model, 4))
    assert info["num_duplicates"] == 40 - len({text.text for text in texts}) >= 20
    assert info["sizes"] == [10, 10]
    assert len(Clusters.read(tmp_path / "out").ids) == 40


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, MissingFileError, "does not exist"),
        ("", DataError, "holds no text"),
        ('{"id": "a", "text": "ship"}\n{"id": "b", "text": " "}\n', DataError, "record 2: the text of 'b' is empty"),
        ('{"text": "ship"}\n', DataError, "record 1: 'id' must be a string"),
    ],
)
def test_bad_texts_are_refused(tmp_path, model, content, error, said):
    if content is not None:
        (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(error, match=said):
        partition(tmp_path / "t.jsonl", tmp_path / "out", settings(model, 1))


def test_odd_texts_are_clustered_and_counted(tmp_path, model):
    said = ["ship \x07 sea", "🙂", "море волна", "<speak>court</speak>", "sea " * 10_000, *["star", "oven", "law"]]
    write_texts(tmp_path / "t.jsonl", [Text(f"t{i}", text, "all", "s", "l") for i, text in enumerate(said)])
    info = partition(tmp_path / "t.jsonl", tmp_path / "out", settings(model, 2))
    assert [info["num_truncated"], info["num_unread"], info["unread"]] == [1, 2, ["t1", "t2"]]
    assert info["sizes"] == [4, 4]
    assert all(row["name"].isprintable() for row in Clusters.read(tmp_path / "out").rows)


def test_a_folder_of_something_else_is_left_alone(made, tmp_path, model):
    path, out, _ = made
    (tmp_path / "info.json").write_text('{"corpus": "text"}')
    with pytest.raises(DataError, match="not of a folder of clusters"):
        partition(path, tmp_path, settings(model))
    assert (tmp_path / "info.json").read_text() == '{"corpus": "text"}'
    with pytest.raises(MissingFileError, match="no folder of clusters"):
        Clusters.read(tmp_path / "none")
    other = corpus(tmp_path, 20, "other.jsonl")
    with pytest.raises(DataError, match="the clusters of another corpus than"):
        Clusters.read(out, other)
    before = files(out)
    with pytest.raises(DataError, match="embeddings of another corpus"):
        partition(other, out, settings(model))
    assert files(out) == before


def test_two_processes_do_not_work_on_one_folder(made, model):
    path, out, _ = made
    with FileLock(out / ".lock"), pytest.raises(RecipeError, match="another process is clustering into"):
        partition(path, out, settings(model, 5))


def test_no_llm_of_that_name_is_told_before_anything_is_embedded(tmp_path, model, monkeypatch):
    monkeypatch.setattr(module, "embed_corpus", lambda *_: pytest.fail("embedded"))
    with pytest.raises(AssetError, match="no-such-llm"):
        partition(corpus(tmp_path), tmp_path / "out", settings(model, namer="no-such-llm"))


def test_millions_of_labels_are_columns(tmp_path):
    """Written and read as arrays, in row groups: no text is kept."""
    num = 20_000

    class Many:
        def __len__(self):
            return num

        def __getitem__(self, rows):
            return [Text(f"t{i}", "x" * (i % 7 + 1), "all", "s", "l") for i in range(num)[rows]]

    labels = np.arange(num, dtype=np.int64) % 3
    rows = [{"cluster": c, "name": str(c), "size": int((labels == c).sum())} for c in range(3)]
    (tmp_path / "t.jsonl").write_text("")
    info = {"num_clusters": 3, "num_texts": num, "corpus_sha256": content_hash(tmp_path / "t.jsonl"), "corpus": "t"}
    write_clusters(tmp_path, Many(), labels, labels.astype(np.float32), np.zeros((3, 2)), rows, info)
    clusters = Clusters.read(tmp_path)
    assert (clusters.labels_N == labels).all()
    assert clusters.labels_N.dtype == np.int32
    assert (clusters.num_chars_N == np.arange(num) % 7 + 1).all()
    assert clusters.ids[-1] == "t19999"
    assert parquet.ParquetFile(tmp_path / "labels.parquet").num_row_groups == 3
    info["num_texts"] += 1
    write_clusters(tmp_path, Many(), labels, labels.astype(np.float32), np.zeros((3, 2)), rows, info)
    with pytest.raises(DataError, match="holds 20000 texts, not 20001"):
        _ = Clusters.read(tmp_path).labels_N


def test_info_is_what_the_file_holds(made):
    _, out, info = made
    assert json.loads((out / "info.json").read_text()) == info
