"""Stability of full memory: roots, certificate, the cycle of one length, the predicted loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.full_memory.roots import all_within, spectral_radius
from fluid.steady.full_memory.stability import full_memory, kv_profile
from fluid.transient.admission import Admission
from fluid.transient.metastable import equilibria
from fluid.transient.saturated import predicted_loss, saturated_rate_per_s
from fluid.workload import Requests, Workload
from tests.support.builders import one_class

ENGINE = load_server("engine-long-decode")
TOKENS = ENGINE.model_copy(update={"block_tokens": 1, "kv_capacity_tokens": 137_000})

profiles = st.lists(st.floats(0.05, 1.0), min_size=2, max_size=40).map(np.array)


def pair(prompt: int, first: int, second: int, weight: float = 1.0) -> Workload:
    return Workload.of(
        a=Requests(1.0, prompt=prompt, output=first),
        b=Requests(weight, prompt=prompt, output=second),
    )


@settings(max_examples=60, deadline=None)
@given(profiles)
def test_radius_and_circles_are_those_of_the_companion_matrix(profile: np.ndarray) -> None:
    roots = np.abs(np.roots(profile))
    assert spectral_radius(profile) == pytest.approx(roots.max(), rel=1e-6)
    for modulus in (0.9 * roots.max(), 1.1 * roots.max()):
        assert all_within(profile, modulus) == (roots < modulus).all()


def test_radius_of_polynomials_known_by_hand() -> None:
    assert spectral_radius(np.ones(7)) == pytest.approx(1.0, abs=1e-9)  # 7th roots of unity
    assert spectral_radius(np.array([1.0, 0.5])) == pytest.approx(0.5)
    assert spectral_radius(np.array([3.0])) == 0.0
    # z → z·c moves all roots by c: thousands of stages neither overflow nor lose them.
    scaled = np.ones(3000) * 1.01 ** np.arange(3000)
    assert spectral_radius(scaled) == pytest.approx(1.01, rel=1e-8)


def simulated_admissions(workload: Workload, server: Server, iterations: int) -> np.ndarray:
    """Σ a_s x_{t−s} = C solved forward from empty memory, slowly; negative where some must go."""
    profile, _ = kv_profile(workload, server)
    admitted = np.zeros(iterations)
    for t in range(iterations):
        back = min(t, len(profile) - 1)
        held = profile[1 : back + 1] @ admitted[t - back : t][::-1] if back else 0.0
        admitted[t] = (server.usable_kv_tokens - held) / profile[0]
    return admitted


def test_disturbances_grow_and_die_as_the_radius_says() -> None:
    for workload, word in ((pair(600, 10, 13), "stable"), (pair(100, 10, 13), "unstable")):
        found = full_memory(workload, TOKENS)
        admitted = simulated_admissions(workload, TOKENS, 2000)
        away = np.abs(admitted - found.admissions_per_iteration)
        early, late = away[1000:1100].max(), away[1500:1600].max()
        assert found.verdict == word
        assert late / early == pytest.approx(found.spectral_radius**500, rel=0.05)


def test_two_lengths_are_stable_from_prompts_of_some_length_on() -> None:
    """THEORY 11.3: equal shares; what growth destroys."""
    for prompt, first, second in ((2, 2, 3), (300, 10, 13), (2612, 20, 27)):
        assert full_memory(pair(prompt + 1, first, second), TOKENS).verdict == "stable"
        assert full_memory(pair(prompt - 1, first, second), TOKENS).verdict == "unstable"


def test_the_certificate_means_no_eviction_from_empty() -> None:
    """THEORY 11.2: hazard ≥ 1/(h + 1) at every stage, here a geometric law cut off."""
    outputs = range(1, 40)
    shares = {f"c{n}": Requests(0.8**n, prompt=20, output=n) for n in outputs}
    found = full_memory(Workload.of(**shares), TOKENS)
    assert found.never_increases
    assert (found.period, found.verdict) == (1, "stable")
    admitted = simulated_admissions(found.workload, TOKENS, 300)
    assert admitted.min() >= 0
    assert admitted[-1] == pytest.approx(found.admissions_per_iteration)
    assert not full_memory(one_class(1.0, 20, 30), TOKENS).never_increases


def test_the_period_of_a_certified_profile_is_on_the_circle() -> None:
    """Two stages at constant KV (one block): x_t = 2x* − x_{t−1} swings for ever."""
    blocks = ENGINE.model_copy(update={"block_tokens": 64})
    found = full_memory(one_class(1.0, 10, 2), blocks)
    assert (found.never_increases, found.period, found.verdict) == (True, 2, "periodic")
    assert found.spectral_radius == pytest.approx(1.0)
    mixed = full_memory(pair(10, 2, 3), blocks)
    assert (mixed.period, mixed.verdict) == (1, "stable")


@given(st.integers(1, 200), st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_one_length_always_grows(prompt: int, output: int) -> None:
    """THEORY 11.2: a increases, so that all roots lie outside."""
    found = full_memory(one_class(1.0, prompt, output), TOKENS)
    assert found.verdict == "unstable"
    assert np.abs(np.roots(found.profile)).min() > 1
    bound = math.log(found.profile[-1] / found.profile[0]) / (output - 1)
    assert math.log(found.spectral_radius) >= bound * (1 - 1e-6)


@pytest.mark.parametrize(
    ("prompt", "output", "share"),
    [(512, 1000, 0.629), (1200, 300, 0.871), (300, 300, 0.682), (50, 1000, 0.427)],
)
def test_cycle_of_one_length(prompt: int, output: int, share: float) -> None:
    """THEORY 11.4, the table; and the sum over stages against its closed form."""
    found = full_memory(one_class(1.0, prompt, output), TOKENS).cycle
    assert found is not None
    assert found.limit_share == pytest.approx(share, abs=0.0016)
    tau, capacity = TOKENS.iteration_time, 137_000
    there = capacity / (prompt + np.arange(output))
    seconds = output * tau.overhead_s + tau.per_kv_token_s * capacity * (output - 1)
    seconds += tau.last_slope_s * (capacity + there[1:].sum())
    assert found.completed_per_s == pytest.approx(there[-1] / seconds, rel=1e-6)
    assert full_memory(pair(512, 10, 20), TOKENS).cycle is None


@pytest.mark.parametrize(("prompt", "output"), [(512, 300), (100, 300)])
def test_the_fluid_settles_into_the_cycle_of_one_length(prompt: int, output: int) -> None:
    workload = one_class(1.0, prompt, output)
    cycle = full_memory(workload, TOKENS).cycle
    assert cycle is not None
    found = saturated_rate_per_s(workload, TOKENS, Admission())
    assert found == pytest.approx(cycle.completed_per_s, rel=0.02)


def test_the_saturated_rate_is_that_of_the_metastable_model() -> None:
    """The same state by the slow way: a burst that outlasts a long run; blocks enter as a mean."""
    workload = Workload.of(a=Requests(1.0, 100, 60), b=Requests(1.0, 100, 100)).at_rate(60.0)
    for block, apart in ((1, 0.02), (16, 0.07)):
        server = ENGINE.model_copy(update={"kv_capacity_tokens": 16_000, "block_tokens": block})
        for watermark in (0.0, 0.05):
            rule = Admission(watermark)
            slow = equilibria(workload, server, rule, settle_s=60.0, measure_s=300.0)
            fast = saturated_rate_per_s(workload, server, rule)
            assert fast == pytest.approx(slow.collapsed.completed_per_s, rel=apart)


def test_loss_is_a_matter_of_the_mix_and_of_restraint() -> None:
    workload = one_class(2.0, 512, 300)
    pace = full_memory(workload, ENGINE).admissions_per_iteration
    found = predicted_loss(workload, ENGINE, {"pace": Admission(0.01, pace=pace)})
    again = predicted_loss(workload.scaled(0.1), ENGINE)
    assert found is not None
    assert again is not None
    plain, marked, paced = found.rules
    assert plain.lost_share == pytest.approx(again.rules[0].lost_share)
    assert plain.lost_share > 0.15
    assert paced.lost_share < 0.02
    assert (plain.name, marked.rule.watermark) == ("no restraint", 0.05)
    assert again.recovers
    assert "would still clear" in again.sentence
    busy = predicted_loss(workload.at_rate(0.95 * found.limit_per_s), ENGINE)
    assert busy is not None
    assert busy.recovers is False
    assert "/s that arrive" in busy.sentence


def test_chance_is_said_to_cost_spread_lengths_what_the_fluid_does_not_see() -> None:
    spread = Workload.of(**{f"c{n}": Requests(0.98**n, 2000, n) for n in range(5, 400, 5)})
    found = predicted_loss(spread.at_rate(0.5), ENGINE)
    assert found is not None
    assert max(one.lost_share for one in found.rules) < 0.03
    assert "loses about 1 to 8 % of the limit, 0 % with a 5 % watermark" in found.sentence
    assert found.recovers
    edge = predicted_loss(spread.at_rate(0.97 * found.limit_per_s), ENGINE)
    assert edge is not None
    assert edge.recovers is None
    assert "perhaps less than" in edge.sentence


@pytest.mark.parametrize("output", [1, 2, 5, 19])
@pytest.mark.parametrize("prompt", [1, 100, 512])
def test_short_outputs_have_a_loss_too(prompt: int, output: int) -> None:
    """A request is gone after a few iterations, of which there must be enough for a rate."""
    iterations = IterationTime.affine(0.01, per_token_s=1e-9)
    small = Server(name="s", source="s", kv_capacity_tokens=1000, iteration_time=iterations)
    found = predicted_loss(one_class(1.0, prompt, output), small, {"all": Admission()})
    assert found is not None
    assert all(0 <= one.lost_share <= 1 for one in found.rules)
    if output == 1:  # nothing grows: what fits when it comes fits to its end
        assert found.rules[0].lost_share == pytest.approx(0.0, abs=1e-9)


def test_where_work_binds_first_there_is_no_loss_to_tell() -> None:
    roomy = load_server("a100-80gb-llama-2-7b").model_copy(update={"kv_capacity_tokens": 4_000_000})
    assert predicted_loss(one_class(1.0, 2048, 4), roomy) is None


def test_refusals() -> None:
    with pytest.raises(InputError, match="KV tokens at its end"):
        full_memory(one_class(1.0, 200_000, 10), TOKENS)
    with pytest.raises(InputError, match="KV tokens at its end"):
        predicted_loss(one_class(1.0, 200_000, 10), TOKENS)
