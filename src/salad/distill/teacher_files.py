"""What is known of a teacher from its files alone: which LLM it is, and the head that reads its hidden states.

A cache of hidden states (distill/teacher_cache.py) needs no more of the LLM than this; its layers are not loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from salad.distill.head import Head, head_of
from salad.errors import CheckpointError
from salad.files import read_json, write_json
from salad.model.llm import DTYPES, llm_folder, load_llm, load_tokenizer
from salad.ranks import ALONE, Ranks


@dataclass(frozen=True)
class TeacherIdentity:
    """Which LLM it is: its name, SHA-256 of its weights (and config.json) and of its tokenizer, the type it runs in."""

    llm: str
    weights: str
    tokenizer: str
    dtype: str

    @property
    def kept(self) -> torch.dtype:
        """What its hidden states are kept in, 2 bytes a number: to the bit what bfloat16 LLMs compute in.

        Of a float32 one float16 keeps three more bits than bfloat16, and the gradient is ten times nearer
        (docs/teacher.md); what is beyond its range is refused when it is read.
        """
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float16

    @classmethod
    def of(cls, llm: str, dtype: str, ranks: Ranks = ALONE) -> Self:
        """The LLM of that name as its files are now; they are read in full, a second or two for each GB.

        Raises:
            AssetError: there is no such LLM.
        """
        return ranks.from_main(cls(llm, *_hashes(llm), dtype) if ranks.is_main else None)  # type: ignore[return-value]

    def claim(self, path: Path) -> None:
        """Write it to `path`; where one is written already, make sure that it is of the same LLM, whatever its name.

        Raises:
            CheckpointError: it is of another.
        """
        if not path.is_file():
            write_json(path, asdict(self))
        self.check(path)

    def check(self, path: Path) -> None:
        """Make sure that `path` names this LLM.

        Raises:
            MissingFileError: there is no such file.
            CheckpointError: it names another.
        """
        found: Any = read_json(path)
        own = asdict(self)
        if not isinstance(found, dict) or found.keys() != own.keys():
            raise CheckpointError(f"{path} does not say whose hidden states these are; delete the folder.")
        others = [name for name in ("weights", "tokenizer", "dtype") if found[name] != own[name]]
        if others:
            facts = "; ".join(f"{name} {found[name][:12]} there, {own[name][:12]} here" for name in others)
            raise CheckpointError(
                f"{path.parent} holds the hidden states of another teacher: {found['llm']!r}, not {self.llm!r} as it "
                f"is now ({facts}). Give this run another folder, or delete that one."
            )


def load_head(llm: str, dtype: str, device: torch.device | None = None) -> Head:
    """The head of the LLM of that name; the rest of it stands on the meta device meanwhile, which takes no memory.

    Raises:
        AssetError: there is no such LLM.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = llm_folder(llm)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder), dtype=DTYPES[dtype]
        )
    output = model.get_output_embeddings()
    stored = _stored(folder)
    names = {
        kind: next((n for n, p in model.named_parameters(remove_duplicate=False) if p is own and n in stored), None)
        for kind, own in output.named_parameters()
    }
    if None in names.values():  # stored under other names, which only loading knows to translate
        state = load_llm(llm, dtype).get_output_embeddings().state_dict()
    else:
        state = {kind: _read(stored[name], name) for kind, name in names.items() if name is not None}
    for kind, tensor in state.items():
        own = tensor.to(device, DTYPES[dtype], copy=True)  # what was read is a view into the file
        output.register_parameter(kind, nn.Parameter(own, requires_grad=False))
    return head_of(model)


def _hashes(llm: str) -> tuple[str, str]:
    """Of weights and tokenizer."""
    folder = llm_folder(llm)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    digests = []
    for path in (folder / "config.json", *files):
        with path.open("rb") as file:
            digests.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    weights = hashlib.sha256(json.dumps(digests).encode())
    backend: Any = load_tokenizer(llm).backend_tokenizer
    return weights.hexdigest(), hashlib.sha256(backend.to_str().encode()).hexdigest()


def _stored(folder: Path) -> dict[str, Path]:
    """Tensor name -> the safetensors file it is in."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor
