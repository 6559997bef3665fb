"""Which spoken tasks 'salad measure' measures: those that are there, or those it speaks itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from salad.errors import DataError, RecipeError
from salad.files import check_items_file

if TYPE_CHECKING:
    from salad.display import Bar
    from salad.measure.tasks.item import Item
    from salad.measure.tasks.spoken import SpokenTask


def spoken_tasks(folders: list[Path], names: str | None) -> dict[str, SpokenTask]:
    """The spoken tasks by name.

    Raises:
        RecipeError: none, two of a name, or one that was asked for is not there.
    """
    from salad.measure.tasks.spoken import SpokenTask

    places = [
        place
        for folder in folders
        for place in (
            [folder] if (folder / "info.json").is_file() else sorted(p.parent for p in folder.glob("*/info.json"))
        )
    ]
    found: dict[str, SpokenTask] = {}
    wanted = None if names is None else [name.strip() for name in names.split(",")]
    for place in places:
        task = SpokenTask.read(place)
        if wanted is not None and task.name not in wanted:
            continue
        if task.name in found:
            raise RecipeError(f"{place} and {found[task.name].folder} both hold {task.name}; measure one at a time.")
        found[task.name] = task
    lacking = sorted({*(wanted or [])} - found.keys())
    if lacking or not found:
        what = f"holds no {', '.join(lacking)}" if lacking else "holds no spoken task"
        raise RecipeError(f"{', '.join(map(str, folders))} {what}; make one with 'salad speak TASK --out DIR'.")
    return found


def item_files(given: list[str], names: str | None) -> dict[str, Path]:
    """TASK=FILE by task.

    Raises:
        RecipeError: it is not of that form, or of no task that is asked for.
        MissingFileError: a file is not there.
    """
    wanted = [name.strip() for name in (names or "").split(",")]
    found: dict[str, Path] = {}
    for one in given:
        name, equals, file = one.partition("=")
        if not equals and len(wanted) == 1:
            name, file = wanted[0], one
        elif not equals or name not in wanted:
            raise RecipeError(f"--items {one}: write it as TASK=FILE, with one of --tasks {names}.")
        found[name] = Path(file)
        check_items_file(found[name])
    return found


def speak_here(
    names: str, files: dict[str, Path], voices: list[str] | None, out: Path, limit: int | None, processes: int
) -> dict[str, tuple[SpokenTask, Sequence[Item]]]:
    """Tasks spoken into OUT/spoken/TASK, by name, each with all its items, of which the first `limit` are spoken.

    What is there already is not spoken again: with a higher limit the folder grows, with a lower one it stays.
    """
    from salad.display import bar
    from salad.measure.tasks import task
    from salad.measure.tasks.hub import load_task_items
    from salad.measure.tasks.item import read_items
    from salad.measure.tasks.speaking import speak_task
    from salad.measure.tasks.spoken import SpokenTask, read_spoken_items

    found: dict[str, tuple[SpokenTask, Sequence[Item]]] = {}
    for name in dict.fromkeys(part.strip() for part in names.split(",")):
        asked = task(name)
        items = read_items(files[name]) if name in files else load_task_items(name).items
        there = len(read_spoken_items(out / name)) if (out / name / "info.json").is_file() else 0
        chosen = items if limit is None else items[: max(limit, there)]
        with bar(f"{name} spoken") as progress:

            def tell(done: int, total: int, what: str, progress: Bar = progress) -> None:
                progress.note(what)
                progress(done, total)

            speak_task(asked, chosen, voices or ["piper-joe"], out / name, processes=processes, tell=tell)
        found[name] = SpokenTask.read(out / name), items
    return found


def domains_of(file: Path | None) -> dict[str, str] | None:
    """Category -> domain, from a JSON object of texts, or the first such object in one.

    Raises:
        DataError: it holds something else.
    """
    from salad.files import read_json

    if file is None:
        return None
    tree = read_json(file)
    nested = [value for value in tree.values() if isinstance(value, dict)] if isinstance(tree, dict) else []
    mapping = nested[0] if nested else tree
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(own, str) for own in mapping.values()):
        raise DataError(f'{file} holds no categories; write {{"anatomy": "health", …}}, a domain for each category.')
    return mapping
