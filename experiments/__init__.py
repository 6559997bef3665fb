"""The paper's claims, and some of ours, tried at a scale that two CPU cores can run; README.md is the way in."""

CLAIMS = (
    "distillation_law",
    "broad_domain",
    "explained_accuracy",
    "active_selection",
    "more_training",
    "text_mix",
    "selection_knobs",
    "voices",
    "stage_zero",
    "curriculum",
    "controlled_selection",
    "on_policy",
)
"""The packages, in the order in which docs/results.md tells them."""
