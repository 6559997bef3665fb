"""The store of features: sharded, resumable, shared by processes, read one utterance at a time or in Lhotse's way."""

import multiprocessing
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet

from salad.errors import AudioError, CheckpointError, DataError, MissingFileError, RecipeError
from salad.model import shard_plan
from salad.model.encode import encode_cuts, encode_in_processes
from salad.model.features import FeatureStore, encoder_folder, safe_file_name
from salad.speech.identity import id_hash
from salad.speech.prepared import read_cuts, write_prepared
from tiny_speech import Loudness, LoudnessCodes, cut_of, files_of, loudness, noise, prepared


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shard_plan, "CUTS_PER_SHARD", 4)


def test_features_are_kept_and_not_made_again(tmp_path):
    cuts = [
        cut_of(tmp_path / "f", "../odd id", 2.0),
        cut_of(tmp_path / "f", "../odd id", 2.0, 0.5, 1.0),
        cut_of(tmp_path / "f", "ü" * 120),  # longer than a plain tar header holds
    ]
    cuts[1].id = "part"
    write_prepared(tmp_path / "f", cuts, [], {})
    encoder, counts = Loudness(), []
    made = encode_cuts(tmp_path / "f", encoder, lambda *count: counts.append(count))
    again = encode_cuts(tmp_path / "f", encoder)
    assert encoder.num_encoded == made.num_new == 3
    assert again.num_new == 0
    assert counts == [(0, 3), (3, 3)]
    assert (made.num_cuts, made.num_encoded, made.num_frames, made.seconds) == (3, 3, 200, 4.0)
    assert made.num_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.tar"))
    assert made.bytes_per_hour == made.num_bytes * 900
    store = FeatureStore(tmp_path / "f", encoder.name)
    assert (len(store), store.feature_dim, store.frame_hz) == (3, 2, 50.0)
    whole, part = store.load("../odd id"), store.load("part")
    assert whole.dtype == np.float16
    assert np.abs(whole[:, 0] - loudness(noise(2.0, id_hash("../odd id")))).max() < 1e-3
    assert (whole[25:75] == part).all()
    assert (store.load("part", 10, 12) == part[10:12]).all()
    assert (store.load("part", 40) == part[40:]).all()
    assert store.load("part", 60, 70).shape == (0, 2)
    assert [store.num_frames(cut.id) for cut in cuts] == [100, 50, 50]


def test_what_was_not_encoded_is_named(tmp_path):
    prepared(tmp_path / "f", 2)
    with pytest.raises(MissingFileError, match=r"run 'salad encode .*/f --encoder a/loudness'"):
        FeatureStore(tmp_path / "f", Loudness.name)
    encode_cuts(tmp_path / "f", Loudness())
    store = FeatureStore(tmp_path / "f", Loudness.name)
    assert "c1" in store
    assert "c2" not in store
    with pytest.raises(MissingFileError, match="no features of 'c2'"):
        store.load("c2")
    with pytest.raises(MissingFileError, match="salad prepare"):
        encode_cuts(tmp_path / "nothing", Loudness())


def test_lhotse_reads_the_shards_as_shar(tmp_path, small_shards):
    cuts = prepared(tmp_path / "f", 10)
    encode_cuts(tmp_path / "f", Loudness())
    store = FeatureStore(tmp_path / "f", Loudness.name)
    shar = encoder_folder(tmp_path / "f", Loudness.name) / "shar"
    fields = {"cuts": sorted(shar.glob("cuts.*")), "enc": sorted(shar.glob("enc.*"))}
    assert [path.name for path in fields["enc"]] == ["enc.000000.tar", "enc.000001.tar", "enc.000002.tar"]
    for read in (CutSet.from_shar(in_dir=shar), CutSet.from_shar(fields=fields)):
        read = list(read)
        assert [cut.id for cut in read] == [cut.id for cut in cuts]
        for cut, ours in zip(read, cuts, strict=True):
            assert cut.supervisions[0].text == "x"
            assert cut.duration == ours.duration
            assert (cut.enc.load() == store.load(cut.id)).all()
            assert (cut.load_enc() == store.load(cut.id)).all()
            assert (cut.truncate(offset=0.1, duration=0.1).load_enc() == store.load(cut.id)[5:10]).all()


def test_codes_are_kept_and_read_back_as_features(tmp_path):
    cuts = prepared(tmp_path / "f", 3)
    encoder = LoudnessCodes()
    encode_cuts(tmp_path / "f", encoder)
    store = FeatureStore(tmp_path / "f", encoder.name)
    for cut in cuts:
        features = store.load(cut.id)
        assert features.dtype == np.float32
        assert (features == encoder.encode([cut.load_audio()[0]])[0]).all()
        assert (store.load(cut.id, 3, 9) == features[3:9]).all()
    assert len(np.unique(store.load("c0"))) > 4
    stored = next(iter(CutSet.from_shar(in_dir=store.where / "shar"))).enc.load()
    assert (stored.dtype, stored.shape) == (np.int16, (15, 2))


def test_float32_on_request_and_nothing_that_numpy_lacks(tmp_path):
    prepared(tmp_path / "f", 1)
    with pytest.raises(RecipeError, match="NumPy has no bfloat16"):
        encode_cuts(tmp_path / "f", Loudness(), dtype="bfloat16")
    with pytest.raises(DataError, match="--dtype float32"):
        encode_cuts(tmp_path / "f", Loudness(gain=1e6))
    with pytest.raises(DataError, match="not numbers"):
        encode_cuts(tmp_path / "f", Loudness(gain=np.nan))
    prepared(tmp_path / "g", 1)
    encode_cuts(tmp_path / "g", Loudness(gain=1e6), dtype="float32")
    assert FeatureStore(tmp_path / "g", Loudness.name).load("c0").max() > 65_504


def test_features_of_another_encoder_or_kept_otherwise_are_refused(tmp_path):
    prepared(tmp_path / "f", 1)
    encode_cuts(tmp_path / "f", Loudness())
    with pytest.raises(CheckpointError, match=r"fingerprint 1, not 2.*delete the folder"):
        encode_cuts(tmp_path / "f", Loudness("2"))
    with pytest.raises(CheckpointError, match="dtype float16, not float32"):
        encode_cuts(tmp_path / "f", Loudness(), dtype="float32")


def test_new_cuts_alone_are_encoded(tmp_path, small_shards):
    prepared(tmp_path / "f", 6)
    encoder = Loudness()
    encode_cuts(tmp_path / "f", encoder)
    before = files_of(tmp_path / "f")
    prepared(tmp_path / "f", 9)
    made = encode_cuts(tmp_path / "f", encoder)
    after = files_of(tmp_path / "f")
    assert encoder.num_encoded == 9
    assert (made.num_cuts, made.num_encoded, made.num_new) == (9, 9, 3)
    assert all(after[name] == content for name, content in before.items() if name.startswith(("shar/", "shards/")))
    assert len(FeatureStore(tmp_path / "f", encoder.name)) == 9


def test_a_cut_whose_audio_changed_is_encoded_again_and_never_taken_for_the_old_one(tmp_path, small_shards):
    cuts = prepared(tmp_path / "f", 8)
    encoder = Loudness()
    encode_cuts(tmp_path / "f", encoder)
    for changed in (cut_of(tmp_path / "f", "c1", 1.5), cut_of(tmp_path / "f", "c1", 1.5, 0.2, 0.6)):
        cuts[1] = changed
        write_prepared(tmp_path / "f", cuts, [], {})
        store = FeatureStore(tmp_path / "f", encoder.name)
        store.check(cuts[0])
        with pytest.raises(CheckpointError, match="'c1' are of other audio"):
            store.check(changed)
        encoder.num_encoded = 0
        made = encode_cuts(tmp_path / "f", encoder)
        assert encoder.num_encoded == made.num_new == 4  # the cuts of its shard
        store = FeatureStore(tmp_path / "f", encoder.name)
        store.check(changed)
        assert len(store) == len(list(CutSet.from_shar(in_dir=store.where / "shar"))) == 8
        assert store.num_frames("c1") == round(changed.duration * 50)
    cuts[0].supervisions[0].text = "said otherwise, heard the same"
    write_prepared(tmp_path / "f", cuts, [], {})
    assert encode_cuts(tmp_path / "f", encoder).num_new == 0


def test_a_folder_can_be_moved_with_its_audio(tmp_path):
    cuts = [cut_of(tmp_path / "f", "inside"), cut_of(tmp_path / "f", "outside")]
    write_prepared(tmp_path / "f", cuts, [], {})
    encode_cuts(tmp_path / "f", Loudness())
    (tmp_path / "f").rename(tmp_path / "g")
    store = FeatureStore(tmp_path / "g", Loudness.name)
    for cut in read_cuts(tmp_path / "g"):
        store.check(cut)
    assert encode_cuts(tmp_path / "g", Loudness()).num_new == 0
    next((tmp_path / "g").rglob("*.done.json")).unlink()
    assert encode_cuts(tmp_path / "g", Loudness()).num_new == 2


def test_cuts_that_are_gone_are_not_in_the_index(tmp_path, small_shards):
    cuts = prepared(tmp_path / "f", 8)
    encode_cuts(tmp_path / "f", Loudness())
    write_prepared(tmp_path / "f", cuts[:3], [], {})
    assert encode_cuts(tmp_path / "f", Loudness()).num_encoded == 3
    store = FeatureStore(tmp_path / "f", Loudness.name)
    assert len(store) == 3
    assert len(list((store.where / "shar").iterdir())) == 2  # the second shard holds nothing of the folder


def test_what_cannot_be_encoded_is_listed_and_the_rest_goes_on(tmp_path):
    cuts = [cut_of(tmp_path / "f", name) for name in ("good", "missing", "broken", "other")]
    cuts.insert(2, cut_of(tmp_path / "f", "short", 0.01))
    missing, broken = (Path(cuts[i].recording.sources[0].source) for i in (1, 3))
    whole = missing.read_bytes()
    missing.unlink()
    broken.write_bytes(b"no audio")
    write_prepared(tmp_path / "f", cuts, [], {})
    with pytest.raises(AudioError, match=r"'(missing|broken|short)' can't be encoded: "):
        encode_cuts(tmp_path / "f", Loudness(), strict=True)
    made = encode_cuts(tmp_path / "f", Loudness())
    assert (made.num_encoded, made.rejected_frac) == (2, 0.6)
    store = FeatureStore(tmp_path / "f", Loudness.name)
    assert store.rejected() == made.rejected
    assert [(row.id, row.place) for row in made.rejected][::2] == [("missing", str(missing)), ("broken", str(broken))]
    for row, reason in zip(
        made.rejected, (r"audio can't be read: .*exist", "can't take it: .*20 ms", "decoded"), strict=True
    ):
        assert re.search(reason, row.reason)
    assert encode_cuts(tmp_path / "f", Loudness()).num_new == 0
    missing.write_bytes(whole)  # found again: encoded in the next run
    assert encode_cuts(tmp_path / "f", Loudness()).num_encoded == 3
    assert "missing" in FeatureStore(tmp_path / "f", Loudness.name)


def test_a_folder_of_which_nothing_can_be_encoded(tmp_path):
    write_prepared(tmp_path / "f", [cut_of(tmp_path / "f", "short", 0.01)], [], {})
    assert encode_cuts(tmp_path / "f", Loudness()).rejected_frac == 1.0
    assert encode_cuts(tmp_path / "f", Loudness()).num_new == 0
    assert len(FeatureStore(tmp_path / "f", Loudness.name)) == 0


def test_ids_must_differ(tmp_path):
    cuts = prepared(tmp_path / "f", 2)
    CutSet.from_cuts([*cuts, cuts[0]]).to_file(tmp_path / "f" / "cuts.jsonl.gz")
    with pytest.raises(DataError, match="'c0' and 'c0' can't be told apart"):
        encode_cuts(tmp_path / "f", Loudness())


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_damaged_shard_is_named_and_made_again(tmp_path, damage, small_shards):
    prepared(tmp_path / "f", 6)
    encode_cuts(tmp_path / "f", Loudness())
    before = files_of(tmp_path / "f")
    tar = encoder_folder(tmp_path / "f", Loudness.name) / "shar" / "enc.000001.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    if damage == "gone":
        tar.unlink()
    store = FeatureStore(tmp_path / "f", Loudness.name)
    assert store.load("c0").shape[1] == 2
    with pytest.raises(CheckpointError, match=r"enc.000001.tar .*salad encode"):
        store.load("c5")
    assert encode_cuts(tmp_path / "f", Loudness()).num_new == 2
    assert files_of(tmp_path / "f") == before


def test_the_store_goes_to_other_processes(tmp_path):
    prepared(tmp_path / "f", 3)
    encode_cuts(tmp_path / "f", Loudness())
    store = FeatureStore(tmp_path / "f", Loudness.name)
    expected = store.load("c1")  # its shard is open now
    sent = pickle.dumps(store)
    assert len(sent) < 500
    assert (pickle.loads(sent).load("c1") == expected).all()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all((features == expected).all() for features in pool.map(store.load, ["c1"] * 20))
        assert (store.load("c1") == expected).all()


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_plan, "CUTS_PER_SHARD", 1)
    monkeypatch.setattr("salad.model.features._OPEN_SHARDS", 2)
    cuts = prepared(tmp_path / "f", 6)
    encode_cuts(tmp_path / "f", Loudness())
    store = FeatureStore(tmp_path / "f", Loudness.name)
    held = [store.load(cut.id) for cut in [*cuts, *cuts]]
    assert store._file.cache_info().currsize == 2
    assert all((array == store.load(cut.id)).all() for array, cut in zip(held, [*cuts, *cuts], strict=True))


def test_safe_names_stay_apart():
    assert safe_file_name("LJ001-0001.x") == "LJ001-0001.x"
    odd = ["a/b", "a\\b", "a b", "..", ".", "", "ü", "x" * 300, "x" * 301]
    names = {safe_file_name(name) for name in odd}
    assert len(names) == len(odd)
    assert all("/" not in name and not name.startswith(".") and len(name) < 130 for name in names)


def test_several_worker_processes_make_what_one_makes(tmp_path, small_shards):
    cuts = prepared(tmp_path / "one", 10)
    write_prepared(tmp_path / "two", cuts, [], {})
    encode_cuts(tmp_path / "one", Loudness())
    counts = []
    made = encode_in_processes(tmp_path / "two", Loudness, Loudness.name, 2, lambda *count: counts.append(count))
    assert made.num_new == 10
    assert (counts[0], counts[-1]) == ((0, 10), (10, 10))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
