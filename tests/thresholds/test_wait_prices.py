"""Prices of literal WAIT are derivatives: one-sided differences on random instances, and kinks."""

from __future__ import annotations

import pytest

from fluid.iteration import IterationTime
from tests.support.builders import workload
from tests.support.price_cases import price_checks, price_instance
from tests.support.wait_cases import server
from thresholds.fields import Price
from thresholds.solvers.wait.solver import Wait

SHORT = workload((40.0, 10, 1))
TAU = IterationTime.affine(0.045, per_kv_token_s=1e-6, per_prefill_token_s=1e-6)


def memory_price(tokens: int) -> Price:
    table = Wait().solve(SHORT, server(TAU, tokens))
    (found,) = [one for one in table.prices if one.of == "kv_capacity_tokens"]
    return found


@pytest.mark.parametrize("seed", range(14))
def test_every_price_lies_between_the_slopes_to_both_sides(seed: int) -> None:
    """300 instances: ``python -m tests.benchmarks.optimality``."""
    checks = list(price_checks(*price_instance(seed)))
    assert checks
    for one in checks:
        assert one.holds, one


def test_memory_has_its_whole_multiplier() -> None:
    """A bound on the threshold that follows from the memory must not share it."""
    assert memory_price(43).value == pytest.approx(-0.01593, rel=1e-3)
    assert "one more token of KV would take 0.0159 s off" in memory_price(43).words


def test_where_the_least_thresholds_fill_the_memory_it_is_worth_most() -> None:
    """n = 2 takes 42 tokens: one more helps, one less is infeasible."""
    found = memory_price(42)
    assert found.value < memory_price(43).value < memory_price(44).value < 0
    assert found.words.endswith("; with any less no whole thresholds fit")
    assert "with any less" not in memory_price(43).words
    batch_s = 40 * 0.045 + 40 * 42e-6
    # ∂D̄/∂n at n = 2 by hand, with μ = 40 ΔT(n): 1.5 stages, ΔT, and the queue.
    slope_s = 1.5 / 40 + 21e-6 + (40 * 21e-6 * 2 - batch_s) / (2 * 40 * (2 - batch_s) ** 2)
    assert found.value == pytest.approx(slope_s / 21, rel=0.01)
