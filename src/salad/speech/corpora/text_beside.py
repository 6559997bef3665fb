"""A folder of audio files, each with a text file of the same name beside it: 01/a.flac, 01/a.txt (or a.lab)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from salad.speech.candidate import Candidate
from salad.speech.prepared import Rejected

AUDIO_SUFFIXES = frozenset(
    ".flac .wav .mp3 .ogg .oga .opus .m4a .mp4 .aac .webm .mka .wma .amr .aiff .aif .au .caf .w64 .sph".split()
)
TEXT_SUFFIXES = (".txt", ".lab")


def candidates(folder: Path) -> Iterator[Candidate | Rejected]:
    """The audio files under `folder` in order of their paths; their folder, if there is one, begins the id.

    An audio file without a text is a rejection, and so is a text without audio.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    spoken = {path.with_suffix("") for path in files if path.suffix.lower() in AUDIO_SUFFIXES}
    written = {path.with_suffix(""): path for path in files if path.suffix.lower() in TEXT_SUFFIXES}
    for path in files:
        stem = path.with_suffix("")
        name = "-".join(stem.relative_to(folder).parts)
        if path.suffix.lower() in AUDIO_SUFFIXES:
            if stem not in written:
                yield Rejected(name, f"no transcript: there is no {stem.name}.txt beside it", str(path))
                continue
            try:
                text = written[stem].read_text(encoding="utf-8-sig")
            except (UnicodeDecodeError, OSError) as error:
                yield Rejected(name, f"not text: {written[stem].name} is not UTF-8 ({error})", str(path))
                continue
            yield Candidate(id=name, place=str(path), audio=path, text=text)
        elif path.suffix.lower() in TEXT_SUFFIXES and stem not in spoken:
            yield Rejected(name, f"no audio: there is none beside {path.name}", str(path))


def has_any(folder: Path) -> bool:
    """Whether an audio file with a text beside it is there."""
    return any(
        path.suffix.lower() in AUDIO_SUFFIXES and any(path.with_suffix(suffix).is_file() for suffix in TEXT_SUFFIXES)
        for path in folder.rglob("*")
    )
