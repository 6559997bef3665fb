"""When a Piper voice speaks each word: the durations its model draws for every phoneme, and which phonemes are a word.

A VITS model computes a whole number of frames for each phoneme and then makes exactly that much sound, so these times
are not an estimate. The files on offer do not hand them out; `with_durations` adds them to the model's outputs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rapidfuzz.distance import Indel

if TYPE_CHECKING:
    from piper import AudioChunk

_GRAPH, _NODE, _OUTPUT, _NODE_OUTPUT, _OP_TYPE, _NAME = 7, 1, 12, 2, 4, 1  # field numbers of onnx.proto
_BREAK, _VOWEL = " ", "V"
_STRESS = "ˈˌ"
_VOWELS = "aeiouyæɐɑɒɔəɚɛɜɝɪʊʌᵻøœɶɘɵɞɤɨɯʉʏAIOQWY"  # the last six are Kokoro's diphthongs


def with_durations(model: bytes, op_type: str = "Ceil") -> bytes | None:
    """A model of speech, an ONNX file's bytes, with each phoneme's number of frames as its last output.

    The durations are what the graph's one node of type `op_type` gives: Ceil in Piper, Round in Kokoro. None when it
    has not exactly one, or gives it out already.

    Two protocol buffers one after the other are read as one, lists joined: the output is declared in a second graph
    behind the first. Nothing of the model moves, and the onnx package is not needed.
    """
    outputs: list[bytes] = []
    roundings: list[bytes] = []
    graph = (part for field, graph in _fields(memoryview(model)) if field == _GRAPH for part in _fields(graph))
    for kind, content in graph:
        if kind == _OUTPUT:
            outputs += [bytes(name) for number, name in _fields(content) if number == _NAME]
        elif kind == _NODE:
            node = list(_fields(content))
            if any(number == _OP_TYPE and bytes(value) == op_type.encode() for number, value in node):
                roundings += [bytes(name) for number, name in node if number == _NODE_OUTPUT]
    if len(roundings) != 1 or roundings[0] in outputs:
        return None
    return model + _field(_GRAPH, _field(_OUTPUT, _field(_NAME, roundings[0])))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a protocol buffer that has a length; numbers are passed over."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind == 2:
            size, place = _varint(message, place)
            yield tag >> 3, message[place : place + size]
            place += size
        else:
            place += 8 if kind == 1 else 4


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _field(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


class TimedPhoneme(NamedTuple):
    """A phoneme, punctuation mark or break (" "), with its first and one past its last sample."""

    symbol: str
    start: int
    end: int


def timed_phonemes(chunk: AudioChunk, begin: int) -> list[TimedPhoneme] | None:
    """The phonemes of a sentence that begins at sample `begin`; None when the model gave no durations.

    The marks of the sentence's begin and end are breaks.
    """
    if chunk.phoneme_alignments is None:
        return None
    timed, sample = [], begin
    for item in chunk.phoneme_alignments:
        timed.append(TimedPhoneme(item.phoneme, sample, sample + int(item.num_samples)))
        sample += int(item.num_samples)
    if sample - begin != len(chunk.audio_float_array):
        return None
    return [timed[0]._replace(symbol=_BREAK), *timed[1:-1], timed[-1]._replace(symbol=_BREAK)]


class _Unit(NamedTuple):
    """What is matched: a consonant, a run of vowels or a run of breaks, and which phonemes it is."""

    sound: str
    begin: int
    end: int


def word_spans(spoken: Sequence[str], words: Sequence[Sequence[str]]) -> list[tuple[int, int]] | None:
    """Which of the phonemes `spoken` in a text, breaks between words among them, are each word's.

    espeak speaks some words as one ("of the", "in a") and some by another pronunciation than alone. What is spoken is
    matched to the words' own sounds with breaks between them, all vowels alike; a break that is missing falls where its
    neighbours stand. The break between two words is the second's: that is where its sound begins (docs/alignment.md).
    After a punctuation mark and at a sentence's begin a break is silence.

    Args:
        spoken: phonemes, punctuation and breaks (" ") of the whole text.
        words: the phonemes of each word spoken alone.

    Returns:
        First and one past last index into `spoken` of each word; None when a word is left without a sound.
    """
    heard = _units([_BREAK, *spoken])[1:]  # the text's first break is no word's end
    expected: list[str] = []
    breaks: list[int] = []
    for word in words:
        expected += [unit.sound for unit in _units(word) if unit.sound != _BREAK]
        breaks.append(len(expected))
        expected.append(_BREAK)
    image, matched = [len(heard)] * len(expected), [False] * len(expected)
    for step in Indel.opcodes(expected[:-1], [unit.sound for unit in heard]):
        for offset in range(step.src_end - step.src_start):
            matched[step.src_start + offset] = step.tag == "equal"
            image[step.src_start + offset] = step.dest_start + (offset if step.tag == "equal" else 0)
    spans: list[tuple[int, int]] = []
    first = 0
    for place in breaks:
        own = [unit for unit in heard[first : image[place]] if unit.sound != _BREAK]
        if not own:
            return None
        begin, end = own[0].begin - 1, own[-1].end - 1  # without the break set in front
        spans.append((begin - _leads_in(spoken, begin), end))
        first = image[place] + matched[place]
    return spans


def _leads_in(spoken: Sequence[str], begin: int) -> bool:
    """Whether a break between two words stands before a word's first phoneme."""
    return begin > 1 and spoken[begin - 1] == _BREAK and spoken[begin - 2] != _BREAK and not _is_mark(spoken[begin - 2])


def _units(phonemes: Sequence[str]) -> list[_Unit]:
    units: list[_Unit] = []
    begin: int | None = None  # of a stress mark, which is the next sound's
    for place, phoneme in enumerate(phonemes):
        if phoneme in _STRESS:
            begin = place if begin is None else begin
            continue
        sound = _BREAK if phoneme == _BREAK or _is_mark(phoneme) else _VOWEL if phoneme[0] in _VOWELS else phoneme
        modifies = unicodedata.category(phoneme[0]) in ("Lm", "Mn", "Sk")
        if units and (modifies or (begin is None and sound == units[-1].sound and sound in (_BREAK, _VOWEL))):
            units[-1] = units[-1]._replace(end=place + 1)
        else:
            units.append(_Unit(sound, place if begin is None else begin, place + 1))
        begin = None
    return units


def _is_mark(phoneme: str) -> bool:
    return unicodedata.category(phoneme[0]).startswith("P")
