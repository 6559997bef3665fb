"""A voice behind HTTP: any server that answers `POST /audio/speech` as OpenAI's does (Kokoro-FastAPI, vLLM, …)."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from salad.errors import AssetError, AudioError
from salad.speech.audio import resample
from salad.synthesize.voices.program import shortened
from salad.synthesize.voices.voice import NO_SHIFT, Range, Spoken, check_asked, literal
from salad.synthesize.voices.wave import decoded

RATE_HZ = 24_000
KEY = "OPENAI_API_KEY"
"""The environment variable with the key; it is sent and never written anywhere."""

_TRIES = 5
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_LIMIT_S = 120
_HOW_TO_NAME = "write openai:URL#MODEL/VOICE, for instance openai:http://localhost:8880/v1#kokoro/af_heart"


class EndpointVoice:
    """A voice of a speech server: `openai:URL#MODEL/VOICE`, asked at URL/audio/speech, brought to 24 kHz.

    Requests are made one at a time; worker processes make them in parallel. A busy (429) or failing (5xx) server, or
    one that closes the connection, is asked again, five times in all, after as long as it says (Retry-After) or twice
    as long each time. Redirects are not followed: the key would go along.

    Raises:
        AssetError: the name has not that form.
    """

    rate_hz = RATE_HZ
    speeds: Range = (0.25, 4.0)
    semitones: Range = NO_SHIFT
    deterministic = False  # a server may sample, and may change its model under the same name

    def __init__(self, address: str) -> None:
        url, _, asked = address.partition("#")
        self._model, _, self._voice = asked.rpartition("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not self._model or not self._voice:
            raise AssetError(f"the voice openai:{address} is incomplete; {_HOW_TO_NAME}.")
        if parts.username or parts.password or parts.query:
            raise AssetError(f"a voice's URL stands in manifests and must hold no secret; put the key into {KEY}.")
        self._url = url.rstrip("/") + "/audio/speech"
        self._address = address
        self._key = os.environ.get(KEY)
        if self._key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise AssetError(
                f"the key in {KEY} would go to {parts.hostname} unencrypted; write https:// or unset {KEY}."
            )

    @property
    def name(self) -> str:
        """The address, after "openai:"."""
        return f"openai:{self._address}"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the address, model and voice; the server's own changes are not seen."""
        return hashlib.sha256(
            f"openai speech at {RATE_HZ} {self._url} {self._model} {self._voice}".encode()
        ).hexdigest()

    def speak(self, text: str, speed: float = 1.0, semitones: float = 0.0) -> Spoken:
        """The speech of normalized `text`, without word times.

        Raises:
            AudioError: the server refuses this text, or its answer is no audio.
            AssetError: it can't be reached, does not know the key, the model or the voice, or keeps failing.
        """
        check_asked(self, speed, semitones)
        said = {"model": self._model, "voice": self._voice, "input": literal(text), "response_format": "wav"}
        body = json.dumps(said | {"speed": speed}).encode()
        audio, rate_hz = decoded(self._answer(body, text), f"{self._url} for {shortened(text)}")
        return Spoken(resample(audio, rate_hz, RATE_HZ).clip(-1.0, 1.0))

    def _answer(self, body: bytes, text: str) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "audio/wav"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        opener = urllib.request.build_opener(_NoRedirect)
        wait_s = _FIRST_WAIT_S
        for tries in range(1, _TRIES + 1):
            asked_s = 0.0
            try:
                request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
                with opener.open(request, timeout=_LIMIT_S) as answer:
                    content: bytes = answer.read()
                    return content
            except urllib.error.HTTPError as error:
                why = f"status {error.code}{_said(error)}"
                if error.code != 429 and error.code < 500:
                    raise self._refused(error.code, why, text) from error
                asked_s = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut short
                why = str(getattr(error, "reason", "") or error or type(error).__name__)
            if tries < _TRIES:
                time.sleep(min(_LONGEST_WAIT_S, max(wait_s, asked_s)))
                wait_s *= 2
        raise AssetError(f"{self._url} has failed {_TRIES} times, the last time with {why}; start it or ask elsewhere.")

    def _refused(self, status: int, why: str, text: str) -> AssetError | AudioError:
        if status in (401, 403):
            return AssetError(f"{self._url} does not accept the key in {KEY} ({why}); set the right one.")
        if status in (301, 302, 303, 307, 308):
            return AssetError(f"{self._url} sends requests elsewhere ({why}); name that URL.")
        if status in (404, 405):
            return AssetError(
                f"{self._url} is not there, or has no model {self._model!r} or voice {self._voice!r} ({why}); correct "
                "the voice's name."
            )
        return AudioError(f"{self._url} refuses {shortened(text)} ({why}).")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _said(error: urllib.error.HTTPError) -> str:
    said = " ".join(error.read(300).decode(errors="replace").split())
    return f": {said}" if said else ""


def _seconds(header: str | None) -> float:
    """A Retry-After in seconds; one that is a date counts as none."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
