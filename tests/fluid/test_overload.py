"""Bounded queues and patience above capacity, against their own limits and a slow simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.overload.bounded_queue import bounded_queue
from fluid.overload.demand import demand
from fluid.overload.impatience import Patience, impatience
from fluid.plots.style import save
from fluid.server import load_server
from fluid.steady.stability import stability
from fluid.workload import Requests, Workload
from tests.support.builders import one_class

ENGINE = load_server("engine-long-decode")
A100 = load_server("a100-80gb-llama-2-7b")
TWO = Workload.of(chat=Requests(30.0, 512, 40), code=Requests(10.0, 1024, 300))


def limit_per_s(workload: Workload, server=ENGINE) -> float:
    return stability(workload, server).max_scale * workload.rate_per_s


@pytest.mark.parametrize("server", [ENGINE, A100], ids=lambda one: one.name)
def test_efforts_fill_the_server_at_its_edge(server) -> None:
    """Σ λ_j a_j = 1 there; for an affine f they are the normal of the region (THEORY 2.3)."""
    found = demand(TWO, server, None, 1)
    assert found.mix @ found.relative == pytest.approx(1.0)
    normal = stability(TWO, server).half_space_per_s
    if normal is not None:
        ratio = found.relative / normal
        assert ratio == pytest.approx(np.full(2, ratio[0]))
    assert found.saturated_per_s == pytest.approx(limit_per_s(TWO, server))


def test_one_class_behind_a_queue_by_hand() -> None:
    """c = 0: D = λ/(2(λ − μ)), and W = (Q − D)/μ."""
    rate_per_s = limit_per_s(one_class(1.0, 512, 200))
    found = bounded_queue(one_class(1.25 * rate_per_s, 512, 200), ENGINE, requests=100)
    assert found.refused_share == pytest.approx(0.2)
    assert found.law.dip_requests == pytest.approx(2.5)
    assert found.wait_mean_s == pytest.approx(97.5 / rate_per_s)
    assert found.wait_p99_s == pytest.approx(100 / rate_per_s)
    assert any("alike" in one for one in found.caveats)


def test_figures_of_the_theory() -> None:
    """THEORY 12.1: μ = 12.63/s and c = .894 give 15.44 and 18.16 s, then 2.49 and 5.12 s."""
    from fluid.overload.bounded_queue import QueueLaw

    for over, bound, mean_s, p99_s in ((1.2, 200.0, 15.44, 18.16), (1.05, 50.0, 2.49, 5.12)):
        rate_per_s, variation = 12.63, 0.894
        dip = (over + variation**2) / (2 * (over - 1))
        law = QueueLaw(rate_per_s, dip, variation)
        assert float(law.wait_s(np.array(bound))[0]) == pytest.approx(mean_s, abs=0.005)
        assert float(law.upper_s(np.array(bound), "p99")) == pytest.approx(p99_s, abs=0.005)


def test_a_bound_in_tokens_of_equal_prompts_is_one_in_requests() -> None:
    load = Workload.of(a=Requests(30.0, 512, 40), b=Requests(10.0, 512, 300))
    by_tokens = bounded_queue(load, ENGINE, prompt_tokens=512 * 150)
    by_requests = bounded_queue(load, ENGINE, requests=150)
    assert by_tokens.law.dip_requests == pytest.approx(by_requests.law.dip_requests)
    assert by_tokens.wait_mean_s == pytest.approx(by_requests.wait_mean_s)
    assert by_tokens.wait_sd_s == pytest.approx(by_requests.wait_sd_s)


def test_replicas_are_one_server_with_their_rates_together() -> None:
    alone = bounded_queue(TWO.at_rate(1.3 * limit_per_s(TWO)), ENGINE, requests=200)
    three = bounded_queue(TWO.at_rate(3.9 * limit_per_s(TWO)), ENGINE, requests=600, servers=3)
    assert three.refused_share == pytest.approx(alone.refused_share)
    assert three.law.dip_requests == pytest.approx(alone.law.dip_requests)


def queue_simulated(
    shares: np.ndarray, efforts_s: np.ndarray, offered_per_s: float, bound: int, seed: int
) -> tuple[float, float, float, float]:
    """A queue before a server that takes in a request whenever the work before it is done.

    Requests of class j bring `efforts_s[j]` seconds of work, one after the other: the fluid server
    of full memory, slowly. Returns the refused share and mean, deviation and p99 of the wait.
    """
    rng = np.random.default_rng(seed)
    arrived_s = rng.exponential(1 / offered_per_s, 60_000).cumsum()
    classes = rng.choice(len(shares), arrived_s.size, p=shares)
    waiting: list[tuple[float, int]] = []
    free_s, refused, waits = 0.0, 0, []
    for now_s, kind in zip(arrived_s.tolist(), classes.tolist(), strict=True):
        while waiting and free_s <= now_s:
            came_s, ahead = waiting.pop(0)
            waits.append(free_s - came_s)
            free_s += efforts_s[ahead]
        if not waiting and free_s <= now_s:
            waits.append(0.0)
            free_s = now_s + efforts_s[kind]
        elif len(waiting) >= bound:
            refused += 1
        else:
            waiting.append((now_s, kind))
    late = np.array(waits[2_000:])
    return refused / arrived_s.size, late.mean(), late.std(), float(np.quantile(late, 0.99))


def test_waits_are_those_of_a_slow_queue() -> None:
    """Means within 1 %, deviation and p99 within a few per cent, where the queue never empties."""
    load = TWO.at_rate(1.2 * limit_per_s(TWO))
    found = bounded_queue(load, ENGINE, requests=100)
    assert found.caveats == ()
    own = demand(load, ENGINE, None, 1)
    efforts_s = own.relative / own.saturated_per_s
    refused, mean_s, sd_s, p99_s = queue_simulated(own.mix, efforts_s, load.rate_per_s, 100, 1)
    assert refused == pytest.approx(found.refused_share, abs=0.01)
    assert mean_s == pytest.approx(found.wait_mean_s, rel=0.01)
    assert sd_s == pytest.approx(found.wait_sd_s, rel=0.08)
    assert p99_s == pytest.approx(found.wait_p99_s, rel=0.02)


def test_patience_of_one_class_by_hand() -> None:
    """λ(1 − G(w)) = μ: THEORY 12.2 has 10 ln 1.5 = 4.055 s at 1.5 μ."""
    load = one_class(1.0, 512, 200)
    load = load.at_rate(1.5 * limit_per_s(load))
    found = impatience(load, ENGINE, Patience(10.0))
    assert found.wait_s == pytest.approx(10 * np.log(1.5))
    assert found.gave_up_share == pytest.approx(1 / 3)
    assert found.completed_per_s == pytest.approx(load.rate_per_s / 1.5)
    assert found.caveats == ()
    assert impatience(load, ENGINE, Patience(0.1)).caveats != ()


def test_who_stays_is_as_much_work_as_is_done() -> None:
    load = TWO.at_rate(1.7 * limit_per_s(TWO))
    laws = {"chat": Patience(4.0, 0.5), "code": Patience(60.0, 1.5)}
    found = impatience(load, ENGINE, laws)
    normal = stability(load, ENGINE).half_space_per_s
    assert normal is not None
    kept = np.array([one.completed_per_s for one in found.classes])
    assert kept @ normal == pytest.approx(1.0)
    for one in found.classes:
        assert one.gave_up_share == pytest.approx(laws[one.name].gone_after(found.wait_s))
    share = sum(one.gave_up_share * one.rate_per_s for one in found.classes) / load.rate_per_s
    assert found.gave_up_share == pytest.approx(share)


def test_nearly_equal_patience_makes_all_wait_as_long() -> None:
    load = one_class(1.0, 512, 200)
    load = load.at_rate(1.5 * limit_per_s(load))
    assert impatience(load, ENGINE, Patience(10.0, 0.01)).wait_s == pytest.approx(10, rel=0.02)


def test_pictures(tmp_path: Path) -> None:
    load = TWO.at_rate(1.5 * limit_per_s(TWO))
    found = bounded_queue(load, ENGINE, requests=50)
    save(found.plot, tmp_path / "queue.svg")
    save(impatience(load, ENGINE, Patience(10.0)).plot, tmp_path / "patience.svg")
    for name in ("queue.svg", "patience.svg"):
        assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: bounded_queue(TWO, ENGINE), "requests"),
        (lambda: bounded_queue(TWO, ENGINE, requests=5, prompt_tokens=5), "requests"),
        (lambda: bounded_queue(TWO, ENGINE, requests=0), "requests"),
        (lambda: bounded_queue(TWO, ENGINE, prompt_tokens=-1), "prompt_tokens"),
        (lambda: bounded_queue(TWO, ENGINE, requests=5, servers=0), "servers"),
        (lambda: bounded_queue(TWO, ENGINE, requests=5, saturated_per_s=1e6), "saturated_per_s"),
        (lambda: bounded_queue(TWO.at_rate(0.1), ENGINE, requests=5), "rate_per_s"),
        (lambda: Patience(0.0), "mean_s"),
        (lambda: Patience(1.0, -0.5), "variation"),
        (lambda: impatience(TWO, ENGINE, {"chat": Patience(1.0)}), "patience"),
    ],
)
def test_refusals(make, field: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
