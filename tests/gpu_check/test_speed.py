"""The part `speed` grows its launches while memory and time allow, and judges the right one."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda")

from tests.benchmarks.loads import BYTES_PER_REQUEST
from tests.gpu import speed
from tests.gpu.launch import Launch
from tests.gpu.settings import Settings
from validation.simulator.state import REQUEST, RESIDENT, SCALARS


def case(free_bytes: float = math.inf, seconds: float = 100.0) -> speed.Case:
    return speed.Case("greedy", 20, speed.REAL, free_bytes, time.time() + seconds)


def run(replications: int, seconds: float) -> Launch:
    return Launch(replications, 200, seconds, iterations=1000 * replications, residents=20.0)


def test_a_launch_that_does_not_fit_is_not_begun() -> None:
    assert case(free_bytes=1e9).why_not(1000, None, bytes_each=500_000) is None
    told = case(free_bytes=1e9).why_not(10_000, None, bytes_each=500_000)
    assert told == "greedy, 20 residents, 10,000 replications: not run, 4.7 GiB do not fit"


def test_a_launch_that_would_take_too_long_is_not_begun() -> None:
    assert case(seconds=25).why_not(10_000, run(1000, 2.0), 1) is None
    assert "no time" in str(case(seconds=15).why_not(10_000, run(1000, 2.0), 1))
    assert "no time" not in str(case(seconds=15).why_not(10_000, run(1000, 1.0), 1))


@pytest.mark.parametrize(("gibibytes", "replications"), [(78, 800_000), (138, 1_000_000)])
def test_so_many_replications_at_twenty_residents_fit(gibibytes: int, replications: int) -> None:
    from validation.simulator.cuda import bytes_per_replication

    one = case(free_bytes=gibibytes * 2**30)
    assert one.why_not(replications, None, bytes_per_replication(one.model, one.requests)) is None


def test_the_load_keeps_so_many_in_service() -> None:
    """Over many replications and a run long beside the warm-up, by the processor."""
    from validation.policies import parse_policy
    from validation.simulator import cpu

    jobs = [cpu.Job(parse_policy("greedy"), index) for index in range(20)]
    found = cpu.run(case().model, jobs, 2000)
    mean = sum(one.residents_mean for one in found) / len(found)
    assert mean == pytest.approx(20, rel=0.1)


def test_bytes_that_an_iteration_moves_at_least() -> None:
    found = run(10, 2.0)
    assert found.iterations_per_s == 5000
    assert found.requests_per_s == 1000
    each = 5000 * 2 * SCALARS.itemsize
    assert found.least_bytes_per_s - each == pytest.approx(1000 * BYTES_PER_REQUEST)
    assert 7 * REQUEST.itemsize + RESIDENT.itemsize < BYTES_PER_REQUEST
    assert speed.launch_row(found, 1e9)["bandwidth_share"] == found.least_bytes_per_s / 1e9
    assert speed.launch_row(found, None)["bandwidth_share"] is None


@pytest.mark.parametrize(("fastest", "met"), [(6e8, True), (4e8, False)])
def test_the_aim_is_of_the_fastest_launch_at_twenty_residents(fastest: float, met: bool) -> None:
    def row(policy: str, residents: int, rate: float) -> dict[str, str | int | float]:
        return {"policy": policy, "residents": residents, "iterations_per_s": rate}

    launches = (
        row("greedy", 20, 1e8),
        row("greedy", 20, fastest),
        row("greedy", 400, 9e9),
        row("vllm-v1", 20, 9e9),
    )
    settings = Settings(Path(), toy=False, stop_at_s=0.0)
    greedy, v1 = speed.summary(speed.Found(launches=launches), settings).aims
    assert (greedy.measured, greedy.met) == (fastest, met)
    assert v1.met
    untried, _ = speed.summary(speed.Found(), settings).aims
    assert (untried.measured, untried.met) == (None, None)
    toy = Settings(Path(), toy=True, stop_at_s=0.0)
    assert speed.summary(speed.Found(launches=launches), toy).aims[0].met is None
