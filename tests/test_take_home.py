"""The model that comes with the package: its name, its 16-bit weights, and what is said where it is not there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import tiny
import tiny_talker
from salad import load, take_home
from salad.assets import fetch, resolve, status
from salad.card.bill import BILL_NAME, data_bill
from salad.card.page import write_card
from salad.cli import app
from salad.distill.checkpoint import save_checkpoint
from salad.distill.loop import make_optimizer
from salad.errors import AssetError, CheckpointError, RecipeError
from salad.files import read_json
from salad.model.saved import PRE_DECAY_NAME, check_weights, model_folder
from salad.model.speech_lm import SpeechLM
from salad.pushing import export
from salad.recipe import OptimizerSettings, load_recipe, parse_recipe
from salad.student import before_decay, new_student, save_model

ENCODER_DIM, ENCODER_HZ = 80, 100.0  # log-mel
REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with both stages' models, and the checkpoint before the decay, which differs from them."""
    home = tmp_path_factory.mktemp("run")
    settings = tiny.model_settings("full", str(tiny.save_llm(home / "llm"))).model_dump(mode="json")
    recipe = parse_recipe({"name": "tiny", "model": settings | {"encoder": "log-mel"}}, "test")
    student = tiny.move(new_student(recipe, ENCODER_DIM, ENCODER_HZ))
    checkpoint = home / "stage_one" / "checkpoints" / "pre_decay"
    save_checkpoint(checkpoint, student, make_optimizer(student, OptimizerSettings()), {})
    write_card(checkpoint, data_bill(recipe, "stage_one_before_decay", []))
    save_model(tiny.move(student, seed=2), recipe, "stage_two", home / "stage_two" / "model")
    return home


def logits(folder: Path) -> torch.Tensor:
    model = SpeechLM.from_pretrained(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "it computes as before"
    ids = torch.arange(1, 25)[None]
    return model(input_ids=ids).logits.detach()


def test_sixteen_bits_are_half_the_disk_and_nearly_the_same_logits(run, tmp_path):
    export(run, tmp_path / "out", take_home.NAME, "float16", pre_decay=True)
    whole = run / "stage_two" / "model"
    assert (tmp_path / "out/model.safetensors").stat().st_size < 0.6 * (whole / "model.safetensors").stat().st_size
    one, other = logits(whole), logits(tmp_path / "out")
    assert 0 < (one - other).abs().max() < 5e-3 * one.abs().max(), "float16 keeps 11 bits of a weight"
    card = (tmp_path / "out" / "README.md").read_text()
    assert f'load("{take_home.NAME}")' in card
    assert "rounded to float16" in card
    assert "## Measured\n\nNot yet." in card, "others were measured"


def test_the_weights_before_the_decay_come_with_it(run, tmp_path):
    export(run, tmp_path / "out", "me/tiny", "float16", pre_decay=True)
    check_weights(tmp_path / "out", "pre_decay.safetensors")
    (exact, bill), (shipped, again) = before_decay(run / "stage_two" / "model"), before_decay(tmp_path / "out")
    assert bill["stage"] == again["stage"] == "stage_one_before_decay"
    assert {name: w.half() for name, w in exact.items()}.keys() == shipped.keys()
    assert all(torch.equal(w.half(), shipped[name]) for name, w in exact.items())
    final = load_file(tmp_path / "out" / "model.safetensors")
    assert any(not torch.equal(final[name], w) for name, w in shipped.items())
    assert read_json(tmp_path / "out" / "hashes.json").keys() == {"model.safetensors", "pre_decay.safetensors"}


def test_what_can_not_be_stored_is_refused(run, tmp_path):
    with pytest.raises(RecipeError, match="float16 or bfloat16"):
        export(run, tmp_path / "out", "me/tiny", "int8")
    with pytest.raises(RecipeError, match="--measure is for weights that --dtype rounds"):
        export(run, tmp_path / "out", "me/tiny", measure=True)
    with pytest.raises(RecipeError, match="lies in no finished run"):
        export(run, tmp_path / "out", "me/tiny", "float16", measure=True)
    alone = tmp_path / "alone" / "deep" / "model"
    shutil.copytree(run / "stage_two" / "model", alone)
    with pytest.raises(CheckpointError, match="leave --pre-decay out"):
        export(alone, tmp_path / "out", "me/tiny", pre_decay=True)
    (alone / "hashes.json").unlink()
    large = {name: w * 1e9 for name, w in load_file(alone / "model.safetensors").items()}
    save_file(large, alone / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="give --dtype bfloat16"):
        export(alone, tmp_path / "out", "me/tiny", "float16")
    assert not (tmp_path / "out").exists()


def test_its_name_is_understood_wherever_a_model_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setattr(take_home, "FOLDER", tmp_path / "out")
    export(run, tmp_path / "out", take_home.NAME, "float16")
    assert resolve(take_home.NAME) == model_folder(Path(take_home.NAME)) == tmp_path / "out"
    row = next(row for row in status() if row.packaged)
    assert (row.name, row.present, row.verified) == (take_home.NAME, True, True)
    assert "in the package" in CliRunner().invoke(app, ["assets"]).output
    assert fetch([take_home.NAME]) == {}, "its LLM and encoder are no assets"
    (tmp_path / "out" / "model.safetensors").write_bytes(b"x")
    assert not next(row for row in status() if row.packaged).verified


def test_a_build_without_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(take_home, "FOLDER", tmp_path / "none")
    for named in (lambda: resolve(take_home.NAME), lambda: model_folder(Path(take_home.NAME))):
        with pytest.raises(AssetError, match="comes without its model"):
            named()
    assert "not in this build" in CliRunner().invoke(app, ["assets"]).output


def test_ask_without_a_model_uses_it_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(take_home, "FOLDER", tiny_talker.saved(tmp_path))
    audio = tmp_path / "question.wav"
    audio.write_bytes(tiny_talker.audio_bytes(0.5))
    for words in ([audio], [audio, audio], [take_home.NAME, audio], ["--prompt", "Hello"]):
        done = CliRunner().invoke(app, ["ask", *map(str, words), "--max-tokens", "3"])
        assert done.exit_code == 0, done.output
        assert (f"no model is named, so {take_home.NAME} answers" in done.stderr) == (words[0] != take_home.NAME)
    with load() as model:
        assert model.talker.name == "model"


def test_a_wrong_single_argument_is_one_sentence(tmp_path, monkeypatch):
    folder = tiny_talker.saved(tmp_path)
    monkeypatch.setattr(take_home, "FOLDER", tmp_path / "none")

    def said(*words):
        done = CliRunner().invoke(app, ["ask", *map(str, words)])
        assert done.exit_code
        return done.stderr or str(done.exception)

    assert "nothing was asked; give an audio file" in said(folder)
    assert "runs/none does not exist; give an audio file" in said("runs/none")
    assert "none.wav does not exist" in said(tmp_path / "none.wav")
    (tmp_path / "question.wav").write_bytes(tiny_talker.audio_bytes(0.5))
    assert "comes without its model" in said(tmp_path / "question.wav")
    for verb in ("serve", "chat"):
        assert "comes without its model" in str(CliRunner().invoke(app, [verb]).exception)


def test_what_comes_along_is_whole_small_and_hears():
    check_weights(take_home.FOLDER)
    check_weights(take_home.FOLDER, PRE_DECAY_NAME)
    assert sum(file.stat().st_size for file in take_home.FOLDER.iterdir()) < 50e6
    bill = read_json(take_home.FOLDER / BILL_NAME)
    for name in ("hearing_nats", "hearing_human_nats"):
        assert bill["results"][name]["low"] > 0, "its guard says that it hears"
    shipped = load_recipe(REPO / "recipes" / "demo-shipped.yaml")
    assert bill["recipe"]["model"] == shipped.model_dump(mode="json")["model"], "Stage II can start from it"
    told = "".join(file.read_text() for file in take_home.FOLDER.iterdir() if file.suffix in (".json", ".md"))
    assert not re.search(r"/(root|home|tmp|work)/", told), "no folder of the machine that it was made on"


@pytest.mark.slow
@pytest.mark.assets
def test_what_comes_along_answers_what_is_said(tmp_path):
    model, answers = load(), []
    for number, question in enumerate(("What does the word mountain mean?", "Tell me about the history of music.")):
        path = tmp_path / f"{number}.wav"
        assert CliRunner().invoke(app, ["voices", "--say", question, "--out", str(path)]).exit_code == 0
        answers.append(model.answer(path, max_tokens=24))
    assert all(len(answer.split()) >= 3 for answer in answers)
    assert answers[0] != answers[1]
