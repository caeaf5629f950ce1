"""Recovery, tipping bursts and the two equilibria of the long-output case (THEORY 6.4)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InfeasibleError, InputError
from fluid.plots.style import save
from fluid.server import load_server
from fluid.transient.admission import Admission
from fluid.transient.metastable import (
    Criterion,
    equilibria,
    recovery_map,
    recovery_time_s,
    tipping_burst,
)
from tests.support.builders import one_class

SERVER = load_server("paper-long-decode")
RULE = Admission(watermark=0.01)
CRITERION = Criterion(horizon_s=1500.0, hold_s=200.0)


def long_outputs(rate_per_s: float):
    return one_class(rate_per_s, 512, 1000)


def test_criterion_by_hand() -> None:
    time_s = np.arange(0.0, 60.0)
    criterion = Criterion(horizon_s=40.0, hold_s=10.0, backlog_requests=2.0)

    def after(*busy: int) -> float | None:
        waiting = np.zeros(60)
        waiting[list(busy)] = 3.0
        return criterion.recovery_time_s(time_s, waiting, 5.0)

    assert after() == 0.0
    assert after(1, 2, 3) == 0.0
    assert after(9, 15) == 10.0  # 5 … 9 and 9 … 15 are too short, 15 … is long
    assert after(5, 20) == 0.0  # quiet for 15 s, whatever comes later
    assert after(*range(5, 45)) == 39.0
    assert after(*range(5, 50)) is None
    with pytest.raises(InputError, match="a path up to 55 s"):
        criterion.recovery_time_s(time_s[:55], np.zeros(55), 5.0)
    with pytest.raises(InputError, match="hold_s"):
        Criterion(horizon_s=1.0, hold_s=0.0)


def test_the_collapsed_cycle_completes_65_percent_of_the_limit() -> None:
    """THEORY 6.4: 1.77/s simulated, about a third of the decoded tokens wasted.

    The fluid leaves out that whole requests are evicted, which frees memory for several iterations
    at once: it completes less, by less than 5 %.
    """
    found = equilibria(long_outputs(2.4), SERVER, RULE)
    assert found.metastable
    assert found.good.stable
    assert found.collapsed.completed_per_s == pytest.approx(1.77, rel=0.05)
    assert found.collapsed.evicted_per_s > found.collapsed.completed_per_s
    assert 0.95 * SERVER.usable_kv_tokens < found.collapsed.kv_tokens <= SERVER.usable_kv_tokens
    assert found.collapsed.kv_tokens > 1.5 * found.good.kv_tokens


def test_no_second_state_below_the_collapsed_rate_or_with_the_boundary_pace() -> None:
    assert not equilibria(long_outputs(1.6), SERVER, RULE).metastable
    # C/m of THEORY 3.5 is what keeps the generations apart.
    paced = Admission(pace=137_000 / sum(512 + s for s in range(1001)))
    assert not equilibria(long_outputs(2.6), SERVER, paced).metastable


def test_tipping_burst_separates_recovery_from_collapse() -> None:
    workload = long_outputs(2.0)
    burst = tipping_burst(workload, SERVER, CRITERION, RULE, largest=300.0)
    assert burst is not None
    assert 67 < burst < 133
    assert recovery_time_s(workload, SERVER, burst, CRITERION, RULE) is None
    assert recovery_time_s(workload, SERVER, burst - 1, CRITERION, RULE) is not None
    assert tipping_burst(workload, SERVER, CRITERION, RULE, largest=10.0) is None


def test_map_and_its_plot(tmp_path: Path) -> None:
    rates, bursts = [1.5, 2.4], [0.0, 60.0, 200.0]
    found = recovery_map(long_outputs(1.0), SERVER, rates, bursts, CRITERION, RULE)
    times_s = found.recovery_s
    np.testing.assert_array_equal(np.isnan(times_s), [[False] * 3, [False, True, True]])
    assert times_s[0, 0] == times_s[1, 0] == 0.0
    assert (np.diff(times_s[0]) > 0).all()
    assert found.frame()["burst_requests"].tolist() == 2 * bursts
    assert str(found).endswith("Never, within 1,500 s: 2 of 6 pairs of rate and burst.")
    save(lambda: found.plot(simulated_never=np.isnan(times_s)), tmp_path / "m.svg")
    assert (tmp_path / "m.svg").stat().st_size > 1000


def test_refusals() -> None:
    with pytest.raises(InfeasibleError, match="equilibrium to start from"):
        recovery_time_s(long_outputs(3.0), SERVER, 1.0, CRITERION, RULE)
    with pytest.raises(InputError, match="resolution"):
        tipping_burst(long_outputs(2.0), SERVER, CRITERION, RULE, resolution=0.0)
