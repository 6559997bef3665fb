"""One question of a benchmark, and the JSONL file that holds many: read with every fault named by file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from salad.errors import DataError
from salad.files import check_items_file
from salad.speech.prepared import Rejected

FAULTS_TOLD = 3
"""How many faults of a file one message names; the rest are counted."""


@dataclass(frozen=True)
class Item:
    """A multiple-choice question. `answer` counts the choices from 0; `category` is what results are broken down by."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    category: str = ""
    source: str = ""
    licence: str = ""

    @cached_property
    def sha256(self) -> str:
        """Of what is asked and what is right (id, question, choices, answer), so that scores of two files can't mix."""
        return _sha256([self.id, self.question, list(self.choices), self.answer])

    def as_json(self) -> dict[str, Any]:
        """The item as a line of an items file."""
        named = {name: getattr(self, name) for name in ("category", "source", "licence") if getattr(self, name)}
        return {
            "id": self.id,
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.answer,
            **named,
        }


@dataclass(frozen=True)
class OpenItem:
    """A question answered in free words, and the answers that count as right; `category` as for `Item`."""

    id: str
    question: str
    references: tuple[str, ...]
    category: str = ""
    source: str = ""
    licence: str = ""

    @cached_property
    def sha256(self) -> str:
        """Of the id, the question and its references."""
        return _sha256([self.id, self.question, list(self.references)])

    def as_json(self) -> dict[str, Any]:
        """The item as a line of JSON."""
        named = {name: getattr(self, name) for name in ("category", "source", "licence") if getattr(self, name)}
        return {"id": self.id, "question": self.question, "references": list(self.references), **named}


def read_items(path: Path, rejected: list[Rejected] | None = None) -> list[Item]:
    """The items of a JSONL file, in file order: {"id", "question", "choices", "answer"} a line, lines end at "\\n".

    `category`, `source` and `licence` may be given too; other keys are not read. Two wrong choices may be equal (real
    benchmarks have such items), but not the right one and another: nobody could answer that.

    Args:
        path: the file.
        rejected: faulty items are added here, each with its reason and its file:line, and the others are returned.
            Without it a fault is an error.

    Raises:
        MissingFileError: no such file.
        DataError: the file holds no items, or an item is faulty; says where, what was found and what is allowed.
    """
    items: list[Item] = []
    faults: list[Rejected] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            item = item_from(_object(line))
            if item.id in seen:
                raise DataError(f"double id: {item.id!r} stands in line {seen[item.id]} already; ids must be unique")
        except DataError as error:
            faults.append(Rejected(_id_of(line) or f"line {number}", str(error), f"{path}:{number}"))
            continue
        seen[item.id] = number
        items.append(item)
    if faults and rejected is None:
        told = "; ".join(f"{fault.place}: {fault.reason}" for fault in faults[:FAULTS_TOLD])
        more = f"; and {len(faults) - FAULTS_TOLD} more" if len(faults) > FAULTS_TOLD else ""
        raise DataError(f"{told}{more}. Mend or remove what is faulty.")
    if not items:
        why = f": all {len(faults)} are faulty, the first in {faults[0].place} ({faults[0].reason})" if faults else ""
        raise DataError(
            f'{path} holds no items{why}; give it lines such as {{"id": "1", "question": "…", '
            '"choices": ["…", "…"], "answer": 0}.'
        )
    if rejected is not None:
        rejected.extend(faults)
    return items


def item_from(row: Mapping[str, Any]) -> Item:
    """The item in a row of an items file.

    Raises:
        DataError: what is wrong with it, "kind: what was found; what is allowed"; the caller adds where it stands.
    """
    question, choices, answer = row.get("question"), row.get("choices"), row.get("answer")
    identifier = str(row["id"]) if isinstance(row.get("id"), str | int) else ""
    if not identifier.strip():
        raise DataError(f"no id: 'id' must be a string that is not empty, not {row.get('id')!r}")
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"no question: 'question' must be a text, not {question!r:.60}")
    if not isinstance(choices, list | tuple) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"no choices: 'choices' must be a list of texts, not {choices!r:.60}")
    if len(choices) < 2:
        raise DataError(f"too few choices: {len(choices)}; a question needs two or more")
    for place, choice in enumerate(choices):
        if not choice.strip():
            raise DataError(f"empty choice: choice {place} of {len(choices)} holds no text")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise DataError(f"no answer: 'answer' must be the index of the right choice, from 0, not {answer!r:.60}")
    if not 0 <= answer < len(choices):
        raise DataError(
            f"answer out of range: {answer}; with {len(choices)} choices 0 to {len(choices) - 1} is allowed"
        )
    right = [place for place, choice in enumerate(choices) if choice.strip() == choices[answer].strip()]
    if len(right) > 1:
        raise DataError(
            f"equal choices: the right answer {choices[answer]!r:.60} stands as choice "
            f"{' and '.join(map(str, right))}; it must differ from all others"
        )
    category, source, licence = (_named(row, name) for name in ("category", "source", "licence"))
    return Item(identifier, question, tuple(choices), answer, category, source, licence)


def _named(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name, "")
    return "" if value is None else str(value)


def _lines(path: Path) -> list[str]:
    check_items_file(path)
    try:
        return path.read_text(encoding="utf-8").split("\n")  # some texts hold other Unicode line separators
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it first.") from error


def _object(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"no JSON object: a {type(row).__name__}")
    return row


def _id_of(line: str) -> str:
    """The id of a faulty line, where it has one, so that it can be found."""
    try:
        return str(json.loads(line)["id"])
    except (ValueError, TypeError, KeyError):
        return ""


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
