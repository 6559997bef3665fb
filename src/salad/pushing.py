"""A trained model as others can load it: the folder that is pushed to the Hugging Face hub, and the pushing.

The folder holds the model, its processor, the full card (data bill, numbers with intervals, limits, intended use) and
hashes. Names of folders on this machine are cut down to their last part in what is told; weights are not touched.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from salad import take_home
from salad.asset_table import ASSETS
from salad.assets import HUB_NAME
from salad.card.bill import BILL_NAME, Bill, read_bill
from salad.card.measured import results_of
from salad.card.page import CARD_NAME, model_card
from salad.errors import AssetError, CheckpointError, RecipeError
from salad.files import folder_atomic, read_json, write_atomic, write_json
from salad.model.saved import (
    HASHES_NAME,
    PRE_DECAY_BILL_NAME,
    PRE_DECAY_NAME,
    WEIGHTS_NAME,
    check_weights,
    hashes_of,
    model_folder,
)
from salad.recipe import load_recipe
from salad.run import Run
from salad.steps.measuring import measure_again
from salad.student import before_decay

STORED = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""What weights can be rounded to on the disk."""
TOLD = ("salad.json", BILL_NAME, CARD_NAME, "config.json")
"""Files that tell of the making and may name folders."""
LOCAL = re.compile(r"""(?<![\w.:/~])(?:~|/(?!/))[^\s"'`,;)|]*/([^\s"'`,;)|/]+)""")
"""A path from the root or the home folder; its last part is kept."""


def export(
    path: Path, out: Path, repo: str, dtype: str | None = None, pre_decay: bool = False, measure: bool = False
) -> list[str]:
    """Write what would be pushed of a model or a run to `out`; gives the names of its files.

    The card says how it is loaded by its name `repo` on the hub, or by that of the package's own model. Weights that
    are rounded are no longer those that were measured: their card has no numbers, unless they are measured again.

    Args:
        path: the model or the run.
        out: the folder to write.
        repo: its name.
        dtype: float16 or bfloat16, what weights are stored in; they are computed with as before.
        pre_decay: with the weights from before Stage I's learning rate decayed, where Stage II starts.
        measure: measure the rounded weights, on what the run held out.

    Raises:
        RecipeError: `repo` is not of the form org/name, there is no such dtype, or nothing to measure again.
        CheckpointError: there is no model, its weights are damaged or too large for the dtype, nobody else could load
            it, or what is to come with it is not there.
    """
    if repo != take_home.NAME:
        check_repo(repo)
    if dtype not in (None, *STORED):
        raise RecipeError(f"--dtype {dtype}: weights are stored in {' or '.join(STORED)}.")
    if measure and dtype is None:
        raise RecipeError("--measure is for weights that --dtype rounds; others have their run's numbers.")
    folder = model_folder(path)
    run = _finished_run(folder) if measure else None
    check_weights(folder)
    config = dict(read_json(folder / "config.json"))
    _refuse_local_llm(config)
    missing = [name for name in TOLD if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} has no {', '.join(missing)}; save it with this version of salad first.")
    earlier = before_decay(folder) if pre_decay else None
    if pre_decay and earlier is None:
        raise CheckpointError(f"{folder} has no weights from before the decay; leave --pre-decay out.")
    with folder_atomic(out) as fresh:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith((".", Path(PRE_DECAY_NAME).stem)):
                shutil.copy2(file, fresh / file.name)
        bill = _with_comparison(read_bill(fresh), folder)
        if dtype is not None:
            _store(fresh / WEIGHTS_NAME, load_file(folder / WEIGHTS_NAME), dtype)
            bill |= {"weights_dtype": dtype, "results": None}
        if earlier is not None:
            _store(fresh / PRE_DECAY_NAME, earlier[0], dtype)
            write_json(fresh / PRE_DECAY_BILL_NAME, earlier[1])
        if dtype is not None or earlier is not None:
            hashes = hashes_of(fresh)
            write_json(fresh / HASHES_NAME, hashes)
            bill["weights_sha256"] = hashes[WEIGHTS_NAME]
        write_json(fresh / BILL_NAME, bill)
        if run is not None:
            bill |= {"results": _measured_again(run, fresh)}
            write_json(fresh / BILL_NAME, bill)
        write_atomic(fresh / CARD_NAME, model_card(bill, repo))
        for name in (*TOLD, *([PRE_DECAY_BILL_NAME] if earlier else [])):
            write_atomic(fresh / name, without_folders(fresh / name))
    return sorted(file.name for file in out.iterdir())


def _store(file: Path, state: dict[str, Tensor], dtype: str | None) -> None:
    """Write weights, rounded to `dtype`; they are loaded into what the model computes in.

    Raises:
        CheckpointError: one is too large for it.
    """
    kind = STORED[dtype] if dtype is not None else None
    kept = {name: (w.to(kind) if kind and w.is_floating_point() else w).contiguous() for name, w in state.items()}
    lost = [name for name, w in kept.items() if not bool(w.isfinite().all()) and bool(state[name].isfinite().all())]
    if lost:
        raise CheckpointError(f"{lost[0]} holds numbers that {dtype} has no room for; give --dtype bfloat16.")
    file.unlink(missing_ok=True)
    save_file(kept, file, metadata={"format": "pt"})


def without_folders(file: Path) -> str:
    """The text of a file with the folders of this machine's paths left out: /data/me/corpus is corpus."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return json.dumps(_cut(json.loads(text)), indent=1, ensure_ascii=False) + "\n"
    return LOCAL.sub(r"\1", text)


def check_repo(repo: str) -> None:
    """Refuse what is no name on the hub.

    Raises:
        RecipeError: `repo` is not of the form org/name.
    """
    if not HUB_NAME.fullmatch(repo):
        raise RecipeError(f"{repo!r} is no name on the hub; write it as org/name.")


def push(folder: Path, repo: str, private: bool) -> str:
    """Push an exported folder to `repo` on the hub, which is made if it isn't there; gives its address.

    Raises:
        RecipeError: `repo` is not of the form org/name.
        AssetError: the hub refuses or can't be reached.
    """
    check_repo(repo)
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = str(api.create_repo(repo, private=private, exist_ok=True))
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="A speech LLM of salad")
    except Exception as error:  # the client raises classes of several HTTP libraries; all mean "not pushed"
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise AssetError(
            f"{repo} was not pushed ({reason}); log in with 'hf auth login' or set HF_TOKEN, check the name and the "
            "network, and push again: files that are there are not sent twice."
        ) from error
    return address


def _with_comparison(bill: Bill, folder: Path) -> Bill:
    """The bill with chance level and cascade, from the results.json of the run that the model lies in.

    Only where those results are of this model: their arm holds every number that the bill has.
    """
    stated, run = bill["results"], folder.resolve().parents[1] / "results.json"
    if stated is None or not run.is_file():
        return bill
    found = read_json(run)
    for arm in found.get("arms", []):
        if arm["name"] == bill["stage"]:
            fresh = results_of(arm, found["conditions"], found["topline"], found.get("cascade"), found.get("task"))
            if stated.items() <= fresh.items():
                return bill | {"results": fresh}
    return bill


def _finished_run(folder: Path) -> Path:
    """The run that a model's folder lies in.

    Raises:
        RecipeError: it lies in none that has results.
    """
    run = folder.resolve().parents[1]
    if (run / "results.json").is_file() and (run / "recipe.yaml").is_file():
        return run
    raise RecipeError(f"--measure: {folder} lies in no finished run, whose held-out speech it would be measured on.")


def _measured_again(run: Path, model: Path) -> Bill:
    """What a bill keeps of the numbers of the weights in `model`."""
    found = read_json(run / "results.json")
    arm = measure_again(Run(load_recipe(run / "recipe.yaml"), run), model)
    return results_of(arm, found["conditions"], found["topline"], found.get("cascade"), found.get("task"))


def _refuse_local_llm(config: dict[str, Any]) -> None:
    llm = str(config.get("llm", ""))
    if config.get("train_llm") == "full" or llm in ASSETS or (HUB_NAME.fullmatch(llm) and not Path(llm).exists()):
        return
    raise CheckpointError(
        f"the model needs its LLM {llm!r}, a folder of this machine that nobody else has; push that LLM to the hub, "
        "and train with model.llm=org/name."
    )


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item) for item in value]
    return LOCAL.sub(r"\1", value) if isinstance(value, str) else value
