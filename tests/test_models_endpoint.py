"""A chat model behind HTTP, asked over the loopback: what is sent, tried again, counted, and said when it fails."""

from __future__ import annotations

import base64
import email.utils
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

from salad.errors import AssetError, DataError, NoAnswerError, RecipeError, TooLongError, UnscorableError
from salad.measure.models import chat_http
from salad.measure.models.base import Question, Unanswered
from salad.measure.models.chat_http import retry_after_s
from salad.measure.models.endpoint import Endpoint
from salad.measure.models.written import Asked, WrittenCounts, written_answers, written_counts
from tiny_audio_models import clip

SECRET = "sk-a-key-that-must-not-be-seen"
PROMPT = ["Listen: ", clip("spoken"), "\nWhich is it?"]


def said(content: object, **more: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}, **more}]}).encode()


def offered(**logprobs: float) -> bytes:
    top = [{"token": token.replace("_", " "), "logprob": value} for token, value in logprobs.items()]
    return said("A", logprobs={"content": [{"token": "A", "logprob": 0.0, "top_logprobs": top}]})


class Server(ThreadingHTTPServer):
    """Says "B", after the `answers` it is given: (status, headers, content, seconds to wait); b"" drops the line."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, dict[str, str], bytes, float]] = []
        self.asked: list[tuple[float, str, dict[str, str], dict[str, object]]] = []

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def will(self, content: bytes, status: int = 200, wait_s: float = 0.0, **headers: str) -> None:
        """Answer so next."""
        self.answers.append(
            (status, {name.replace("_", "-"): value for name, value in headers.items()}, content, wait_s)
        )


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((time.monotonic(), self.path, dict(self.headers), body))
        status, headers, content, wait_s = (
            self.server.answers.pop(0) if self.server.answers else (200, {}, said("B"), 0)
        )
        time.sleep(wait_s)
        if not content and status == 200:
            self.connection.close()
            return
        self.send_response(status)
        standard = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in (standard | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def endpoint(server: Server) -> Endpoint:
    return Endpoint(f"{server.url}#org/model", timeout_s=1.0, first_wait_s=0.01)


def test_what_is_asked(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    endpoint = Endpoint(f"{server.url}/#org/model")
    assert endpoint.generate(PROMPT, 16, seed=7) == "B"
    _, path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert {name: body[name] for name in body if name != "messages"} == {
        "model": "org/model",
        "max_tokens": 16,
        "temperature": 0.7,
        "seed": 7,
        "top_k": 250,
    }
    (turn,) = body["messages"]
    before, heard, after = turn["content"]
    assert (before, after) == ({"type": "text", "text": "Listen: "}, {"type": "text", "text": "\nWhich is it?"})
    assert heard["type"] == "input_audio"
    assert heard["input_audio"]["format"] == "wav"
    samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(heard["input_audio"]["data"])), dtype="float32")
    assert rate_hz == 16_000
    assert np.abs(samples - PROMPT[1].samples).max() < 1 / 32_000
    assert SECRET not in repr(vars(endpoint)) + endpoint.name + endpoint.fingerprint
    assert endpoint.troubles == []


def test_greedy_answers_ask_for_no_sampling(server, endpoint):
    endpoint.generate(PROMPT, 4, 0, temperature=0)
    body = server.asked[0][3]
    assert body["temperature"] == 0
    assert "top_k" not in body


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("status 429", {"content": b"{}", "status": 429}),
        ("status 500", {"content": b"oops", "status": 500}),
        ("status 503", {"content": b"", "status": 503}),
        ("half a JSON", {"content": said("B")[:30]}),
        ("not JSON", {"content": b"<html>log in</html>", "Content_Type": "text/html"}),
        ("no answer in it", {"content": b'{"choices": []}'}),
        ("no answer in it", {"content": b'{"error": "overloaded"}'}),
        ("no answer in it", {"content": said(None)}),
        ("no answer in it", {"content": b'["B"]'}),
        ("no answer in it", {"content": b'{"choices": ["B"]}'}),
        ("connection", {"content": b""}),
        ("connection", {"content": said("B")[:30], "Content_Length": "500"}),
        ("timeout", {"content": said("late"), "wait_s": 1.5}),
    ],
)
def test_what_fails_once_is_asked_again_and_counted(server, endpoint, kind, answer):
    server.will(**answer)
    assert endpoint.generate(PROMPT, 4, 0) == "B"
    assert len(server.asked) == 2
    assert endpoint.counts == {kind: 1}
    (trouble,) = endpoint.troubles
    assert trouble.about == "spoken"


def test_a_slow_answer_is_waited_for(server, endpoint):
    server.will(said("slow"), wait_s=0.5)
    assert endpoint.generate(PROMPT, 4, 0) == "slow"
    assert endpoint.counts == {}


def test_retry_after_is_kept_to(server, endpoint):
    server.will(b"{}", status=429, Retry_After="0.6")
    assert endpoint.generate(PROMPT, 4, 0) == "B"
    assert server.asked[1][0] - server.asked[0][0] >= 0.6


def test_retry_after_may_be_a_date():
    assert 28 < retry_after_s(email.utils.formatdate(time.time() + 30, usegmt=True)) <= 30
    assert retry_after_s(email.utils.formatdate(time.time() - 30, usegmt=True)) == 0
    assert retry_after_s("soon") == retry_after_s(None) == retry_after_s("-3") == 0


def test_longer_than_ten_minutes_is_not_waited_for(server, endpoint):
    server.will(b"{}", status=429, Retry_After="3600")
    with pytest.raises(NoAnswerError, match="1 tries"):
        endpoint.generate(PROMPT, 4, 0)


def test_an_item_that_fails_for_good_is_unanswered_and_the_next_is_asked(server, endpoint):
    for _ in range(chat_http.TRIES):
        server.will(b"no", status=500)
    with pytest.raises(NoAnswerError, match=r"gave no answer in 6 tries, the last time: status 500: no"):
        endpoint.generate(PROMPT, 4, 0)
    assert endpoint.counts == {"status 500": chat_http.TRIES}
    assert endpoint.generate(PROMPT, 4, 0) == "B"


def test_what_the_server_refuses_is_not_asked_again(server, endpoint):
    server.will(b'{"error": "audio too long"}', status=400)
    with pytest.raises(NoAnswerError, match=r"refuses this item .status 400.*audio too long"):
        endpoint.generate(PROMPT, 4, 0, temperature=0)
    assert len(server.asked) == 1
    assert endpoint.counts == {"refused": 1}


def test_a_server_without_top_k_is_asked_without_it_from_then_on(server, endpoint):
    server.will(b'{"error": "Unrecognized request argument supplied: top_k"}', status=400)
    assert [endpoint.generate(PROMPT, 4, 0) for _ in range(2)] == ["B", "B"]
    assert ["top_k" in body for *_, body in server.asked] == [True, False, False]
    assert "top_k" in endpoint.troubles[0].reason


def test_a_server_that_is_gone_stops_the_run_with_one_sentence(monkeypatch, server):
    monkeypatch.setattr(chat_http, "TRIES", 2)
    endpoint = Endpoint("http://127.0.0.1:9/v1#m", first_wait_s=0.001)
    for _ in range(chat_http.GIVE_UP_AFTER - 1):
        with pytest.raises(NoAnswerError):
            endpoint.generate(PROMPT, 4, 0)
    with pytest.raises(AssetError, match="has answered none of the last 8 items"):
        endpoint.generate(PROMPT, 4, 0)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(401, "does not accept the key"), (404, "no such model"), (302, "sends requests elsewhere")],
)
def test_a_wrong_key_or_address_stops_at_once(server, endpoint, status, sentence):
    server.will(b"no", status=status, Location="http://127.0.0.1:9/")
    with pytest.raises(AssetError, match=sentence):
        endpoint.generate(PROMPT, 4, 0)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (said(""), ""),
        (said(" B. \n"), "B."),
        (said([{"type": "text", "text": "B"}]), "B"),
        (json.dumps({"choices": [{"message": {"content": None, "refusal": "I can't."}}]}).encode(), "I can't."),
    ],
)
def test_what_counts_as_an_answer(server, endpoint, content, wanted):
    server.will(content)
    assert endpoint.generate(PROMPT, 4, 0) == wanted


def test_letters_are_scored_where_log_probabilities_are_offered(server, endpoint):
    server.will(offered(A=-0.5, _A=-1.5, B=-3.0, _C=-2.0, The=-4.0))
    scores = endpoint.score_choices(PROMPT, [" A", " B", " C"])
    assert [score.num_tokens for score in scores] == [1, 1, 1]
    wanted = [math.log(math.exp(-0.5) + math.exp(-1.5)), -3.0, -2.0]
    assert [score.logprob for score in scores] == pytest.approx(wanted)
    body = server.asked[0][3]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)


def test_what_is_not_offered_is_not_made_up(server, endpoint):
    server.will(offered(A=-0.5, _B=-1.5))
    questions = [Question(name, tuple(PROMPT), (" A", " B", " C")) for name in ("q1", "q2")]
    first, second = endpoint.score_batch(questions)  # the second answer has no log-probabilities
    assert isinstance(first, Unanswered)
    assert "C is not among the 2 first tokens" in first.reason
    assert isinstance(second, Unanswered)
    assert (second.item_id, second.kind) == ("q2", "unscorable")
    with pytest.raises(UnscorableError, match="gives no log-probabilities"):
        endpoint.score_letters(PROMPT, 2)
    with pytest.raises(DataError, match="no log-probabilities of whole choices"):
        endpoint.score_choices(PROMPT, [" water", " fire"])


def test_speech_over_the_servers_limit_is_not_sent(server):
    endpoint = Endpoint(f"{server.url}#m", max_audio_s=0.5)
    with pytest.raises(TooLongError, match=r"spoken has 1\.00 s"):
        endpoint.generate(PROMPT, 4, 0)
    assert server.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1:8000#m", "http://127.0.0.1:8000/v1", "http://#m", "ftp://host/v1#m"])
def test_an_incomplete_address_says_how_to_write_it(address):
    with pytest.raises(RecipeError, match="write endpoint:URL#MODEL"):
        Endpoint(address)


def test_no_secret_goes_into_results_or_out_in_the_clear(monkeypatch):
    with pytest.raises(RecipeError, match="must hold no secret"):
        Endpoint("https://me:pw@host/v1#m")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(AssetError, match="unencrypted") as raised:
        Endpoint("http://example.org/v1#m")
    assert SECRET not in str(raised.value)


def test_written_answers_of_an_endpoint_are_counted_item_by_item(server, endpoint):
    choices = ("a plant", "the sun", "an apple", "the moon")
    items = [Asked(f"i{i}", ("Listen: ", clip(f"c{i}"), "\n"), choices, 1) for i in range(5)]
    long = Asked("long", (clip("long", 3.0),), choices, 1)
    endpoint.max_audio_s = 2.0
    for answer in ("B", "The answer is an apple", "I hear nothing"):
        server.will(said(answer))
    server.will(b"too big", status=413)
    seen = []
    results = written_answers(endpoint, [*items, long], on_done=seen.append)
    assert seen == results
    assert [result.item_id for result in results] == ["i0", "i1", "i2", "i3", "i4", "long"]
    sent = server.asked[0][3]["messages"][0]["content"]
    assert sent[-1]["text"].startswith("\n\nA. a plant\nB. the sun\n")
    counts = written_counts(results)
    assert (counts.num_answers, counts.num_unread) == (4, 1)
    assert counts.accuracy_by_rule == {"declared": 0.5, "voicebench": 0.5625, "lmms_eval": 0.5, "guessing": 0.5625}
    assert [(one.item_id, one.unanswered.kind) for one in results if one.unanswered] == [
        ("i3", "no_answer"),
        ("long", "too_long"),
    ]
    assert written_counts(results[3:4]) == WrittenCounts(0, 0, {})


def test_several_items_at_once_are_answered_in_their_order(server, endpoint):
    choices = ("a plant", "the sun")
    items = [Asked(f"i{i}", (f"item {i}",), choices, 1) for i in range(12)]
    for _ in range(4):
        server.will(said("A"), wait_s=0.4)
    start, seen = time.monotonic(), []
    results = written_answers(endpoint, items, on_done=seen.append, workers=4)
    assert time.monotonic() - start < 1.4  # 1.6 s one after the other
    assert [result.item_id for result in results] == [item.id for item in items]
    assert sorted(one.item_id for one in seen) == sorted(item.id for item in items)
    assert sum(result.credits["declared"] for result in results) == 8
    assert {result.item_id for result in results if result.credits["declared"] == 0} <= {"i0", "i1", "i2", "i3"}


def test_a_wrong_key_stops_all_workers_and_keeps_what_was_answered(server, endpoint):
    server.will(said("B"))
    server.will(b"no", status=401)
    items = [Asked(f"i{i}", (f"item {i}",), ("a plant", "the sun"), 1) for i in range(200)]
    for _ in range(198):
        server.will(b"no", status=401)
    seen = []
    with pytest.raises(AssetError, match="does not accept the key"):
        written_answers(endpoint, items, on_done=seen.append)
    assert [one.item_id for one in seen] == ["i0"]
    assert len(server.asked) < 20
