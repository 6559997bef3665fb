"""What every benchmark stands on: variants in processes of their own, in turn, with their own peak memory."""

import sys
import time
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from side_by_side import Result, ratio, row, run_variants, show


def waiting(seconds, mib=0):
    """A variant that takes its time and memory."""

    def one_round(index):
        taken = b"\1" * (mib << 20)
        time.sleep(seconds)
        return {"index": index, "bytes": len(taken)}

    return one_round


def thrifty_after_a_costly_set_up():
    costly = b"\1" * (200 << 20)
    del costly
    return lambda index: None


def broken():
    def one_round(index):
        raise ValueError(f"round {index}")

    return one_round


def dying():
    return lambda index: sys.exit(3)


def test_variants_are_timed_in_turn_with_their_own_peak_memory():
    variants = {"slow": partial(waiting, 0.4), "large": partial(waiting, 0.02, 100)}
    results = run_variants(variants, rounds=3)
    assert [entry["index"] for entry in results["slow"].rounds] == [0, 1, 2]  # the round before them is not measured
    assert 0.4 <= results["slow"].median() < 2
    assert results["slow"].median("cpu_s") < 0.1
    assert ratio(results["large"], results["slow"]) > 1
    assert 90 < results["large"].peak_mib - results["slow"].peak_mib < 110
    assert results["large"].base_mib < results["large"].peak_mib - 90


def test_what_the_set_up_took_is_no_part_of_the_peak():
    result = run_variants({"thrifty": thrifty_after_a_costly_set_up}, rounds=1)["thrifty"]
    assert result.peak_mib < 100


@pytest.mark.parametrize(("variant", "said"), [(broken, "round -1"), (dying, "exit code 3|SystemExit: 3")])
def test_a_variant_that_fails_is_named(variant, said):
    with pytest.raises(RuntimeError, match=rf"(?s)'bad'.*({said})"):
        run_variants({"good": partial(waiting, 0.0), "bad": variant}, rounds=1)


def test_a_variant_that_takes_too_long_is_named():
    with pytest.raises(RuntimeError, match="'slow' took longer than 1 s"):
        run_variants({"slow": partial(waiting, 30.0)}, rounds=1, timeout_s=1.0)


def test_a_ratio_is_the_median_of_the_rounds_ratios(capsys):
    peer = Result(tuple({"seconds": s} for s in (1.0, 10.0, 2.0)), 30.0, 20.0)  # a neighbour was busy in the second
    own = Result(tuple({"seconds": s} for s in (0.5, 5.0, 0.5)), 40.0, 20.0)
    assert ratio(own, peer) == 2.0
    rows = [row("own", own, peer, "peer", fill=0.98)]
    assert rows[0] == {"variant": "own", "ratio": 2.0, "peer": "peer", "peak_mib": 40.0, "seconds": 0.5, "fill": 0.98}
    show(rows, as_json=False, notes=["seed 0"])
    assert "own" in (printed := capsys.readouterr().out)
    assert "seed 0" in printed
