"""A voice behind HTTP, asked over the loopback: what is sent, what is tried again, and what each failure says."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

from salad.errors import AssetError, AudioError
from salad.synthesize.voices import load_voice

SECRET = "sk-a-key-that-must-not-be-seen"


class Server(ThreadingHTTPServer):
    """Speaks a tone, a tenth of a second a letter; `answers` are given first: a status with headers, or bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, object]]] = []

    @property
    def voice(self) -> str:
        """The name of its voice."""
        return f"openai:http://127.0.0.1:{self.server_port}/v1#org/model/af_heart"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        status, headers, content = (
            self.server.answers.pop(0) if self.server.answers else (200, {}, tone(body["input"], body["speed"]))
        )
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def tone(text: str, speed: float, form: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    num_samples = round(2400 * len(text) / speed)
    soundfile.write(buffer, np.sin(np.arange(num_samples) / 10) / 2, 24_000, format=form)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("salad.synthesize.voices.endpoint._FIRST_WAIT_S", 0.01)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def test_what_is_asked_and_heard(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    voice = load_voice(server.voice)
    audio, words = voice.speak("hello", speed=2.0)
    path, headers, body = server.asked[0]
    assert path == "/v1/audio/speech"
    assert body == {
        "model": "org/model",
        "voice": "af_heart",
        "input": "hello",
        "response_format": "wav",
        "speed": 2.0,
    }
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert len(audio) == 6000
    assert np.abs(audio).max() == pytest.approx(0.5, abs=1e-3)
    assert words is None
    assert voice.deterministic is False
    assert SECRET not in voice.name + voice.fingerprint


def test_without_a_key_none_is_sent(server):
    load_voice(server.voice).speak("x")
    assert "Authorization" not in server.asked[0][1]


def test_a_key_goes_nowhere_unencrypted(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(AssetError, match=r"would go to speech\.example unencrypted") as caught:
        load_voice("openai:http://speech.example/v1#m/v")
    assert SECRET not in str(caught.value)
    load_voice("openai:https://speech.example/v1#m/v")


def test_markup_and_commands_go_as_they_are_spoken(server):
    load_voice(server.voice).speak('<break time="9s"/> \x01 [[x]] "quoted\\"')
    assert server.asked[0][2]["input"] == '<break time="9s"/>  [ [x] ] "quoted\\"'


def test_a_busy_and_a_failing_server_is_asked_again(server):
    server.answers = [
        (429, {"Retry-After": "0"}, b"slow down"),
        (503, {}, b""),
        (200, {"Content-Length": "9000"}, b"RI"),
    ]
    audio = load_voice(server.voice).speak("hello").audio
    assert len(audio) == 12_000
    assert len(server.asked) == 4


def test_a_server_that_keeps_failing_is_the_voices_fault(server):
    server.answers = [(500, {}, b"out of\nmemory")] * 9
    with pytest.raises(AssetError, match="has failed 5 times, the last time with status 500: out of memory"):
        load_voice(server.voice).speak("hello")
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, AssetError, "does not accept the key in OPENAI_API_KEY"),
        (403, AssetError, "does not accept the key in OPENAI_API_KEY"),
        (404, AssetError, "no model 'org/model' or voice 'af_heart'"),
        (400, AudioError, "refuses 'hello' (status 400: because)"),
        (422, AudioError, "refuses 'hello' (status 422: because)"),
    ],
)
def test_a_refusal_is_one_sentence_and_not_asked_again(status, kind, message, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server.answers = [(status, {}, b"because")]
    with pytest.raises(kind) as caught:
        load_voice(server.voice).speak("hello")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(server.asked) == 1


def test_a_redirect_is_not_followed_with_the_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server.answers = [(307, {"Location": f"http://127.0.0.1:{server.server_port}/elsewhere"}, b"")]
    with pytest.raises(AssetError, match="sends requests elsewhere"):
        load_voice(server.voice).speak("hello")
    assert len(server.asked) == 1


def test_a_server_that_is_not_there(server):
    name = server.voice
    server.server_close()
    with pytest.raises(AssetError, match=r"has failed 5 times.*refused"):
        load_voice(name.replace(f":{server.server_port}", ":9")).speak("hello")


def test_another_format_than_asked_is_read_and_no_audio_is_not(server):
    server.answers = [(200, {}, tone("hello", 1.0, "FLAC")), (200, {}, b'{"detail": "no voice loaded"}')]
    voice = load_voice(server.voice)
    assert len(voice.speak("hello").audio) == 12_000
    with pytest.raises(AudioError, match=r"no voice loaded.*where a WAV was expected"):
        voice.speak("hello")
