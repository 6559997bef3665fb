"""`salad select` on real folders: what it writes, that it is the same again, what it refuses, a sweep."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from salad.cli import app
from salad.errors import DataError, SaladError
from salad.fingerprint import content_hash
from salad.measure.divergence_by_item import ItemScores
from salad.select.clusters import write_clusters
from salad.select.probe import ProbeItem, probe_clusters
from salad.select.probe_files import labels_sha256, write_probes
from salad.texts.corpus import TextCorpus
from salad.texts.text import read_texts

SIZE, K = 60, 3
LEVELS = (1.0, 2.0, 4.0)  # M(c)


def item_of(name, cluster, level, cer=0.0):
    kl = 10 * level
    sums = {"kl_nats": kl, "entropy_nats": 20.0, "nll_nats": 30.0, "teacher_nll_nats": 25.0, "self_kl_nats": kl / 2}
    scores = ItemScores(item=name, count=10, jsd_nats=level, **sums)
    return ProbeItem(scores, cluster, cer, 12, 6.0, None)


@pytest.fixture
def place(tmp_path):
    """texts.jsonl, clusters/, probe/: three clusters of 60 texts of 12 words; the first two of each are its probes."""
    return lay_out(tmp_path, LEVELS)


def lay_out(folder, levels, cers=(0.0, 0.0, 0.0)):
    words = "a the of in to for with on at by from into".split()
    rows = []
    for number in range(SIZE * K):
        text = " ".join(f"{word}{number * (i % 4 == 0)}" for i, word in enumerate(words))
        rows.append({"id": f"t{number}", "text": text, "domain": "d", "source": "s", "licence": "CC0"})
    corpus = folder / "texts.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = TextCorpus(corpus)
    labels = (np.arange(len(texts)) % K).astype(np.int32)
    named = [
        {
            "cluster": c,
            "name": f"name {c}",
            "size": SIZE,
            "share": 1 / K,
            "terms": [],
            "examples": [],
            "x": 0.0,
            "y": 0.0,
        }
        for c in range(K)
    ]
    info = {"corpus": str(corpus), "corpus_sha256": content_hash(corpus), "num_texts": len(texts), "num_clusters": K}
    write_clusters(folder / "clusters", texts, labels, np.zeros(len(texts)), np.zeros((K, 2)), named, info)
    items = [item_of(f"t{c + K * i}", c, levels[c], cers[c]) for c in range(K) for i in range(2)]
    probes = probe_clusters(items, K, 0.3)
    sha256 = labels_sha256(folder / "clusters")
    write_probes(folder / "probe", probes, items, {"clusters": {"path": "clusters", "sha256": sha256}})
    return folder


def run(place, *options, probe=True, out="out"):
    where = ["--clusters", place / "clusters", "--out", place / out, *(["--probe", place / "probe"] if probe else [])]
    command = ["select", place / "texts.jsonl", *where, *options]
    return CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=True)


def select(place, *options, **more):
    done = run(place, *options, "--json", **more)
    assert done.exit_code == 0, done.exception or done.output
    return json.loads(done.stdout)


def refused(place, *options, **more):
    done = run(place, *options, **more)
    assert isinstance(done.exception, SaladError), done.output
    return str(done.exception)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_what_is_written(place):
    told = select(place, "--gamma", 2, "--budget", "60s", "--seed", 7)
    rows = lines(place / "out" / "selected.jsonl")
    summary = json.loads((place / "out" / "selection.json").read_text())
    assert {"out": str(place / "out"), **summary} == told
    pace = 6 * 6.0 / sum(len(text.text) for text in read_texts(place / "texts.jsonl") if int(text.id[1:]) < 6)
    assert summary["seconds_per_character"] == pytest.approx(pace)
    assert "6 probes" in summary["seconds_per_character_from"]
    assert summary["num_texts"] == len(rows) > 5
    assert 60 <= summary["budget"]["reached"] < 60 + 8
    assert summary["estimated_h"] == pytest.approx(summary["budget"]["reached"] / 3600)
    # 1 : 4 : 16 by hand
    assert [row["target"] for row in summary["clusters"]] == pytest.approx([1 / 21, 4 / 21, 16 / 21])
    assert [row["score"] for row in summary["clusters"]] == pytest.approx(LEVELS)
    assert [row["boost"] for row in summary["clusters"]] == pytest.approx([1 / 7, 4 / 7, 16 / 7])
    assert summary["largest_boost"] == pytest.approx(16 / 7)
    counts = np.bincount([row["cluster"] for row in rows], minlength=K)
    assert [row["num_texts"] for row in summary["clusters"]] == counts.tolist()
    assert summary["refused"]["it is a probe"] == 6
    corpus = {text.id: text for text in read_texts(place / "texts.jsonl")}
    for draw, row in enumerate(rows):
        assert row["draw"] == draw
        assert row["text"] == corpus[row["id"]].text
        assert row["licence"] == "CC0"
        assert row["cluster"] == int(row["id"][1:]) % K
        assert row["cluster_name"] == f"name {row['cluster']}"
        assert row["weight"] == pytest.approx([1 / 7, 4 / 7, 16 / 7][row["cluster"]])
        assert int(row["id"][1:]) >= 6  # no probe
    assert summary["made_of"]["texts"]["sha256"] == content_hash(place / "texts.jsonl")
    assert summary["files"] == {"selected.jsonl": content_hash(place / "out" / "selected.jsonl")}
    assert [text.id for text in read_texts(place / "out" / "selected.jsonl")] == [row["id"] for row in rows]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_command_gives_the_same_bytes_and_a_larger_budget_begins_with_them(place):
    file = place / "task.txt"
    file.write_text("nothing in common\n\n" + read_texts(place / "texts.jsonl")[9].text)
    options = ("--budget", "60s", "--format", "jsonl,hf", "--against", file)
    select(place, *options)
    first = contents(place / "out")
    select(place, *options)
    assert contents(place / "out") == first
    shutil.rmtree(place / "out")
    select(place, *options)
    assert contents(place / "out") == first
    short = lines(place / "out" / "selected.jsonl")
    select(place, *options[2:], "--budget", "120s", out="more")
    assert lines(place / "more" / "selected.jsonl")[: len(short)] == short


def test_a_dataset_that_others_read(place):
    import datasets

    select(place, "--budget", "60s", "--format", "jsonl,hf")
    rows = datasets.load_dataset(str(place / "out" / "hf"), cache_dir=str(place / "cache"))["train"]
    expected = lines(place / "out" / "selected.jsonl")
    assert rows["id"] == [row["id"] for row in expected]
    assert rows["weight"] == [row["weight"] for row in expected]
    assert set(rows["title"]) == {None}
    select(place, "--budget", "60s")  # not asked for: not there
    assert not (place / "out" / "hf" / "train.parquet").exists()


def test_gamma_0_needs_no_probe_and_is_the_corpus(place):
    summary = select(place, "--gamma", 0, "--budget", "60s", probe=False)
    assert [row["target"] for row in summary["clusters"]] == pytest.approx([1 / 3] * 3)
    assert summary["effective_clusters"] == pytest.approx(3)
    assert summary["seconds_per_character"] == 0.065
    assert "default" in summary["seconds_per_character_from"]
    assert "give --probe DIR, or --gamma 0" in refused(place, "--budget", "60s", probe=False)


def test_cap_and_coverage(place):
    summary = select(place, "--budget", "60s", "--gamma", 2, "--max-boost", 1.5, "--coverage", 0.2)
    # half of all for the third; of the other half 1 : 4 is 0.1 and 0.4, both below their cap of 0.5
    capped = np.array([0.1, 0.4, 0.5])
    assert [row["target"] for row in summary["clusters"]] == pytest.approx(0.8 * capped + 0.2 / 3)


def test_a_share_of_natural_speech_and_tokens(place):
    summary = select(place, "--budget", "1%", "--natural", "2h")
    assert summary["budget"]["amount"] == pytest.approx(72)
    assert summary["budget"]["natural_s"] == 7200
    tokens = select(place, "--budget", "300 tokens")
    assert tokens["budget"]["tokens_counted_by"] == "4.5 characters a token"
    assert tokens["num_characters"] / 4.5 == pytest.approx(tokens["budget"]["reached"])
    assert tokens["budget"]["reached"] >= 300


def test_evaluation_items_are_not_selected(place):
    corpus = read_texts(place / "texts.jsonl")
    items = [
        {"id": f"q{i}", "question": f"Is it so that {corpus[i].text}?", "choices": ["yes", "no"]} for i in range(90)
    ]
    file = place / "task.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    summary = select(place, "--budget", "60s", "--gamma", 0, "--against", file, "--contamination-words", 9)
    assert summary["decontamination"]["num_contaminated"] == 90
    assert summary["decontamination"]["against"][0]["num_texts"] == 90
    assert summary["refused"]["words of an evaluation item"] == 90 - 6  # the probes are refused already
    assert all(int(row["id"][1:]) >= 90 for row in lines(place / "out" / "selected.jsonl"))
    found = lines(place / "out" / "contaminated.jsonl")
    assert [row["id"] for row in found] == [f"t{i}" for i in range(90)]
    assert found[3]["item_id"] == "q3"
    assert found[3]["words"] in " ".join(corpus[3].text.split())


def test_bounds_and_an_earlier_selection(place):
    assert "60" not in select(place, "--budget", "60s")["refused"]
    first = lines(place / "out" / "selected.jsonl")
    summary = select(place, "--budget", "60s", "--exclude", place / "out" / "selected.jsonl", out="next")
    assert not {row["id"] for row in first} & {row["id"] for row in lines(place / "next" / "selected.jsonl")}
    assert summary["refused"][f"it is in {place / 'out' / 'selected.jsonl'}"] == len(first)
    assert "× fewer than 13 words" in refused(place, "--budget", "60s", "--min-words", 13)
    assert "× more than 11 words" in refused(place, "--budget", "60s", "--max-words", 11)
    assert "174 × more than 1 s to speak" in refused(place, "--budget", "60s", "--max-seconds", 1)
    assert select(place, "--budget", "60s", "--max-seconds", 0)["num_texts"] > 0
    assert "no text has such a length" in refused(place, "--budget", "1s", "--min-words", 3, "--max-words", 2)


def test_what_is_printed_says_what_was_drawn(place):
    done = run(place, "--budget", "60s", "--gamma", 2)
    assert done.exit_code == 0, done.exception
    assert done.stdout.splitlines()[1].split()[0] == "2"  # the largest boost comes first
    assert "33.33% → 76.19%" in done.stdout
    assert "WARNING: compared with no evaluation set" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:5])) <= 80


# --- a sweep --------------------------------------------------------------------------------------------------------


def test_a_sweep_is_each_selection_and_what_they_have_in_common(place):
    sweep = ("--sweep", "gamma=0,2,5", "--sweep", "score=misalignment,jsd")
    told = select(place, "--budget", "200s", *sweep, out="sweep")
    assert told == json.loads((place / "sweep" / "sweep.json").read_text())
    names = [row["name"] for row in told["settings"]]
    assert names[:3] == ["gamma-0_score-misalignment", "gamma-0_score-jsd", "gamma-2_score-misalignment"]
    chosen = [{row["id"] for row in lines(place / "sweep" / name / "selected.jsonl")} for name in names]
    for i, one in enumerate(chosen):
        for j, other in enumerate(chosen):
            assert told["jaccard"][i][j] == pytest.approx(len(one & other) / len(one | other))
    assert told["jaccard"][0][1] == 1.0  # without gamma the score does not matter
    select(place, "--budget", "200s", "--gamma", 2, "--score", "jsd", out="one")
    for name in ("selected.jsonl", "selection.json"):
        assert (place / "one" / name).read_bytes() == (place / "sweep" / "gamma-2_score-jsd" / name).read_bytes()
    printed = run(place, "--budget", "200s", *sweep, out="sweep").stdout
    assert "gamma-5_score-misalignment" in printed


@pytest.mark.parametrize("axis", ["gamma", "beta=1", "gamma=1,x", "gamma=", "seed=1.5", "max-boost=some"])
def test_a_sweep_that_cannot_be_read_is_refused(place, axis):
    assert f"--sweep {axis}" in refused(place, "--budget", "60s", "--sweep", axis)
    assert "each KEY once" in refused(place, "--budget", "60s", "--sweep", "gamma=1", "--sweep", "gamma=2")


def test_a_sweep_writes_nothing_if_a_target_cannot_be_made(place):
    assert "never" in refused(place, "--budget", "60s", "--sweep", "score=misalignment,never")
    assert not list((place / "out").glob("score-*"))


# --- bad input ------------------------------------------------------------------------------------------------------


def test_all_misalignments_equal_is_the_corpus_and_all_zero_is_refused(tmp_path):
    for name, levels in (("equal", (2.0,) * 3), ("zero", (0.0,) * 3)):
        (tmp_path / name).mkdir()
        lay_out(tmp_path / name, levels)
    summary = select(tmp_path / "equal", "--budget", "60s")
    assert [row["target"] for row in summary["clusters"]] == pytest.approx([1 / 3] * 3)
    assert "0 in every cluster" in refused(tmp_path / "zero", "--budget", "60s")
    assert select(tmp_path / "zero", "--budget", "60s", "--gamma", 0)["num_texts"] > 0


def test_clusters_that_the_probe_leaves_out_are_named(tmp_path):
    place = lay_out(tmp_path, LEVELS, cers=(0.0, 0.0, 0.9))
    summary = select(place, "--budget", "60s")
    assert summary["excluded"] == [2]
    assert summary["clusters"][2]["target"] == 0
    assert "0.90 is above 0.30" in summary["clusters"][2]["excluded"]
    assert summary["clusters"][2]["score"] is None
    assert [row["target"] for row in select(place, "--budget", "60s", "--gamma", 0)["clusters"]] == [0.5, 0.5, 0.0]


def test_a_budget_larger_than_the_corpus_says_what_there_is(place):
    said = refused(place, "--budget", "5h", "--gamma", 0)
    assert "the 174 texts" in said
    assert "(left out: 6 × it is a probe)" in said
    number = said.split("--budget '")[1].split("'")[0]
    summary = select(place, "--budget", number, "--gamma", 0)
    assert summary["num_texts"] >= 172
    assert summary["budget"]["asked"] == number


def test_folders_of_another_corpus_are_refused(place, tmp_path_factory):
    other = lay_out(tmp_path_factory.mktemp("other"), LEVELS)
    other.joinpath("texts.jsonl").write_text(json.dumps({"id": "a", "text": "b"}) + "\n")
    assert "another corpus" in refused(other, "--budget", "60s")
    info = json.loads((place / "probe" / "info.json").read_text())
    info["clusters"]["sha256"] = "0"
    (place / "probe" / "info.json").write_text(json.dumps(info))
    assert "probe of other clusters" in refused(place, "--budget", "60s")
    with pytest.raises(DataError):
        raise run(place, "--budget", "60s").exception


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "much"), "--budget much"),
        (("--budget", "1%"), "Give --natural"),
        (("--budget", "60s", "--format", "lhotse"), "salad synthesize"),
        (("--budget", "60s", "--format", "csv"), "jsonl, hf"),
        (("--budget", "60s", "--score", "never"), "score 'never' is not known"),
        (("--budget", "60s", "--against", "nothing.jsonl"), "nothing.jsonl does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(place, options, said):
    assert said in refused(place, *options)
