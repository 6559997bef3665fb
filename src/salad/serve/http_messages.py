"""The messages of a request as the turns of a conversation: base64 into samples, within the limits."""

from __future__ import annotations

import base64
import binascii

from salad.errors import TooLongError
from salad.measure.models.base import Segment, Speech
from salad.serve.conversation import Turn
from salad.serve.http_errors import ApiError
from salad.serve.http_guard import Limits
from salad.serve.http_schema import InputAudio, Message, TextPart
from salad.serve.sound import clip_from_bytes
from salad.serve.talker import Talker

MAX_CHARACTERS_PER_TOKEN = 64  # longer than any vocabulary's words on average; what has more is not even tokenized


def turns_of(talker: Talker, messages: list[Message], limits: Limits) -> list[Turn]:
    """The turns of a conversation, decoded.

    Raises:
        ApiError: a clip's data is no base64, or there is more audio than `limits` allow.
        AudioError: a clip is no audio.
        TooLongError: there is more text than could fit the model.
    """
    contents = [[TextPart(type="text", text=m.content)] if isinstance(m.content, str) else m.content for m in messages]
    num_characters = sum(len(part.text) for parts in contents for part in parts if isinstance(part, TextPart))
    if talker.max_positions is not None and num_characters > MAX_CHARACTERS_PER_TOKEN * talker.max_positions:
        raise TooLongError(
            f"the messages have {num_characters} characters; {talker.name} has {talker.max_positions} positions: send "
            "less."
        )
    left_s = limits.audio_s
    turns = []
    for number, (message, parts) in enumerate(zip(messages, contents, strict=True)):
        own: list[Segment] = []
        for place, part in enumerate(parts):
            if isinstance(part, TextPart):
                own.append(part.text)
                continue
            clip = _clip(part.input_audio, f"messages.{number}.content.{place}", left_s, limits)
            left_s -= clip.seconds
            own.append(clip)
        turns.append(Turn("system" if message.role == "developer" else message.role, tuple(own)))
    return turns


def _clip(audio: InputAudio, name: str, left_s: float, limits: Limits) -> Speech:
    """The speech of one part of a message; `left_s` seconds may still come."""
    encoded = audio.data.partition(",")[2] if audio.data.startswith("data:") else audio.data
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{name}: the data is no base64.", "invalid_audio", name) from None
    try:
        return clip_from_bytes(data, name, f".{audio.format}", left_s)
    except TooLongError:
        raise ApiError(
            400, f"{name}: a request may have {limits.audio_s:g} s of audio; send less.", "audio_too_long", name
        ) from None
