"""Asking a model in a terminal: audio files, stdin or the microphone; the answer as it comes."""

from __future__ import annotations

import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salad import take_home
from salad.cli.options import JsonOption, app, print_json, quiet, stop
from salad.cli.talking import AsrOption, MaxTokensOption, chosen, leave_quickly
from salad.errors import AudioError, SaladError

if TYPE_CHECKING:
    from salad.measure.models.base import Speech
    from salad.serve.conversation import Prompt
    from salad.serve.drawing import Sampling
    from salad.serve.rows import Finished
    from salad.serve.sound import Microphone
    from salad.serve.talker import Talker

LISTEN_EVERY_S = 0.04
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm")


@app.command()
def ask(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", help="A model folder or run [salad-smollm2-135m, which comes along]."),
    ] = None,
    audio: Annotated[
        list[str] | None, typer.Argument(metavar="[AUDIO]...", help="Audio files, a question each; - is stdin.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="Text after the speech, or instead of it.")] = "",
    mic: Annotated[bool, typer.Option("--mic", help="Record the question, until Enter is pressed.")] = False,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.1, help="With --mic: record so long.")] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Also what the text LLM answers to a transcript, and where the two part.")
    ] = False,
    asr: AsrOption = None,
    max_tokens: MaxTokensOption = 64,
    sample: Annotated[bool, typer.Option("--sample", help="Sample (top-k 250, temperature 0.7); else greedy.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    continue_text: Annotated[
        bool, typer.Option("--continue", help="Continue the speech instead of answering.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a spoken question (instruct LLM), or continue what was said (base LLM).

    With --text each token of both answers is coloured by D = KL(text LLM reading || model hearing) in nats: where it is
    large the model misheard, or was never taught. Without a terminal, or with NO_COLOR set, the numbers are listed.
    Files that can't be read are named, the others are answered, and the exit code is 2. Without a MODEL the one that
    comes with salad answers: salad ask question.wav
    """
    if model is not None and _is_audio(model):
        model, audio = None, [str(model), *(audio or [])]
    if not audio and not mic and not prompt:
        if model is not None and not model.exists() and str(model) != take_home.NAME:
            stop(f"{model} does not exist; give an audio file to be answered, or a model and an audio file.")
        stop("nothing was asked; give an audio file (- reads one from stdin), --mic, or a --prompt.")
    read = [(name, _read(name)) for name in audio or []]  # before the model: what is wrong with them shows at once
    _told_of(read, as_json)
    model = chosen(model)
    microphone = _microphone() if mic else None
    quiet()
    leave_quickly()
    from salad.measure.models.base import TEMPERATURE, TOP_K
    from salad.serve.drawing import Sampling
    from salad.serve.talker import Talker

    sampling = Sampling(TEMPERATURE, TOP_K, seed=seed) if sample else Sampling()
    talker = Talker.load(model, asr, continue_text=continue_text, max_rows=1)
    with closing(talker):  # Ctrl-C too: a thread inside torch at the interpreter's end aborts the process
        questions: list[Speech | SaladError | None] = [clip for _, clip in read]
        live: dict[str, Prompt] = {}
        if microphone is not None:
            spoken, live_prompt = recorded(talker, microphone, seconds, prompt)
            questions.append(spoken)
            live = {spoken.id: live_prompt} if live_prompt is not None else {}
        rows: list[dict[str, Any]] = []
        for number, one in enumerate(questions or [None]):
            if isinstance(one, SaladError):  # it was told before
                rows.append(_refused(read[number][0], one))
                continue
            if len(questions) > 1 and one is not None and not as_json:
                print(f"{one.id}:")
            heard = None if one is None else live.get(one.id)
            try:
                rows.append(_answer(talker, one, heard, prompt, max_tokens, sampling, text, as_json))
            except SaladError as error:
                if len(questions) < 2 or one is None:
                    raise
                warn(f"{one.id}: {error}")
                rows.append(_refused(one.id, error))
    if as_json:
        print_json(rows[0] if len(rows) == 1 else rows)
    if any("error" in row for row in rows):
        sys.exit(2)


def _is_audio(named: Path) -> bool:
    """Whether what stands in the model's place is a question: a model is a folder or a name, never a file."""
    return str(named) == "-" or named.is_file() or (named.suffix.lower() in AUDIO_SUFFIXES and not named.exists())


def warn(sentence: str) -> None:
    """One sentence on stderr, and on it goes."""
    print(f"salad: {sentence}", file=sys.stderr, flush=True)


def _read(name: str) -> Speech | SaladError:
    """A question's audio, or what is wrong with it."""
    from salad.serve.sound import clip_from_bytes, read_clip

    try:
        return clip_from_bytes(sys.stdin.buffer.read(), "stdin") if name == "-" else read_clip(Path(name))
    except SaladError as error:
        return error


def _told_of(read: list[tuple[str, Speech | SaladError]], as_json: bool) -> None:
    """Say which files can't be asked with; the others are, unless there are none.

    Raises:
        SaladError: there are none.
    """
    bad = [(name, clip) for name, clip in read if isinstance(clip, SaladError)]
    if not bad or len(bad) < len(read):
        for _, error in bad:
            warn(str(error))
        return
    if as_json:
        rows = [_refused(name, error) for name, error in bad]
        print_json(rows[0] if len(rows) == 1 else rows)
    raise bad[0][1] if len(bad) == 1 else AudioError(" ".join(str(error) for _, error in bad))


def _refused(name: str, error: SaladError) -> dict[str, Any]:
    """What --json prints of a question that could not be asked."""
    return {"audio": "stdin" if name == "-" else Path(name).name, "error": str(error)}


def _microphone() -> Microphone:
    from salad.serve.sound import Microphone

    return Microphone()


def recorded(
    talker: Talker, microphone: Microphone, seconds: float | None, prompt: str
) -> tuple[Speech, Prompt | None]:
    """What is said until Enter, or for so long; with its prompt where the model heard it while it was spoken."""
    from salad.serve.live import LiveSpeech, hears_while_spoken

    live = LiveSpeech(talker, after=prompt) if hears_while_spoken(talker) else None
    over = threading.Event()
    with microphone:
        if seconds is not None:
            print(f"Recording for {seconds:g} s ...", file=sys.stderr)
            threading.Timer(seconds, over.set).start()
        else:
            print("Speak, then press Enter.", file=sys.stderr)
            threading.Thread(target=_until_enter, args=(over,), daemon=True).start()
        while not over.wait(LISTEN_EVERY_S):
            if live is not None:
                live.push(microphone.newest())
    clip = microphone.clip()
    if live is None:
        return clip, None
    live.push(microphone.newest())
    return clip, live.finish()


def _until_enter(over: threading.Event) -> None:
    sys.stdin.readline()
    over.set()


def _answer(
    talker: Talker,
    clip: Speech | None,
    live: Prompt | None,
    prompt: str,
    max_tokens: int,
    sampling: Sampling,
    text: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Ask one question, print the answer as it comes, and give what --json prints."""
    from salad.serve.conversation import Turn
    from salad.serve.shown import divergence_json, emptiness, print_divergence, silence
    from salad.serve.talker import READS

    parts = ([] if clip is None else [clip]) + ([prompt] if prompt else [])
    turns = [Turn("user", tuple(parts))]
    heard = live or talker.hear(turns)
    warnings = silence(parts)
    for sentence in warnings:
        warn(sentence)
    answer, end = _streamed(talker, heard, max_tokens, as_json, sampling=sampling)
    for sentence in emptiness(answer, end):
        warn(sentence)
        warnings.append(sentence)
    result: dict[str, Any] = {"answer": answer, "finish_reason": end.reason, "warnings": warnings}
    if clip is not None:
        result = {"audio": clip.id} | result
    if not text:
        return result
    transcript = "" if clip is None else talker.transcript(clip)
    read = talker.prompter.read(turns, lambda _: transcript)
    if not as_json:
        print(f"\nThe ASR heard: {transcript!r}\nThe text LLM answers to that:")
    text_answer, text_end = _streamed(talker, read, max_tokens, as_json, sampling=sampling, reader=READS)
    rows, text_rows = (talker.divergence(heard, read, own.ids) for own in (end, text_end))
    if not as_json:
        print_divergence(rows, text_rows)
    return result | {
        "transcript": transcript,
        "text_answer": text_answer,
        "divergence": divergence_json(rows),
        "text_divergence": divergence_json(text_rows),
    }


def _streamed(talker: Talker, prompt: Any, max_tokens: int, silent: bool, **how: Any) -> tuple[str, Finished]:
    """Text (without the space that begins it) and end of an answer, printed as it comes; a cut one is marked."""
    from salad.serve.rows import Finished

    whole = ""
    for event in talker.events(prompt, max_tokens, **how):
        if isinstance(event, Finished):
            if not silent:
                print(flush=True)
                if event.reason == "length":
                    print(f"(cut at {max_tokens} tokens; --max-tokens N for more)", file=sys.stderr, flush=True)
            return whole.strip(), event
        piece = event.text if whole else event.text.lstrip()
        whole += piece
        if not silent:
            print(piece, end="", flush=True)
    raise AssertionError("an answer ended without an end")
