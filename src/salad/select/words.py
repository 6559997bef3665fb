"""The words of a text as selection compares them: case, punctuation and a character's variants make no difference."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+")
_ASCII = bytes(code if chr(code).isalnum() and code < 128 else ord(" ") for code in range(256))


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, casefolded, after Unicode's compatibility form (NFKC)."""
    if text.isascii():  # the same, five times as fast
        return text.lower().encode("ascii").translate(_ASCII).decode("ascii").split()
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
