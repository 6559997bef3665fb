"""What a check of speech leaves in a prepared folder, and how it is read: quality.parquet, refused.jsonl, the cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salad.errors import DataError, MissingFileError
from salad.files import open_atomic, read_jsonl, write_json, write_jsonl
from salad.recipe.synthesis import QualitySettings
from salad.speech.prepared import CUTS_NAME, REFUSED_NAME, cut_line, cuts_file, gzip_writer, read_info, stream_cuts

if TYPE_CHECKING:
    from lhotse import MonoCut

QUALITY_NAME = "quality.parquet"


@dataclass(frozen=True)
class Quality:
    """One utterance: its numbers, None where there is nothing to measure, and why it is refused, none if it is not.

    `cer`, `repeated_words`: of what the ASR heard, `hypothesis`. `seconds_per_character` from the first sound to the
    last. The others as in `quality_sound.Sound`. A reason reads "kind: number and threshold".
    """

    id: str
    text: str
    audio: str
    hypothesis: str | None = None
    cer: float | None = None
    repeated_words: int | None = None
    seconds: float | None = None
    seconds_per_character: float | None = None
    silence_frac: float | None = None
    max_pause_s: float | None = None
    clipped_frac: float | None = None
    end_db: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def kinds(self) -> list[str]:
        """What is wrong with it, without the numbers."""
        return [reason.partition(": ")[0] for reason in self.reasons]


def read_quality(folder: Path) -> Mapping[str, Quality]:
    """The numbers of every utterance that was checked, those that were refused too, by id, in the folder's order.

    Raises:
        MissingFileError: the folder was not checked.
        DataError: its quality.parquet can't be read.
    """
    import pyarrow
    from pyarrow import parquet

    path = folder / QUALITY_NAME
    if not path.is_file():
        raise MissingFileError(f"{folder} holds no {QUALITY_NAME}; make it with 'salad check {folder}'.")
    try:
        rows = parquet.read_table(path, columns=[field.name for field in fields(Quality)]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read ({error}); make it again with 'salad check {folder}'.") from error
    return {row["id"]: Quality(**{**row, "reasons": tuple(row["reasons"])}) for row in rows}


def read_refused(folder: Path) -> list[dict[str, Any]]:
    """The rows of refused.jsonl; none where nothing was refused."""
    path = folder / REFUSED_NAME
    return read_jsonl(path) if path.is_file() else []


def all_cuts(folder: Path) -> Iterator[MonoCut]:
    """The cuts that passed and those that were refused, in the order in which they were first there.

    Raises:
        MissingFileError: the folder was never prepared.
    """
    cuts_file(folder)
    refused = sorted(read_refused(folder), key=lambda row: row["number"])
    if not refused:
        yield from stream_cuts(folder)
        return
    ids = [cut.id for cut in stream_cuts(folder)]
    there = set(ids)  # a kill between two writes leaves a cut in both
    refused = [row for row in refused if row["id"] not in there]
    numbers = {name: number for number, name in enumerate(_earlier_ids(folder))}
    for cut in stream_cuts(folder):
        while refused and refused[0]["number"] < numbers.get(cut.id, len(numbers)):
            yield _cut_of(refused.pop(0), folder)
        yield cut
    yield from (_cut_of(row, folder) for row in refused)


def write_checked(folder: Path, rows: list[Quality]) -> int:
    """Write what was found: at every moment, cuts and refused cuts together are all there are.

    Returns:
        How many had been refused and are taken back.
    """
    refused = {row.id: (number, row) for number, row in enumerate(rows) if row.reasons}
    earlier = {row["id"]: row for row in read_refused(folder)}
    now = {}
    for cut in all_cuts(folder):
        if cut.id in refused:
            number, row = refused[cut.id]
            now[cut.id] = {**asdict(row), "number": number, "cut": json.loads(cut_line(cut, folder))}
    accepted = {row.id for row in rows if not row.reasons}
    there = {cut.id for cut in stream_cuts(folder)}
    kept = [cut for cut in all_cuts(folder) if cut.id in accepted] if there != accepted else []
    _write_quality(folder / QUALITY_NAME, rows)  # first, for it has the order of all
    if there != accepted:
        write_jsonl(folder / REFUSED_NAME, [*{**earlier, **now}.values()])
        with open_atomic(folder / CUTS_NAME) as file, gzip_writer(file) as zipped:
            for cut in kept:
                zipped.write(cut_line(cut, folder))
    write_jsonl(folder / REFUSED_NAME, [*now.values()])
    return len(accepted - there)


def note_check(folder: Path, asr: str | None, settings: QualitySettings, report: dict[str, Any]) -> None:
    """Have info.json say what was checked, and so the data bill."""
    known = {"asr": asr, "thresholds": settings.model_dump(mode="json"), **report}
    write_json(folder / "info.json", {**read_info(folder), "quality": known})


def _earlier_ids(folder: Path) -> list[str]:
    return list(read_quality(folder)) if (folder / QUALITY_NAME).is_file() else []


def _cut_of(row: dict[str, Any], folder: Path) -> MonoCut:
    """The cut of a refused row; its recording named by an absolute path, as `stream_cuts` does."""
    from lhotse import MonoCut as Cut

    cut: MonoCut = Cut.from_dict(row["cut"])
    for source in cut.recording.sources if cut.recording is not None else ():
        if source.type == "file":
            source.source = str(folder.resolve() / source.source)
    return cut


def _write_quality(path: Path, rows: list[Quality]) -> None:
    import pyarrow
    from pyarrow import parquet

    kinds = {"str": pyarrow.string(), "int": pyarrow.int32(), "float": pyarrow.float64()}
    kinds["tuple[str,"] = pyarrow.list_(pyarrow.string())
    columns = [(field.name, kinds[str(field.type).partition(" ")[0]]) for field in fields(Quality)]
    told = [{**asdict(row), "refused": bool(row.reasons)} for row in rows]
    with open_atomic(path) as file:
        schema = pyarrow.schema([*columns, ("refused", pyarrow.bool_())])
        parquet.write_table(pyarrow.Table.from_pylist(told, schema), file)
