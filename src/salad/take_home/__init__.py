"""The model that comes with the package, so that a newcomer's first minute is a model that hears (docs/take-home.md).

    take_home/NAME/   a saved model, its weights in 16 bits; what it is made of is fetched when it is loaded

Wherever a model is named, NAME is it; where none is named, it is meant.
"""

from __future__ import annotations

from pathlib import Path

from salad.errors import AssetError

NAME = "salad-smollm2-135m"
FOLDER = Path(__file__).parent / NAME


def folder() -> Path:
    """Where it lies.

    Raises:
        AssetError: this build of the package has none.
    """
    if not (FOLDER / "salad.json").is_file():
        raise AssetError(
            f"this build of salad comes without its model {NAME}; name a model's folder or a run, such as the one that "
            "'salad run recipes/demo.yaml' makes."
        )
    return FOLDER
