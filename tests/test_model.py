"""The speech LLM: what it starts as, what it hears, how it is saved, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

import tiny
from salad.distill.head import check_head
from salad.distill.teacher import LoraOffTeacher, SeparateTeacher, teacher_for
from salad.errors import AssetError, AudioError, CheckpointError
from salad.interleave.builder import SequenceBuilder
from salad.measure.divergence_by_item import divergence_by_item, student_reads_text, teacher_reads_text
from salad.measure.misalignment import forgetting_by_item
from salad.model.llm import document_mark, llm_folder, load_llm, load_tokenizer
from salad.model.processor import pad_features
from salad.model.speech_lm import SpeechLM
from salad.recipe import AdapterSettings, ModelSettings, SequenceSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def llm_on_disk(tmp_path_factory):
    return tiny.save_llm(tmp_path_factory.mktemp("llm"))


def text_difference(student):
    """The largest difference between the hidden states of the student's LLM and of its teacher, on a text."""
    batch = tiny.batch_of([], ["the quiet river is a river", "she listens, he speaks;"])
    own = student.last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    teacher = teacher_for(student).last_hidden(batch.teacher_ids_L, batch.teacher_lengths_D)
    return float((own - teacher).abs().max().detach())


# --- what it starts as ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train_llm", ["lora", "frozen"])
def test_an_untrained_student_reads_text_exactly_as_its_teacher(train_llm):
    student = tiny.student(train_llm)
    assert text_difference(student) == 0.0
    batch = tiny.batch_of([], ["the quiet river is a river", "she listens, he speaks;"])
    for row in divergence_by_item(teacher_reads_text(teacher_for(student)), student_reads_text(student), [batch]):
        assert row.kl_nats == 0.0  # forgetting starts at 0, not near it
        assert row.count > 0
        assert row.entropy_nats > 0


def test_lora_starts_at_zero_and_is_the_difference_once_it_has_moved():
    student = tiny.student("lora")
    lora = {name: p for name, p in student.named_parameters() if "lora_B" in name}
    assert lora
    assert all(float(p.detach().abs().max()) == 0.0 for p in lora.values())
    tiny.move(student)
    moved = text_difference(student)
    assert moved > 0.01
    assert text_difference(student) == moved  # switching LoRA off for the teacher switches it on again


@pytest.mark.parametrize(
    ("train_llm", "parts"), [("frozen", {"adapter"}), ("lora", {"adapter", "lora"}), ("full", {"adapter", "llm"})]
)
def test_what_is_trained_is_what_the_recipe_says(train_llm, parts):
    student = tiny.student(train_llm)
    trained = set()
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            trained.add("adapter" if name.startswith("adapter.") else "lora" if "lora_" in name else "llm")
    assert trained == parts
    if train_llm != "full":
        with student.as_text_llm():
            pass
        after = {name for name, p in student.named_parameters() if p.requires_grad and "adapter." not in name[:8]}
        assert all("lora_" in name for name in after)
        assert bool(after) == (train_llm == "lora")


def test_a_fully_trained_llm_is_no_teacher():
    with pytest.raises(CheckpointError, match="fully trained"):
        LoraOffTeacher(tiny.student("full"))


def test_both_kinds_of_teacher_are_the_same_llm(llm_on_disk):
    separate = SeparateTeacher(load_llm(str(llm_on_disk)))
    student = tiny.move(tiny.student("lora", base=load_llm(str(llm_on_disk))))
    shared = teacher_for(student)
    assert isinstance(shared, LoraOffTeacher)
    assert shared.fingerprint() == separate.fingerprint()
    assert not any(p.requires_grad for p in separate.llm.parameters())
    batch = tiny.batch_of([], ["the quiet river"])
    ids = batch.teacher_ids_L, batch.teacher_lengths_D
    assert torch.equal(shared.last_hidden(*ids), separate.last_hidden(*ids))
    assert torch.equal(shared.head_VH, separate.head_VH)
    with torch.no_grad():
        student.language_model.get_input_embeddings().weight[5] += 1e-3
    assert shared.fingerprint() != separate.fingerprint()


def test_the_seed_makes_the_adapter_and_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (tiny.student(seed=seed).trained_state() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["adapter.project_out.weight"], other["adapter.project_out.weight"])


def test_the_document_mark_is_the_pretraining_separator():
    assert document_mark(tiny.tokenizer()) == tiny.mark() == 0


@pytest.mark.assets
@pytest.mark.slow
def test_the_real_llm_with_a_new_lora_is_still_the_real_llm():
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    assert document_mark(tokenizer) == tokenizer.get_vocab()["<|endoftext|>"]
    settings = ModelSettings(adapter=AdapterSettings(hidden_size=64))
    student = SpeechLM.from_llm(settings, encoder_dim=8, encoder_hz=50.0, speech_token_id=len(tokenizer))
    assert student.config.speech_token_id >= len(student.table_VH)
    build = SequenceBuilder.of(student, tokenizer, SequenceSettings(policy="speech_prefix"), 0)
    text = build.text("t", "The capital of France is Paris, and the capital of Italy is Rome.")
    (row,) = forgetting_by_item(teacher_for(student), student, [text], 1)
    assert row.kl_nats == 0.0
    assert row.nll_nats / row.count < 4.0  # and it is the trained LLM: a random one has ln 49,152 = 10.8


# --- hearing --------------------------------------------------------------------------------------------------------


def test_placeholders_are_filled_in_reading_order():
    student = tiny.student()
    features, lengths = pad_features(
        [tiny.utterance(n, 2, partial_frames=k).features_FE for n, k in (("a", 1), ("b", 3))]
    )
    first, second = (-(-int(n) // tiny.FRAMES_PER_POSITION) for n in lengths)
    speech = [tiny.SPEECH_TOKEN_ID]
    ids = torch.tensor([[0, *speech * first, 7, *speech * second, 9]])
    embedded, heard = student.embed(ids, features, lengths)[0], student.adapter(features)
    assert torch.equal(embedded[1 : 1 + first], heard[0, :first])
    assert torch.equal(embedded[2 + first : -1], heard[1, :second])
    assert torch.equal(embedded[[0, 1 + first, -1]], student.table_VH[[0, 7, 9]])


@pytest.mark.parametrize("wrong_by", [-1, 1])
def test_placeholders_that_do_not_match_the_speech_are_refused(wrong_by):
    student = tiny.student()
    features, lengths = pad_features([tiny.utterance("a", 4).features_FE])
    right = -(-int(lengths) // tiny.FRAMES_PER_POSITION)
    ids = torch.tensor([[0] + [tiny.SPEECH_TOKEN_ID] * (right + wrong_by) + [7]])
    with pytest.raises(AudioError, match=rf"{right + wrong_by} speech placeholders, the speech has {right} positions"):
        student(input_ids=ids, speech_features=features, speech_lengths=lengths)


def test_placeholders_without_speech_are_refused():
    with pytest.raises(AudioError, match="no speech_features"):
        tiny.student()(input_ids=torch.tensor([[0, tiny.SPEECH_TOKEN_ID]]))
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        tiny.student()()


def prompt(name, num_words):
    """Model inputs: mark, an utterance, one word."""
    features, lengths = pad_features([tiny.utterance(name, num_words).features_FE])
    positions = -(-int(lengths) // tiny.FRAMES_PER_POSITION)
    return [0, *[tiny.SPEECH_TOKEN_ID] * positions, 82], features, lengths


def test_generate_continues_what_it_heard():
    student = tiny.move(tiny.student())
    ids, features, lengths = prompt("a", 5)
    inputs = {"input_ids": torch.tensor([ids]), "speech_features": features, "speech_lengths": lengths}
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    out = student.generate(**inputs, **options)
    assert out.shape == (1, len(ids) + 6)
    assert out[0, : len(ids)].tolist() == ids
    new = []
    with torch.no_grad():
        for _ in range(6):  # the same without a cache, one whole forward pass a token
            logits = student(**inputs | {"input_ids": torch.tensor([ids + new])}, use_cache=False).logits[0, -1]
            logits[0] = -torch.inf  # min_new_tokens keeps the end of text out
            new.append(int(logits.argmax()))
    assert out[0, len(ids) :].tolist() == new
    other = student.generate(**inputs | {"speech_features": -features}, **options)
    assert other.tolist() != out.tolist()
    embedded = student.embed(torch.tensor([ids]), features, lengths).detach()
    assert student.generate(inputs_embeds=embedded, **options)[0].tolist() == new  # from embeddings: new tokens alone


def test_generate_on_a_batch_is_generate_on_each():
    student = tiny.move(tiny.student())
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    prompts = [prompt("a", 3), prompt("b", 9)]
    longest = max(len(ids) for ids, _, _ in prompts)
    features, lengths = pad_features([part[0, : int(n)].numpy() for _, part, n in prompts])
    together = student.generate(
        input_ids=torch.tensor([[0] * (longest - len(ids)) + ids for ids, _, _ in prompts]),
        attention_mask=torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _, _ in prompts]),
        speech_features=features,
        speech_lengths=lengths,
        **options,
    )
    for row, (ids, part, n) in enumerate(prompts):
        alone = student.generate(input_ids=torch.tensor([ids]), speech_features=part, speech_lengths=n, **options)
        assert together[row, longest:].tolist() == alone[0, len(ids) :].tolist()


# --- saving and loading ---------------------------------------------------------------------------------------------


def trained(train_llm, llm_folder, tied=True):
    settings = tiny.model_settings(train_llm, str(llm_folder))
    base = load_llm(str(llm_folder))
    return tiny.move(SpeechLM.around(base, settings, tiny.ENCODER_DIM, tiny.ENCODER_HZ, tiny.SPEECH_TOKEN_ID))


def logits(model):
    batch = tiny.batch_of(tiny.utterances(2), ["the river"])
    speech = {"speech_features": batch.speech_features_SFE, "speech_lengths": batch.speech_lengths_S}
    with torch.no_grad():
        return model(input_ids=batch.student_ids_T[None], **speech).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("train_llm", ["frozen", "lora", "full"])
def test_a_saved_model_comes_back_the_same(tmp_path, train_llm, tied):
    folder = tiny.save_llm(tmp_path / "llm", tied=tied)
    model = trained(train_llm, folder)
    model.save_pretrained(tmp_path / "model")
    again = SpeechLM.from_pretrained(tmp_path / "model")
    assert not again.training
    assert torch.equal(logits(again), logits(model))
    assert again.config.position_hz == tiny.POSITION_HZ
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored.keys() == model.trained_state().keys()
    assert any(name.startswith("language_model.") for name in stored) == (train_llm != "frozen")
    if train_llm == "lora":
        assert all("lora_" in name for name in stored if name.startswith("language_model."))


def test_a_fully_trained_model_needs_no_base_llm(tmp_path):
    folder = tiny.save_llm(tmp_path / "llm")
    model = trained("full", folder)
    model.save_pretrained(tmp_path / "model")
    folder.rename(tmp_path / "gone")
    assert torch.equal(logits(SpeechLM.from_pretrained(tmp_path / "model")), logits(model))


def test_a_lost_base_llm_is_said(tmp_path):
    folder = tiny.save_llm(tmp_path / "llm")
    trained("lora", folder).save_pretrained(tmp_path / "model")
    folder.rename(tmp_path / "gone")
    with pytest.raises(AssetError, match="llm"):
        SpeechLM.from_pretrained(tmp_path / "model")


def spoil(folder, how):
    weights = folder / "model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif how == "garbage":
        weights.write_bytes(b"\xff" * 1000)
    elif how == "empty":
        weights.write_bytes(b"")
    elif how in {"a tensor less", "another name", "another shape"}:
        state = load_file(weights)
        name = sorted(state)[0]
        tensor = state.pop(name)
        if how == "another name":
            state["adapter.other"] = tensor
        elif how == "another shape":
            state[name] = tensor[..., :-1].contiguous()
        save_file(state, weights)
        (folder / "hashes.json").unlink()  # the files of another model, whole in themselves
    elif how == "another model":
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    else:
        (folder / how).unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("truncated", "damaged"),
        ("garbage", "damaged"),
        ("empty", "damaged"),
        ("a tensor less", "1 tensors missing"),
        ("another name", "1 unknown"),
        ("another shape", "1 of another shape"),
        ("another model", "another kind of model"),
        ("config.json", "no saved speech LLM"),
        ("model.safetensors", "no saved speech LLM"),
    ],
)
def test_a_spoilt_model_folder_is_refused(tmp_path, llm_on_disk, how, said):
    trained("lora", llm_on_disk).save_pretrained(tmp_path / "model")
    spoil(tmp_path / "model", how)
    with pytest.raises(CheckpointError, match=said):
        SpeechLM.from_pretrained(tmp_path / "model")


def test_a_folder_without_an_llm_is_refused(tmp_path):
    with pytest.raises(AssetError, match=r"neither a config\.json nor a \.gguf"):
        llm_folder(str(tmp_path))


def test_the_shell_lies_where_the_llm_reads_also_where_it_scales_its_table():
    """Gemma multiplies what it reads by the root of its width; beside that, speech of the table's norm is nothing."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
    sizes = {"vocab_size": tiny.VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "pad_token_id": 0}
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads, **layers)).eval()
    model = tiny.student("frozen", base=gemma)
    check_head(model.language_model)
    with torch.no_grad():
        read_VH = model.get_input_embeddings()(torch.arange(tiny.VOCABULARY))
        heard_SPH = model.adapter(torch.randn(2, 8, tiny.ENCODER_DIM))
    norm = (read_VH - read_VH.mean(0)).norm(dim=-1).mean()
    assert norm > 3 * (model.table_VH - model.table_VH.mean(0)).norm(dim=-1).mean()
    torch.testing.assert_close((heard_SPH - read_VH.mean(0)).norm(dim=-1), norm.expand(heard_SPH.shape[:2]))
