"""salad ask: audio files, stdin, a microphone or text; the answer as it comes, and where hearing and reading part."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console
from typer.testing import CliRunner

import tiny_talker
from salad.cli import app
from salad.errors import AudioError, MissingFileError, RecipeError
from salad.serve.conversation import Turn
from salad.serve.divergence import TokenDivergence
from salad.serve.drawing import Sampling
from salad.serve.rows import Finished
from salad.serve.shown import emptiness, print_divergence
from salad.serve.sound import Microphone, clip_from_bytes, holds_sound
from salad.serve.talker import READS, Talker


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    yield tiny_talker.saved(tmp_path_factory.mktemp("asked"))
    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def talker(model):
    made = Talker.load(model)
    yield made
    made.close()


@pytest.fixture
def question(tmp_path):
    (tmp_path / "question.wav").write_bytes(tiny_talker.audio_bytes(0.5))
    return str(tmp_path / "question.wav")


def ask(*words, stdin=None):
    return CliRunner().invoke(app, ["ask", *map(str, words)], input=stdin)


def answer(talker, *parts, reader="hears", **how):
    turns = [Turn("user", parts)]
    prompt = talker.hear(turns) if reader == "hears" else talker.read(turns)
    return "".join(talker.stream(prompt, 9, reader=reader, **how)).strip()


def clip():
    return clip_from_bytes(tiny_talker.audio_bytes(0.5), "question")


def test_an_answer_from_a_file_stdin_or_text(model, talker, question):
    wanted = answer(talker, clip())
    assert ask(model, question, "--max-tokens", 9).stdout.strip() == wanted
    assert ask(model, "-", "--max-tokens", 9, stdin=tiny_talker.audio_bytes(0.5)).stdout.strip() == wanted
    after = ask(model, question, "--prompt", "the river", "--max-tokens", 9).stdout.strip()
    assert after == answer(talker, clip(), "the river") != wanted
    assert ask(model, "--prompt", "the river", "--max-tokens", 9).stdout.strip() == answer(talker, "the river")


def test_drawn_by_the_seed_as_the_paper_does(model, talker, question):
    drawn = ask(model, question, "--sample", "--seed", 3, "--max-tokens", 9).stdout.strip()
    assert drawn == answer(talker, clip(), sampling=Sampling(0.7, 250, seed=3))


def test_several_files_are_a_question_each(model, question, tmp_path):
    (tmp_path / "other.flac").write_bytes(tiny_talker.audio_bytes(0.7, 1, "FLAC"))
    told = ask(model, question, tmp_path / "other.flac", "--max-tokens", 3).stdout
    assert told.index("question.wav:") < told.index("other.flac:")
    rows = json.loads(ask(model, question, tmp_path / "other.flac", "--max-tokens", 3, "--json").stdout)
    assert [row["audio"] for row in rows] == ["question.wav", "other.flac"]
    assert all(row["finish_reason"] == "length" for row in rows)


def test_the_text_llms_answer_beside_it_and_the_divergence(model, talker, question):
    told = json.loads(ask(model, question, "--text", "--max-tokens", 9, "--json").stdout)
    assert told["answer"] == answer(talker, clip())
    assert told["text_answer"] == answer(talker, clip(), reader=READS)
    assert told["transcript"] == talker.transcript(clip())
    for own in ("divergence", "text_divergence"):
        tokens = told[own]["tokens"]
        assert told[own]["nats_per_token"] == pytest.approx(sum(row["kl_nats"] for row in tokens) / len(tokens))
        assert set(tokens[0]) == {"text", "kl_nats", "heard_prob", "read_prob", "read_says"}
    piped = ask(model, question, "--text", "--max-tokens", 9).stdout
    assert "\x1b" not in piped
    for row in told["divergence"]["tokens"]:
        assert f"{row['kl_nats']:6.3f}" in piped
    assert f"The ASR heard: {told['transcript']!r}" in piped


ROWS = [TokenDivergence(" [bold]water", 2.5, 0.01, 0.9, " river"), TokenDivergence(" is", 0.01, 0.5, 0.5, " is")]


def test_a_terminal_gets_colours_and_the_worst_tokens_in_words(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    print_divergence(ROWS, [], Console(file=out, force_terminal=True, color_system="truecolor", width=200))
    text = out.getvalue()
    assert "48;2;140;29;24m [bold]water\x1b[0m is" in text  # the darkest shade, and none
    assert "2.50  ' [bold]water': 1% likely when heard, 90% to the text LLM, which would say ' river'" in text
    assert "1.255 on average over 2 tokens" in text


def test_no_color_gets_numbers(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    print_divergence(ROWS, [], Console(file=out, force_terminal=True, width=200))
    assert "48;2" not in out.getvalue()
    assert " 2.500    0.010    0.900  ' [bold]water'  ' river'" in out.getvalue()


def test_what_is_wrong_with_a_question_shows_before_the_model_is_loaded(tmp_path):
    nowhere = tmp_path / "no model"
    nothing = ask(nowhere)
    assert nothing.exit_code == 2
    assert isinstance(ask(nowhere, tmp_path / "no.wav").exception, MissingFileError)
    assert isinstance(ask(nowhere, "-", stdin=b"no audio").exception, AudioError)


def test_all_files_that_cannot_be_asked_with_are_told_at_once_in_words_for_a_question(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "header.wav").write_bytes(tiny_talker.audio_bytes(0))
    (tmp_path / "cut.wav").write_bytes(tiny_talker.audio_bytes(0.5)[:4000])
    names = ["no.wav", "text.wav", "empty.wav", "header.wav", "cut.wav"]
    got = ask(tmp_path / "no model", *[tmp_path / name for name in names], "--json")
    assert [row["audio"] for row in json.loads(got.stdout)] == names
    told = str(got.exception)
    for words in (
        "no.wav does not exist",
        "it holds no audio",
        "is empty (0 bytes)",
        "holds no samples",
        "is cut short",
    ):
        assert words in told
    assert "leave it out" not in told
    assert "manifest" not in told


def test_one_bad_file_does_not_take_the_others_answers(model, question, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    files = (question, tmp_path / "bad.wav", question)
    got = ask(model, *files, "--max-tokens", 3, "--json")
    rows = json.loads(got.stdout)
    assert [row["audio"] for row in rows] == ["question.wav", "bad.wav", "question.wav"]
    assert rows[0] == rows[2]
    assert "it holds no audio" in rows[1]["error"]
    assert got.exit_code == 2
    listed = ask(model, *files, "--max-tokens", 3)
    assert (listed.stdout.count("question.wav:"), listed.stdout.count("bad.wav:"), listed.exit_code) == (2, 0, 2)
    assert "bad.wav" in listed.stderr


def test_a_question_too_long_for_the_model_does_not_take_the_others_answers(model, question, tmp_path):
    (tmp_path / "long.wav").write_bytes(tiny_talker.audio_bytes(120))
    got = ask(model, tmp_path / "long.wav", question, "--max-tokens", 9, "--json")
    long, short = json.loads(got.stdout)
    assert "positions" in long["error"]
    assert short["answer"]
    assert got.exit_code == 2


def test_silence_and_an_answer_that_was_cut_are_said(model, question, tmp_path):
    soundfile.write(tmp_path / "silent.wav", tiny_talker.samples(0.5) * 1e-3 + 0.2, 16_000)  # an offset is no sound
    got = ask(model, tmp_path / "silent.wav", "--max-tokens", 3)
    assert "silent.wav holds no sound" in got.stderr
    assert "(cut at 3 tokens; --max-tokens N for more)" in got.stderr
    (warning,) = json.loads(ask(model, tmp_path / "silent.wav", "--max-tokens", 3, "--json").stdout)["warnings"]
    assert "the answer is to silence" in warning
    assert json.loads(ask(model, question, "--max-tokens", 9, "--json").stdout)["warnings"] == []


def test_an_answer_without_words_has_its_reason():
    assert emptiness("", Finished("stop", ())) == ["the answer is empty: the model ended at once."]
    assert emptiness("yes", Finished("stop", (5,))) == []
    assert not holds_sound(np.zeros(7, np.float32))
    assert holds_sound(np.concatenate([np.zeros(160_000, np.float32), tiny_talker.samples(0.1) * 0.1]))


def test_without_sounddevice_or_portaudio_the_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(RecipeError, match=r"pip install 'salad-speech\[mic\]'"):
        Microphone()
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(tmp_path)
    assert "libportaudio2" in str(ask(tmp_path, "--mic", "--seconds", "0.2").exception)


def test_an_interrupted_answer_leaves_no_thread_in_torch(model, question, monkeypatch):
    asked = []

    def interrupted(talker, *_):
        asked.append(talker)
        raise KeyboardInterrupt

    monkeypatch.setattr("salad.cli.asking._answer", interrupted)
    assert ask(model, question).exit_code == 130
    assert not asked[0].engine.alive
