"""The frozen encoder's features of a prepared folder, computed once and kept beside it.

    FEATURES/ENCODER/encoder.json   whose features these are: name, fingerprint, feature_dim, frame_hz
    FEATURES/ENCODER/KEY.npy        one utterance, float16 [num_frames, feature_dim]

FEATURES is `folder`/features and KEY the cut's id, unless several folders share one `features_dir`: then KEY is the
audio file's name (and span), so that one synthesized utterance in five folders is encoded once. Share it only among
folders whose audio files are named by what they sound like, as `salad.synthesize.pool` names them.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

from salad.errors import CheckpointError, MissingFileError
from salad.files import read_json, write_atomic, write_json
from salad.model.encoder import SpeechEncoder
from salad.speech.audio import load_cut
from salad.speech.prepared import read_cuts
from salad.speech.time import samples as to_samples


def encode_cuts(
    folder: Path,
    encoder: SpeechEncoder,
    progress: Callable[[int, int], None] | None = None,
    features_dir: Path | None = None,
) -> None:
    """Encode every cut of a prepared folder that has no features yet.

    Each file is written atomically; a run that was stopped goes on where it was.

    Args:
        folder: a prepared folder.
        encoder: whose features to make.
        progress: told (done, total) after every cut.
        features_dir: where the features lie when several folders share them; see the top of this file.

    Raises:
        CheckpointError: there are features of another encoder of that name.
        AudioError, MissingFileError: a cut's audio can't be read.
    """
    cuts = read_cuts(folder)
    there = _encoder_folder(folder, encoder.name, features_dir)
    _claim(there, encoder)
    for number, cut in enumerate(cuts, start=1):
        path = there / f"{safe_file_name(feature_key(cut, features_dir))}.npy"
        if not path.is_file():
            features_FE = encoder.encode([load_cut(cut, encoder.sample_rate_hz)])[0]
            buffer = io.BytesIO()
            np.save(buffer, features_FE.astype(np.float16))
            write_atomic(path, buffer.getvalue())
        if progress is not None:
            progress(number, len(cuts))


def load_features(folder: Path, encoder_name: str, key: str, features_dir: Path | None = None) -> NDArray[np.float16]:
    """The features [num_frames, feature_dim] of one cut, float16.

    Args:
        folder: the prepared folder.
        encoder_name: the encoder's `name`.
        key: `feature_key(cut, features_dir)`; without `features_dir` that is the cut's id.
        features_dir: as it was given to `encode_cuts`.

    Raises:
        MissingFileError: they were not computed.
        CheckpointError: the file can't be read.
    """
    path = _encoder_folder(folder, encoder_name, features_dir) / f"{safe_file_name(key)}.npy"
    if not path.is_file():
        raise MissingFileError(f"{path}: no features of {key!r}; run 'salad encode' with {encoder_name} on {folder}.")
    try:
        features: NDArray[np.float16] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is not readable ({error}); delete it and run 'salad encode' again.") from error
    return features


def feature_shape(encoder_name: str, features_dir: Path) -> tuple[int, float]:
    """Width of the features kept in `features_dir` for an encoder, and their frames per second.

    Raises:
        MissingFileError: nothing was encoded there.
    """
    mark = read_json(features_dir / safe_file_name(encoder_name) / "encoder.json")
    return int(mark["feature_dim"]), float(mark["frame_hz"])


def feature_key(cut: MonoCut, features_dir: Path | None = None) -> str:
    """Under which name a cut's features are kept: its id, or with a shared `features_dir` its audio file's stem.

    A cut that is not the whole of its file has its span, in samples, in the name.
    """
    if features_dir is None:
        return str(cut.id)
    recording = cut.recording
    stem = Path(recording.sources[0].source).stem
    first, length = (to_samples(time_s, recording.sampling_rate) for time_s in (cut.start, cut.duration))
    whole = first == 0 and length == recording.num_samples
    return stem if whole else f"{stem}-{first}-{length}"


def safe_file_name(name: str) -> str:
    """`name` where it is a harmless file name; else what of it is harmless, and a hash that keeps it apart."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}", name):
        return name
    harmless = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80].strip("-")
    return f"{harmless}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _encoder_folder(folder: Path, encoder_name: str, features_dir: Path | None) -> Path:
    return (features_dir or folder / "features") / safe_file_name(encoder_name)


def _claim(there: Path, encoder: SpeechEncoder) -> None:
    """Say whose features lie in `there`, or check that they are this encoder's."""
    mark = there / "encoder.json"
    mine = {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        "feature_dim": encoder.feature_dim,
        "frame_hz": encoder.frame_hz,
    }
    if not mark.is_file():
        write_json(mark, mine)
        return
    found = read_json(mark)
    if found != mine:
        raise CheckpointError(
            f"{there} holds features of another encoder (fingerprint {str(found.get('fingerprint'))[:12]}…, not "
            f"{encoder.fingerprint[:12]}…); delete the folder to encode again, or use the encoder they were made with."
        )
