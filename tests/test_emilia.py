"""Emilia's two layouts, made of real speech: shards in, candidates and audio out; licences; what is wrong is listed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from real_speech import Spoken, prepared, split, spoken
from salad.errors import MissingFileError, RecipeError
from salad.speech.corpora import emilia
from salad.speech.intake import prepare_corpus
from salad.speech.prepared import read_cuts, read_info


def item(key: str, utterance: Spoken, **changes: Any) -> dict[str, bytes]:
    """The two members of an item, with the fields that Emilia's JSON has."""
    row = {
        "id": key,
        "wav": f"EN_B00000/EN_B00000_S00000/mp3/{key}.mp3",
        "text": f" {utterance.text}",
        "duration": utterance.duration_s,
        "speaker": key.rpartition("_W")[0],
        "language": "en",
        "dnsmos": 3.2927,
        "phone_count": 40,
    }
    return {f"{key}.json": json.dumps(row | changes).encode(), f"{key}.mp3": utterance.encoded("mp3")}


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def items(shared_data: Path) -> dict[str, bytes]:
    """Members of a shard: two items of Emilia, one of Emilia-YODAS."""
    lj = spoken(shared_data, "ljspeech_excerpt", 4)[1:]
    keys = ("EN_B00000_S00000_W000000", "EN_B00000_S00000_W000001", "EN_tKvmUvxYZXI_W000006")
    members: dict[str, bytes] = {}
    for key, utterance in zip(keys, lj, strict=True):
        members |= item(key, utterance)
    return members


def test_an_emilia_shard_keeps_its_audio_bytes(items: dict[str, bytes], shared_data: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "Emilia" / "EN" / "EN-B000000.tar", items)
    taken, rejected = split(emilia.candidates(tmp_path, tmp_path / "out"))
    assert not rejected
    assert list(taken) == ["EN_B00000_S00000_W000000", "EN_B00000_S00000_W000001", "EN_tKvmUvxYZXI_W000006"]
    first, _, yodas = taken.values()
    utterance = spoken(shared_data, "ljspeech_excerpt", 2)[1]
    assert (first.text, first.stated_duration_s, first.language) == (utterance.text, utterance.duration_s, "en")
    assert (first.speaker, first.document) == ("EN_B00000_S00000", "EN_B00000_S00000")
    assert first.custom == {"dnsmos": 3.2927, "phone_count": 40}
    assert (first.licence, first.source) == ("CC BY-NC 4.0", "Emilia")
    assert (yodas.licence, yodas.source, yodas.document) == ("CC BY 4.0", "Emilia-YODAS", "EN_tKvmUvxYZXI")
    for key, candidate in taken.items():
        assert candidate.audio == tmp_path / "out" / "audio" / "EN-B000000" / f"{key}.mp3"
        assert candidate.audio.read_bytes() == items[f"{key}.mp3"]


def test_emilia_audio_that_is_there_is_not_written_again(items: dict[str, bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "EN-B000000.tar", items)
    taken, _ = split(emilia.candidates(tmp_path, tmp_path / "out"))
    whole, cut_short = list(taken.values())[:2]
    written_ns = whole.audio.stat().st_mtime_ns
    cut_short.audio.write_bytes(b"")
    split(emilia.candidates(tmp_path, tmp_path / "out"))
    assert whole.audio.stat().st_mtime_ns == written_ns
    assert cut_short.audio.read_bytes() == items[f"{cut_short.id}.mp3"]


def test_emilia_yodas_refuses_what_may_not_be_used_commercially(items: dict[str, bytes], tmp_path: Path) -> None:
    yodas = {name: content for name, content in items.items() if name.startswith("EN_tK")}
    write_tar(tmp_path / "yodas" / "EN-B000000.tar", yodas)
    taken, _ = split(emilia.candidates(tmp_path / "yodas", tmp_path / "out", emilia.Wanted(yodas=True)))
    assert [candidate.licence for candidate in taken.values()] == ["CC BY 4.0"]
    write_tar(tmp_path / "all" / "EN-B000000.tar", items)
    with pytest.raises(RecipeError, match=r"W000000 is of Emilia \(CC BY-NC 4\.0\), not of Emilia-YODAS"):
        list(emilia.candidates(tmp_path / "all", tmp_path / "out", emilia.Wanted(yodas=True)))
    odd = {"odd.json": items["EN_tKvmUvxYZXI_W000006.json"], "odd.mp3": items["EN_tKvmUvxYZXI_W000006.mp3"]}
    write_tar(tmp_path / "odd" / "EN-B000000.tar", odd)
    assert split(emilia.candidates(tmp_path / "odd", tmp_path / "out"))[0]["odd"].licence == "CC BY-NC 4.0"


def test_emilia_can_be_narrowed_by_language_and_quality(
    items: dict[str, bytes], shared_data: Path, tmp_path: Path
) -> None:
    utterance = spoken(shared_data, "fsdd", 1)[0]
    low, german = "EN_B00000_S00001_W000000", "EN_B00000_S00001_W000001"
    write_tar(
        tmp_path / "EN" / "EN-B000000.tar",
        items | item(low, utterance, dnsmos=2.9) | item(german, utterance, language="de"),
    )
    write_tar(tmp_path / "DE" / "DE-B000000.tar", item("DE_B00000_S00000_W000000", utterance, language="de"))
    wanted = emilia.Wanted(language="en", min_dnsmos=3.0)
    taken, rejected = split(emilia.candidates(tmp_path, tmp_path / "out", wanted))
    assert len(taken) == 3
    assert rejected[low].reason == "low DNSMOS: 2.9, and at least 3.0 was asked for"
    assert rejected[german].reason == "another language: 'de', and 'en' was asked for"
    assert len(split(emilia.candidates(tmp_path, tmp_path / "out"))[0]) == 6
    with pytest.raises(MissingFileError, match=r"no shard of language 'fr' .*; found: DE, EN"):
        emilia.candidates(tmp_path, tmp_path / "out", emilia.Wanted(language="fr"))
    with pytest.raises(MissingFileError, match="found: no shard"):
        emilia.candidates(tmp_path / "out", tmp_path / "out")


def test_bad_members_of_an_emilia_shard_are_listed(items: dict[str, bytes], tmp_path: Path) -> None:
    names = list(items)
    members = {name: items[name] for name in (names[1], names[0])}  # audio first: either order will do
    members |= {"a.json": items[names[2]], "b.mp3": items[names[3]], "c.json": b"{", "c.mp3": items[names[3]]}
    members |= {"d.txt": b"", "e.json": b'{"text": 1}', "e.mp3": b"x", "f.json": b"[]", "f.mp3": b"x"}
    long = "l" * 200
    members |= {f"{long}.json": items[names[2]], f"{long}.mp3": items[names[3]]}
    write_tar(tmp_path / "EN-B000000.tar", members)
    taken, rejected = split(emilia.candidates(tmp_path / "EN-B000000.tar", tmp_path / "out"))
    assert list(taken) == ["EN_B00000_S00000_W000000"]
    assert rejected.pop(long).kind == "unfit id"
    reasons = {name: rejection.reason for name, rejection in rejected.items()}
    assert reasons["a"] == "missing audio: none stands beside it in its shard"
    assert reasons["b"] == "missing transcript: none stands beside it in its shard"
    assert "not readable as JSON" in reasons["c"]
    assert reasons["d"] == "unknown member: 'd.txt' is neither JSON nor audio"
    assert reasons["e"] == "missing transcript: 'text' must be a string, not 1"
    assert reasons["f"] == "broken item: not a JSON object but list"
    assert len(reasons) == 6
    assert [path.name for path in (tmp_path / "out").rglob("*.mp3")] == ["EN_B00000_S00000_W000000.mp3"]


@pytest.mark.parametrize("damage", ["cut in a member", "cut between members", "header", "no tar"])
def test_a_damaged_emilia_shard_does_not_end_silently(items: dict[str, bytes], tmp_path: Path, damage: str) -> None:
    shard = tmp_path / "EN-B000000.tar"
    write_tar(shard, items)
    with tarfile.open(shard) as archive:
        third = archive.getmembers()[2]
    content = bytearray(shard.read_bytes())
    if damage == "cut in a member":
        content = content[: third.offset_data + 10]
    elif damage == "cut between members":
        content = content[: third.offset]
    elif damage == "header":
        content[third.offset : third.offset + 512] = b"\x07" * 512
    else:
        content = bytearray(b"no tar " * 1000)
    shard.write_bytes(content)
    write_tar(tmp_path / "EN-B000001.tar", dict(list(items.items())[4:]))
    taken, rejected = split(emilia.candidates(tmp_path, tmp_path / "out"))
    expected = [] if damage == "no tar" else ["EN_B00000_S00000_W000000"]
    assert list(taken) == [*expected, "EN_tKvmUvxYZXI_W000006"]
    assert rejected["EN-B000000.tar"].kind == "damaged archive"
    assert len(rejected) == 1


def test_the_older_layout_of_emilia(items: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "EN"
    keys = ["EN_B00000_S00000_W000000", "EN_B00000_S00000_W000001"]
    for key in keys:
        audio = folder / json.loads(items[f"{key}.json"])["wav"]
        audio.parent.mkdir(parents=True, exist_ok=True)
        audio.write_bytes(items[f"{key}.mp3"])
    lines = [items[f"{key}.json"] for key in keys] + [b"{", b'{"id": "EN_B00000_S00000_W000009", "text": "a"}']
    (folder / "EN_B00000.jsonl").write_bytes(b"\n".join(lines))
    taken, rejected = split(emilia.candidates(tmp_path, tmp_path / "out"))
    assert list(taken) == keys
    assert all(candidate.audio.is_file() for candidate in taken.values())
    assert taken[keys[0]].place.endswith("EN_B00000.jsonl:1")
    assert "not readable as JSON" in rejected["line 3"].reason
    assert rejected["EN_B00000_S00000_W000009"].reason == "missing audio: 'wav' must be a path, not None"
    assert not (tmp_path / "out").exists()


def test_emilia_becomes_a_prepared_folder(items: dict[str, bytes], shared_data: Path, tmp_path: Path) -> None:
    utterance = spoken(shared_data, "ljspeech_excerpt", 1)[0]
    wrong, silent = "EN_B00000_S00002_W000000", "EN_B00000_S00002_W000001"
    more = item(wrong, utterance, duration=30.0) | item(silent, utterance) | item("EN_B00000_S00003_W0", utterance)
    more |= {f"{silent}.mp3": b"no audio", "EN_B00000_S00003_W0.json": items["EN_tKvmUvxYZXI_W000006.json"]}
    write_tar(tmp_path / "EN" / "EN-B000000.tar", items | more)
    write_tar(tmp_path / "EN" / "EN-B000001.tar", items)  # every id once more
    out = tmp_path / "out"
    summary = prepare_corpus(emilia.candidates(tmp_path / "EN", out), out, dict(emilia.INFO))
    assert summary.num_cuts == 3
    assert dict(summary.reasons) == {"duplicate id": 3, "wrong duration": 2, "not audio": 1}
    assert summary.licence == "CC BY 4.0; CC BY-NC 4.0"
    cuts = read_cuts(out)
    assert [cut.custom["dnsmos"] for cut in cuts] == [3.2927] * 3
    assert cuts[0].recording is not None
    assert cuts[0].recording.sources[0].source == str(out / "audio" / "EN-B000000" / "EN_B00000_S00000_W000000.mp3")
    assert read_info(out)["source"] == emilia.SOURCE


def test_the_command_wants_the_licence_accepted(items: dict[str, bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "EN" / "EN-B000000.tar", items)
    arguments = (tmp_path, "--language", "en", "--out", tmp_path / "out")
    with pytest.raises(RecipeError, match=r"CC BY-NC 4\.0.*--accept-licence"):
        prepared("emilia", *arguments)
    assert not (tmp_path / "out").exists()
    assert prepared("emilia", *arguments, "--accept-licence")["num_utterances"] == 3
    assert read_info(tmp_path / "out")["licence_accepted"] is True
    with pytest.raises(RecipeError, match="not of Emilia-YODAS"):
        prepared("emilia-yodas", tmp_path, "--out", tmp_path / "yodas")
