"""Long texts in parts of some 20 seconds that end where sentences do: a document becomes utterances in a row.

Sentences are told apart by `sentencex` (Wikimedia's rules), which knows "Dr." and "e.g." and quotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

MOST_CHARACTERS = 280
"""About 20 s: voices speak 14 to 15 characters a second (Piper's joe 14.6, LJ Speech's reader 14.3)."""
CHARACTERS_PER_DIGIT = 6
"""A digit's share of the words it is spoken as: "1987", "nineteen eighty-seven"."""
_BREAKS = tuple(",;:)]”’–—")


class Text(Protocol):
    """A text with an id."""

    @property
    def id(self) -> str:
        """Its own."""

    @property
    def text(self) -> str:
        """What is written."""


@dataclass(frozen=True)
class Part:
    """Some sentences of a longer text: its `number`-th part, counted from 1."""

    id: str
    text: str
    part_of: str
    number: int


def split_texts(texts: Iterable[Text]) -> Iterator[Text]:
    """Texts of at most `MOST_CHARACTERS`: a longer one in parts "ID#1", "ID#2", …; a short one as it is."""
    for text in texts:
        parts = split(text.text)
        if len(parts) < 2:
            yield text
        else:
            for number, part in enumerate(parts, start=1):
                yield Part(f"{text.id}#{number}", part, text.id, number)


def split(text: str) -> list[str]:
    """A text in parts: as many whole sentences as go into `MOST_CHARACTERS` each.

    A sentence that alone is longer is parted after a comma or the like, or between words. All words are there, in
    order; a part without a letter or digit (a row of stars between sections) is left to the one before.
    """
    from sentencex import segment

    if _length(text) <= MOST_CHARACTERS:
        return [text]
    parts: list[str] = []
    for sentence in segment("en", text):
        for piece in _pieces(" ".join(sentence.split())):
            joined = f"{parts[-1]} {piece}" if parts else piece
            if parts and (_length(joined) <= MOST_CHARACTERS or not any(map(str.isalnum, piece))):
                parts[-1] = joined
            else:
                parts.append(piece)
    return parts


def _length(text: str) -> int:
    """Roughly how many characters its spoken form has."""
    return len(text) + (CHARACTERS_PER_DIGIT - 1) * sum(map(str.isdigit, text))


def _pieces(sentence: str) -> Iterator[str]:
    """A sentence in pieces of at most `MOST_CHARACTERS`, but for single words that are longer."""
    words = sentence.split(" ")
    while words:
        count, length = 1, _length(words[0])
        while count < len(words) and (length := length + 1 + _length(words[count])) <= MOST_CHARACTERS:
            count += 1
        if count < len(words):  # rather after a comma or the like, where that leaves no very short piece
            ends = [end for end in range(count // 2 + 1, count + 1) if words[end - 1][-1:] in _BREAKS]
            count = ends[-1] if ends else count
        yield " ".join(words[:count])
        words = words[count:]
