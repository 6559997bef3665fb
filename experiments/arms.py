"""Arms that several claims look at, so that each is trained once."""

from __future__ import annotations

from experiments.lab import Arm, Selected

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
LOOKS = "engine.watch_every=6"
SEEDS = (0, 1, 2)


def stage_one_on(seed: int, speech: str, alpha: float = 1.0, text_frac: float | None = None) -> Arm:
    """Stage I from the same ears on a set of speech, watched on held-out broad speech; `text_frac` None: the lab's."""
    keys: tuple[str, ...] = (f"stage_one.alpha={alpha:g}", LOOKS)
    name = f"{speech}-alpha{alpha:g}"
    if text_frac is not None:
        name, keys = f"{name}-text{text_frac:g}", (*keys, f"stage_one.text_frac={text_frac:g}")
    return Arm(name, seed, (speech,), keys)


def natural(seed: int) -> Arm:
    """Stage I on the human prompts with distillation: where Stage II begins."""
    return Arm("human-alpha1", seed, ("human",), ("stage_one.alpha=1",))


def stage_two_by(seed: int, gamma: float = 5.0, clusters: int | None = None, score: str = "misalignment") -> Arm:
    """Stage II on texts of the spoken pool, drawn by this selection."""
    selected = Selected(gamma, clusters, score)
    name = f"two-gamma{gamma:g}-k{clusters or 'lab'}-{score}"
    return Arm(name, seed, begins_from=natural(seed), selected=selected)


def stage_three_by(seed: int, name: str, steps: int, *keys: str) -> Arm:
    """So many steps of Stage III after Stage II on selected speech; `keys` of `stage_three`."""
    told = (f"stage_three.steps={steps}", "stage_three.continuation_tokens=16", "stage_three.refresh_steps=4")
    own = tuple(f"stage_three.{key}" for key in keys)
    return Arm(f"three-{name}", seed, overrides=(*told, *own), begins_from=stage_two_by(seed), stage_three=True)


def stage_two_without_new_data(seed: int) -> Arm:
    """As many steps of Stage II on natural speech and text alone."""
    return Arm("two-nothing-new", seed, begins_from=natural(seed))
