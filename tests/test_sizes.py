"""Sizes come from the recipe or from what is at hand, agree where there are both, and make the models a run makes."""

import pytest
import torch

import tiny
from salad.errors import RecipeError
from salad.model.sizes import encoder_sizes, llm_config, on_meta, student_config
from salad.recipe import AdapterSettings, EncoderSizes, LlmSizes, ModelSettings

TINY = LlmSizes(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    vocab_size=300,
    tie_word_embeddings=True,
)
QWEN_3B = LlmSizes(
    model_type="qwen2",
    hidden_size=2048,
    num_hidden_layers=36,
    num_attention_heads=16,
    num_key_value_heads=2,
    intermediate_size=11008,
    vocab_size=151936,
    tie_word_embeddings=True,
)
MIMI = EncoderSizes(dim=512, hz=12.5)


def settings(**changed):
    given = {"llm": "far/away", "llm_sizes": QWEN_3B, "encoder": "not/here", "encoder_sizes": MIMI}
    return ModelSettings(**{**given, **changed})


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(autouse=True)
def _away_from_the_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_model_that_is_not_here_is_built_from_the_recipes_sizes_without_storage():
    paper = AdapterSettings(kind="paper", frames_per_position=1, context_frames=0, output="linear")
    student = on_meta(student_config(settings(train_llm="full", adapter=paper)))
    assert {parameter.device.type for parameter in student.parameters()} == {"meta"}
    assert count(student.language_model) == 3_085_938_688  # Qwen2.5-3B's own model card: 3.09B
    assert count(student.adapter.stack) == pytest.approx(118.0e6, rel=1e-3)
    assert count(student.adapter) == pytest.approx(120.5e6, rel=1e-3)


@pytest.mark.parametrize("train_llm", ["lora", "frozen", "full"])
def test_on_meta_stands_what_a_run_trains(train_llm, tmp_path):
    tiny.save_llm(tmp_path / "llm")
    own = tiny.model_settings(train_llm, name=str(tmp_path / "llm"))
    planned = on_meta(student_config(own.model_copy(update={"encoder_sizes": EncoderSizes(dim=8, hz=50.0)})))
    real = tiny.student(train_llm)

    def shapes(model):
        return {name: (p.shape, p.dtype, p.requires_grad) for name, p in model.named_parameters()}

    assert shapes(planned) == shapes(real)


def test_the_recipes_sizes_must_be_those_of_the_llm_at_hand(tmp_path):
    folder = str(tiny.save_llm(tmp_path / "llm"))
    assert llm_config(settings(llm=folder, llm_sizes=TINY)).hidden_size == 32
    assert llm_config(settings(llm=folder, llm_sizes=None)).hidden_size == 32
    wrong = TINY.model_copy(update={"num_hidden_layers": 3, "tie_word_embeddings": False})
    with pytest.raises(RecipeError) as caught:
        llm_config(settings(llm=folder, llm_sizes=wrong))
    assert "model.llm_sizes.num_hidden_layers is 3" in str(caught.value)
    assert "model.llm_sizes.tie_word_embeddings is False" in str(caught.value)


def test_an_llm_without_sizes_that_is_not_here_is_named_with_the_remedy():
    with pytest.raises(RecipeError, match=r"'far/away' is not at hand.*write model\.llm_sizes"):
        llm_config(settings(llm_sizes=None))


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"model_type": "qwen99"}, "model_type"), ({"model_type": "qwen2", "attention_bias": True}, "attention_bias")],
)
def test_what_transformers_does_not_know_is_refused(changed, key):
    with pytest.raises(RecipeError, match=rf"model\.llm_sizes\.{key}"):
        llm_config(settings(llm_sizes=TINY.model_copy(update=changed)))


@pytest.mark.parametrize(
    ("name", "dim", "hz"),
    [("log-mel", 80, 100.0), ("whisper-tiny.en", 384, 50.0), ("openai/whisper-large-v3", 1280, 50.0)],
)
def test_encoders_whose_sizes_are_known_by_name(name, dim, hz):
    assert encoder_sizes(settings(encoder=name, encoder_sizes=None)) == EncoderSizes(dim=dim, hz=hz)


def test_an_encoder_at_hand_says_its_sizes(tmp_path):
    from transformers import MimiConfig, Wav2Vec2Config

    MimiConfig(hidden_size=64).save_pretrained(tmp_path / "mimi")
    Wav2Vec2Config(hidden_size=48).save_pretrained(tmp_path / "wavlm")
    codes = settings(encoder=f"{tmp_path / 'mimi'}:codes=4", encoder_sizes=None)
    assert encoder_sizes(codes) == EncoderSizes(dim=64, hz=12.5)
    assert encoder_sizes(settings(encoder=f"{tmp_path / 'wavlm'}@3", encoder_sizes=None)).hz == 50.0
    with pytest.raises(RecipeError, match=r"model\.encoder_sizes\.dim is 512"):
        encoder_sizes(settings(encoder=str(tmp_path / "mimi")))


def test_an_encoder_that_is_not_here_needs_its_sizes():
    with pytest.raises(RecipeError, match=r"write model\.encoder_sizes"):
        encoder_sizes(settings(encoder_sizes=None))


def test_bfloat16_is_kept_where_nothing_is_trained():
    student = on_meta(student_config(settings(dtype="bfloat16", train_llm="frozen")))
    assert student.table_VH.dtype == torch.bfloat16
