"""One shard of cuts through the encoder: read, grouped by length, encoded, written.

A cut that can't be read or encoded is listed with its reason; the others of its group are encoded without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from lhotse import MonoCut

from salad.errors import AudioError, DataError, MissingFileError
from salad.model.encoders.speech_encoder import CodeEncoder, SpeechEncoder
from salad.model.shards import Encoded, Shard, Unencoded, unencoded, write_shard
from salad.speech.audio import Samples, load_cut

_GROUP_S = 900.0  # audio in memory at once


def encode_shard(
    shard: Shard, encoder: SpeechEncoder, dtype: str, strict: bool, tell: Callable[[int], None] | None = None
) -> int:
    """Encode a shard whose lock is held; the number of cuts that have features.

    Args:
        shard: what to encode.
        encoder: with what.
        dtype: what features are kept in.
        strict: stop at a cut that can't be encoded, instead of listing it.
        tell: told the number of cuts, group by group.

    Raises:
        AudioError: with `strict`, a cut's audio can't be read or encoded.
        DataError: the features are not numbers, or pass the range of `dtype`.
        OSError: the disk takes no more.
    """
    cuts = shard.cuts()
    encoded: dict[str, Encoded] = {}
    failed: dict[str, Unencoded] = {}
    for group in _groups(cuts):
        for cut_id, result in _encode_group(group, encoder):
            if isinstance(result, Unencoded):
                if strict:
                    raise AudioError(f"utterance {cut_id!r} can't be encoded: {result.reason}")
                failed[cut_id] = result
            else:
                encoded[cut_id] = _as_stored(result, dtype, cut_id)
        if tell is not None:
            tell(len(group))
    write_shard(shard, cuts, encoded, [failed[cut.id] for cut in cuts if cut.id in failed], encoder.frame_hz)
    return len(encoded)


def _groups(cuts: Sequence[MonoCut]) -> Iterator[list[MonoCut]]:
    """The cuts by length, so that the encoder finds batches of like length, as many as memory is to hold at once."""
    group: list[MonoCut] = []
    for cut in sorted(cuts, key=lambda cut: (cut.duration, cut.id)):
        if group and cut.duration * (len(group) + 1) > _GROUP_S:
            yield group
            group = []
        group.append(cut)
    if group:
        yield group


def _encode_group(cuts: Sequence[MonoCut], encoder: SpeechEncoder) -> Iterator[tuple[str, Encoded | Unencoded]]:
    """Each cut's id with what the encoder makes of it, or why it makes nothing."""
    readable: list[MonoCut] = []
    clips: list[Samples] = []
    for cut in cuts:
        try:
            clips.append(load_cut(cut, encoder.sample_rate_hz))
            readable.append(cut)
        except (AudioError, MissingFileError) as error:
            yield cut.id, unencoded(cut, error, unreadable=True)
    encode = encoder.encode_codes if isinstance(encoder, CodeEncoder) else encoder.encode
    try:
        yield from zip((cut.id for cut in readable), encode(clips), strict=True)
    except AudioError:  # one of them is at fault: each by itself
        for cut, clip in zip(readable, clips, strict=True):
            try:
                yield cut.id, encode([clip])[0]
            except AudioError as error:
                yield cut.id, unencoded(cut, error, unreadable=False)


def _as_stored(array: Encoded, dtype: str, cut_id: str) -> Encoded:
    """What is kept of features or codes.

    Raises:
        DataError: they are not numbers, or too large for float16.
    """
    if array.dtype == np.int16:
        return array
    if not np.isfinite(array).all():
        raise DataError(f"the encoder gives features that are not numbers for {cut_id!r}; try another compute type.")
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if not np.isfinite(stored).all():
        raise DataError(
            f"the features of {cut_id!r} reach {np.abs(array).max():.0f}, past the range of {dtype}; delete the "
            "encoder's folder and encode with --dtype float32."
        )
    return stored
