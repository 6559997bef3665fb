"""The recipe: everything a run depends on, as data. YAML in, typed and frozen here, `--set a.b=c` on top.

Unknown keys are refused with the nearest valid one; all problems of a recipe come in one message. The resolved recipe
is saved with every run. Units stand in the names: `_s`, `_h`, `_frac` (0-1), `_tokens`; `num_` counts.
"""

from salad.recipe.data import DataSettings, SequenceSettings
from salad.recipe.load import load_recipe, parse_recipe, save_recipe
from salad.recipe.model import AdapterSettings, EncoderSizes, LlmSizes, LoraSettings, ModelSettings
from salad.recipe.stages import (
    MAY_CHANGE,
    CurriculumSettings,
    OptimizerSettings,
    StageOneSettings,
    StageSettings,
    StageThreeSettings,
    StageTwoSettings,
    WarmStartSettings,
)
from salad.recipe.synthesis import AugmentSettings, QualitySettings, VoiceSettings
from salad.recipe.whole import EngineSettings, ExpectedSettings, MeasureSettings, Recipe

__all__ = [
    "MAY_CHANGE",
    "AdapterSettings",
    "AugmentSettings",
    "CurriculumSettings",
    "DataSettings",
    "EncoderSizes",
    "EngineSettings",
    "ExpectedSettings",
    "LlmSizes",
    "LoraSettings",
    "MeasureSettings",
    "ModelSettings",
    "OptimizerSettings",
    "QualitySettings",
    "Recipe",
    "SequenceSettings",
    "StageOneSettings",
    "StageSettings",
    "StageThreeSettings",
    "StageTwoSettings",
    "VoiceSettings",
    "WarmStartSettings",
    "load_recipe",
    "parse_recipe",
    "save_recipe",
]
