"""Worker processes share out the GPUs of a machine; without that all would load their models onto the first."""

from __future__ import annotations

import multiprocessing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from salad.model.encoders.speech_encoder import torch_device
from salad.select.embed import device_for
from salad.speech import ctc
from salad.speech.recognize import load_whisper
from salad.workers import answer_all, gpu_of_worker


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says that this process is the worker of some number, on a machine with four GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def be(name: str) -> None:
        monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name=name))

    return be


def test_workers_of_a_pool_take_gpus_in_turn() -> None:
    setup = partial(partial, gpu_of_worker)  # answers a task, a number of GPUs, with the worker's own
    assert sorted(str(gpu) for _, gpu in answer_all([2, 2], setup, 2)) == ["0", "1"]
    assert gpu_of_worker(2) is None  # of the process that asked


def test_an_encoder_goes_to_the_workers_gpu_and_else_to_the_ranks_own(in_worker: Any) -> None:
    for name, index in (("SpawnProcess-1", 0), ("SpawnProcess-7", 2), ("MainProcess", None)):
        in_worker(name)
        assert torch_device("auto") == torch_device("cuda") == torch.device("cuda", index)
        assert device_for("auto") == f"cuda:{index or 0}"
        assert torch_device("cuda:1") == torch.device("cuda:1")
        assert torch_device("cpu") == torch.device("cpu")


def test_a_recognizer_goes_to_the_workers_gpu(in_worker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).touch()
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("faster_whisper.WhisperModel", lambda _, **how: asked.append(how))
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 4)
    in_worker("SpawnProcess-6")
    for device in ("auto", "cuda", "cpu"):
        load_whisper(tmp_path, 1, "int8", device)
    assert [how["device_index"] for how in asked] == [1, 1, 0]


def test_an_aligner_goes_to_the_workers_gpu(in_worker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def to(device: Any) -> None:
        asked.append(device)
        raise OSError("far enough")

    monkeypatch.setattr("transformers.AutoModelForCTC.from_pretrained", lambda _: SimpleNamespace(to=to))
    in_worker("SpawnProcess-4")
    with pytest.raises(ctc.AssetError, match="far enough"):
        ctc.CtcAligner(tmp_path, 1)
    assert asked == ["cuda:3"]
