"""The fluid model of a prefix cache: cases of THEORY 10.6, a slow scan, a slow simulation."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from fluid.cache.kinds import kinds_of
from fluid.cache.recorded import recorded_states
from fluid.cache.result import prefix_cache
from fluid.cache.routing import routing
from fluid.cache.served import lightest, served
from fluid.cache.states import cache_states
from fluid.conversation import Conversation
from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.capacity import capacity
from fluid.steady.equilibrium import equilibrium
from fluid.steady.fluctuation import fluctuation
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import PrefixesIgnored, Requests, Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.cache_simulator import arrivals, flood, simulate
from thresholds.fleet import ServerType, fleet
from thresholds.solve import solve
from thresholds.table import ThresholdTable

SERVER = server_of(IterationTime.affine(10.6e-3, 45e-6, 0.26e-6))


def talks(rate: float, think_s: float, law: str = "exponential", shared: int = 0) -> Workload:
    how = Conversation.from_document(
        {"turns": 5.0, "think_time_s": think_s, "new_tokens": 200, "think_time_law": law}
    )
    return Workload.of(talk=Requests(rate, 0, 200, conversation=how, shared_prefix=shared))


def prompts(rate: float, shared: int = 2000) -> Workload:
    return Workload.of(chat=Requests(rate, shared + 200, 100, shared_prefix=shared))


def test_shared_prompts_of_the_theory() -> None:
    weights = np.arange(1, 201) ** -0.8
    rates = 8 * weights / weights.sum()
    load = Workload.of(
        **{f"p{k}": Requests(float(r), 1200, 100, shared_prefix=1000) for k, r in enumerate(rates)}
    )
    (state,) = cache_states(load, SERVER).settled
    assert state.survive_s == pytest.approx(19.6, abs=0.05)
    assert state.resident_tokens == pytest.approx(18_038, rel=1e-3)
    assert rates @ state.shared_hits / 8 == pytest.approx(0.692, abs=5e-4)


# Rate, think time, law, survival times, M*, ends of the band; figures of THEORY 10.6.
CASES = [
    (4.0, 20.0, "exponential", [16.37], [39_489], (4.595, 4.662)),
    (4.3, 5.0, "exponential", [None], [None], (4.60, 5.59)),
    (5.0, 5.0, "exponential", [None], [None], (4.60, 5.59)),
    (4.3, 8.0, "fixed", [27.56, 5.38], [34_626, 90_907], (4.09, 5.22)),
]


@pytest.mark.parametrize(("rate", "think_s", "law", "survive_s", "held", "band"), CASES)
def test_conversations_of_the_theory(
    rate: float,
    think_s: float,
    law: str,
    survive_s: list[float | None],
    held: list[float | None],
    band: tuple[float, float],
) -> None:
    found = prefix_cache(talks(rate, think_s, law), SERVER)
    assert len(found.states) == len(survive_s)
    for state, time, tokens in zip(found.states, survive_s, held, strict=True):
        if time is not None:
            assert state.survive_s == pytest.approx(time, rel=5e-3)
            assert state.resident_tokens == pytest.approx(tokens, rel=2e-3)
    assert rate * found.max_scale_without_reuse == pytest.approx(4.595, abs=0.01)
    assert found.band is not None
    assert rate * np.array(found.band) == pytest.approx(band, abs=0.01)
    assert found.saturates == (rate > 4.6)


def test_what_comes_at_once_is_lost_in_a_queue() -> None:
    """With no think time all is found but under saturation, where nothing is."""
    found = prefix_cache(talks(3.0, 0.0), SERVER)
    nothing = prefix_cache(talks(3.0, 1e5), SERVER).max_scale_without_reuse
    assert found.max_scale_without_reuse == pytest.approx(nothing)
    assert found.band == (pytest.approx(nothing, rel=1e-4), found.max_scale)
    above = prefix_cache(talks(3.0 * 1.01 * nothing, 0.0), SERVER)
    assert above.saturates
    assert [one.survive_s > 0 for one in above.states] == [True]


def test_states_close_to_the_limit_are_not_missed() -> None:
    """Where they are closer to each other than the grid of survival times."""
    load = talks(4.0, 10.0)
    max_scale = cache_states(load, SERVER).max_scale
    states = cache_states(load.scaled(0.9999 * max_scale), SERVER)
    assert len(states.settled) == len(states.parting) == 1
    assert 1 < states.settled[0].survive_s / states.parting[0].survive_s < 1.3


@pytest.mark.parametrize("law", ["exponential", "fixed"])
@pytest.mark.parametrize("rate", [4.3, 6.5])
def test_all_states_are_found(rate: float, law: str) -> None:
    """Against the signs of φ on a fine grid."""
    load = talks(rate, 8.0, law)
    states = cache_states(load, SERVER)
    signs = []
    for survive_s in np.linspace(0, 60, 1501):
        point = states.cached.at(survive_s)
        signs.append(point is None or point.excess_tokens > 0)
    changes = [low != high for low, high in itertools.pairwise(signs)]
    assert sum(changes) == len(states.settled) + len(states.parting)
    assert states.saturates == signs[0]
    for point in (*states.settled, *(() if law == "fixed" else states.parting)):
        assert point.excess_tokens == pytest.approx(0, abs=1e-3 * SERVER.usable_kv_tokens)
    if states.from_empty is None:
        assert rate > 5.2
        with pytest.raises(InfeasibleError):
            served(load, SERVER)


def test_more_is_found_than_by_a_point_that_is_wrong() -> None:
    """A slow simulation: hits within 3 points, iterations within 3 %."""
    big = server_of(IterationTime.affine(10.6e-3, 15e-6, 0.26e-6 / 3), kv_capacity_tokens=411_000)
    for load in (prompts(15.0), talks(9.0, 0.5, shared=300)):
        seen = simulate(arrivals(load, random.Random(2), 200.0), big, 200.0, warm_up_s=100.0)
        classes = tuple(
            one.model_copy(update={"rate_per_s": seen.turns_per_s[one.name]})
            for one in load.classes
        )
        here = cache_states(load.model_copy(update={"classes": classes}), big).from_empty
        assert here is not None
        assert here.hit_share == pytest.approx(seen.hit_share, abs=0.03)
        assert here.iteration_s == pytest.approx(seen.iteration_s, rel=0.03)


def test_a_flood_leaves_the_good_state() -> None:
    load = talks(5.0, 5.0)
    flooded = flood(load.classes[0], 1500)
    seen = simulate(
        arrivals(load, random.Random(1), 120.0), SERVER, 120.0, warm_up_s=60.0, flooded=flooded
    )
    assert seen.hit_share < 0.05
    assert seen.waiting[-1] > 500


def test_returns_to_one_of_several_servers() -> None:
    load = talks(4.0, 5.0, shared=64)
    one, many = kinds_of(load, SERVER), kinds_of(load, SERVER, 3)
    for kinds in (one, many):
        assert kinds.rates_per_s.sum() == pytest.approx(4.0)
        assert kinds.rates_per_s @ kinds.prefill_tokens == pytest.approx(
            one.rates_per_s @ one.prefill_tokens
        )
        assert kinds.left.tokens_per_s.sum() == pytest.approx(one.left.tokens_per_s.sum())
    # Drawn: a conversation of many turns, each on one of three servers.
    rng = np.random.default_rng(1)
    turns, places = 200_000, rng.integers(3, size=200_000)
    last = dict.fromkeys(range(3), -1)
    gaps = np.zeros(turns, dtype=int)
    for turn, place in enumerate(places.tolist()):
        gaps[turn] = turn - last[place] if last[place] >= 0 else 0
        last[place] = turn
    drawn = rng.exponential(5.0, turns).cumsum()
    slept = np.array([drawn[t - 1] - drawn[t - g - 1] for t, g in enumerate(gaps) if g and t > g])
    steps = np.arange(1, 23)
    weights = (2 / 3) ** (steps - 1) / 3
    ours = weights @ [many.context_hits(9.0)[many.steps == step][0] for step in steps.tolist()]
    assert ours == pytest.approx((slept <= 9.0).mean(), abs=0.01)


def test_sticky_routing_finds_more() -> None:
    load = talks(8.0, 5.0)
    alone = routing(load, SERVER, 1)
    assert alone.sticky == alone.round_robin
    found = routing(load, SERVER, 2)
    assert found.sticky.capacity_per_s > found.round_robin.capacity_per_s
    assert found.sticky.hit_share > found.round_robin.hit_share
    with pytest.raises(InputError, match="at least 1"):
        routing(load, SERVER, 0)
    with pytest.raises(InputError, match="a class with shared_prefix_tokens"):
        routing(one_class(1.0, 64, 10), SERVER, 2)


def test_a_fleet_names_the_difference() -> None:
    found = fleet(talks(8.0, 5.0), [ServerType(SERVER)])
    assert found.replicas[0].count == 2
    assert "sticky carries" in str(found)
    assert found.document()["routing"][0]["servers"] == 2
    assert found.cost_at_least <= found.cost


def test_equilibrium_and_limits_count_the_hits(tmp_path: Path) -> None:
    load = talks(4.3, 8.0, "fixed")
    found, cache = equilibrium(load, SERVER), prefix_cache(load, SERVER)
    assert found.cache is not None
    assert found.kv_tokens == cache.states[0].resident_tokens
    assert found.iteration_time_s == cache.states[0].iteration_time_s
    assert found.max_scale == stability(load, SERVER).max_scale == cache.max_scale
    assert "SEVERAL STATES" in str(found)
    assert found.document()["prefix_cache"]["saturates"] is False
    assert found.plot(picture="cache").get_lines()
    assert StabilityRegion(load, SERVER).reach([4.3]) == pytest.approx(found.max_scale)
    assert capacity(load, SERVER, "rate").value == pytest.approx(4.3 * found.max_scale)
    with pytest.raises(InputError, match="rate, kv_tokens, servers or output"):
        capacity(load, SERVER, "bandwidth")
    table = solve(load, SERVER)
    assert isinstance(table, ThresholdTable)
    assert table.valid_for.max_rate_per_s <= 4.3 * found.max_scale
    table.write(tmp_path / "t.json")
    again = ThresholdTable.read(tmp_path / "t.json")
    assert again.workload == load
    assert any("prefixes are cached" in note for note in again.notes)


def test_too_much_load_is_said_with_the_limit() -> None:
    found = equilibrium(talks(7.0, 8.0), SERVER)
    assert not found.stable
    assert "NO BALANCE" in str(found)
    assert found.document()["iteration_time_s"] is None
    assert found.max_scale < 1


def test_least_memory_is_the_least() -> None:
    load = talks(3.0, 20.0)
    tokens = int(capacity(load, SERVER, "kv_tokens").value)
    for change, holds in ((1.0, True), (0.995, False)):
        other = SERVER.model_copy(update={"kv_capacity_tokens": int(tokens * change)})
        assert stability(load, other).stable == holds


def test_what_memory_is_worth() -> None:
    """As room and as cache, each apart."""
    found = prefix_cache(talks(4.0, 20.0), SERVER)
    room, cache = found.worth
    assert room > 0
    assert cache > 0


def test_blocks_round_what_is_found() -> None:
    blocks = Server.from_document(SERVER.document() | {"block_tokens": 16})
    kinds = kinds_of(prompts(1.0, shared=1000), blocks)
    assert kinds.shared_hit_tokens.tolist() == [992]
    whole = kinds_of(Workload.of(a=Requests(1.0, 64, 9, shared_prefix=64)), blocks)
    assert whole.shared_hit_tokens.tolist() == [48]  # the last block is computed again
    assert served(one_class(1.0, 64, 9), blocks) == one_class(1.0, 64, 9)
    assert lightest(prompts(1.0)).classes[0].prefill_tokens == 200


def test_a_hit_curve_takes_the_place_of_classes() -> None:
    load = one_class(4.0, 2000, 200)
    states = recorded_states(load, SERVER, [(0.0, 0.0), (137_000.0, 0.6)])
    (state,) = states
    assert state.resident_tokens + state.cache_tokens == pytest.approx(137_000, rel=1e-4)
    assert state.hit_share == pytest.approx(0.6 * state.cache_tokens / 137_000, rel=1e-4)
    assert recorded_states(one_class(40.0, 2000, 200), SERVER, [(137_000.0, 0.1)]) == ()
    with pytest.raises(InputError, match="rising sizes"):
        recorded_states(load, SERVER, [(10.0, 0.5), (20.0, 0.4)])
    with pytest.raises(InputError, match="without prefixes"):
        recorded_states(prompts(1.0), SERVER, [(10.0, 0.5)])


def test_what_knows_no_prefixes_says_so() -> None:
    with pytest.warns(PrefixesIgnored, match="no prefix cache is counted here"):
        found = fluctuation(prompts(3.0), SERVER)
    plain = fluctuation(one_class(3.0, 2200, 100), SERVER)
    assert found.kv_mean_tokens == plain.kv_mean_tokens
    with pytest.raises(InputError, match="a class with shared_prefix_tokens"):
        prefix_cache(one_class(1.0, 64, 10), SERVER)
