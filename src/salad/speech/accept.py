"""Candidate utterances → Lhotse cuts or rejections: every check, in the order from cheap to dear.

Runs in worker processes, so a cut is written here as the plain dictionary that Lhotse reads (`MonoCut.from_dict`):
importing Lhotse brings PyTorch along, which takes seconds and hundreds of MB in each of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salad.errors import DataError, MissingFileError, SaladError
from salad.speech import time
from salad.speech.candidate import Candidate, Checks
from salad.speech.prepared import Rejected
from salad.speech.sound import AudioFile, Span, examine
from salad.speech.transcript import TIMING_SLACK_S, check_script, timed_words, transcript

MAX_ID_BYTES = 200
"""With a suffix, still a file's name (255 bytes on all file systems)."""


def accept(candidates: Sequence[Candidate | Rejected], checks: Checks, out: Path) -> list[dict[str, Any] | Rejected]:
    """A cut or a rejection for each candidate, in order; each audio file is decoded once.

    Under `checks.strict` the list may end early, once it has a rejection.
    """
    out = out.resolve()
    results: dict[int, dict[str, Any] | Rejected] = {}
    by_audio: dict[Path, list[int]] = {}
    for number, candidate in enumerate(candidates):
        if isinstance(candidate, Rejected):
            results[number] = candidate
            continue
        try:
            _check_description(candidate, checks)
            by_audio.setdefault(candidate.audio, []).append(number)
        except DataError as error:
            results[number] = _rejected(candidate, error)
    if not (checks.strict and any(isinstance(result, Rejected) for result in results.values())):
        for audio, numbers in by_audio.items():
            found = _of_one_file(audio, [candidates[number] for number in numbers], checks, out)  # type: ignore[misc]
            results.update(zip(numbers, found, strict=True))
            if checks.strict and any(isinstance(result, Rejected) for result in found):
                break
    return [results[number] for number in sorted(results)]


def _rejected(candidate: Candidate, error: Exception) -> Rejected:
    said = error.strerror if isinstance(error, OSError) else str(error)
    reason = str(error) if isinstance(error, SaladError) else f"unreadable file: {str(candidate.audio)[:200]} ({said})"
    return Rejected(candidate.id, reason.removesuffix("."), candidate.place)


# --- what its corpus says -------------------------------------------------------------------------------------------


def _check_description(candidate: Candidate, checks: Checks) -> None:
    """What can be told without the audio.

    Raises:
        DataError: the id can't name a file, or the transcript has no words or those of another language.
    """
    name = candidate.id
    if not name.strip():
        raise DataError("unfit id: it is empty; give the utterance one")
    if "/" in name or name.startswith(".") or any(ord(character) < 32 for character in name):
        raise DataError(f"unfit id: {name!r} can't name a file; write it without '/' and a leading '.'")
    if len(name.encode(errors="replace")) > MAX_ID_BYTES:
        raise DataError(f"unfit id: {name[:40]!r}… has over {MAX_ID_BYTES} bytes; give the utterance a shorter one")
    try:
        json.dumps(vars(candidate), ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"not text: it holds half a character ({error.reason}); write the corpus as UTF-8") from error
    text = transcript(candidate.text)
    check_script(text, candidate.language or checks.language, checks.min_script_frac)


# --- what its audio says --------------------------------------------------------------------------------------------


def _of_one_file(
    audio: Path, candidates: Sequence[Candidate], checks: Checks, out: Path
) -> list[dict[str, Any] | Rejected]:
    try:
        if not audio.is_file():
            raise MissingFileError(f"missing file: {audio} does not exist")
        if audio.stat().st_size == 0:
            raise DataError(f"zero-length file: {audio} holds not a byte")
        file, spans = examine(audio, [(candidate.start_s, candidate.duration_s) for candidate in candidates])
    except (
        SaladError,
        OSError,
        ValueError,
    ) as error:  # OSError: a name too long, no permission; ValueError: a NUL in it
        return [_rejected(candidate, error) for candidate in candidates]
    results: list[dict[str, Any] | Rejected] = []
    for candidate, span in zip(candidates, spans, strict=True):
        try:
            results.append(_cut(candidate, file, span, checks, out))
        except SaladError as error:
            results.append(_rejected(candidate, error))
    return results


def _cut(candidate: Candidate, file: AudioFile, span: Span, checks: Checks, out: Path) -> dict[str, Any]:
    """The cut as Lhotse writes it down.

    Raises:
        DataError, AlignmentError: a check fails.
    """
    duration_s = time.seconds(span.num_samples, file.rate_hz)
    _check_length(candidate, file, span, duration_s, checks)
    _check_sound(candidate, span, checks)
    text = transcript(candidate.text)
    num_words = len(text.split())
    if num_words / duration_s > checks.max_words_per_s:
        raise DataError(
            f"impossible speech rate: {num_words} words in {duration_s:.2f} s; at most {checks.max_words_per_s:g} a "
            "second are possible, so the transcript is of something else"
        )
    channel = 0 if file.num_channels == 1 else list(range(file.num_channels))  # all of them: salad takes their mean
    supervision = {
        "id": candidate.id,
        "recording_id": candidate.id,
        "start": 0.0,
        "duration": duration_s,
        "channel": channel,
        "text": text,
        "language": candidate.language or checks.language,
        "speaker": candidate.speaker,
    }
    if candidate.words is not None:
        words = timed_words(text, candidate.words, duration_s)
        begin_s = time.seconds(span.start, file.rate_hz)  # Lhotse's alignments count from the recording's start
        supervision["alignment"] = {
            "word": [[word, round(begin_s + start, 4), round(end - start, 4), None] for word, start, end in words]
        }
    origin = {"licence": candidate.licence, "source": candidate.source, "document": candidate.document}
    custom = {**candidate.custom, **{key: value for key, value in origin.items() if value is not None}}
    return {
        "id": candidate.id,
        "start": time.seconds(span.start, file.rate_hz),
        "duration": duration_s,
        "channel": channel,
        "supervisions": [{key: value for key, value in supervision.items() if value is not None}],
        "recording": _recording(candidate, file, out),
        **({"custom": custom} if custom else {}),
        "type": "MonoCut" if file.num_channels == 1 else "MultiCut",
    }


def _recording(candidate: Candidate, file: AudioFile, out: Path) -> dict[str, Any]:
    """The whole file, with as many samples as were decoded; a path inside `out` (resolved) is kept relative to it."""
    path = candidate.audio.resolve()
    channels = list(range(file.num_channels))
    source = path.relative_to(out) if path.is_relative_to(out) else path
    return {
        "id": candidate.id,
        "sources": [{"type": "file", "channels": channels, "source": str(source)}],
        "sampling_rate": file.rate_hz,
        "num_samples": file.num_samples,
        "duration": time.seconds(file.num_samples, file.rate_hz),
        "channel_ids": channels,
    }


def _check_length(candidate: Candidate, file: AudioFile, span: Span, duration_s: float, checks: Checks) -> None:
    if file.num_samples == 0:
        raise DataError(f"no samples: {candidate.audio} has a header and no audio")
    if span.start < 0 or span.start >= file.num_samples:
        raise DataError(
            f"span beyond the end: it begins at {candidate.start_s:.3f} s of {candidate.audio}, which has "
            f"{time.seconds(file.num_samples, file.rate_hz):.3f} s"
        )
    if span.wanted is not None:
        lacking_s = time.seconds(span.wanted - span.num_samples, file.rate_hz)
        if lacking_s > TIMING_SLACK_S:
            raise DataError(
                f"span beyond the end: it ends {lacking_s:.3f} s after {candidate.audio}, which has "
                f"{time.seconds(file.num_samples, file.rate_hz):.3f} s"
            )
    stated_s = candidate.stated_duration_s
    if stated_s is not None and not abs(stated_s - duration_s) <= checks.duration_slack_s:
        raise DataError(
            f"wrong duration: the corpus says {stated_s:.2f} s, the audio has {duration_s:.2f} s (they may differ by "
            f"{checks.duration_slack_s:g} s)"
        )
    if duration_s < checks.min_duration_s:
        raise DataError(f"too short: {duration_s:.3f} s, at least {checks.min_duration_s:g} s are needed")
    if duration_s > checks.max_duration_s:
        raise DataError(
            f"too long: {duration_s:.1f} s, at most {checks.max_duration_s:g} s are taken; cut it into utterances"
        )


def _check_sound(candidate: Candidate, span: Span, checks: Checks) -> None:
    if span.not_finite is not None:
        raise DataError(f"samples that are not numbers: {candidate.audio} has the first at sample {span.not_finite}")
    if span.peak < checks.min_peak:
        raise DataError(
            f"silent audio: {candidate.audio} reaches {span.peak:.5f} of full scale, {checks.min_peak:g} is needed"
        )
    if span.clipped_frac > checks.max_clipped_frac:
        raise DataError(
            f"clipped audio: {span.clipped_frac:.1%} of the samples of {candidate.audio} stay at full scale; "
            f"{checks.max_clipped_frac:.1%} are allowed"
        )
