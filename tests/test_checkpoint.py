"""Checkpoints: what is saved comes back to the bit, and what was damaged, cut off or not ours is refused."""

import json
import os
import pickle
import re
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import tiny
from salad.distill.checkpoint import (
    load_checkpoint,
    load_optimizer,
    load_weights,
    newest_checkpoint,
    prune,
    save_checkpoint,
    step_name,
)
from salad.distill.checkpoint_folder import checkpoints
from salad.distill.loop import make_optimizer
from salad.errors import CheckpointError
from salad.recipe import OptimizerSettings

pytestmark = pytest.mark.usefixtures("one_thread")

RATES = OptimizerSettings(adapter_rate=3e-3, llm_rate=3e-3)
STATE = {
    "step": 2,
    "reports": [{"step": 1, "loss_nats": 0.1 + 0.2, "note": "naïve —"}, {"step": 2, "loss_nats": 1e-17}],
}

NO_ROOM = r"no room for the checkpoint .*: it takes [\d.]+ MB, [\d.,]+ MB are free; nothing half-written was left"


def trained(train_llm="lora", seed=0, steps=2, **options):
    """A student and its optimizer after some steps on gradients drawn at random."""
    student = tiny.student(train_llm, seed, **options)
    optimizer = make_optimizer(student, RATES)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
            for parameter in group["params"]:
                parameter.grad = torch.randn(parameter.shape, generator=draws)
        optimizer.step()
    return student, optimizer


def everything(student, optimizer):
    """All that a checkpoint has to bring back, by name."""
    names = {parameter: name for name, parameter in student.named_parameters()}
    state = {f"{names[p]}.{key}": value for p, entry in optimizer.state.items() for key, value in entry.items()}
    return {name: tensor.clone() for name, tensor in (student.trained_state() | state).items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / step_name(2)
    save_checkpoint(folder, *trained(), STATE)
    return folder


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place if isinstance(place, int) else int(len(content) * place)] ^= 1
    path.write_bytes(content)


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train_llm", ["lora", "full", "frozen"])
def test_all_comes_back_to_the_bit(tmp_path, train_llm):
    student, optimizer = trained(train_llm)
    save_checkpoint(tmp_path / "one", student, optimizer, STATE)
    wanted = everything(student, optimizer)
    assert any(name.endswith(".step") for name in wanted)
    other, its_optimizer = trained(train_llm, seed=5, steps=1)
    assert not same(everything(other, its_optimizer), wanted)
    assert load_checkpoint(tmp_path / "one", other, its_optimizer) == STATE
    assert same(everything(other, its_optimizer), wanted)
    assert not any("lora" not in name and "adapter" not in name for name in wanted) or train_llm == "full"


def test_the_next_step_after_loading_is_the_one_that_would_have_come(checkpoint):
    student, optimizer = trained(steps=2)
    other, its_optimizer = trained(seed=5, steps=0)
    load_checkpoint(checkpoint, other, its_optimizer)
    for model, of_model in ((student, optimizer), (other, its_optimizer)):
        for group in of_model.param_groups:
            group["lr"] = 1e-3
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        of_model.step()
        assert model is student or same(everything(student, optimizer), everything(model, of_model))


def test_the_order_of_groups_does_not_matter(checkpoint):
    other, optimizer = trained(seed=5)
    turned = torch.optim.AdamW(list(reversed([dict(group) for group in optimizer.param_groups])))
    load_checkpoint(checkpoint, other, turned)
    assert same(everything(other, turned), everything(*trained()))


def test_weights_alone_and_optimizer_state_alone(checkpoint):
    wanted = everything(*trained())
    student, optimizer = trained(seed=5)
    before = everything(student, optimizer)
    load_weights(checkpoint, student)
    weights = student.trained_state().keys()
    found = everything(student, optimizer)
    assert all(torch.equal(found[name], (wanted if name in weights else before)[name]) for name in found)
    student, optimizer = trained(seed=5)
    load_optimizer(checkpoint, student, optimizer)
    found = everything(student, optimizer)
    assert all(torch.equal(found[name], (before if name in weights else wanted)[name]) for name in found)


def test_parameters_that_had_no_gradient_yet_have_no_state(tmp_path):
    student, optimizer = trained(steps=0)
    save_checkpoint(tmp_path / "one", student, optimizer, {})
    other, its_optimizer = trained(seed=5, steps=0)
    load_checkpoint(tmp_path / "one", other, its_optimizer)
    assert same(everything(other, its_optimizer), student.trained_state())


def test_bfloat16_comes_back(tmp_path):
    student, optimizer = trained()
    student.adapter.bfloat16()
    save_checkpoint(tmp_path / "one", student, optimizer, {})
    other, _ = trained(seed=5)
    other.adapter.bfloat16()
    load_weights(tmp_path / "one", other)
    assert same(other.trained_state(), student.trained_state())
    with pytest.raises(CheckpointError, match="of another shape or dtype"):
        load_weights(tmp_path / "one", trained()[0])


def test_one_process_writes_files_that_anyone_reads(checkpoint):
    student, optimizer = trained()
    found = load_file(checkpoint / "weights.safetensors") | load_file(checkpoint / "optimizer.safetensors")
    assert same(found, everything(student, optimizer))
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]


def test_an_older_one_of_the_same_name_is_replaced(checkpoint):
    save_checkpoint(checkpoint, *trained(seed=5), {"step": 7})
    student, optimizer = trained(steps=0)
    assert load_checkpoint(checkpoint, student, optimizer) == {"step": 7}
    assert same(everything(student, optimizer), everything(*trained(seed=5)))
    assert os.listdir(checkpoint.parent) == [checkpoint.name]  # noqa: PTH208


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("place", [0, 9, 0.2, 0.5, 0.8, -2])
def test_a_flipped_bit_is_refused(checkpoint, name, place):
    flip(checkpoint / name, place)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
        load_checkpoint(checkpoint, *trained())


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("length", [None, 0, 7, 0.5])
def test_a_missing_or_truncated_file_is_refused(checkpoint, name, length):
    path = checkpoint / name
    if length is None:
        path.unlink()
    else:
        os.truncate(path, length if isinstance(length, int) else int(path.stat().st_size * length))
    before = everything(*trained(seed=5))
    student, optimizer = trained(seed=5)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(checkpoint))}.*{name}"):
        load_checkpoint(checkpoint, student, optimizer)
    assert same(everything(student, optimizer), before)


def test_other_formats_and_foreign_files_are_refused(checkpoint, tmp_path):
    content = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps({"format": 1, "sha256": {}, "reports": []}))
    with pytest.raises(CheckpointError, match="format 1, this version reads 2; go on with the version"):
        load_checkpoint(checkpoint, *trained())
    with pytest.raises(CheckpointError, match="format 1, this version reads 2"):
        newest_checkpoint(tmp_path)
    for nonsense in ("[]", "null", "{}", "\x00", '{"format": 2}', '{"format": 3, "sha256": "0"}'):
        (checkpoint / "state.json").write_text(nonsense)
        with pytest.raises(CheckpointError):
            load_checkpoint(checkpoint, *trained())
    (checkpoint / "state.json").write_text(json.dumps(content))
    load_checkpoint(checkpoint, *trained())
    (checkpoint / "more.safetensors").write_bytes((checkpoint / "weights.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"more\.safetensors, which it was not saved with"):
        load_checkpoint(checkpoint, *trained())


def test_another_models_checkpoint_is_refused(checkpoint):
    for train_llm, options, said in (
        ("frozen", {}, r"does not belong to this model: 0 tensors missing, \d+ unknown.*lora"),
        ("full", {}, "tensors missing"),
        ("lora", {"hidden_size": 24}, "of another shape"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_checkpoint(checkpoint, *trained(train_llm, **options))
        with pytest.raises(CheckpointError, match="other parameters than this model trains"):
            load_optimizer(checkpoint, *trained(train_llm, **options))


def test_loading_executes_nothing(checkpoint, tmp_path, monkeypatch):
    """A pickle that would leave a mark lies everywhere a file is read from; and nothing asks for one to be undone."""
    mark = tmp_path / "was here"
    bomb = pickle.dumps(type("Bomb", (), {"__reduce__": lambda _: (open, (str(mark), "w"))})())
    (checkpoint / ".metadata").write_bytes(bomb)
    (checkpoint / "pytorch_model.bin").write_bytes(bomb)

    def never(*_, **__):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(pickle, "load", never)
    monkeypatch.setattr(pickle, "loads", never)
    load_checkpoint(checkpoint, *trained())
    for name in ("weights.safetensors", "optimizer.safetensors", "state.json"):
        original = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(bomb)
        with pytest.raises(CheckpointError):
            load_checkpoint(checkpoint, *trained())
        (checkpoint / name).write_bytes(original)
    assert not mark.exists()


def test_a_file_that_cannot_be_written_leaves_the_older_checkpoints(checkpoint, tmp_path):
    student, optimizer = trained()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=NO_ROOM):
            save_checkpoint(tmp_path / step_name(4), student, optimizer, STATE)
        with pytest.raises(CheckpointError, match=NO_ROOM):
            save_checkpoint(checkpoint, student, optimizer, {"step": "another"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step-00000002"]
    assert load_checkpoint(checkpoint, student, optimizer) == STATE
    (tmp_path / "a file").write_text("")
    with pytest.raises(CheckpointError, match="can't be written"):
        save_checkpoint(tmp_path / "a file" / "one", student, optimizer, STATE)


# --- the newest of several --------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    for step in (8, 9, 10):
        save_checkpoint(tmp_path / step_name(step), *trained(), {"step": step})
    save_checkpoint(tmp_path / "pre_decay", *trained(), {"step": 8})
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_found_by_its_number(three):
    assert newest_checkpoint(three) == (three / "step-00000010", [])
    assert newest_checkpoint(three / "nowhere") == (None, [])
    save_checkpoint(three / step_name(123_456_789), *trained(), {})
    assert newest_checkpoint(three)[0] == three / "step-123456789"


def test_a_damaged_one_is_set_aside_with_a_sentence(three):
    flip(three / "step-00000010" / "optimizer.safetensors", 0.5)
    (three / "step-00000009" / "weights.safetensors").unlink()
    newest, said = newest_checkpoint(three)
    assert newest == three / "step-00000008"
    assert len(said) == 2
    assert "step-00000010/optimizer.safetensors is damaged (SHA-256 differs). Going on from step-00000008" in said[0]
    assert "weights.safetensors is missing" in said[1]
    prune(three, 1)  # the whole one is not the oldest that goes
    assert names(three) == ["damaged-step-00000009", "damaged-step-00000010", "pre_decay", "step-00000008"]
    assert newest_checkpoint(three) == (three / "step-00000008", [])


def test_when_none_is_whole_the_run_does_not_begin_again_unasked(three):
    for path in checkpoints(three):
        flip(path / "weights.safetensors", -1)
    with pytest.raises(CheckpointError, match=r"none of the 3 checkpoints in .* is whole \(.*step-00000010.*or delete"):
        newest_checkpoint(three)
    assert len(checkpoints(three)) == 3


def test_the_layout_of_format_1_is_refused(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "state.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="format 1, this version reads 2"):
        newest_checkpoint(tmp_path)


def test_pruning_keeps_the_newest_and_those_with_names(three):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (three / f".tmp-{child.pid}-step-00000011").mkdir()
    (three / f".tmp-{os.getppid()}-step-00000011").mkdir()  # of one that lives
    prune(three, 2)
    assert names(three) == [f".tmp-{os.getppid()}-step-00000011", "pre_decay", "step-00000009", "step-00000010"]


def test_what_killed_runs_left_is_settled_and_swept(three):
    """Killed between the two renames of a replacement; killed while writing."""
    (three / "step-00000010").rename(three / ".old-step-00000010")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (three / f".tmp-{child.pid}-step-00000010").mkdir()
    (three / f".tmp-{child.pid}-step-00000010" / "weights.safetensors").write_bytes(b"half")
    assert newest_checkpoint(three) == (three / "step-00000010", [])
    assert names(three) == ["pre_decay", "step-00000008", "step-00000009", "step-00000010"]
