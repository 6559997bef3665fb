"""Where Piper's voices come from: the asset piper-joe, or rhasspy/piper-voices on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from salad.asset_table import ASSETS
from salad.assets import resolve
from salad.errors import AssetError

HUB = "rhasspy/piper-voices"
_NAME = re.compile(
    r"piper-(?P<language>[a-z]{2,3})_(?P<region>[A-Z]{2})-(?P<voice>\w+)-(?P<quality>x_low|low|medium|high)"
)


def piper_folder(name: str) -> Path:
    """The folder of the voice "piper-joe", or of "piper-LOCALE-VOICE-QUALITY" on the hub or in its cache.

    Raises:
        AssetError: the name is neither, or the files can't be had.
    """
    if name in ASSETS:
        return resolve(name)
    found = _NAME.fullmatch(name)
    if found is None:
        raise AssetError(
            f"there is no voice {name!r}; name piper-joe, one of {HUB} as in piper-en_US-lessac-medium, or a folder "
            "with a Piper voice."
        )
    from huggingface_hub import hf_hub_download

    locale = f"{found['language']}_{found['region']}"
    folder = f"{found['language']}/{locale}/{found['voice']}/{found['quality']}"
    stem = name.removeprefix("piper-")
    try:
        config = Path(hf_hub_download(HUB, f"{folder}/{stem}.onnx.json"))
        hf_hub_download(HUB, f"{folder}/{stem}.onnx")
    except Exception as error:  # the hub's client raises classes of several HTTP libraries; all mean "not to be had"
        raise AssetError(
            f"voice {name} is {folder} of {HUB}, which is neither in the hub's cache nor to be had from the hub "
            f"({type(error).__name__}); check the name and the network, or use piper-joe, which needs no hub."
        ) from error
    return config.parent
