"""Embedding a corpus: the same bytes with any workers and after any stop, and what was not seen is told."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tiny_embedder
from salad.errors import AssetError, DataError
from salad.select import embed_corpus as module
from salad.select.embed import Embedder, device_for, embed, embedder_folder
from salad.select.embed_corpus import EmbeddingError, EmbedSettings, embed_corpus, shard_rows
from salad.select.embeddings import EmbeddingIndex, Embeddings, summary
from salad.texts.corpus import TextCorpus
from salad.workers import Died

pytestmark = pytest.mark.usefixtures("one_thread")
NUM = 50
ROWS = 8  # of a shard here


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_embedder.save(tmp_path_factory.mktemp("embedder") / "tiny"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", (ROWS, ROWS))


def corpus(folder, texts=None, name="texts.jsonl"):
    texts = [tiny_embedder.text(i)[0] for i in range(NUM)] if texts is None else texts
    path = folder / name
    path.write_text("".join(json.dumps({"id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return TextCorpus(path)


def settings(model, **more):
    return EmbedSettings(model, "cpu", 1, **more)


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def one_at_a_time(model, texts):
    """Each text by itself, without batches, padding or shards."""
    embedder = Embedder(Path(model), "cpu", 1)
    return np.stack([embedder.model.encode([text], normalize_embeddings=True)[0] for text in texts])


def test_vectors_are_those_of_each_text_alone(tmp_path, model):
    texts = corpus(tmp_path)
    told = []
    vectors = embed_corpus(texts, tmp_path / "e", settings(model, dtype="float32"), progress=lambda *a: told.append(a))
    expected = one_at_a_time(model, [text.text for text in texts])
    assert vectors[:] == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(vectors[:], axis=1) == pytest.approx(np.ones(NUM), abs=1e-5)
    assert len(np.unique(expected.round(4), axis=0)) > NUM / 2  # the stand-in does tell texts apart
    assert told[0] == (0, NUM)
    assert told[-1] == (NUM, NUM)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert embed([text.text for text in texts], model) == pytest.approx(expected, abs=1e-5)
    assert embed([], model).shape[0] == 0


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(tmp_path, model):
    texts = corpus(tmp_path)
    embed_corpus(texts, tmp_path / "one", settings(model))
    embed_corpus(texts, tmp_path / "two", settings(model), processes=2)
    assert shards(tmp_path / "two") == shards(tmp_path / "one")


def test_after_a_stop_it_goes_on_to_the_same_bytes(tmp_path, model):
    texts = corpus(tmp_path)
    embed_corpus(texts, tmp_path / "one", settings(model))
    alone = shards(tmp_path / "one")
    assert len(alone) == 8

    class StoppedError(Exception):
        pass

    def stop(done, _total):
        if done >= 3 * ROWS:
            raise StoppedError

    with pytest.raises(StoppedError):
        embed_corpus(texts, tmp_path / "half", settings(model), progress=stop)
    index = EmbeddingIndex.read(tmp_path / "half")
    assert 2 <= len(index.shards) <= 3
    told = []
    embed_corpus(texts, tmp_path / "half", settings(model), progress=lambda *a: told.append(a))
    assert told[0] == (len(index.shards) * ROWS, NUM)
    assert shards(tmp_path / "half") == alone


def test_a_damaged_shard_is_made_again_and_the_others_are_kept(tmp_path, model):
    texts = corpus(tmp_path)
    embed_corpus(texts, tmp_path / "e", settings(model))
    before = shards(tmp_path / "e")
    path = tmp_path / "e" / "00002.npy"
    path.write_bytes(before[path.name][:-1] + b"\x55")
    (tmp_path / "e" / "00004.npy").unlink()
    times = {name: (tmp_path / "e" / name).stat().st_mtime_ns for name in ("00000.npy", "00003.npy")}
    embed_corpus(texts, tmp_path / "e", settings(model))
    assert shards(tmp_path / "e") == before
    assert {name: (tmp_path / "e" / name).stat().st_mtime_ns for name in times} == times


def test_what_is_whole_is_not_embedded_again(tmp_path, model):
    texts = corpus(tmp_path)
    embed_corpus(texts, tmp_path / "e", settings(model))
    never = lambda tasks, _setup, _processes: iter([pytest.fail("asked") for _ in tasks])  # noqa: E731
    assert len(embed_corpus(texts, tmp_path / "e", settings(model), fan_out=never)) == NUM


def test_the_shards_of_a_corpus_depend_on_its_length_alone(monkeypatch):
    monkeypatch.setattr(module, "SHARD_ROWS", (1024, 16384))
    assert [shard_rows(num) for num in (1, 10**5, 2 * 10**6, 10**8)] == [1024, 1024, 1954, 16384]


def test_what_the_embedder_does_not_see_is_counted(tmp_path, model):
    long, exact = " ".join(["sea"] * 60), " ".join(["sea"] * (tiny_embedder.MAX_TOKENS - 2))
    texts = ["ship", long, exact, "🙂 🙃", "\x00\x07", "море", "unknown words", f"{exact} ship", "ship 🙂"]
    embeddings = embed_corpus(corpus(tmp_path, texts), tmp_path / "e", settings(model))
    told = summary(embeddings.index)
    assert told == {"num_truncated": 2, "max_tokens": 16, "num_unread": 3, "unread": ["t3", "t4", "t5"]}
    assert np.isfinite(embeddings[:]).all()
    assert embeddings[1:2] == pytest.approx(embeddings[2:3], abs=2e-3)  # of both it reads the same beginning


def test_half_a_character_is_refused_with_its_place(tmp_path, model):
    with pytest.raises(DataError, match=r"texts\.jsonl, record 2: a surrogate stands alone in 't1'"):
        embed_corpus(corpus(tmp_path, ["ship", "sail \ud800"]), tmp_path / "e", settings(model))


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    broken = str(tiny_embedder.save(tmp_path / "broken", scale=float("nan")))
    with pytest.raises(DataError, match=r"gives 3 texts a vector that is not finite \(e\.g\. 't0'\)"):
        embed_corpus(corpus(tmp_path, ["ship", "sea", "sail"]), tmp_path / "e", settings(broken))


def test_embeddings_of_something_else_are_not_replaced(tmp_path, model):
    embed_corpus(corpus(tmp_path), tmp_path / "e", settings(model))
    before = shards(tmp_path / "e")
    with pytest.raises(DataError, match="of another corpus"):
        embed_corpus(corpus(tmp_path, ["ship"] * NUM, "other.jsonl"), tmp_path / "e", settings(model))
    with pytest.raises(DataError, match="float16 embeddings, not float32"):
        embed_corpus(corpus(tmp_path), tmp_path / "e", settings(model, dtype="float32"))
    other = str(tiny_embedder.save(tmp_path / "other", scale=0.07))
    with pytest.raises(DataError, match="by another embedder"):
        embed_corpus(corpus(tmp_path), tmp_path / "e", settings(other))
    assert shards(tmp_path / "e") == before


def test_a_worker_that_dies_is_given_the_shard_once_more(tmp_path, model):
    texts = corpus(tmp_path)
    died = []

    def dies_once(tasks, setup, _processes):
        """A worker that is lost with the first two shards."""
        answer = setup()
        for task in tasks:
            lost = len(died) < 2
            died.extend([task] * lost)
            yield task, Died(-9) if lost else answer(task)

    embed_corpus(texts, tmp_path / "e", settings(model), fan_out=dies_once)
    embed_corpus(texts, tmp_path / "alone", settings(model))
    assert died == [0, 1]
    assert shards(tmp_path / "e") == shards(tmp_path / "alone")

    def always(tasks, _setup, _processes):
        yield from ((task, Died(-9)) for task in tasks)

    with pytest.raises(EmbeddingError, match=r"embedded texts 1 to 8 of .* died twice"):
        embed_corpus(texts, tmp_path / "never", settings(model), fan_out=always)


@pytest.mark.parametrize(
    ("name", "said"),
    [("minilm-l7", "nearest known names are minilm-l6"), ("nobody/no-such-model", "could not be had from the Hugging")],
)
def test_an_embedder_that_is_not_there_is_told_at_once(name, said):
    began = time.monotonic()
    with pytest.raises(AssetError, match=said):
        embedder_folder(name)
    assert time.monotonic() - began < 10


def test_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AssetError, match=r"no sentence-transformers model: .* has no modules\.json"):
        embedder_folder(str(tmp_path))
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(AssetError, match="not readable as a sentence-transformers model"):
        Embedder(tmp_path, "cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_for("auto") == device_for("cpu") == "cpu"
    with pytest.raises(AssetError, match="--device cuda: torch sees no GPU"):
        device_for("cuda")


SCRIPT = """
import sys, time
from pathlib import Path
from salad.select import embed_corpus as module
from salad.texts.corpus import TextCorpus
module.SHARD_ROWS = (8, 8)
def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.2)
folder, texts, model = map(Path, sys.argv[1:])
module.embed_corpus(TextCorpus(texts), folder, module.EmbedSettings(str(model), "cpu", 1), progress=slowly)
"""


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_killed_at_any_moment_it_goes_on(tmp_path, model):
    texts = corpus(tmp_path)
    embed_corpus(texts, tmp_path / "alone", settings(model))
    alone = shards(tmp_path / "alone")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), str(texts.path), model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for stop_at in (1, 17, 41):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if int(line) >= stop_at:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(EmbeddingIndex.read(tmp_path / "killed").shards) >= 4
    with pytest.raises(DataError, match="not finished"):
        Embeddings(tmp_path / "killed")
    (tmp_path / "killed" / f".tmp-{process.pid}-00006.npy").write_bytes(b"half")
    embed_corpus(texts, tmp_path / "killed", settings(model))
    assert shards(tmp_path / "killed") == alone


@pytest.mark.assets
def test_embeddings_are_unit_vectors_in_the_order_of_the_texts():
    texts = [tiny_embedder.text(i)[0] for i in range(30)] * 3  # more than a batch, of mixed lengths
    told = []
    vectors = embed(texts, "minilm-l6", lambda done, total: told.append((done, total)))
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(90), abs=1e-5)
    assert vectors[:30] == pytest.approx(vectors[30:60], abs=1e-5)
    assert vectors[4] == pytest.approx(embed([texts[4]], "minilm-l6")[0], abs=1e-5)
    assert told[-1] == (90, 90)
