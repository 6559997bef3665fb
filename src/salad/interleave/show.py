"""Interleaved sequences of a prepared, aligned folder, to be looked at and listened to: `salad show`."""

from __future__ import annotations

import heapq
import io
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from rapidfuzz import fuzz

from salad.errors import AlignmentError, AudioError, DataError, MissingFileError
from salad.files import write_atomic
from salad.interleave.view import SequenceView, ShownSequence
from salad.model.features import safe_file_name
from salad.speech import time
from salad.speech.audio import load_cut
from salad.speech.prepared import follows, stream_cuts, text_of
from salad.tally import Kinds

if TYPE_CHECKING:
    from lhotse import MonoCut

LOOK_AT_MOST = 5000
"""Utterances to look at for the sequences that are asked for; enough to say that a policy can't use a corpus."""


@dataclass
class Shown:
    """Sequences with their cuts, in the folder's order; how many utterances were looked at, and why some have none."""

    sequences: list[ShownSequence] = field(default_factory=list)
    cuts: list[MonoCut] = field(default_factory=list)
    num_seen: int = 0
    not_made: Kinds = field(default_factory=Kinds)

    def as_json(self, view: SequenceView) -> dict[str, Any]:
        """What `salad show --json` prints."""
        positions = sum(len(sequence.positions) for sequence in self.sequences)
        loss = sum(sequence.num_loss for sequence in self.sequences)
        return {
            "settings": {**view.settings.model_dump(), "seed": view.seed, "position_hz": view.position_hz},
            "sequences": [_sequence_json(sequence) for sequence in self.sequences],
            "totals": {
                "num_sequences": len(self.sequences),
                "num_positions": positions,
                "num_loss": loss,
                "loss_frac": loss / max(1, positions),
                "heard_s": sum(sequence.heard_s for sequence in self.sequences),
                "speech_s": sum(sequence.duration_s for sequence in self.sequences),
                "num_seen": self.num_seen,
                "num_not_made": self.not_made.count,
                "not_made": self.not_made.rows(),
            },
        }


def show(folder: Path, view: SequenceView, num: int, epoch: int = 0) -> Shown:
    """The first `num` utterances of a folder that the policy can use, as sequences.

    Raises:
        MissingFileError: the folder was never prepared.
        DataError: it is not aligned, or none of its utterances can be used; says why.
    """
    found = Shown()
    for cut, continuation in _with_continuation(stream_cuts(folder), view):
        if len(found.sequences) >= num or found.num_seen >= LOOK_AT_MOST:
            break
        found.num_seen += 1
        try:
            found.sequences.append(view.of(cut, epoch, continuation))
            found.cuts.append(cut)
        except (DataError, AlignmentError, MissingFileError) as error:
            found.not_made.add(_reason(cut, error), cut.id)
    if not found.sequences:
        raise _none(folder, view, found)
    return found


def show_one(folder: Path, view: SequenceView, identifier: str, epoch: int = 0) -> Shown:
    """The utterance of that id as a sequence.

    Raises:
        MissingFileError: the folder was never prepared.
        DataError: there is no such utterance (says which ids are near), or the policy can't use it (says why).
    """
    near: list[tuple[float, str]] = []
    for number, (cut, continuation) in enumerate(_with_continuation(stream_cuts(folder), view), start=1):
        if cut.id == identifier:
            try:
                return Shown([view.of(cut, epoch, continuation)], [cut], 1)
            except (DataError, AlignmentError) as error:
                raise DataError(f"utterance {identifier!r} can't be shown: {_reason(cut, error)}.") from error
        likeness = (fuzz.ratio(cut.id, identifier), cut.id)
        (heapq.heappush if number <= 3 else heapq.heappushpop)(near, likeness)
    names = ", ".join(name for _, name in sorted(near, reverse=True))
    raise DataError(f"{folder} has no utterance {identifier!r}; the nearest are {names or 'none: it is empty'}.")


def write_audio(shown: Shown, folder: Path) -> list[Path]:
    """Write what is heard in each speech span as 16-bit WAV at the clip's rate: ID-spanK.wav, K the span's number.

    It is the audio of the span's positions, mono, as the encoder's frames lie on it.

    Raises:
        AudioError, MissingFileError: a clip can't be read, or reaches past full scale.
    """
    written: list[Path] = []
    for sequence, cut in zip(shown.sequences, shown.cuts, strict=True):
        rate_hz = cut.sampling_rate
        audio = load_cut(cut, rate_hz)
        for span in sequence.spans:
            if span.audio_s is None:
                continue
            start, stop = (time.samples(second, rate_hz) for second in span.audio_s)
            path = folder / f"{safe_file_name(cut.id)}-span{span.number}.wav"
            write_atomic(path, _wav(audio[start:stop], rate_hz, cut.id))
            written.append(path)
    return written


def _wav(audio: Any, rate_hz: int, item: str) -> bytes:
    peak = float(np.abs(audio).max())
    if peak > 1.001:
        raise AudioError(f"utterance {item!r} reaches {peak:.3f}, past ±1, and would be clipped; scale it down first.")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(audio, -1.0, 1.0), rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _with_continuation(cuts: Iterable[MonoCut], view: SequenceView) -> Iterator[tuple[MonoCut, str]]:
    """Each cut with the text that follows it in its document, where the policy reads on after the speech."""
    if view.settings.policy != "utterance":
        yield from ((cut, "") for cut in cuts)
        return
    source = iter(cuts)
    ahead: deque[MonoCut] = deque()
    num_words = view.settings.continuation_words
    while _reaches(ahead, source, 1):
        cut = ahead.popleft()
        words: list[str] = []
        following = 0
        while len(words) < num_words and _reaches(ahead, source, following + 1):
            last = ahead[following - 1] if following else cut
            if not follows(last.custom, ahead[following].custom):
                break
            words += text_of(ahead[following]).split()
            following += 1
        yield cut, " ".join(words[:num_words])


def _reaches(ahead: deque[MonoCut], source: Iterator[MonoCut], size: int) -> bool:
    """Read on until `ahead` holds `size` cuts; whether there are so many."""
    while len(ahead) < size and (cut := next(source, None)) is not None:
        ahead.append(cut)
    return len(ahead) >= size


def _reason(cut: MonoCut, error: Exception) -> str:
    return str(error).removeprefix(f"utterance {cut.id!r}: ").removeprefix(f"utterance {cut.id!r} ").rstrip(".")


def _none(folder: Path, view: SequenceView, found: Shown) -> DataError:
    if not found.num_seen:
        return DataError(f"{folder} holds no utterance.")
    reasons = found.not_made.rows()
    if len(reasons) == 1 and "no word timings" in reasons[0]["reason"]:
        return DataError(f"{folder} is not aligned: its utterances have no word timings; run 'salad align {folder}'.")
    listed = "; ".join(f"{row['count']} × {row['reason']}" for row in reasons[:3])
    hint = "; neighbours in the folder need the same 'document' for that" if view.settings.policy == "utterance" else ""
    return DataError(
        f"{folder}: the policy {view.settings.policy!r} can use none of {found.num_seen} utterances ({listed}){hint}."
    )


def _sequence_json(sequence: ShownSequence) -> dict[str, Any]:
    row = asdict(sequence)
    row.pop("mark")
    for span, shown in zip(row["spans"], sequence.spans, strict=True):
        del span["positions"]
        span |= {"positions": [shown.positions[0].student, shown.positions[-1].student]}
        span |= {"loss": shown.loss, "audio_s": shown.audio_s}
    return row | {
        "num_positions": len(sequence.positions),
        "num_loss": sequence.num_loss,
        "heard_s": sequence.heard_s,
        "positions": [asdict(position) for position in sequence.positions],
    }
