"""What lies in salad's cache and in a run folder, by part, with its size. Nothing is changed, no link is followed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from salad.asset_table import ASSETS
from salad.assets import cache_dir
from salad.disk import disk_use
from salad.errors import DataError, MissingFileError
from salad.marks import Mark


@dataclass(frozen=True)
class PartOf:
    """A kind of thing that can be deleted: how it comes back, and the steps of a run that are then to be done again."""

    name: str
    again: str
    patterns: tuple[str, ...]
    steps: tuple[str, ...] = ()
    inside: str = ""
    """The part that holds this one: deleted with it."""


CACHE_PARTS = (
    PartOf("assets", "fetched again when it is named", ("assets/*",)),
    PartOf("converted", "converted again from the asset, in half a minute", ("converted/*-float32",)),
    PartOf("derived", "indexes; made again when they are read", ("derived/*",)),
    PartOf("transcripts", "recognized again by the ASR of the cascade", ("transcripts/*",)),
    PartOf("hashes", "files are hashed again", ("hashes/*",)),
    PartOf("leftovers", "what killed processes left half-written", ("*/.tmp-*", "*/.old-*", "*/*/.tmp-*")),
)
"""Under `cache_dir()`. Names inside are checked by `_OURS`: a cache that was put into a used folder loses nothing."""
_OURS = {
    "assets": re.compile("|".join(map(re.escape, ASSETS))),
    "derived": re.compile(r"[0-9a-f]{24}"),
    "transcripts": re.compile(r"[0-9a-f]{32}"),
    "hashes": re.compile(r"[0-9a-f]{32}\.json"),
}

RUN_PARTS = (
    PartOf(
        "checkpoints",
        "of stages that are done; none of them is needed",
        ("stage_*/checkpoints/step-*", "stage_*/checkpoints/damaged-step-*"),
        inside="model",
    ),
    PartOf(
        "features",
        "encoded again by 'salad run'",
        ("aligned/*/features", "spoken/*/features"),
        ("encode", "speak", "synthesize"),
        inside="speech",
    ),
    PartOf(
        "speech",
        "prepared, aligned and spoken again by 'salad run'",
        ("human", "aligned", "human_split.json", "spoken"),
        ("prepare", "align", "encode", "speak", "synthesize"),
    ),
    PartOf(
        "texts",
        "split, clustered, probed and selected again by 'salad run'",
        ("texts", "clusters", "probe", "selected"),
        ("prepare", "embed", "cluster", "probe", "probe_two", "select"),
    ),
    PartOf("set_aside", "what was trained for an earlier recipe; gone for good", ("set_aside",)),
    PartOf("leftovers", "what killed processes left half-written", (".tmp-*", ".old-*", "*/.tmp-*", "*/.old-*")),
    PartOf(
        "model",
        "trained again by 'salad run'",
        ("stage_one", "stage_two", "stage_two_uniform", "stage_three"),
        ("stage_one", "stage_two", "stage_two_uniform", "stage_three"),
    ),
    PartOf(
        "results",
        "measured again by 'salad run'",
        ("measured", "results.json", "report.html"),
        ("measure_one", "measure_two", "measure_three", "report"),
    ),
)
RUN_ITSELF = ("recipe.yaml", "steps", ".lock")
"""What makes a folder a run; goes last, when all else goes."""
DEFAULT_KEEP = ("model", "results")


@dataclass(frozen=True)
class Found:
    """What there is of one part: its paths, the bytes they take on the disk, and how many files."""

    part: PartOf
    paths: tuple[Path, ...]
    num_bytes: int
    num_files: int


@dataclass(frozen=True)
class Place:
    """A cache or a run folder; `foreign` are names in it that are not salad's, and stay."""

    kind: str
    where: Path
    found: tuple[Found, ...]
    foreign: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def num_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(one.num_bytes for one in self.found)


def cache_place() -> Place:
    """What lies in salad's cache."""
    where = cache_dir()
    paths = {part.name: sorted(path for path in _matches(where, part) if _ours(part, path)) for part in CACHE_PARTS}
    known = {pattern.split("/")[0] for part in CACHE_PARTS for pattern in part.patterns}
    foreign = sorted(entry.name for entry in where.iterdir() if entry.name not in known) if where.is_dir() else []
    return Place("cache", where, tuple(_measured(CACHE_PARTS, paths)), tuple(foreign))


def run_place(where: Path) -> Place:
    """What lies in a run folder.

    Raises:
        MissingFileError: there is no such folder.
        DataError: it is a link, or no run's folder.
    """
    if where.is_symlink():
        raise DataError(f"{where} is a link to {where.resolve()}; name the folder itself, links are not followed.")
    if not where.is_dir():
        raise MissingFileError(f"{where} is no folder; name a run's, such as runs/demo, or cache.")
    if not (where / "recipe.yaml").is_file() or not (where / "steps").is_dir():
        raise DataError(f"{where} is no run of salad (it has no recipe.yaml and steps/); delete it yourself.")
    paths = {part.name: sorted(_matches(where, part)) for part in RUN_PARTS}
    under_way = [path for path in paths["checkpoints"] if not _is_done(where, path)]
    paths["checkpoints"] = [path for path in paths["checkpoints"] if path not in under_way]
    stages = sorted({path.relative_to(where).parts[0] for path in under_way})
    known = {name for part in RUN_PARTS for name in part.patterns if "/" not in name} | set(RUN_ITSELF)
    foreign = [e.name for e in where.iterdir() if e.name not in known and not e.name.startswith((".tmp-", ".old-"))]
    notes = tuple(f"{stage} is not done: 'salad run' goes on from its checkpoints, which are kept" for stage in stages)
    return Place("run", where, tuple(_measured(RUN_PARTS, paths)), tuple(sorted(foreign)), notes)


def runs_here(folder: Path) -> Iterator[Path]:
    """The run folders in a folder."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if not path.is_symlink() and (path / "recipe.yaml").is_file() and (path / "steps").is_dir():
                yield path


def _matches(where: Path, part: PartOf) -> Iterator[Path]:
    """The paths of a part that are reached without a link."""
    for pattern in part.patterns:
        for path in where.glob(pattern):
            between = path.relative_to(where).parents
            if not any((where / parent).is_symlink() for parent in between if parent != Path()):
                yield path


def _ours(part: PartOf, path: Path) -> bool:
    pattern = _OURS.get(part.name)
    if pattern is None:
        return path.relative_to(cache_dir()).parts[0] in {p.name for p in CACHE_PARTS}
    return pattern.fullmatch(path.name) is not None


def _measured(parts: Iterable[PartOf], paths: dict[str, list[Path]]) -> Iterator[Found]:
    inner = {part.inside: part.name for part in parts if part.inside}
    for part in parts:
        if not paths[part.name]:
            continue
        num_bytes, num_files = disk_use(paths[part.name])
        if part.name in inner:
            less_bytes, less_files = disk_use(paths[inner[part.name]])
            num_bytes, num_files = num_bytes - less_bytes, num_files - less_files
        yield Found(part, tuple(paths[part.name]), num_bytes, num_files)


def _is_done(where: Path, checkpoint: Path) -> bool:
    stage = checkpoint.relative_to(where).parts[0]
    return Mark(where / "steps", stage).path.is_file()
