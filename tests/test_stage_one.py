"""Stage I from its page, whole and tiny: every way to train the LLM ends in a model that loads, hears and answers."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import tiny
from salad.files import read_json
from salad.model.llm import load_llm
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.recipe import parse_recipe
from salad.stage_one import PRE_DECAY, stage_one
from salad.texts.text import Text

pytestmark = pytest.mark.usefixtures("one_thread")

SPOKEN = tiny.utterances(10)
READ = ("the quiet river", "she listens, he speaks; and it was evening")
TEXTS = [Text(f"t{i}", text, "any", "tests", "CC0") for i, text in enumerate(READ)]


def recipe_of(llm, train_llm="full", dtype="float32", warm_start=None, **adapter):
    model = tiny.model_settings(train_llm, str(llm), **adapter).model_dump(mode="json") | {"dtype": dtype}
    one = {
        "steps": 12,
        "batch_sequences": 6,
        "checkpoint_every": 4,
        "warmup_steps": 1,
        "warm_start": warm_start or {"steps": 0},
        "optimizer": {"adapter_rate": 3e-3, "llm_rate": 3e-3},
    }
    return parse_recipe(
        {
            "name": "tiny",
            "threads": 1,
            "model": model,
            "sequence": {"policy": "speech_prefix"},
            "stage_one": one,
            "engine": {"tracker": "none"},
        },
        "tiny.yaml",
    )


def run(recipe, out, speech=SPOKEN):
    told = []
    rejected = stage_one(
        recipe, [speech], TEXTS, SPOKEN[:2], tiny.ENCODER_DIM, tiny.ENCODER_HZ, out, lambda *said: told.append(said)
    )
    return rejected, told


@pytest.mark.parametrize(
    ("train_llm", "dtype"), [("full", "float32"), ("full", "bfloat16"), ("lora", "bfloat16"), ("frozen", "float32")]
)
def test_stage_one_whole(tmp_path, train_llm, dtype):
    folder = tiny.save_llm(tmp_path / "llm")
    base = load_llm(str(folder)).state_dict()
    rejected, _ = run(recipe_of(folder, train_llm, dtype), tmp_path / "out")
    assert rejected == []
    curve = read_json(tmp_path / "out" / "curve.json")
    assert [row["step"] for row in curve] == list(range(1, 13))
    assert curve[-1]["loss_nats"] < curve[0]["loss_nats"]
    assert (tmp_path / "out" / "checkpoints" / PRE_DECAY).is_dir()
    if train_llm == "full":  # its own weights are whole: the LLM it is made from is not needed any more
        folder.rename(tmp_path / "gone")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert isinstance(model, SpeechLM)
    moved = {
        name.removeprefix("language_model.").replace(".base_layer", "")
        for name, tensor in model.state_dict().items()
        if name.startswith("language_model.")
        and "lora_" not in name
        and not torch.equal(tensor.float(), base[name.removeprefix("language_model.").replace(".base_layer", "")])
    }
    if dtype == "float32" or train_llm == "full":
        assert (moved >= {"model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"}) == (train_llm == "full")
        assert train_llm == "full" or not moved
    features, lengths = pad_features([SPOKEN[0].features_FE])
    positions = -(-int(lengths) // tiny.FRAMES_PER_POSITION)
    ids = torch.tensor([[tiny.mark(), *[model.config.speech_token_id] * positions, 82]])
    out = model.generate(
        input_ids=ids,
        speech_features=features,
        speech_lengths=lengths,
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
        pad_token_id=0,
    )
    assert out.shape == (1, ids.shape[1] + 4)


def test_a_finished_warm_start_is_not_done_again_and_says_whom_it_left_out(tmp_path):
    folder = tiny.save_llm(tmp_path / "llm")
    recipe = recipe_of(folder, "lora", warm_start={"kind": "ctc", "steps": 3, "batch_positions": 64})
    fast = tiny.utterance("fast", 40)
    fast = type(fast)("fast", fast.words, fast.features_FE[: 10 * tiny.FRAMES_PER_POSITION])
    rejected, told = run(recipe, tmp_path / "out", [*SPOKEN, fast])
    (row,) = (row for row in rejected if "warm start" in row.reason)
    assert row.id == "fast"
    assert row.kind == "too fast for the ctc warm start"
    assert sum("warm start (ctc)" in str(said) for said in told) == 3
    weights = (tmp_path / "out" / "warm_start" / "model.safetensors").read_bytes()
    again, told = run(recipe, tmp_path / "out", [*SPOKEN, fast])
    assert again == rejected
    assert not any("warm start" in str(said) for said in told)
    assert (tmp_path / "out" / "warm_start" / "model.safetensors").read_bytes() == weights
