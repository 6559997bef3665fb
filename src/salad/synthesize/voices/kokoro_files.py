"""Where Kokoro's voices come from: five from the asset kokoro-82m, without the hub; the others from the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salad.assets import resolve
from salad.errors import AssetError
from salad.files import read_json
from salad.synthesize.voices.kokoro import STYLE_DIM, Files
from salad.synthesize.voices.kokoro_text import MOST_SIGNS

ASSET = "kokoro-82m"
OFFLINE = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")
"""The voices of the asset; they were made to speak Japanese and speak English clearly."""

HUB_ONNX = "onnx-community/Kokoro-82M-v1.0-ONNX"
HUB_TORCH = "hexgrad/Kokoro-82M"
NAMES = tuple(
    f"{kind}_{name}"
    for kind, names in {
        "af": "alloy aoede bella heart jessica kore nicole nova river sarah sky",
        "am": "adam echo eric fenrir liam michael onyx puck santa",
        "bf": "alice emma isabella lily",
        "bm": "daniel fable george lewis",
        "ef": "dora",
        "em": "alex santa",
        "ff": "siwis",
        "hf": "alpha beta",
        "hm": "omega psi",
        "if": "sara",
        "im": "nicola",
        "jf": "alpha gongitsune nezumi tebukuro",
        "jm": "kumo",
        "pf": "dora",
        "pm": "alex santa",
        "zf": "xiaobei xiaoni xiaoxiao xiaoyi",
        "zm": "yunjian yunxi yunxia yunyang",
    }.items()
    for name in names.split()
)
"""Kokoro 1.0's voices: the first letter is the language they were made for, a American and b British English."""


def hub_file(voice: str, repo: str, name: str) -> Path:
    """A file of a repository on the hub, or in the hub's cache.

    Raises:
        AssetError: it can't be had.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name))
    except Exception as error:  # the hub's client raises classes of several HTTP libraries; all mean "not to be had"
        offline = ", ".join(f"kokoro-{name}" for name in OFFLINE)
        raise AssetError(
            f"voice kokoro-{voice} needs {name} of {repo}, which is neither in the hub's cache nor to be had from the "
            f"hub ({type(error).__name__}); run once with the hub in reach, or use {offline}, piper-joe or espeak-ng, "
            "which need no hub."
        ) from error


def asset_files(voice: str) -> Files:
    """The files of one of the `OFFLINE` voices."""
    folder = resolve(ASSET)
    with np.load(folder / "voices_ja.npz", allow_pickle=False) as table:
        styles = np.asarray(table[voice], dtype=np.float32).reshape(-1, STYLE_DIM)
    return Files(folder / "kokoro-v1.0.int8.onnx", styles, _vocabulary(read_json(folder / "vocab.json"), folder))


def hub_files(voice: str) -> Files:
    """The files of a voice beside the ONNX model on the hub.

    Raises:
        AssetError: they can't be had, or the voice's is damaged.
    """
    styles = styles_of(hub_file(voice, HUB_ONNX, f"voices/{voice}.bin"))
    tokenizer = hub_file(voice, HUB_ONNX, "tokenizer.json")
    vocabulary = _vocabulary(read_json(tokenizer).get("model"), tokenizer)
    return Files(hub_file(voice, HUB_ONNX, "onnx/model.onnx"), styles, vocabulary)


def styles_of(path: Path) -> NDArray[np.float32]:
    """A voice's styles from the .bin beside the ONNX model: [510, 256], little-endian float32.

    Raises:
        AssetError: the file has another length.
    """
    content = path.read_bytes()
    if len(content) != MOST_SIGNS * STYLE_DIM * 4:
        raise AssetError(f"{path} has {len(content)} bytes, not the 522,240 of a Kokoro voice; fetch it anew.")
    return np.frombuffer(content, dtype="<f4").reshape(MOST_SIGNS, STYLE_DIM)


def _vocabulary(stated: Any, where: Path) -> dict[str, int]:
    """The number of each sign; words of more than one sign, and the mark of begin and end, are no signs."""
    try:
        found = {sign: int(number) for sign, number in stated["vocab"].items() if len(sign) == 1 and int(number) > 0}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise AssetError(f"{where} holds no vocabulary of Kokoro; fetch it anew.") from error
    if not found.keys() >= set("abdfhijklmnpstuvwz .,ˈɪəɹ"):
        raise AssetError(f"{where} lacks signs of English: {json.dumps(sorted(found), ensure_ascii=False)[:80]}.")
    return found
