"""The plan's numbers follow from the recipe, agree with the paper's, and its memory with what real passes hold."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from salad.distill.divergence import objective_sum
from salad.errors import RecipeError
from salad.model.sizes import student_config
from salad.model.speech_lm import SpeechLM
from salad.plan.activations import Loss, MicroBatch, loss_memory, passes
from salad.plan.expected import full_window, read, spoken
from salad.plan.live import LiveBytes
from salad.plan.memory import Way, remedies
from salad.plan.plan import plan
from salad.plan.table import lines
from salad.recipe import EncoderSizes, parse_recipe

MIMI = EncoderSizes(dim=64, hz=12.5)
LLM = {
    "hidden_size": 192,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 512,
    "vocab_size": 8192,
    "tie_word_embeddings": True,
}
STACK = {"hidden_size": 96, "num_layers": 3, "num_heads": 3, "num_key_value_heads": 1, "intermediate_size": 256}
WINDOW = MicroBatch(lengths=(40, 60, 100, 30, 26), span_frames=(14, 20, 22, 9, 14, 8), num_scored=120)


def small(train_llm="lora", dtype="float32", **groups):
    adapter = {"kind": "stack", "frames_per_position": 2, "context_frames": 0, **STACK}
    model = {"llm": "far/away", "llm_sizes": LLM, "encoder": "not/here", "encoder_sizes": MIMI.model_dump()}
    model |= {"train_llm": train_llm, "dtype": dtype, "adapter": adapter}
    return parse_recipe({"name": "small", "model": model, **groups}, "here")


# --- memory ----------------------------------------------------------------------------------------------------------


def test_live_bytes_counts_what_is_alive_once():
    there = torch.zeros(1000)
    with LiveBytes([there]) as live:
        view = there[:10]
        made = there + 1
        also = made.view(10, 100)
        assert live.live == 4000
        del made
        assert live.live == 4000
        del also, view
        assert (live.live, live.peak) == (0, 4000)


def really(config, checkpointing):
    """Bytes kept, and at the peak of forward, loss and backward, of the real student on real tensors."""
    student = SpeechLM(config)
    if checkpointing:
        student.checkpoint_activations()
    student.train()
    ids = torch.arange(sum(WINDOW.lengths))
    ids[: sum(-(-frames // 2) for frames in WINDOW.span_frames)] = config.speech_token_id
    speech = torch.zeros(len(WINDOW.span_frames), max(WINDOW.span_frames), MIMI.dim, dtype=torch.float16)
    chosen = targets = torch.arange(WINDOW.num_scored)
    lengths, frames = torch.tensor(WINDOW.lengths), torch.tensor(WINDOW.span_frames)
    head = student.head_VH.detach().clone().to(student.dtype)
    there = [*student.parameters(), *student.buffers(), ids, speech, lengths, frames, chosen, head]
    for parameter in student.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
            there.append(parameter.grad)
    narrow = student.dtype == torch.bfloat16
    with LiveBytes(there) as live, torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        teacher_NH = torch.zeros(WINDOW.num_scored, LLM["hidden_size"], dtype=student.dtype)
        student_NH = student.last_hidden(ids, lengths, speech, frames)[chosen]
        kept, forward, live.peak = live.live, live.peak, live.live
        loss = objective_sum(student_NH, student.head_VH, teacher_NH, head, targets, 1.0).loss
        in_loss, live.peak = live.peak, live.live
        loss.backward()
        return kept, forward, in_loss, live.peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("train_llm", "dtype"), [("lora", "float32"), ("full", "bfloat16"), ("frozen", "bfloat16")])
def test_planned_passes_hold_what_real_ones_hold(train_llm, dtype, checkpointing):
    config = student_config(small(train_llm, dtype).model)
    trains, narrow = train_llm == "full", dtype == "bfloat16"
    workspace = loss_memory(WINDOW.num_scored, LLM["vocab_size"], LLM["hidden_size"], narrow, narrow and trains, "cpu")
    found = passes(config, WINDOW, "cpu", checkpointing, sharded=False, loss=Loss(workspace, trains))
    planned = (found.kept, found.forward, found.loss, max(found.layers, found.inputs))
    assert planned == pytest.approx(really(config, checkpointing), rel=0.02)


def test_parts_follow_from_parameters_and_gpus():
    found = plan(small("full", engine={"device": "cuda", "parallel": "fsdp"}), gpus=4)
    trained, ways = found["parameters"]["trained"], found["memory"]["ways"]
    gib = 2**30
    assert found["parameters"]["trained"] == found["parameters"]["total"]
    assert ways["ddp"]["parts_gib"]["weights, trained"] == pytest.approx(4 * trained / gib)
    assert ways["ddp"]["parts_gib"]["optimizer"] == pytest.approx(8 * trained / gib)
    assert ways["fsdp"]["parts_gib"]["gradients"] == pytest.approx(4 * trained / gib / 4)
    assert ways["ddp"]["parts_gib"]["teacher"] == pytest.approx(4 * found["parameters"]["llm"] / gib)
    assert found["memory"]["total_gib"] == ways["fsdp"]["total_gib"] == sum(ways["fsdp"]["parts_gib"].values())
    assert found["disk"]["checkpoint_gib"] == pytest.approx(12 * trained / gib)


def test_what_is_frozen_has_neither_gradients_nor_a_second_teacher():
    found = plan(small("lora"))
    parts = found["memory"]["ways"]["alone"]["parts_gib"]
    assert parts["teacher"] == 0
    assert parts["gradients"] == pytest.approx(4 * found["parameters"]["trained"] / 2**30)
    assert found["parameters"]["trained"] < found["parameters"]["frozen"]


def quick(steps=40, **groups):
    """As `small`, planned faster: no stack, short windows."""
    stage = {"micro_batch_positions": 256, "steps": steps}
    recipe = small("full", sequence={"max_positions": 256}, stage_one=stage, stage_two=stage, **groups)
    adapter = recipe.model.adapter.model_copy(update={"kind": "mlp"})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"adapter": adapter})})


def test_what_does_not_fit_gets_a_remedy_that_does():
    recipe, checkpointed = quick(), quick(engine={"gradient_checkpointing": True})
    whole, less = (plan(each)["memory"]["total_gib"] for each in (recipe, checkpointed))
    assert less < whole
    found = plan(recipe, gpu_memory_gib=(whole + less) / 2)["memory"]
    assert not found["fits"]
    assert found["remedy"] == {"settings": {"engine.gradient_checkpointing": True}, "total_gib": less}


def test_remedies_cost_least_first():
    way = Way("ddp", 8, False, 4096, "cuda")
    stages = ("stage_one", "stage_two", "stage_three")
    changes = [other.changes(way, stages) for other in remedies(way, least_positions=1500)]
    fsdp, checkpointed = {"engine.parallel": "fsdp"}, {"engine.gradient_checkpointing": True}
    smaller = [
        fsdp | checkpointed | {f"{stage}.micro_batch_positions": positions for stage in stages}
        for positions in (2048, 1500)
    ]
    assert changes == [{}, fsdp, checkpointed, fsdp | checkpointed, *smaller]


def test_nothing_helps_where_the_context_alone_is_too_large():
    assert plan(quick(), gpu_memory_gib=0.01)["memory"]["remedy"] is None


# --- sequences -------------------------------------------------------------------------------------------------------


def test_a_prefix_that_is_heard_makes_the_sequence_it_should():
    sequence = {"policy": "speech_prefix", "prefix_frac": 0.6}
    recipe = small(sequence=sequence, expected={"words_per_s": 2.0, "tokens_per_word": 1.5})
    draws = spoken(recipe, MIMI, 20)  # 12 words in 6 s, 75 frames, 38 positions; 8 words, 12 tokens
    assert {(d.student, d.teacher, d.scored, d.span_frames, d.audio_s) for d in draws} == {(51, 31, 12, (75,), 10.0)}


def test_interleaved_words_are_heard_by_the_mean_lengths_of_spans():
    recipe = small(expected={"words_per_s": 2.5})
    draws = spoken(recipe, MIMI, 600)
    heard = sum(sum(draw.span_frames) for draw in draws) / len(draws) / 12.5 * 2.5 / 600
    assert heard == pytest.approx(10 / 30, abs=0.01)  # speech spans of 5-15 words, text spans of 10-30


def test_texts_are_cut_and_items_that_fit_nowhere_refused():
    recipe = small(sequence={"max_positions": 64}, expected={"text_words": 600})
    assert read(recipe)[0].student == 64
    with pytest.raises(RecipeError, match="600 words"):
        spoken(recipe, MIMI, 600)
    with pytest.raises(RecipeError, match=r"expected\.utterance_s"):
        plan(small(expected={"utterance_s": 1.0}))


def test_a_window_is_full():
    window = full_window(spoken(small(), MIMI, 40), 700)
    assert sum(window.lengths) == 700
    assert len(window.lengths) > 3


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_the_verb_plans_without_hub_cache_or_weights(tmp_path):
    recipe = Path(__file__).resolve().parents[1] / "recipes" / "qwen2.5-7b.yaml"
    empty = {"HF_HOME": str(tmp_path), "SALAD_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "salad", "plan", str(recipe), "--gpus", "8", "--gpu-memory", "80", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | empty, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["recipe"]["model"]["llm"] == "Qwen/Qwen2.5-7B"
    assert found["recipe"]["stage_one"]["optimizer"]["beta2"] == 0.95  # resolved, defaults included
    assert found["plan"]["parameters"]["llm"] == 7_615_616_512  # the model card: 7.61B
    assert found["plan"]["memory"]["fits"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_table_is_80_wide():
    said = lines(plan(quick(), gpu_memory_gib=0.1), 80)
    assert max(map(len, said)) <= 80
    assert "It does not fit" in "\n".join(said)


def test_flops_and_time_grow_as_they_should():
    one, other = plan(quick()), plan(quick(steps=80), peak_tflops=2 * 67, mfu=0.8)
    assert other["stage_one"]["flops"] == pytest.approx(2 * one["stage_one"]["flops"])
    assert other["stage_one"]["flops_per_step"] == one["stage_one"]["flops_per_step"]
    assert other["stage_one"]["duration_h"] == pytest.approx(2 * one["stage_one"]["duration_h"] / 4)


# --- Stage III -------------------------------------------------------------------------------------------------------


@cache
def with_stage_three(on_policy_frac=None, teacher="auto"):
    """The plan of a recipe with a Stage III, so much of it on-policy; None: of one without."""
    own = {"micro_batch_positions": 256, "steps": 40, "continuation_tokens": 16, "on_policy_frac": on_policy_frac}
    return plan(quick(stage_three=None if on_policy_frac is None else own, engine={"teacher": teacher}))


def test_a_stage_one_that_is_taken_over_is_not_planned():
    found = plan(small(stage_one={"start": "an/earlier-run"}))
    assert "stage_one" not in found
    assert found["stage_two"] == plan(small())["stage_two"]
    told = "\n".join(lines(found, 80))
    assert "Stage I\n" not in told
    assert "Stage I is an/earlier-run, taken over" in told


def test_stage_three_is_planned_where_there_is_one():
    assert "stage_three" not in with_stage_three()
    on, off, half = (with_stage_three(frac)["stage_three"] for frac in (1.0, 0.0, 0.5))
    assert set(off["share_of_positions"]) == {"natural speech", "selected speech", "text"}
    most = on["steps"] * on["batch_sequences"] * 2 / 3 * 16
    assert 0.95 * most < on["own_tokens"] <= most  # some have no room for all
    assert half["own_tokens"] == pytest.approx(on["own_tokens"] / 2)
    assert half["rollout_flops"] == pytest.approx(on["rollout_flops"] / 2)
    assert half["rollout_flops"] > 0
    assert {"own_tokens", "rollout_flops"}.isdisjoint(off)
    assert off["flops_per_step"] == pytest.approx(with_stage_three()["stage_two"]["flops_per_step"])  # the same mix


def test_what_the_student_will_say_is_not_cached():
    without, on, off = (with_stage_three(frac, "cached")["disk"]["teacher_cache_gib"] for frac in (None, 1.0, 0.0))
    assert on == without < off


def test_stage_threes_table_has_what_it_writes_itself():
    said = "\n".join(lines(with_stage_three(1.0), 80))
    assert "Stage III" in said
    assert "tokens it writes itself, at most" in said
    assert "Stage III" not in "\n".join(lines(with_stage_three(), 80))
