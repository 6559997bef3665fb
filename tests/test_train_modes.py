"""Frozen, LoRA, full; float32 and bfloat16; with and without checkpointed activations: what is trained, and in what."""

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

import tiny
from salad.distill.parallel import objective
from salad.distill.teacher import SeparateTeacher, teacher_for
from salad.model.llm import load_llm
from salad.model.speech_lm import SpeechLM
from salad.recipe import StageSettings

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = ["frozen", "lora", "full"]
SPOKEN = tiny.utterances(4)
TEXTS = ["the quiet river is a river", "she listens, he speaks;"]


@pytest.fixture(scope="module")
def llm_on_disk(tmp_path_factory):
    return tiny.save_llm(tmp_path_factory.mktemp("llm"))


def student_of(folder, train_llm, dtype="float32", **adapter):
    settings = tiny.model_settings(train_llm, str(folder), **adapter).model_copy(update={"dtype": dtype})
    return SpeechLM.from_llm(settings, tiny.ENCODER_DIM, tiny.ENCODER_HZ, tiny.SPEECH_TOKEN_ID)


def loss_of(student, teacher, batch):
    return objective(student, teacher, batch, StageSettings(alpha=0.7)).loss / len(batch.targets_N)


def trained_parameters(student):
    return {name: p for name, p in student.named_parameters() if p.requires_grad}


# --- bfloat16 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train_llm", MODES)
def test_what_is_trained_is_kept_in_float32_over_a_bfloat16_llm(llm_on_disk, train_llm):
    student = student_of(llm_on_disk, train_llm, "bfloat16")
    assert student.dtype == torch.bfloat16
    for name, parameter in student.named_parameters():
        wanted = torch.float32 if parameter.requires_grad else torch.bfloat16
        assert parameter.dtype == wanted, name
    if train_llm == "full":  # not rounded on the way
        original = load_llm(str(llm_on_disk)).state_dict()
        assert all(torch.equal(student.language_model.state_dict()[name], original[name]) for name in original)


@pytest.mark.parametrize("adapter", [{"kind": "mlp"}, {"kind": "conv"}, {"output": "linear"}], ids=str)
@pytest.mark.parametrize("train_llm", MODES)
def test_bfloat16_trains_and_its_loss_is_near_float32s(llm_on_disk, train_llm, adapter):
    batch, losses = tiny.batch_of(SPOKEN, TEXTS), {}
    for dtype in ("float32", "bfloat16"):
        student = tiny.move(student_of(llm_on_disk, train_llm, dtype, **adapter), by=0.03).train()
        teacher = SeparateTeacher(load_llm(str(llm_on_disk)))
        optimizer = torch.optim.AdamW(trained_parameters(student).values(), lr=2e-3)
        losses[dtype] = []
        for _ in range(15):
            loss = loss_of(student, teacher, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[dtype].append(float(loss.detach()))
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained_parameters(student).values())
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], rel=0.02)
    assert losses["bfloat16"][-1] == pytest.approx(losses["float32"][-1], rel=0.05)
    assert losses["bfloat16"][-1] < 0.95 * losses["bfloat16"][0]


@pytest.mark.parametrize("train_llm", MODES)
def test_the_passes_run_in_bfloat16_whoever_asks(llm_on_disk, train_llm):
    student = student_of(llm_on_disk, train_llm, "bfloat16")
    seen = []
    layer = student.language_model.get_decoder().layers[0].mlp.up_proj
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = tiny.batch_of(SPOKEN[:1])
    speech = batch.speech_features_SFE, batch.speech_lengths_S
    with torch.no_grad():
        student.last_hidden(batch.student_ids_T, batch.student_lengths_D, *speech)
        student(input_ids=batch.student_ids_T[None], speech_features=speech[0], speech_lengths=speech[1])
    assert seen == [torch.bfloat16] * 2


@pytest.mark.parametrize("train_llm", ["frozen", "lora"])
def test_an_untrained_bfloat16_student_reads_text_exactly_as_its_teacher(llm_on_disk, train_llm):
    student = student_of(llm_on_disk, train_llm, "bfloat16")
    batch = tiny.batch_of([], TEXTS)
    with torch.no_grad():
        own = student.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    assert torch.equal(own, teacher_for(student).last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train_llm", MODES)
def test_what_was_trained_is_stored_in_full_and_comes_back(tmp_path, llm_on_disk, train_llm, dtype):
    student = tiny.move(student_of(llm_on_disk, train_llm, dtype), by=1e-4)  # less than bfloat16 can hold
    student.save_pretrained(tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored.keys() == student.trained_state().keys()
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    again = SpeechLM.from_pretrained(tmp_path / "model")
    assert again.dtype == student.dtype == getattr(torch, dtype)  # saving has not changed what it runs in, either
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in student.state_dict().items())
    assert {n: p.dtype for n, p in again.named_parameters()} == {n: p.dtype for n, p in student.named_parameters()}
    batch = tiny.batch_of(SPOKEN[:1])
    prompt = {"input_ids": batch.student_ids_T[None], "speech_features": batch.speech_features_SFE}
    options = {"speech_lengths": batch.speech_lengths_S, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(again.generate(**prompt, **options), student.generate(**prompt, **options))


# --- checkpointed activations ---------------------------------------------------------------------------------------


def count_passes(module):
    """A list that grows with each pass through a decoder layer (that is done again no further than is needed)."""
    counted = []
    for part in module.modules():
        if isinstance(part, LlamaDecoderLayer):
            part.self_attn.register_forward_pre_hook(lambda *_: counted.append(1))
    return counted


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [{"kind": "mlp"}, {"kind": "stack"}], ids=str)
@pytest.mark.parametrize("train_llm", MODES)
def test_checkpointed_activations_give_the_same_gradients_to_the_bit(llm_on_disk, train_llm, adapter, dtype):
    batches = [tiny.batch_of(SPOKEN, TEXTS), tiny.batch_of([], TEXTS)]
    gradients, calls = [], []
    for checkpointed in (False, True):
        student = tiny.move(student_of(llm_on_disk, train_llm, dtype, **adapter), by=0.03).train()
        teacher = SeparateTeacher(load_llm(str(llm_on_disk))) if train_llm == "full" else teacher_for(student)
        if checkpointed:
            student.checkpoint_activations()
        passes = [count_passes(student.language_model), count_passes(student.adapter)]
        for batch in batches:
            loss_of(student, teacher, batch).backward()
        gradients.append({name: p.grad for name, p in trained_parameters(student).items()})
        calls.append([len(counted) for counted in passes])
    assert calls[1][0] == calls[0][0] + 2 * len(batches)  # every layer of the LLM once more, the teacher's pass not
    assert calls[1][1] == 2 * calls[0][1]
    assert bool(calls[0][1]) == (adapter["kind"] == "stack")
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert torch.equal(gradients[1][name], gradient), name
    assert any(bool(gradient.any()) for gradient in gradients[0].values())


def kept_bytes(student, ids_T, lengths_D):
    """What a forward pass allocates and does not free before its backward pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        hidden_TH = student.last_hidden(ids_T, lengths_D)
    kept = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    hidden_TH.sum().backward()
    return kept


@pytest.mark.parametrize("train_llm", ["lora", "full"])
def test_checkpointed_activations_keep_what_goes_into_each_layer(train_llm):
    student = tiny.student(train_llm).train()
    lengths_D = torch.full((8,), 64)
    ids_T = torch.arange(512) % tiny.VOCABULARY
    kept = kept_bytes(student, ids_T, lengths_D)
    student.checkpoint_activations()
    row = 512 * 32 * 4  # bytes of one hidden state of every position
    assert kept > 20 * row
    assert kept_bytes(student, ids_T, lengths_D) < 10 * row
