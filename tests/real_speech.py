"""For tests that lay out a corpus: real utterances, their audio in any format, and what a corpus made of them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import soxr
from typer.testing import CliRunner

from salad.cli import app
from salad.speech.candidate import Candidate
from salad.speech.prepared import Rejected


@dataclass(frozen=True)
class Spoken:
    """One utterance; `words`: (word, start, end) in seconds, "" for silence, where they are known."""

    id: str
    path: Path
    text: str
    speaker: str
    duration_s: float
    words: tuple[tuple[str, float, float], ...] = ()

    def encoded(self, audio_format: str) -> bytes:
        """Its audio as "flac", "mp3", "opus", …; Opus knows few rates, and what has another is resampled to 24 kHz."""
        audio, rate_hz = soundfile.read(self.path, dtype="float32")
        buffer = io.BytesIO()
        if audio_format == "opus":
            opus_hz = rate_hz if rate_hz in (8_000, 12_000, 16_000, 24_000, 48_000) else 24_000
            soundfile.write(buffer, soxr.resample(audio, rate_hz, opus_hz), opus_hz, format="OGG", subtype="OPUS")
        else:
            soundfile.write(buffer, audio, rate_hz, format=audio_format.upper())
        return buffer.getvalue()


def spoken(shared_data: Path, name: str, num: int | None = None) -> list[Spoken]:
    """The first `num` utterances of `shared_data/speech/name`."""
    folder = shared_data / "speech" / name
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    timings = folder / "alignments.jsonl"
    aligned = [json.loads(line) for line in timings.read_text().splitlines()] if timings.is_file() else []
    words = {row["id"]: tuple((word, start, end) for word, start, end in row["words"]) for row in aligned}
    return [
        Spoken(row["id"], folder / row["audio"], row["text"], row["speaker"], row["duration"], words.get(row["id"], ()))
        for row in rows[:num]
    ]


def split(items: Any) -> tuple[dict[str, Candidate], dict[str, Rejected]]:
    """Candidates and rejections by id; none may stand twice."""
    listed = list(items)
    taken = {item.id: item for item in listed if isinstance(item, Candidate)}
    rejected = {item.id: item for item in listed if isinstance(item, Rejected)}
    assert len(taken) + len(rejected) == len(listed)
    return taken, rejected


def prepared(*arguments: str | Path) -> dict[str, Any]:
    """What `salad prepare … --json` prints; the error that it ends in is raised."""
    command = ["prepare", *(str(argument) for argument in arguments), "--json", "--jobs", "1"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told
