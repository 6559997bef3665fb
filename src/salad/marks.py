"""What a run folder remembers of its steps: what each was done for, how long it took, and what it reported.

    RUN/steps/NAME.json       a step that is done: {"key", "for", "wall_s", "report"}
    RUN/steps/NAME.started    one that was begun: {"key", "for", "wall_s"}; its seconds grow while it works

`for` is all that the step depends on, and `key` its hash.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salad.errors import DataError
from salad.files import read_json, write_json

BEAT_S = 15.0  # how often a step that works writes down its seconds
NUM_NAMED = 3

Dependences = dict[str, Any]
"""What a step depends on: `layout`, `step`, `settings`, `inputs` and `needs`, as JSON."""


def key_of(dependences: Dependences) -> str:
    """The hash of what a step depends on."""
    return hashlib.sha256(json.dumps(dependences, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Mark:
    """The mark of one step in `folder`."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """Where it stands once the step is done."""
        return self.folder / f"{self.name}.json"

    @property
    def started(self) -> Path:
        """Where it stands while the step is begun and not done."""
        return self.folder / f"{self.name}.started"

    def done(self) -> dict[str, Any] | None:
        """What is known of the step; None if it is not done."""
        return dict(read_json(self.path)) if self.path.is_file() else None

    def begun(self) -> dict[str, Any] | None:
        """What is known of the step that was begun; None if it was not, or is done."""
        if not self.started.is_file():
            return None
        with suppress(DataError):
            return dict(read_json(self.started))
        return {"key": None, "for": {}, "wall_s": 0.0}

    def forget(self) -> None:
        """The step is neither done nor begun."""
        self.path.unlink(missing_ok=True)
        self.started.unlink(missing_ok=True)

    def begin(self, dependences: Dependences) -> None:
        """The step begins anew."""
        write_json(self.started, {"key": key_of(dependences), "for": dependences, "wall_s": 0.0})

    def finish(self, seconds: float, report: dict[str, Any]) -> None:
        """The step is done after so many seconds."""
        begun = self.begun() or {}
        write_json(self.path, {**begun, "wall_s": seconds, "report": report})
        self.started.unlink(missing_ok=True)


class Clock:
    """The seconds of a step's work over all its attempts; of one that was killed, up to when it last beat."""

    def __init__(self, mark: Mark) -> None:
        """Goes on from where the attempt before stopped."""
        self.mark = mark
        self.before = float((mark.begun() or {}).get("wall_s", 0.0))
        self.began = self.beaten = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.before + time.perf_counter() - self.began

    def beat(self) -> None:
        """Write the seconds down, if it is time to."""
        if time.perf_counter() - self.beaten >= BEAT_S:
            self.stop()

    def stop(self) -> None:
        """Write the seconds down."""
        self.beaten = time.perf_counter()
        begun = self.mark.begun()
        if begun is not None:
            write_json(self.mark.started, {**begun, "wall_s": self.seconds})


def difference(before: Dependences, now: Dependences) -> str:
    """Why a step is to be done again, as part of a sentence: what it depended on, and what it depends on now."""
    if not before or before.get("layout") != now["layout"]:
        return "it was done by another version of salad"
    old, new = dict(_leaves(before["settings"])), dict(_leaves(now["settings"]))
    changed = [f"{k} was {_told(old, k)}, is {_told(new, k)}" for k in {**new, **old} if old.get(k) != new.get(k)]
    inputs = before.get("inputs", {})
    changed += [f"{name} has other content" for name in now["inputs"] if inputs.get(name) != now["inputs"][name]]
    redone = [name for name, key in now["needs"].items() if before["needs"].get(name) != key]
    if not changed:
        return f"{', '.join(redone)} {'is' if len(redone) == 1 else 'are'} made anew"
    more = f"; and {len(changed) - NUM_NAMED} more" if len(changed) > NUM_NAMED else ""
    return "; ".join(changed[:NUM_NAMED]) + more


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _told(leaves: dict[str, Any], key: str) -> str:
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else "not there"
