"""Checkpoints of several processes: sharded as FSDP2 has it, read by any number, and agreed on when one fails."""

import hashlib
import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.checkpoint import HuggingFaceStorageReader, load
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import tiny
from processes import MEET, together
from salad.distill.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint, step_name
from salad.distill.loop import make_optimizer
from salad.errors import CheckpointError
from salad.ranks import ALONE, Ranks
from salad.recipe import OptimizerSettings

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow, pytest.mark.timeout(900)]

STATE = {"step": 2}
# what is trained, how many ranks save it, how many load it
CASES = (("lora", 2, (1, 2, 3)), ("lora", 1, (3,)), ("full", 3, (1, 2)), ("frozen", 2, (3,)))


def trained(train_llm="lora", seed=0, mesh=None):
    """A student and its optimizer after two steps on gradients drawn at random; of a mesh, sharded over it."""
    student = tiny.student(train_llm, seed)
    if mesh is not None:
        for part in (student.adapter, *student.language_model.get_decoder().layers, student):
            fully_shard(part, mesh=mesh)
    optimizer = make_optimizer(student, OptimizerSettings(adapter_rate=3e-3, llm_rate=3e-3))
    draws = torch.Generator().manual_seed(seed)
    for _ in range(2):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
            for parameter in group["params"]:
                gradient = torch.randn(parameter.shape, generator=draws)
                parameter.grad = gradient if mesh is None else distribute_tensor(gradient, mesh, [Shard(0)])
        optimizer.step()
    return student, optimizer


def everything(student, optimizer):
    """All that a checkpoint has to bring back, by name, in one piece."""
    names = {parameter: name for name, parameter in student.named_parameters()}
    state = {f"{names[p]}.{key}": value for p, entry in optimizer.state.items() for key, value in entry.items()}
    found = (student.trained_state() | state).items()
    return {name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone() for name, tensor in found}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def save_and_load_on_other_numbers(ranks, folder):
    """The first one, two or all of three processes save; one, two or all load."""
    meshes = {n: DeviceMesh("cpu", list(range(n))) for n in (2, 3)}
    controls = {n: distributed.new_group(list(range(n)), MEET, "gloo") for n in (2, 3)}

    def of(n):
        return ALONE if n == 1 else Ranks(ranks.rank, n, ranks.device, controls[n])

    for train_llm, saving, more in (
        ("lora", 2, (1, 2, 3)),
        ("lora", 1, (3,)),
        ("full", 3, (1, 2)),
        ("frozen", 2, (3,)),
    ):
        expected = everything(*trained(train_llm))
        place = folder / f"{train_llm}-{saving}"
        if ranks.rank < saving:
            save_checkpoint(place, *trained(train_llm, mesh=meshes.get(saving)), STATE, of(saving))
        ranks.barrier()
        for loading in more:
            if ranks.rank < loading:
                student, optimizer = trained(train_llm, seed=5, mesh=meshes.get(loading))
                assert load_checkpoint(place, student, optimizer, of(loading)) == STATE
                assert same(everything(student, optimizer), expected), (train_llm, saving, loading)
            ranks.barrier()


def test_any_number_of_ranks_loads_what_any_number_saved(tmp_path):
    together(save_and_load_on_other_numbers, tmp_path, world=3)
    shards = sorted((tmp_path / "full-3").glob("*.safetensors"))
    parts = [f"{part}-0000{rank}-of-00003.safetensors" for part in ("optimizer", "weights") for rank in (1, 2, 3)]
    assert [path.name for path in shards] == parts
    expected = everything(*trained("full"))
    written = [tensor for path in shards for tensor in load_file(path).values()]
    assert sum(tensor.numel() for tensor in written) == sum(tensor.numel() for tensor in expected.values())  # each once
    found = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    with pytest.warns(UserWarning, match="torch.distributed is disabled"):
        load(found, storage_reader=HuggingFaceStorageReader(str(tmp_path / "full-3")), no_dist=True)
    assert same(found, expected)


def one_rank_cannot_write(ranks, folder):
    """The second rank's disk takes no file over a kilobyte; whether sharded or not, all hear of it."""
    mesh = DeviceMesh("cpu", list(range(ranks.world)))
    student, optimizer = trained("full", mesh=mesh)
    save_checkpoint(folder / step_name(1), student, optimizer, {"step": 1}, ranks)
    if ranks.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    said = "nothing was raised"
    try:
        save_checkpoint(folder / step_name(2), student, optimizer, {"step": 2}, ranks)
    except CheckpointError as error:
        said = str(error)
    heard = ranks.gather(said)
    assert heard == [said] * ranks.world
    assert "step-00000002" in said
    assert "rank 1's part of it takes" in said
    assert "the last checkpoint before it is step-00000001" in said
    assert newest_checkpoint(folder, ranks) == (folder / step_name(1), [])
    assert load_checkpoint(folder / step_name(1), student, optimizer, ranks) == {"step": 1}
    assert [path.name for path in folder.glob("*step*")] == [step_name(1)]


def test_when_one_rank_cannot_write_all_hear_of_it(tmp_path):
    together(one_rank_cannot_write, tmp_path)


def replicated_and_damaged(ranks, folder):
    """As DDP has it: the same on both; then a file is damaged, and both pass it over."""
    student, optimizer = trained(seed=0)
    if ranks.rank == 1:  # what the second rank has is not asked for
        student.adapter.requires_grad_(False)
        with torch.no_grad():
            next(student.adapter.parameters()).add_(1.0)
    for step in (1, 2):
        save_checkpoint(folder / step_name(step), student, optimizer, {"step": step, "rank": ranks.rank}, ranks)
    assert len(list((folder / step_name(2)).iterdir())) == 3
    other, its_optimizer = trained(seed=5)
    assert load_checkpoint(folder / step_name(2), other, its_optimizer, ranks) == {"step": 2, "rank": 0}
    assert same(everything(other, its_optimizer), everything(*trained(seed=0)))
    ranks.barrier()
    path = folder / step_name(2) / "optimizer.safetensors"
    if ranks.is_main:
        path.write_bytes(path.read_bytes()[:-1])
    ranks.barrier()
    problem = "none"
    try:
        load_checkpoint(folder / step_name(2), other, its_optimizer, ranks)
    except CheckpointError as error:
        problem = str(error)
    assert "optimizer.safetensors is damaged" in problem
    newest, said = newest_checkpoint(folder, ranks)
    assert newest == folder / step_name(1)
    assert len(said) == 1
    assert ranks.gather((problem, said)) == [(problem, said)] * 2
    if ranks.is_main:
        (folder / "done").write_text(hashlib.sha256(json.dumps(said).encode()).hexdigest())


def test_replicated_tensors_are_written_once_and_damage_is_agreed_on(tmp_path):
    together(replicated_and_damaged, tmp_path)
    assert Path(tmp_path / "done").is_file()
