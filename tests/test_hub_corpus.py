"""Hugging Face audio datasets: local ones in every layout, and one streamed from a hub on loopback; resuming."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopback_hub import COMMIT, serve
from real_speech import Spoken, prepared, split, spoken
from salad.errors import AssetError, DataError, RecipeError
from salad.speech.candidate import Candidate
from salad.speech.corpora import hub
from salad.speech.corpora.hub import HubDataset, candidates, is_non_commercial, licence_of
from salad.speech.intake import prepare_corpus
from salad.speech.prepared import read_cuts, read_info, text_of


@pytest.fixture
def digits(shared_data: Path) -> list[Spoken]:
    return spoken(shared_data, "fsdd", 6)


def write_parquet(
    folder: Path, utterances: list[Spoken], rows_a_shard: int, audio_format: str = "flac"
) -> dict[str, bytes]:
    """Shards as the hub has them: audio as bytes, of the type that `datasets` calls Audio; returns the bytes by id."""
    from datasets import Audio, Features, Value

    folder.mkdir()
    features = Features({"id": Value("string"), "audio": Audio(), "text": Value("string"), "speaker": Value("string")})
    encoded = {each.id: each.encoded(audio_format) for each in utterances}  # an Ogg file has a random serial number
    num_shards = -(-len(utterances) // rows_a_shard)
    for shard in range(num_shards):
        part = utterances[shard * rows_a_shard :][:rows_a_shard]
        audio = [{"bytes": encoded[each.id], "path": f"{each.id}.{audio_format}"} for each in part]
        columns = {name: [getattr(each, name) for each in part] for name in ("id", "text", "speaker")}
        table = pa.table({**columns, "audio": audio}).select(list(features)).cast(features.arrow_schema)
        pq.write_table(table, folder / f"train-{shard:05d}-of-{num_shards:05d}.parquet")
    return encoded


@pytest.mark.parametrize("audio_format", ["flac", "mp3", "opus"])
def test_bytes_of_a_parquet_dataset_are_kept(tmp_path: Path, digits: list[Spoken], audio_format: str) -> None:
    encoded = write_parquet(tmp_path / "digits", digits, 3, audio_format)
    taken, rejected = split(candidates(HubDataset(str(tmp_path / "digits")), tmp_path / "out"))
    assert not rejected
    assert list(taken) == [utterance.id for utterance in digits]
    for number, (candidate, utterance) in enumerate(zip(taken.values(), digits, strict=True)):
        assert (candidate.text, candidate.speaker) == (utterance.text, utterance.speaker)
        assert candidate.place == f"{tmp_path / 'digits'}/train row {number}"
        assert candidate.audio == tmp_path / "out" / "audio" / "000000" / f"{number:09d}.{audio_format}"
        assert candidate.audio.read_bytes() == encoded[utterance.id]


def test_an_audio_folder_leaves_its_files_where_they_are(tmp_path: Path, digits: list[Spoken]) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "sentence", "client_id"])
        for utterance in digits:
            (folder / f"{utterance.id}.flac").write_bytes(utterance.path.read_bytes())
            rows.writerow([f"{utterance.id}.flac", utterance.text, utterance.speaker])
    dataset = HubDataset(str(folder), text_column="sentence", language="en")
    taken, rejected = split(candidates(dataset, tmp_path / "out"))
    assert not rejected
    assert [candidate.audio for candidate in taken.values()] == [folder / f"{each.id}.flac" for each in digits]
    assert [candidate.text for candidate in taken.values()] == [utterance.text for utterance in digits]
    assert next(iter(taken)) == "train-00000000"
    assert {candidate.language for candidate in taken.values()} == {"en"}
    assert taken["train-00000000"].speaker == digits[0].speaker
    assert not (tmp_path / "out" / "audio").exists()


def test_tars_and_columns_inside_columns(tmp_path: Path, digits: list[Spoken]) -> None:
    (tmp_path / "digits").mkdir()
    with tarfile.open(tmp_path / "digits" / "train-000.tar", "w") as archive:
        for utterance in digits:
            row = {"text": utterance.text, "speaker": utterance.speaker}
            for name, content in (("json", json.dumps(row).encode()), ("mp3", utterance.encoded("mp3"))):
                info = tarfile.TarInfo(f"{utterance.id}.{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    dataset = HubDataset(
        str(tmp_path / "digits"),
        audio_column="mp3",
        text_column="json.text",
        speaker_column="json.speaker",
        id_column="__key__",
    )
    taken, rejected = split(candidates(dataset, tmp_path / "out"))
    assert not rejected
    assert [(key, item.text, item.speaker) for key, item in taken.items()] == [
        (utterance.id, utterance.text, utterance.speaker) for utterance in digits
    ]
    assert taken[digits[0].id].audio.read_bytes() == digits[0].encoded("mp3")


def test_rows_that_can_not_be_used_are_listed(tmp_path: Path, digits: list[Spoken]) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    rows = [
        {"id": "a/1", "audio": str(digits[0].path), "text": "zero"},
        {"id": "none", "audio": str(folder / "none.flac"), "text": "zero"},
        {"id": "null", "audio": None, "text": "zero"},
        {"id": "no-path", "audio": "word " * 1000, "text": "zero"},
        {"id": "textless", "audio": str(digits[0].path), "text": None},
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken, rejected = split(candidates(HubDataset(str(folder)), tmp_path / "out"))
    assert list(taken) == ["a--1"]
    assert {name: item.reason for name, item in rejected.items()} == {
        "none": f"missing file: {folder / 'none.flac'} does not exist",
        "null": "missing audio: 'audio' holds neither bytes nor the path of a file",
        "no-path": f"missing file: {'word ' * 16!r}… (File name too long)",
        "textless": "missing transcript: 'text' must be a string, not None",
    }
    assert rejected["none"].place == f"{folder}/train row 1"


def test_a_dataset_becomes_a_prepared_folder(tmp_path: Path, digits: list[Spoken]) -> None:
    write_parquet(tmp_path / "digits", digits, 3, "opus")
    (tmp_path / "digits" / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n")
    dataset, out = HubDataset(str(tmp_path / "digits")), tmp_path / "out"
    summary = prepare_corpus(candidates(dataset, out, None, licence_of(dataset)), out, {"corpus": "digits"})
    assert (summary.num_cuts, summary.num_rejected, summary.licence) == (6, 0, "cc-by-sa-4.0")
    for cut, utterance in zip(read_cuts(out), digits, strict=True):
        assert cut.duration == pytest.approx(utterance.duration_s, abs=0.1)
        assert (text_of(cut), cut.supervisions[0].speaker) == (utterance.text, utterance.speaker)
        assert cut.custom["source"] == str(tmp_path / "digits")


def test_the_command_prepares_a_dataset(tmp_path: Path, digits: list[Spoken]) -> None:
    write_parquet(tmp_path / "digits", digits, 3)
    (tmp_path / "digits" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    arguments = ("hub", "--name", tmp_path / "digits", "--limit", "4", "--out", tmp_path / "out")
    with pytest.raises(RecipeError, match=r"cc-by-nc-4\.0.*--accept-licence"):
        prepared(*arguments)
    told = prepared(*arguments, "--accept-licence")
    assert (told["num_utterances"], told["licence"]) == (4, "cc-by-nc-4.0")
    assert read_info(tmp_path / "out")["licence_accepted"] is True


def test_what_a_dataset_lacks_is_said(tmp_path: Path, digits: list[Spoken]) -> None:
    write_parquet(tmp_path / "digits", digits, 3)
    name = str(tmp_path / "digits")
    with pytest.raises(RecipeError, match=r"no column 'sentence'; choose id, audio, text, speaker \(--text-column\)"):
        list(candidates(HubDataset(name, text_column="sentence"), tmp_path / "a"))
    with pytest.raises(RecipeError, match="test"):
        list(candidates(HubDataset(name, split="test"), tmp_path / "b"))
    with pytest.raises(AssetError, match="no-such"):
        list(candidates(HubDataset("no/no-such"), tmp_path / "c"))


def test_a_limit_can_be_raised_and_a_stopped_run_goes_on(
    tmp_path: Path, digits: list[Spoken], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ROWS_BETWEEN_COMMITS", 2)
    write_parquet(tmp_path / "digits", digits, 2)
    dataset = HubDataset(str(tmp_path / "digits"))
    whole = list(candidates(dataset, tmp_path / "whole"))
    out = tmp_path / "out"
    assert list(split(candidates(dataset, out, limit=1))[0]) == [digits[0].id]
    for stop_after in (2, 4):  # in the middle of a shard, with rows that are not committed; at a shard's end
        stopped = candidates(dataset, out)
        assert len([next(stopped) for _ in range(stop_after)]) == stop_after
        stopped.close()  # type: ignore[attr-defined]
        assert json.loads((out / "hub" / "state.json").read_text())["num_rows"] < 6
    gone_on = list(candidates(dataset, out))
    assert [item.id for item in gone_on] == [item.id for item in whole] == [utterance.id for utterance in digits]
    for item, expected in zip(gone_on, whole, strict=True):
        assert isinstance(item, Candidate)
        assert isinstance(expected, Candidate)
        assert item.audio.read_bytes() == expected.audio.read_bytes()
    assert (out / "hub" / "rows.jsonl").read_bytes() == (tmp_path / "whole" / "hub" / "rows.jsonl").read_bytes()
    (tmp_path / "digits").rename(tmp_path / "gone")  # all is read: the dataset is not needed any more
    (tmp_path / "digits").mkdir()
    assert list(candidates(dataset, out)) == gone_on
    assert len(list(candidates(dataset, out, limit=4))) == 4


def test_a_folder_of_another_dataset_is_not_gone_on_with(tmp_path: Path, digits: list[Spoken]) -> None:
    write_parquet(tmp_path / "digits", digits, 3)
    list(candidates(HubDataset(str(tmp_path / "digits")), tmp_path / "out", limit=2))
    with pytest.raises(RecipeError, match="was begun with text_column 'text', not with text_column 'id'"):
        candidates(HubDataset(str(tmp_path / "digits"), text_column="id"), tmp_path / "out")
    (tmp_path / "out" / "hub" / "rows.jsonl").write_text("")
    with pytest.raises(DataError, match="has lost rows"):
        list(candidates(HubDataset(str(tmp_path / "digits")), tmp_path / "out"))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: cc-by-4.0\n---\n# A card\n", "cc-by-4.0"),
        ("---\nlicense:\n- cc-by-4.0\n- mit\n---\n", "cc-by-4.0, mit"),
        ("---\nlanguage: en\n---\n", "not stated"),
        ("# no front matter\n", "not stated"),
        ("---\nlicense: [\n---\n", "not stated"),
        (None, "not stated"),
    ],
)
def test_the_licence_is_the_cards(tmp_path: Path, card: str | None, expected: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(HubDataset(str(tmp_path))) == expected


def test_non_commercial_licences_are_known() -> None:
    assert all(is_non_commercial(licence) for licence in ("cc-by-nc-4.0", "CC BY-NC-SA 3.0", "mit, cc-by-nc-nd-4.0"))
    assert not any(is_non_commercial(licence) for licence in ("cc-by-4.0", "ncsa", "not stated", "cc0-1.0"))


STREAM = """
import json, sys
from pathlib import Path
from salad.speech.corpora import hub

hub.ROWS_BETWEEN_COMMITS = 2
dataset = hub.HubDataset("org/digits")
items = hub.candidates(dataset, Path(sys.argv[1]), int(sys.argv[2]) or None, hub.licence_of(dataset))
print(json.dumps([[item.id, item.licence, item.source, str(item.audio)] for item in items]))
"""


def test_a_stream_from_a_hub_goes_on_without_the_shards_that_are_done(tmp_path: Path, digits: list[Spoken]) -> None:
    encoded = write_parquet(tmp_path / "digits", digits, 2)
    (tmp_path / "digits" / "README.md").write_text("---\nlicense: cc-by-sa-4.0\n---\n# Digits\n")
    first, second, third = (f"train-{number:05d}-of-00003.parquet" for number in range(3))
    out = tmp_path / "out"
    with serve(tmp_path / "digits", "org/digits") as served:
        environment = {**os.environ, **served.environment, "HF_HOME": str(tmp_path / "cache")}

        def stream(limit: int) -> list[list[str]]:
            served.requests.clear()
            command = [sys.executable, "-c", STREAM, str(out), str(limit)]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, run.stderr
            rows: list[list[str]] = json.loads(run.stdout)
            return rows

        assert [row[0] for row in stream(5)] == [utterance.id for utterance in digits[:5]]
        assert [served.files_fetched().count(shard) > 0 for shard in (first, second, third)] == [True, True, True]
        items = stream(0)
        # `datasets` asks the first shard for its columns; the second was done.
        assert [served.files_fetched().count(shard) for shard in (first, second, third)] == [1, 0, 1]
        assert f"GET /datasets/org/digits/resolve/{COMMIT}/{third}" in served.requests
        assert stream(0) == items
        assert set(served.files_fetched()) <= {"README.md"}  # all rows are in the journal
    assert [row[0] for row in items] == [utterance.id for utterance in digits]
    assert {row[1] for row in items} == {"cc-by-sa-4.0"}
    assert {row[2] for row in items} == {"https://huggingface.co/datasets/org/digits"}
    assert [Path(row[3]).read_bytes() for row in items] == list(encoded.values())
