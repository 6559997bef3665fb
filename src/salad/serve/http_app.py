"""A model behind OpenAI's HTTP interface: POST /v1/chat/completions, GET /v1/models, /health, /ready."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from salad.measure.models.base import TEMPERATURE, TOP_K
from salad.serve.conversation import Prompt
from salad.serve.drawing import Sampling
from salad.serve.http_errors import ApiError, add_handlers, as_api_error, error_object
from salad.serve.http_guard import Guard, Limits
from salad.serve.http_messages import turns_of
from salad.serve.http_schema import ChatRequest, Message, usage
from salad.serve.rows import Event, Failed, Finished, Job, Piece
from salad.serve.shown import emptiness, silence
from salad.serve.talker import Talker

T = TypeVar("T")
_logger = logging.getLogger("uvicorn.error")


class _Gone(Exception):  # noqa: N818  (nobody's error: the caller has left)
    """The caller has left; nobody is there to be told."""


def make_app(talker: Talker, limits: Limits | None = None, api_key: str | None = None) -> FastAPI:
    """The app over one model.

    Args:
        talker: answers.
        limits: of requests.
        api_key: what callers must send as a bearer token; None lets everybody in.
    """
    limits = limits or Limits()
    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(title=f"salad: {talker.name}", docs_url=None, redoc_url=None)
    app.add_middleware(Guard, limits=limits, api_key=api_key)
    add_handlers(app)
    started = int(time.time())
    app.state.draining = False
    app.state.engine = talker.engine

    @app.get("/health")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok" if talker.engine.alive else "stopped"}, 200 if talker.engine.alive else 503)

    @app.get("/ready")
    async def ready() -> JSONResponse:
        engine = talker.engine
        able = engine.alive and not app.state.draining
        counts = {"ready": able, "running": engine.num_running, "waiting": engine.num_waiting}
        return JSONResponse(counts, 200 if able else 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(talker, started)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        _check_name(talker, name)
        return _model(talker, started)

    @app.post("/v1/chat/completions")
    async def complete(body: ChatRequest, request: Request) -> Response:
        _check_name(talker, body.model)
        try:
            return await _complete(talker, body, limits, request.receive)
        except _Gone:
            return Response(status_code=499)  # goes nowhere; nginx's code for the log

    return app


async def _complete(talker: Talker, body: ChatRequest, limits: Limits, receive: Receive) -> Response:
    deadline = asyncio.get_running_loop().time() + limits.answer_s

    def in_time(wait: Awaitable[T]) -> Awaitable[T]:
        return _unless_gone(wait, receive, deadline)

    prompt, warnings = await in_time(asyncio.to_thread(_heard, talker, body.messages, limits))
    answer = Answer(talker, prompt, warnings, body, limits)
    try:
        # The first event decides on the status; a stream that has begun can no longer change it.
        answer.first = await in_time(answer.next())
        if body.stream:
            return AnswerStream(answer, deadline, bool(body.stream_options and body.stream_options.include_usage))
        event = answer.first
        while isinstance(event, Piece):
            event = await in_time(answer.next())
    except BaseException:
        answer.cancel()
        raise
    assert isinstance(event, Finished)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text, "refusal": None},
        "logprobs": None,
        "finish_reason": event.reason,
    }
    told = {"choices": [choice], "usage": answer.usage(event), "warnings": answer.warnings(event)}
    return JSONResponse(answer.head("chat.completion") | told)


class Answer:
    """One answer in the making: its events in this event loop, its `text` so far, what all its responses begin with.

    Raises:
        BusyError, TooLongError: as `Talker.start`.
    """

    def __init__(self, talker: Talker, prompt: Prompt, warnings: list[str], body: ChatRequest, limits: Limits) -> None:
        self.first: Event | None = None
        self.text = ""
        self._prompt, self._warnings = prompt, warnings
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": talker.name}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        tokens = _tokens(talker, prompt, body.tokens, limits)
        self._job: Job = talker.start(prompt, tell, tokens, _sampling(body), body.stops)

    async def next(self) -> Piece | Finished:
        """The next event.

        Raises:
            What went wrong.
        """
        event = await self._events.get()
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Piece):
            self.text += event.text
        return event

    def cancel(self) -> None:
        """Give the place to another; does nothing to a finished answer."""
        self._job.cancelled.set()

    def head(self, kind: str) -> dict[str, Any]:
        """What a response begins with."""
        return {"object": kind, **self._head}

    def usage(self, end: Finished) -> dict[str, Any]:
        """See `http_schema.usage`."""
        return usage(len(self._prompt.ids), self._prompt.num_heard, len(end.ids))

    def warnings(self, end: Finished) -> list[str]:
        """What to know before this answer is believed: clips without sound, an answer without words. Logged as well."""
        sentences = [*self._warnings, *emptiness(self.text.strip(), end)]
        for sentence in sentences:
            _logger.warning("%s: %s", self._head["id"], sentence)
        return sentences


class AnswerStream(StreamingResponse):
    """An answer as server-sent events; who stops listening stops it."""

    def __init__(self, answer: Answer, deadline: float, with_usage: bool) -> None:
        self._answer = answer
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._lines(deadline, with_usage), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.cancel()

    async def _lines(self, deadline: float, with_usage: bool) -> AsyncIterator[str]:
        event = self._answer.first
        head = self._answer.head("chat.completion.chunk") | ({"usage": None} if with_usage else {})

        def chunk(delta: dict[str, str], reason: str | None = None, **more: Any) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return _sse(head | {"choices": [choice]} | more)

        try:
            yield chunk({"role": "assistant", "content": ""})
            while isinstance(event, Piece):
                yield chunk({"content": event.text})
                async with asyncio.timeout_at(deadline):
                    event = await self._answer.next()
        except Exception as error:  # noqa: BLE001  (told to the caller, and logged where it is ours)
            told = as_api_error(error)
            yield _sse(error_object(told.status_code, str(told.detail), told.code, told.param))
        else:
            assert isinstance(event, Finished)
            yield chunk({}, event.reason, warnings=self._answer.warnings(event))
            if with_usage:
                yield _sse(head | {"choices": [], "usage": self._answer.usage(event)})
        yield "data: [DONE]\n\n"


def _sse(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _unless_gone(wait: Awaitable[T], receive: Receive, deadline: float) -> T:
    """What `wait` gives, unless the caller leaves first or the time is up.

    Raises:
        _Gone, TimeoutError: then.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waiting, leaving = asyncio.ensure_future(wait), asyncio.ensure_future(gone())
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise _Gone
        return waiting.result()
    finally:
        for task in (waiting, leaving):
            task.cancel()


def _heard(talker: Talker, messages: list[Message], limits: Limits) -> tuple[Prompt, list[str]]:
    """The prompt, and what there is to warn of before it is answered; runs in a thread of its own."""
    turns = turns_of(talker, messages, limits)
    return talker.hear(turns), [sentence for turn in turns for sentence in silence(turn.parts)]


def _tokens(talker: Talker, prompt: Prompt, asked: int | None, limits: Limits) -> int:
    """How long the answer may be: what is asked for, if it is not above the limit; else the limit, if it fits."""
    if asked is not None and asked > limits.answer_tokens:
        raise ApiError(
            400, f"max_tokens is {asked}; this server writes up to {limits.answer_tokens}.", "too_many", "max_tokens"
        )
    if asked is not None or talker.max_positions is None:
        return asked or limits.answer_tokens
    return max(1, min(limits.answer_tokens, talker.max_positions - len(prompt.ids)))


def _sampling(body: ChatRequest) -> Sampling:
    """As the paper samples, unless told; a request without a seed gets one of its own."""
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**63
    temperature = TEMPERATURE if body.temperature is None else body.temperature
    return Sampling(temperature, body.top_k or TOP_K, 1.0 if body.top_p is None else body.top_p, seed)


def _check_name(talker: Talker, name: str) -> None:
    if name != talker.name:
        raise ApiError(404, f"there is no model {name!r} here; this is {talker.name!r}.", "model_not_found", "model")


def _model(talker: Talker, created: int) -> dict[str, Any]:
    return {"id": talker.name, "object": "model", "created": created, "owned_by": "salad"}
