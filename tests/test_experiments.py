"""The experiments: their effects' arithmetic, their verdicts, and that arms which claims share are the same arms."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from experiments import CLAIMS, results_page
from experiments.arms import natural, stage_one_on, stage_three_by, stage_two_by
from experiments.claim import CANT_TELL, NOT, REPRODUCED, Claim, judged
from experiments.effects import Effect, combine
from scipy.stats import t as student_t

REPO = Path(__file__).resolve().parents[1]


def claim(name: str) -> Claim:
    found = importlib.import_module(f"experiments.{name}").CLAIM
    assert isinstance(found, Claim)
    return found


def test_an_effect_is_the_mean_over_seeds_of_ratios_of_sums() -> None:
    totals_SI = np.array([[1.0, 3.0], [2.0, 0.0]])
    found = combine(totals_SI, np.array([2.0, 8.0]))
    assert found.by_seed == (0.4, 0.2)
    assert found.value == pytest.approx(0.3)


def test_one_seed_has_the_interval_of_its_items() -> None:
    rng = np.random.default_rng(0)
    totals_SI = rng.normal(0.5, 1.0, (1, 400))
    found = combine(totals_SI, np.ones(400))
    half = student_t.ppf(0.975, 399) * totals_SI.std(ddof=1) / 20
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)  # the bootstrap's own scatter


def test_seeds_that_disagree_widen_the_interval() -> None:
    items = np.random.default_rng(0).normal(0.5, 0.1, 200)
    alike = combine(np.stack([items, items, items]), np.ones(200))
    apart = combine(np.stack([items - 0.5, items, items + 0.5]), np.ones(200))
    assert alike.above
    assert not apart.above
    half = student_t.ppf(0.975, 2) * 0.5 / np.sqrt(3)  # nearly all of the variance is the seeds'
    assert (apart.high - apart.low) / 2 == pytest.approx(half, rel=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        seeds = rng.normal(0.0, 0.1, (3, 1))
        found = combine(0.2 + seeds + rng.normal(0.0, 1.0, (3, 60)), np.ones(60))
        covered += found.low <= 0.2 <= found.high
    assert covered >= 186  # 190 are wanted; conservative is allowed


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.3, REPRODUCED), (-0.3, -0.1, NOT), (-0.1, 0.3, CANT_TELL)]
)
def test_a_verdict_is_where_the_interval_lies(low: float, high: float, verdict: str) -> None:
    assert judged(Effect((low + high) / 2, low, high, 9, ()), "nats", "").verdict == verdict


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_has_arms_of_its_own_name(name: str) -> None:
    own = claim(name)
    assert own.name == name
    arms = own.arms(0)
    assert len({arm.folder for arm in arms.values()}) == len(arms) >= 2
    assert {arm.folder for arm in own.arms(1).values()}.isdisjoint(arm.folder for arm in arms.values())


def test_claims_share_their_arms() -> None:
    assert claim("active_selection").arms(0)["active, gamma 5"].folder == stage_two_by(0).folder
    assert claim("more_training").arms(0)["Stage II, gamma 5"].folder == stage_two_by(0).folder
    assert claim("distillation_law").arms(0)["alpha 0"].folder == claim("broad_domain").arms(0)["narrow, NLL"].folder
    assert stage_two_by(0).begins_from == natural(0)
    assert stage_one_on(0, "narrow", 0.5).folder != stage_one_on(0, "narrow", 0.25).folder


def test_arms_keep_the_folders_they_were_measured_in() -> None:
    assert natural(0).folder == "human-alpha1-0-346cf79a"
    assert stage_two_by(0).folder == "two-gamma5-klab-misalignment-0-f70eb1b4"
    assert "stage_three" not in json.dumps(stage_two_by(0).definition)
    assert stage_three_by(0, "any", 4).definition["stage_three"]


def test_on_policy_and_its_controls_differ_in_what_they_say_they_do() -> None:
    arms = claim("on_policy").arms(1)
    assert arms["Stage II"].folder == stage_two_by(1).folder
    three = [arm for label, arm in arms.items() if label != "Stage II"]
    assert all(arm.begins_from == stage_two_by(1) and arm.stage_three for arm in three)
    on, off = (set(arms[label].overrides) for label in ("on-policy", "off-policy"))
    assert off - on == {"stage_three.on_policy_frac=0"}
    assert on < off
    assert set(arms["on-policy, reverse KL"].overrides) - on == {"stage_three.divergence=reverse_kl"}


def test_make_knows_every_claim() -> None:
    (line,) = re.findall(r"^CLAIMS := (.*)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert tuple(line.split()) == CLAIMS


def test_the_page_of_results_is_that_of_the_results() -> None:
    text = (REPO / "docs" / "results.md").read_text()
    assert results_page.page(text, results_page.results()) == text, "run python -m experiments.results_page"
