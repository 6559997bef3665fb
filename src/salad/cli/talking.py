"""Talking to a model from elsewhere: serve (over HTTP), chat (on a page); and what they share with ask."""

from __future__ import annotations

import atexit
import gc
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from salad import take_home
from salad.cli.options import app, quiet, stop

ModelArgument = Annotated[
    Path | None, typer.Argument(metavar="[MODEL]", help=f"A model folder or run [{take_home.NAME}, which comes along].")
]
AsrOption = Annotated[str | None, typer.Option("--asr", help="Whose transcript the text LLM reads [the run's ASR].")]
MaxTokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="Tokens of an answer at most.")]


def chosen(model: Path | None) -> Path:
    """The model that is named, or the one that comes with salad; which is then said.

    Raises:
        AssetError: none is named, and this build comes without one.
    """
    if model is not None:
        return model
    take_home.folder()
    print(
        f"salad: no model is named, so {take_home.NAME} answers, which comes with salad.", file=sys.stderr, flush=True
    )
    return Path(take_home.NAME)


def leave_quickly() -> None:
    """Spare the interpreter its last look for garbage at the end: among all of torch's objects it takes seconds."""
    atexit.register(gc.freeze)


@app.command()
def serve(
    model: ModelArgument = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="SALAD_API_KEY", help="What callers must send; safer as variable.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Answers written at the same time.")] = 16,
    requests: Annotated[int, typer.Option("--requests", min=1, help="Requests at a time, waiting ones included.")] = 80,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Tokens of an answer at most.")] = 512,
    max_audio: Annotated[float, typer.Option("--max-audio", min=0.1, help="Seconds of speech in a request.")] = 60.0,
    max_body: Annotated[float, typer.Option("--max-body", min=0.001, help="MiB of a request.")] = 16.0,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for an answer.")] = 120.0,
    drain: Annotated[float, typer.Option("--drain", min=0, help="Seconds running answers have at the end.")] = 30.0,
    continue_text: Annotated[bool, typer.Option("--continue", help="Continue what is said; no chat.")] = False,
) -> None:
    """Answer over HTTP as OpenAI's chat completions do, with input_audio and streaming.

    POST /v1/chat/completions, GET /v1/models, /health and /ready. It listens on this machine alone unless told
    otherwise; Ctrl-C finishes what is being answered.
    """
    _need("fastapi", "uvicorn", extra="serve")
    model = chosen(model)
    quiet()
    leave_quickly()
    from salad.serve.address import bind
    from salad.serve.http_app import make_app
    from salad.serve.http_guard import Limits
    from salad.serve.http_server import serve_until_told
    from salad.serve.talker import Talker

    limits = Limits(int(max_body * (1 << 20)), max_audio, max_tokens, answer_s=timeout, requests=requests)
    listener = bind(host, port)
    talker = Talker.load(model, continue_text=continue_text, max_rows=batch, max_waiting=requests)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/v1"
    if not api_key and not host.startswith("127.") and host not in ("localhost", "::1"):
        print("salad: everybody who reaches this address may ask; give an --api-key.", file=sys.stderr)
    listener.listen(requests)  # who comes between this line and the server's first turn waits instead of being refused
    print(f"{talker.name} answers at {address} (Ctrl-C ends it)", flush=True)
    serve_until_told(make_app(talker, limits, api_key or None), listener, drain)
    talker.close()
    print("salad: stopped", file=sys.stderr, flush=True)


def _need(*modules: str, extra: str) -> None:
    """Stop with the exact command where an optional part is not installed."""
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        stop(f"{' and '.join(missing)} {verb} not installed: pip install 'salad-speech[{extra}]'")


@app.command()
def chat(
    model: ModelArgument = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 7860,
    asr: AsrOption = None,
    max_tokens: MaxTokensOption = 128,
    continue_text: Annotated[bool, typer.Option("--continue", help="Continue what is said; no chat.")] = False,
) -> None:
    """Talk to a model on a web page: microphone, file or text; the text LLM's answer beside it.

    The page needs no network. A browser gives its microphone to pages of this machine, or over HTTPS.
    """
    _need("gradio", extra="chat")
    model = chosen(model)
    quiet()
    leave_quickly()
    from salad.serve.address import bind
    from salad.serve.chat_page import make_page, show
    from salad.serve.talker import Talker

    with bind(host, port) as free:  # Gradio takes it again itself, once the model is loaded
        port = free.getsockname()[1]
    talker = Talker.load(model, asr, continue_text=continue_text)
    page = make_page(talker, max_tokens)
    print(f"{talker.name} listens at {show(page, host, port)} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except (KeyboardInterrupt, SystemExit):
        page.close(verbose=False)
        talker.close()
