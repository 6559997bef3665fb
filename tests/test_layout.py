"""The map: in the unit square, the same each time, near what is near."""

import numpy as np
import pytest

from salad.select.layout import layout


@pytest.mark.parametrize("num", [1, 2, 3, 6, 7, 12, 64])
def test_positions_fill_the_unit_square_and_are_the_same_each_time(num):
    centres = np.random.default_rng(0).standard_normal((num, 12)).astype(np.float32)
    placed = layout(centres, seed=0)
    assert placed.shape == (num, 2)
    assert ((placed >= 0) & (placed <= 1)).all()
    assert (layout(centres, seed=0) == placed).all()
    assert len(np.unique(placed, axis=0)) == num
    if num > 1:  # one scale for both axes: the longer one is filled, the other centred
        low, high = placed.min(0), placed.max(0)
        assert (high - low).max() == pytest.approx(1.0)
        assert (low + high) / 2 == pytest.approx([0.5, 0.5], abs=1e-3)
    else:
        assert placed.tolist() == [[0.5, 0.5]]


def test_few_centres_in_a_plane_keep_their_distances():
    flat = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [1.0, 2.0]])
    turned = np.concatenate([flat, np.zeros((4, 3))], axis=1) @ np.linalg.qr(np.random.default_rng(0).random((5, 5)))[0]
    placed = layout(turned, 0)

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    ratio = distances(placed)[np.triu_indices(4, 1)] / distances(flat)[np.triu_indices(4, 1)]
    assert ratio == pytest.approx(np.full(6, ratio[0]), rel=1e-2)


def test_families_of_clusters_stand_together():
    rng = np.random.default_rng(0)
    families = np.repeat(np.eye(4) * 10, 8, axis=0)
    placed = layout(np.concatenate([families, np.zeros((32, 4))], 1) + rng.standard_normal((32, 8)) * 0.5, 0)
    distance = np.linalg.norm(placed[:, None] - placed[None], axis=-1) + 10 * np.eye(32)
    assert (distance.argmin(1) // 8 == np.arange(32) // 8).all()


@pytest.mark.parametrize("num", [2, 5, 9])
def test_equal_centres_are_still_shown_apart(num):
    placed = layout(np.ones((num, 4)), 0)
    assert np.isfinite(placed).all()
    assert len(np.unique(placed, axis=0)) == num


def test_some_equal_centres_do_no_harm():
    centres = np.random.default_rng(0).standard_normal((20, 5))
    centres[:15] = centres[0]
    placed = layout(centres, 0)
    assert np.isfinite(placed).all()
    assert ((placed >= 0) & (placed <= 1)).all()
