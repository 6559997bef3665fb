"""What a group of recipe keys is, and the ranges of its numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Frac = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


def _upwards(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the least, {bounds[0]}, is more than the most, {bounds[1]}")
    return bounds


CountRange = Annotated[tuple[Count, Count], AfterValidator(_upwards)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_upwards)]
FloatRange = Annotated[tuple[float, float], AfterValidator(_upwards)]


class Settings(BaseModel):
    """A frozen group of recipe keys that refuses unknown ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")
