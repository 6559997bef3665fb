"""`salad probe` from texts or speech to its folder: what is measured, left out, told, and gone on with."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import tiny
import tiny_corpus
from salad.cli.options import app
from salad.errors import DataError, RecipeError
from salad.files import read_json, read_jsonl
from salad.measure.divergence_by_item import ItemDivergence
from salad.measure.misalignment import HeardAndSwapped
from salad.model.encode import encode_cuts
from salad.probing import Probing, probe_speech, probe_texts
from salad.select.probe import NO_PROBE, draw_probes
from salad.select.probe_files import check_clusters, read_items, read_probes
from salad.select.probe_reading import read_off
from salad.speech.prepared import Rejected, write_prepared
from salad.texts.corpus import TextCorpus
from tiny_probe import clusters_on_disk, model_on_disk, text
from tiny_speech import Loudness

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.assets]
NUM, K = 12, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, clusters 0-2 with 4 texts each and an empty one, and speech: one text too short, one never spoken."""
    folder = tmp_path_factory.mktemp("probe")
    cuts = [tiny_corpus.spoken_cut(folder / "speech", f"u{i}", 6 + i % 5) for i in range(NUM - 2)]
    cuts.append(tiny_corpus.spoken_cut(folder / "speech", "u10", 2))
    missing = Rejected("u11", "not speakable: the voice failed on it", "voice")
    write_prepared(folder / "speech", cuts, [missing], {"corpus": "noise", "voice": "noise"})
    encode_cuts(folder / "speech", Loudness())
    model = model_on_disk(folder, Loudness.name, Loudness.feature_dim, Loudness.frame_hz)
    texts = [text(f"u{i}", "words that are not looked at") for i in range(NUM)]
    _, clusters = clusters_on_disk(folder, texts, [i // 4 for i in range(NUM)], K)
    return model, clusters, folder / "speech"


def probing(made, out, **more):
    return Probing(made[0], made[1], out, **({"threads": 1, "max_cer": 9.9} | more))


def test_a_folder_of_speech_is_probed(made, tmp_path):
    report = probe_speech(probing(made, tmp_path, scores=("jsd", "controlled")), made[2])
    probes = read_probes(tmp_path)
    assert probes == report.probes
    assert [probe.num_probes for probe in probes] == [4, 4, 2, 0]
    assert probes[3].excluded == NO_PROBE
    assert probes[0].jsd_nats is not None
    assert probes[0].self_misalignment_nats is None
    assert probes[0].mean_cer > 0.3  # a recognizer hears no such words in noise
    rows = read_jsonl(tmp_path / "probe.jsonl")
    assert [row["name"] for row in rows] == [f"things of kind {c}" for c in range(K)]
    assert [row["share"] for row in rows] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    lost = {row["id"]: row["reason"] for row in rows[2]["not_measured"]}
    assert set(lost) == {"u10", "u11"}  # nothing is dropped silently
    assert "the voice failed" in lost["u11"]
    assert rows[0]["scores"]["jsd"] == pytest.approx(probes[0].jsd_nats)
    items = read_items(tmp_path)
    assert [item.cluster for item in items] == [0] * 4 + [1] * 4 + [2] * 2
    assert items[0].audio.endswith(".flac")
    assert (items[0].num_words, items[0].seconds) == (6, pytest.approx(1.56, abs=0.01))
    info = read_json(tmp_path / "info.json")
    assert info["num_probes"] == 10
    assert info["hears"] in (True, False)
    assert sum(row["count"] for row in info["not_measured"]) == 2
    assert info["speech"]["voice"] == "noise"
    assert info["stability"]["misalignment"]["num_clusters"] == 3
    assert any("controlled fits 3 coefficients" in sentence for sentence in info["warnings"])
    check_clusters(tmp_path, made[1])


def test_badly_spoken_clusters_are_left_out_and_told(made, tmp_path):
    report = probe_speech(probing(made, tmp_path, max_cer=0.01), made[2])
    assert [probe.excluded is not None for probe in report.probes] == [True] * 4
    assert "is above 0.01" in report.probes[0].excluded
    assert report.info["excluded"][0] == {"cluster": 0, "reason": report.probes[0].excluded}
    assert any(
        "4 of 4 clusters are left out, 1 without a usable probe and 3 spoken too badly: 0, 1, 2 and 1 more" in sentence
        for sentence in report.info["warnings"]
    )


def test_speech_of_another_corpus_is_refused(made, tmp_path):
    texts = [text(f"other{i}", "words") for i in range(4)]
    _, others = clusters_on_disk(tmp_path, texts, [0, 0, 1, 1], 2)
    with pytest.raises(DataError, match=r"12 of 12 texts are in no cluster .*'u0'.*probe with --texts"):
        probe_speech(Probing(made[0], others, tmp_path / "out", threads=1), made[2])


def test_the_same_probe_is_the_same_to_the_byte(made, tmp_path):
    for name in ("one", "two"):
        probe_speech(probing(made, tmp_path / name), made[2])
    for name in ("probe.jsonl", "probes.jsonl", "items.parquet", "info.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_verb_prints_the_deafest_first(made, tmp_path):
    model, clusters, speech = map(str, made)
    arguments = ["probe", model, "--clusters", clusters, "--speech", speech, "--threads", "1", "--max-cer", "9"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "a"), "--score", "jsd"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["cluster", "M(c),", "nats", "entropy", "CER", "n", "jsd", "name"]
    values = [float(line.split()[1]) for line in lines[1:4]]
    assert values == sorted(values, reverse=True)
    assert "left out: no usable probe" in lines[4]
    assert "2 of 12 probe texts were not measured" in done.output
    told = json.loads(CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "b"), "--json"]).output)
    assert [row["cluster"] for row in told["clusters"]] == [0, 1, 2, 3]
    assert told["stability"]["misalignment"]["wanted"] == 0.9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --texts"),
        (["--texts", "a", "--speech", "b"], "give --texts"),
        (["--speech", "b", "--voice", "piper-joe"], "--voice speaks --texts"),
        (["--speech", "b", "--score", "kl"], "--score kl: choose among misalignment"),
    ],
)
def test_options_that_don_t_go_together_are_refused(made, tmp_path, options, said):
    arguments = ["probe", str(made[0]), "--clusters", str(made[1]), "--out", str(tmp_path), *options]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, RecipeError)
    assert said in str(done.exception)


def test_a_model_that_is_deaf_is_told(made, tmp_path):
    report = probe_speech(probing(made, tmp_path), made[2])
    same = [ItemDivergence(f"u{i}", 3.0, 1.0, 1.0, 4) for i in range(8)]
    items = read_items(tmp_path)
    reading = read_off(report.probes, items, HeardAndSwapped(same, same), 0)
    assert reading.hears is False
    assert "can't be shown to hear" in reading.warnings[0]


@pytest.fixture(scope="module")
def spoken_model(tmp_path_factory):
    return model_on_disk(tmp_path_factory.mktemp("model"), "log-mel", 80, 100.0)


@pytest.mark.slow
def test_texts_are_drawn_spoken_and_probed_and_a_larger_probe_goes_on(spoken_model, tmp_path):
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    plain = [word for word in tiny.WORDS if word.isalpha() and word.isascii()]
    texts = [text(f"t{i}", " ".join(plain[(i + j) % len(plain)] for j in range(8 + i % 3))) for i in range(24)]
    corpus, clusters = clusters_on_disk(tmp_path, texts, [i % 3 for i in range(22)] + [3, 3], 4)
    work = Probing(spoken_model, clusters, tmp_path / "out", threads=1, max_cer=9.0, seed=3)
    report = probe_texts(work, corpus, 3)
    assert [probe.num_probes for probe in report.probes] == [3, 3, 3, 2]
    assert any("fewer than 3 texts" in sentence for sentence in report.info["warnings"])
    probes = read_jsonl(tmp_path / "out" / "probes.jsonl")
    labels = [i % 3 for i in range(22)] + [3, 3]
    drawn = draw_probes(np.array(labels), 3, 3)
    assert [row["id"] for row in probes] == [f"t{row}" for own in drawn for row in own]
    assert probes[0]["licence"] == "CC0-1.0"
    assert TextCorpus(tmp_path / "out" / "probes.jsonl")[0].id == probes[0]["id"]
    audio = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/spoken/probe/audio").rglob("*.flac")}
    larger = probe_texts(work, corpus, 5)
    assert [probe.num_probes for probe in larger.probes] == [5, 5, 5, 2]
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/spoken/probe/audio").rglob("*.flac")}
    assert {name: now[name] for name in audio} == audio  # what was spoken stays
    assert {row["id"] for row in probes} <= {item.scores.item for item in read_items(tmp_path / "out")}


@pytest.mark.slow
def test_texts_that_were_not_clustered_are_refused(spoken_model, tmp_path):
    _, clusters = clusters_on_disk(tmp_path, [text(f"t{i}", "some words here") for i in range(4)], [0, 0, 1, 1], 2)
    (tmp_path / "more").mkdir()
    others, _ = clusters_on_disk(tmp_path / "more", [text("x", "other words")], [0], 1)
    with pytest.raises(DataError, match="another corpus"):
        probe_texts(Probing(spoken_model, clusters, tmp_path / "out", threads=1), others, 2)
