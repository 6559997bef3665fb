"""Embeddings on the disk: read by any rows they are the array they were, and nothing else is taken for them."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salad.errors import DataError, MissingFileError
from salad.select.embeddings import OPEN_SHARDS, EmbeddingIndex, Embeddings, Shard, checksum, is_sound, shard_path


def write(folder, whole, shard_rows, dtype="float32"):
    """The array as a folder of shards, and its index."""
    folder.mkdir(parents=True, exist_ok=True)
    index = EmbeddingIndex("texts.jsonl", "c" * 64, "tiny", "e" * 64, dtype, len(whole), shard_rows)
    for number in range(index.num_shards):
        rows = whole[number * shard_rows : (number + 1) * shard_rows].astype(dtype)
        path = shard_path(folder, number)
        np.save(path, rows)
        index = index.with_shard(Shard(number, *rows.shape, path.stat().st_size, checksum(path)))
    index.write(folder)
    return index


def points(num, dim=3, seed=0):
    return np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)


@given(st.integers(1, 40), st.integers(1, 12), st.data())
@settings(deadline=None, max_examples=60)
def test_any_rows_are_those_of_the_array(tmp_path_factory, num, shard_rows, data):
    whole = points(num)
    folder = tmp_path_factory.mktemp("embeddings")
    write(folder, whole, shard_rows)
    embeddings = Embeddings(folder)
    assert embeddings.shape == whole.shape
    assert len(embeddings) == num
    begin, end = (data.draw(st.integers(-num - 2, num + 2)) for _ in range(2))
    assert (embeddings[begin:end] == whole[begin:end]).all()
    assert embeddings[begin:end].shape == whole[begin:end].shape
    rows = np.array(data.draw(st.lists(st.integers(0, num - 1), max_size=20)), np.int64)
    assert (embeddings[rows] == whole[rows]).all()
    assert (embeddings[np.sort(rows)] == whole[np.sort(rows)]).all()
    size = data.draw(st.integers(1, 50))
    begins, blocks = zip(*embeddings.blocks(size), strict=True)
    assert list(begins) == list(range(0, num, size))
    assert (np.concatenate(blocks) == whole).all()


def test_half_precision_on_the_disk_comes_as_float32(tmp_path):
    whole = points(10)
    write(tmp_path, whole, 4, "float16")
    read = Embeddings(tmp_path)[:]
    assert read.dtype == np.float32
    assert (read == whole.astype(np.float16)).all()


def test_pickled_it_is_its_folder(tmp_path):
    write(tmp_path, points(2000, 50), 1000)
    packed = pickle.dumps(Embeddings(tmp_path))
    assert len(packed) < 500
    assert (pickle.loads(packed)[7:9] == points(2000, 50)[7:9]).all()


def test_few_files_are_open_at_a_time(tmp_path):
    num = 3 * OPEN_SHARDS
    write(tmp_path, points(num), 1)
    embeddings = Embeddings(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert (embeddings[:] == points(num)).all()
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= OPEN_SHARDS


@pytest.mark.parametrize("rows", [3, slice(0, 4, 2), [1, 2], np.array([0.5]), np.array([[1]]), np.array([True])])
def test_what_is_no_rows_is_refused(tmp_path, rows):
    write(tmp_path, points(5), 2)
    with pytest.raises(TypeError, match="embeddings are read"):
        Embeddings(tmp_path)[rows]


@pytest.mark.parametrize("rows", [[5], [-1], [0, 99]])
def test_rows_that_are_not_there_are_refused(tmp_path, rows):
    write(tmp_path, points(5), 2)
    with pytest.raises(IndexError, match="of 5 embeddings"):
        Embeddings(tmp_path)[np.array(rows)]


def test_embeddings_of_something_else_are_refused(tmp_path):
    write(tmp_path, points(5), 2)
    assert len(Embeddings(tmp_path, "c" * 64, "e" * 64)) == 5
    with pytest.raises(DataError, match=r"of another corpus \(texts\.jsonl, 5 texts"):
        Embeddings(tmp_path, "d" * 64, "e" * 64)
    with pytest.raises(DataError, match=r"by another embedder \(tiny"):
        Embeddings(tmp_path, "c" * 64, "f" * 64)


def test_an_unfinished_folder_is_refused(tmp_path):
    index = write(tmp_path, points(10), 2)
    half = EmbeddingIndex(*[getattr(index, name) for name in index.__dataclass_fields__ if name != "shards"])
    half.with_shard(index.shards[3]).write(tmp_path)
    with pytest.raises(DataError, match="not finished: 1 of 5 shards"):
        Embeddings(tmp_path)
    assert EmbeddingIndex.read(tmp_path).missing == [0, 1, 2, 4]


def test_a_damaged_shard_is_refused(tmp_path):
    index = write(tmp_path, points(10), 2)
    path = shard_path(tmp_path, 1)
    content = path.read_bytes()
    assert is_sound(tmp_path, index.shards[1])
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not is_sound(tmp_path, index.shards[1])
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"00001\.npy has \d+ bytes, not \d+: it is damaged"):
        Embeddings(tmp_path)
    path.unlink()
    with pytest.raises(MissingFileError, match=r"00001\.npy does not exist"):
        Embeddings(tmp_path)
    path.write_bytes(b"x" * len(content))
    with pytest.raises(DataError, match=r"00001\.npy is no NumPy file"):
        Embeddings(tmp_path)[:]
    np.save(path, points(2).T[:2].T.copy())
    other = Shard(1, 2, 3, path.stat().st_size, checksum(path))
    index.with_shard(other).write(tmp_path)
    with pytest.raises(DataError, match=r"holds float32 \[2, 2\], not float32 \[2, 3\]"):
        Embeddings(tmp_path)[:]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no index of embeddings of version 1"),
        ('{"format": "salad clusters", "version": 1}', "no index of embeddings of version 1"),
        ('{"format": "salad embeddings", "version": 2}', "no index of embeddings of version 1"),
        ('{"format": "salad embeddings", "version": 1, "shards": [], "what": 0}', "no index of embeddings"),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, content, said):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=said):
        Embeddings(tmp_path)


def test_a_folder_without_an_index_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="holds no embeddings"):
        Embeddings(tmp_path / "none")


def test_the_index_is_plain_json(tmp_path):
    write(tmp_path, points(3), 2)
    tree = json.loads((tmp_path / "index.json").read_text())
    assert [tree["num_rows"], tree["shard_rows"], [shard["rows"] for shard in tree["shards"]]] == [3, 2, [2, 1]]
