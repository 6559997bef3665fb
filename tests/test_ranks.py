"""Two processes: a rank that reads text alone neither hangs nor starves; the gradient is that of one process."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import tiny
from salad.distill.loop import objective
from salad.distill.teacher import teacher_for

pytestmark = pytest.mark.usefixtures("one_thread")

RANKS = 2
TIMEOUT_S = 100  # whichever rank is ready first, and then the other
SPOKEN = tiny.utterances(3)


class Objective(nn.Module):
    """The sum of the loss over a batch, as the module that DDP wraps."""

    def __init__(self):
        super().__init__()
        self.student = tiny.move(tiny.student(), by=0.05).train()
        self.teacher = teacher_for(self.student)

    def forward(self, batch):
        return objective(self.student, self.teacher, batch, 0.7)[0]


def batches():
    """What the ranks read: in the first step the second has text alone, in the second step the first."""
    spoken, read = tiny.batch_of(SPOKEN), tiny.batch_of([], ["the quiet river", "she listens, he speaks;"])
    assert read.speech_features_SFE is None
    return [[spoken, read], [read, spoken]]


def gradients(student):
    return {name: p.grad.clone() for name, p in student.named_parameters() if p.requires_grad}


def rank_of_two(rank, folder):
    """One process: both steps under DDP, its gradients of each to a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # and not whatever the host's name resolves to
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{folder}/store", timeout=timedelta(seconds=60), world_size=RANKS, rank=rank
    )
    assert distributed.get_world_size() == RANKS
    module = Objective()
    parallel = DistributedDataParallel(module)  # every parameter takes part in every step: none has to be looked for
    for step, ranks in enumerate(batches()):
        module.zero_grad()
        parallel(ranks[rank]).backward()
        save_file(gradients(module.student), Path(folder) / f"{step}-{rank}.safetensors")
    distributed.destroy_process_group()


def run_ranks(folder):
    """Both processes to their end; one that hangs or fails fails the test."""
    context = torch.multiprocessing.start_processes(rank_of_two, (str(folder),), RANKS, join=False, daemon=True)
    try:
        assert context.join(TIMEOUT_S) or context.join(TIMEOUT_S), f"the ranks hang: no end after {2 * TIMEOUT_S} s"
    finally:
        for process in context.processes:
            process.kill()


@pytest.mark.slow
def test_a_rank_that_reads_text_alone_neither_hangs_nor_changes_the_gradient(tmp_path):
    run_ranks(tmp_path)
    for step, ranks in enumerate(batches()):
        alone = Objective()
        torch.stack([alone(batch) for batch in ranks]).sum().backward()
        for rank in range(RANKS):
            found = load_file(tmp_path / f"{step}-{rank}.safetensors")
            assert any(name.startswith("adapter.") for name in found)
            for name, gradient in gradients(alone.student).items():
                # DDP takes the mean over the ranks
                assert torch.allclose(RANKS * found[name], gradient, rtol=1e-4, atol=1e-5), name
