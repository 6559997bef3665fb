"""salad serve, asked by OpenAI's own client: answers, streams, refusals, fifty at a time."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time

import httpx
import openai
import pytest
import soundfile
import torch

import tiny_talker
from salad.serve.conversation import Turn
from salad.serve.http_guard import Limits
from salad.serve.shown import silence
from salad.serve.sound import clip_from_bytes
from salad.serve.talker import Talker
from serving import Running, said

LIMITS = Limits(body_bytes=200_000, audio_s=3.0, answer_tokens=900, body_s=2.0, answer_s=30.0, requests=60)


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    torch.set_num_threads(1)
    made = Talker.load(tiny_talker.saved(tmp_path_factory.mktemp("served")), max_rows=8)
    yield made
    made.close()
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def running(talker):
    server = Running(talker, LIMITS)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def alone(talker, seed=0, seconds=0.5, text="in the evening", max_tokens=12):
    """What the model answers to the same, asked in Python."""
    clip = clip_from_bytes(tiny_talker.audio_bytes(seconds, seed), "x")
    prompt = talker.hear([Turn("user", (clip, text))])
    return "".join(talker.stream(prompt, max_tokens))


def idle(talker):
    deadline = time.monotonic() + 20
    while (talker.engine.num_running or talker.engine.num_waiting) and time.monotonic() < deadline:
        time.sleep(0.01)
    return talker.engine.num_running + talker.engine.num_waiting == 0


def test_the_client_gets_the_answer_with_its_counts(talker, client):
    got = client.chat.completions.create(**said(max_tokens=12))
    assert got.choices[0].message.content == alone(talker)
    assert got.choices[0].finish_reason == "length"
    heard = -(-50 // 4)  # half a second at 100 frames, four a position
    assert got.usage.prompt_tokens_details.audio_tokens == heard
    assert got.usage.completion_tokens == 12
    assert got.usage.total_tokens == got.usage.prompt_tokens + 12
    assert got.id.startswith("chatcmpl-")


def test_a_stream_adds_up_to_the_answer_and_ends_with_the_usage(talker, client):
    request = said(max_completion_tokens=12, stream=True, stream_options={"include_usage": True})
    *chunks, last = client.chat.completions.create(**request)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == alone(talker)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    assert (last.choices, last.usage.completion_tokens) == ([], 12)
    assert len(chunks) > 5
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_a_clip_without_sound_is_named_in_the_answer_and_in_the_log(client, caplog):
    caplog.set_level("WARNING", logger="uvicorn.error")
    request = said(max_tokens=12)
    nothing = io.BytesIO()
    soundfile.write(nothing, tiny_talker.samples(0.5) * 1e-3, 16_000, format="WAV")
    request["messages"][0]["content"][0]["input_audio"]["data"] = base64.b64encode(nothing.getvalue()).decode()
    whole = client.chat.completions.create(**request)
    (sentence,) = whole.warnings
    assert sentence == silence([clip_from_bytes(nothing.getvalue(), "messages.0.content.0")])[0]
    *earlier, last = client.chat.completions.create(**request, stream=True)
    assert last.warnings == [sentence]
    assert not any(hasattr(chunk, "warnings") for chunk in earlier)
    assert [record.getMessage() for record in caplog.records] == [f"{one.id}: {sentence}" for one in (whole, last)]
    assert client.chat.completions.create(**said(max_tokens=12)).warnings == []


@pytest.mark.parametrize("kind", ["MP3", "FLAC", "OGG"])
def test_other_formats_are_heard(client, kind):
    assert client.chat.completions.create(**said(kind=kind, max_tokens=3)).usage.completion_tokens == 3


def test_a_conversation_goes_on_and_stops_where_it_is_told(client):
    first = client.chat.completions.create(**said(max_tokens=10))
    request = said(max_tokens=20)
    request["messages"] += [first.choices[0].message, {"role": "user", "content": "and the river"}]
    request["messages"].insert(0, {"role": "developer", "content": "be brief"})
    text = client.chat.completions.create(**request).choices[0].message.content
    stop = text[4:6]
    cut = client.chat.completions.create(**request, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_seed_draws_the_same_again(client):
    ask = lambda seed: client.chat.completions.create(  # noqa: E731
        **said(max_tokens=12, seed=seed) | {"temperature": 1.0, "top_p": 0.95}
    )
    texts = [ask(seed).choices[0].message.content for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_models_health_and_readiness(client, running):
    assert [model.id for model in client.models.list()] == ["model"]
    assert client.models.retrieve("model").owned_by == "salad"
    with pytest.raises(openai.NotFoundError, match="this is 'model'"):
        client.models.retrieve("gpt-4o")
    assert httpx.get(f"{running.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{running.url}/ready").json() == {"ready": True, "running": 0, "waiting": 0}
    running.app.state.draining = True
    assert httpx.get(f"{running.url}/ready").status_code == 503
    running.app.state.draining = False


def text(**request):
    return {"model": "model", "messages": [{"role": "user", "content": "the river"}], **request}


BAD = {
    "another model": (text(model="gpt-4o"), 404, "model_not_found", "no model 'gpt-4o'"),
    "no messages": (text(messages=[]), 400, "invalid_request", "messages"),
    "two answers": (text(n=2), 400, "invalid_request", "n: "),
    "tools": (text(tools=[{"type": "function"}]), 400, "invalid_request", "tools"),
    "a typo": (text(temprature=0), 400, "invalid_request", "unknown parameter 'temprature'"),
    "too hot": (text(temperature=3), 400, "invalid_request", "temperature"),
    "no tokens": (text(max_tokens=0), 400, "invalid_request", "max_tokens"),
    "too many tokens": (text(max_tokens=901), 400, "too_many", "up to 900"),
    "five stops": (text(stop=list("abcde")), 400, "invalid_request", "up to 4"),
    "too long with its answer": (
        text(messages=[{"role": "user", "content": "the river " * 30}], max_tokens=900),
        400,
        "context_length_exceeded",
        "1024 positions",
    ),
    "far too long": (
        text(messages=[{"role": "user", "content": "x" * 90_000}]),
        400,
        "context_length_exceeded",
        "90000 characters",
    ),
    "the speech mark": (text(messages=[{"role": "user", "content": "<|speech|>"}]), 400, "invalid_request", "mark"),
    "an assistant's voice": (
        text(messages=[said()["messages"][0] | {"role": "assistant"}]),
        400,
        "invalid_request",
        "only the user speaks",
    ),
    "a picture": (
        text(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        400,
        "invalid_request",
        "image_url",
    ),
    "too much speech": (said(seconds=3.2), 400, "audio_too_long", "3 s of audio"),
    "no audio": (said(seconds=0), 400, "invalid_audio", "holds no samples"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_possible_is_refused_in_openais_words(running, case):
    body, status, code, words = BAD[case]
    got = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30)
    error = got.json()["error"]
    assert (got.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert re.search(words, error["message"]), error["message"]


PARAMS = {
    "tools": (text(tools=[{"type": "{function}"}]), "tools"),
    "a typo": (text(temprature=0), "temprature"),
    "too many stops": (text(stop=["a"] * 9), "stop"),
    "a call": (text(messages=[{"role": "user", "content": "x", "tool_calls": [1]}]), "messages.0.tool_calls"),
    "a range": (text(temperature=9), "temperature"),
}


@pytest.mark.parametrize("case", PARAMS)
def test_a_refusal_names_its_parameter(running, case):
    body, param = PARAMS[case]
    error = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=30).json()["error"]
    assert error["param"] == param
    assert "Value error" not in error["message"]


def test_json_that_is_none_is_said_to_be_so(running):
    headers = {"content-type": "application/json"}
    got = httpx.post(f"{running.url}/v1/chat/completions", content=b'{"model": ', headers=headers, timeout=30)
    error = got.json()["error"]
    assert (got.status_code, error["code"], error["param"]) == (400, "invalid_json", None)
    assert error["message"].startswith("the body is no JSON (")


def test_the_bytes_say_what_audio_is_whatever_the_format_named(client):
    request = audio_of(base64.b64encode(tiny_talker.audio_bytes(0.5)).decode(), "mp3")
    assert client.chat.completions.create(**request, max_tokens=2).usage.completion_tokens == 2


def audio_of(data, kind="wav"):
    request = said()
    request["messages"][0]["content"][0]["input_audio"] = {"data": data, "format": kind}
    return request


@pytest.mark.parametrize(
    "data",
    [
        "not base64!",
        "",
        base64.b64encode(b"not audio at all").decode(),
        base64.b64encode(tiny_talker.audio_bytes(0.5)[:4000]).decode(),
        base64.b64encode(tiny_talker.audio_bytes(0.001)).decode(),
        base64.b64encode(tiny_talker.audio_bytes(0.05, rate_hz=1000)).decode(),
    ],
    ids=["no base64", "no bytes", "no audio", "cut short", "shorter than a frame", "a strange rate"],
)
def test_bad_audio_is_the_callers_fault(running, data):
    got = httpx.post(f"{running.url}/v1/chat/completions", json=audio_of(data), timeout=30)
    assert got.status_code == 400, got.text
    assert got.json()["error"]["code"] == "invalid_audio"
    assert "/tmp" not in got.text
    assert "leave it out" not in got.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"model": 3}', b"[" * 90_000, b"\xff\xfe", b'{"messages": NaN}']
)
def test_malformed_bodies_are_refused(running, body):
    got = httpx.post(
        f"{running.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=30
    )
    assert got.status_code == 400, got.text
    assert got.json()["error"]["type"] == "invalid_request_error"


def test_a_page_elsewhere_cannot_post_by_a_plain_form(running):
    got = httpx.post(
        f"{running.url}/v1/chat/completions", content=json.dumps(text()), headers={"content-type": "text/plain"}
    )
    assert got.status_code == 400
    assert "Content-Type: application/json" in got.json()["error"]["message"]


def test_what_is_not_there_is_404_and_405(running):
    for method, path, status in (("GET", "/v1/embeddings", 404), ("GET", "/v1/chat/completions", 405)):
        got = httpx.request(method, running.url + path)
        assert (got.status_code, got.json()["error"]["type"]) == (status, "invalid_request_error")


def test_too_large_a_body_is_413_with_and_without_its_length(running):
    def pieces():
        for _ in range(300):
            yield b"x" * 1000

    for content in (b"x" * 300_000, pieces()):
        got = httpx.post(
            f"{running.url}/v1/chat/completions",
            content=content,
            headers={"content-type": "application/json"},
            timeout=30,
        )
        assert (got.status_code, got.json()["error"]["code"]) == (413, "too_large")


def test_fifty_clients_at_once_each_get_their_own_answer(talker, running):
    wanted = [alone(talker, seed, 0.2 + 0.05 * (seed % 9), max_tokens=6 + seed % 7) for seed in range(50)]
    assert len(set(wanted)) > 25

    async def all_of_them():
        async with openai.AsyncOpenAI(
            base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=120
        ) as client:

            async def one(seed):
                request = said(seed, 0.2 + 0.05 * (seed % 9), max_tokens=6 + seed % 7)
                if seed % 2:
                    got = await client.chat.completions.create(**request)
                    return got.choices[0].message.content
                stream = await client.chat.completions.create(**request, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(50)))

    assert asyncio.run(all_of_them()) == wanted
    assert idle(talker)
