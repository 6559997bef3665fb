"""What web pages leave in a text: character references, tags, addresses."""

from __future__ import annotations

import html
import re

from salad.errors import DataError

_REFERENCE = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9:-]*(?:\s[^<>]*|/)?>|<!--|<!\[CDATA\[|<!DOCTYPE|<\?xml", re.IGNORECASE)
_ADDRESS = re.compile(r"\b(?:https?://|ftp://|www\.)[^\s<>\"]*[^\s<>\".,;:!?')\]}]", re.IGNORECASE)
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", re.ASCII)
_SITE = re.compile(r"\b(?:[A-Za-z0-9-]+\.)+(?:com|org|net|edu|gov|io|info)\b(?:/[^\s<>\",;!?)]*[^\s<>\".,;:!?')])?")
_READ = {".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals"} | {
    "&": "and", "#": "hash", "%": "percent", ":": "colon", "+": "plus", "~": "tilde",
}  # fmt: skip
_SIGN = re.compile(f"[{re.escape(''.join(_READ))}]")


def without_markup(text: str) -> str:
    """`text` with character references (`&amp;`) as the characters they stand for.

    Raises:
        DataError: a tag of HTML, XML or SSML is in it: whoever wrote it meant something other than these letters.
    """
    text = _REFERENCE.sub(lambda found: html.unescape(found[0]), text)
    tag = _TAG.search(text)
    if tag is not None:
        raise DataError(f"markup: {tag[0][:40]!r} can't be read aloud; take it out and leave its words.")
    return text


def addresses_to_words(text: str) -> str:
    """Web and mail addresses as they are read: "example dot com slash about"; without https:// and www."""
    text = _ADDRESS.sub(lambda found: _read(re.sub(r"^(?:\w+://)?(?:www\.)?", "", found[0]).rstrip("/")), text)
    return _SITE.sub(lambda found: _read(found[0].rstrip("/")), _MAIL.sub(lambda found: _read(found[0]), text))


def _read(address: str) -> str:
    return " ".join(_SIGN.sub(lambda sign: f" {_READ[sign[0]]} ", address).split())
