"""Several processes agree, know what they were started as, and tell one that is gone from an error of ours."""

import json
import os
import time

import pytest
import torch

from processes import together
from salad.errors import RecipeError
from salad.ranks import ALONE, Ranks, device_of, is_lost_rank, started_ranks

# --- what ranks say to each other -----------------------------------------------------------------------------------


def agree(ranks, folder):
    """Every method on this rank, as JSON; then the second rank ends, and the first waits for it in vain."""
    said = [0.1 * (ranks.rank + 1), 2.0**40 + ranks.rank]
    found = {
        "rank": ranks.rank,
        "world": ranks.world,
        "is_main": ranks.is_main,
        "total": ranks.total(torch.tensor(said, dtype=torch.float64)).tolist(),
        "total of float32": str(ranks.total(torch.ones(2, 2, requires_grad=True))),
        "any": [ranks.any(flag) for flag in (False, ranks.rank == 1, True)],
        "gather": ranks.gather({"rank": ranks.rank, "more": [None] * ranks.rank}),
        "from_main": ranks.from_main(f"what {ranks.rank} says"),
    }
    if not ranks.is_main:
        time.sleep(0.5)
        (folder / "late").touch()
    ranks.barrier()
    found["barrier"] = (folder / "late").exists()
    if ranks.is_main:
        try:
            ranks.from_main("nobody listens")  # small enough for a buffer
            ranks.gather(None)
        except RuntimeError as error:
            found["lost"] = is_lost_rank(error)
    (folder / f"found-{ranks.rank}.json").write_text(json.dumps(found))
    os._exit(0)  # nothing to take leave of


@pytest.fixture(scope="module")
def agreed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreed")
    together(agree, folder, world=3)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(3)]


def test_ranks_know_who_they_are(agreed):
    assert [(found["rank"], found["world"], found["is_main"]) for found in agreed] == [
        (0, 3, True),
        (1, 3, False),
        (2, 3, False),
    ]


def test_sums_are_exact_and_the_same_on_all(agreed):
    assert agreed[0]["total"] == agreed[1]["total"] == agreed[2]["total"]
    assert agreed[0]["total"] == pytest.approx([0.6, 3 * 2.0**40 + 3], rel=1e-15)
    assert agreed[0]["total of float32"] == str(3 * torch.ones(2, 2, dtype=torch.float64))


def test_what_one_says_all_hear(agreed):
    for found in agreed:
        assert found["any"] == [False, True, True]
        assert found["gather"] == [{"rank": rank, "more": [None] * rank} for rank in range(3)]
        assert found["from_main"] == "what 0 says"
        assert found["barrier"]


def test_one_that_is_gone_is_told_from_an_error_of_ours(agreed):
    assert agreed[0]["lost"] is True
    assert not is_lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"))
    assert not is_lost_rank(ValueError("gloo"))


def test_alone_it_agrees_with_itself():
    assert ALONE.is_main
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.gather("a") == ["a"]
    assert ALONE.from_main("a") == "a"
    assert ALONE.total(torch.tensor([1.5, 2.0])).dtype == torch.float64
    ALONE.barrier()


# --- what they are started as ---------------------------------------------------------------------------------------


def test_it_says_how_many_work_together_and_how():
    two = Ranks(1, 2, torch.device("cpu"))
    assert two.sentence("ddp") == "2 processes (gloo, CPU), DDP"
    assert two.sentence("fsdp") == "2 processes (gloo, CPU), FSDP2"
    assert ALONE.sentence("ddp") == "1 process (CPU)"
    assert two.as_json("fsdp") == {"ranks": 2, "parallel": "fsdp", "device": "CPU"}
    assert ALONE.as_json("fsdp") == {"ranks": 1, "parallel": None, "device": "CPU"}


def test_without_torchrun_it_is_alone(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with started_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.device.type) == (0, 1, "cpu")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set; start them with torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"WORLD_SIZE": "2", "RANK": "-1", "LOCAL_RANK": "0"}, "RANK='-1'"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "RANK=2, and ranks go from 0 to 1",
        ),
    ],
)
def test_an_environment_that_is_not_torchruns_is_refused(monkeypatch, environment, message):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=message), started_ranks("cpu"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused():
    assert device_of("auto").type == "cpu"
    with pytest.raises(RecipeError, match="torch finds no GPU here"):
        device_of("cuda")
