"""A saved model in three lines, and through transformers' Auto classes, in a fresh process; what importing costs."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import soundfile

import tiny_talker
from salad import load
from salad.errors import AudioError, CheckpointError, MissingFileError
from salad.measure.models.base import RATE_HZ


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("saved")
    soundfile.write(home / "q.wav", tiny_talker.samples(0.8), RATE_HZ)
    return tiny_talker.saved(home)


def fresh(code: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_file_and_its_samples_are_answered_alike_and_as_streamed(folder):
    audio = folder.parent / "q.wav"
    with load(folder) as model:
        answer = model.answer(audio, max_tokens=8)
        assert answer
        assert answer == "".join(model.stream(str(audio), max_tokens=8)).strip()
        assert answer == model.answer(soundfile.read(audio, dtype="float32")[0], max_tokens=8)
        assert model.answer(prompt="the river", max_tokens=4)
        drawn = {model.answer(audio, max_tokens=8, sample=True, seed=seed) for seed in (0, 0, 1, 2, 3)}
        assert 1 < len(drawn) < 5, "the seed decides"


def test_a_fresh_process_loads_it_through_auto_classes_and_in_three_lines(folder):
    code = (
        "import sys, salad\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model, processor = AutoModel.from_pretrained(sys.argv[1]), AutoProcessor.from_pretrained(sys.argv[1])\n"
        "print(type(model).__name__, type(processor).__name__)\n"
        "from salad import load\n"
        "model = load(sys.argv[1])\n"
        "print(model.answer(sys.argv[2], max_tokens=8))"
    )
    with load(folder) as model:
        answer = model.answer(folder.parent / "q.wav", max_tokens=8)
    assert fresh(code, folder, folder.parent / "q.wav") == f"SpeechLM SpeechLMProcessor\n{answer}"


def test_importing_salad_stays_light():
    assert fresh("import sys, salad; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))") == "[]"


def test_what_is_no_model_or_no_audio_is_said_in_a_sentence(folder, tmp_path):
    with pytest.raises(CheckpointError, match="neither a speech LLM's folder"):
        load(tmp_path)
    (tmp_path / "q.wav").write_bytes(b"not audio")
    with load(folder) as model:
        with pytest.raises(AudioError, match=r"it holds no audio; give a recording"):
            model.answer(tmp_path / "q.wav")
        with pytest.raises(MissingFileError, match=r"no\.wav does not exist; give the path"):
            model.answer(tmp_path / "no.wav")


def test_silence_and_an_answer_without_words_are_warned_of_at_the_callers_line(folder):
    nothing = tiny_talker.samples(0.5) * 1e-3
    with load(folder) as model:
        with pytest.warns(UserWarning, match="samples holds no sound .* the answer is to silence") as told:
            model.answer(nothing, max_tokens=12)
        with pytest.warns(UserWarning, match="holds no sound") as streamed:
            list(model.stream(nothing, max_tokens=12))
        assert {warning.filename for warning in (*told, *streamed)} == {__file__}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.answer(folder.parent / "q.wav", max_tokens=8)
        model.talker._end_ids = frozenset(range(len(model.talker.processor.tokenizer)))
        model.talker.engine._rows["hears"] = model.talker._rows(model.talker.model)
        with pytest.warns(UserWarning, match=r"the answer is empty: the model ended at once\."):
            assert model.answer(prompt="the river", max_tokens=3) == ""
