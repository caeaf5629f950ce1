"""Laws of boundary queues against dense matrices, simulated chains, and the bound of Theorem 2."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server, load_server
from tests.support.boundary_chain import largest_kv
from tests.support.builders import workload
from tests.support.nested_cases import finest, log_of, random_instance
from thresholds.solvers.nested.boundary_law import (
    Boundary,
    Steps,
    stationary_law,
    tails_from_empty,
)
from thresholds.solvers.nested.joint_law import TwoQueues
from thresholds.solvers.nested.memory_law import (
    OneQueue,
    RunCounts,
    _binomial_quantile,
    memory_law,
    queues_law,
)
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import chain_holds, nested_memory
from thresholds.solvers.nested.segments import Floats, Segments
from validation.policies import POLICIES
from validation.simulator.model import poisson_model
from validation.theorems.cases import paper_server
from validation.theorems.nested_buffer import HORIZON_S, SERVER, TWO_LENGTHS, most_kv
from validation.theorems.statement import Effort

LONG_DECODE = load_server("paper-long-decode")
TWO = workload((7.0, 512, 20), (3.0, 512, 50))
SMALL = LONG_DECODE.model_copy(update={"first_token": "prefill"})

BOUNDARIES = [
    Boundary(10, 6, 0.5),
    Boundary(2, 1, 0.3),
    Boundary(30, 29, 0.93),
    Boundary(7, 2, 0.2),
    Boundary(40, 25, 0.6),
]


def dense(boundary: Boundary, states: int) -> Floats:
    """The chain on 0 … states − 1, entry by entry from the recursion; what leaves is lost."""
    found = np.zeros((states, states))
    chances = stats.binom.pmf(np.arange(boundary.before + 1), boundary.before, boundary.survival)
    for i in range(states):
        rest = i - boundary.threshold if i >= boundary.threshold else i
        for count in range(boundary.before + 1):
            if rest + count < states:
                found[i, rest + count] = chances[count]
    return found


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_stationary_law_is_that_of_the_dense_chain(boundary: Boundary) -> None:
    law = stationary_law(boundary)
    states = len(law.pmf)
    moves = dense(boundary, states)
    np.testing.assert_allclose(law.pmf @ moves, law.pmf, atol=1e-13)
    assert law.error < 1e-12
    # Lundberg's bound, on which the cut rests, and Theorem 2's reading of it.
    tail = 1 - np.cumsum(law.pmf)
    excess = np.arange(states) + 2 - 2 * boundary.threshold
    assert (tail <= np.exp(-boundary.exponent * np.maximum(excess, 0)) + 1e-13).all()
    # A coarse cut stays within the error that it states.
    coarse = stationary_law(boundary, 1e-4)
    padded = np.zeros(states)
    padded[: len(coarse.pmf)] = coarse.pmf
    assert 0 < np.abs(padded - law.pmf).sum() <= coarse.error


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_banded_forms_are_those_of_the_dense_matrix(boundary: Boundary) -> None:
    states = 3 * boundary.threshold + 2
    moves, steps = dense(boundary, states), Steps.of(boundary, states)
    x = np.random.default_rng(1).uniform(size=states)
    np.testing.assert_allclose(steps.expected(x), moves @ x, atol=1e-14)
    np.testing.assert_allclose(steps.transposed().expected(x), moves.T @ x, atol=1e-14)
    inverse = np.linalg.solve(np.eye(states) - 0.99 * moves, x)
    np.testing.assert_allclose(steps.thinned(0.01).solver()(x), inverse, rtol=1e-9)


@pytest.mark.parametrize("boundary", BOUNDARIES[:4])
def test_tails_from_an_empty_queue_bound_every_run(boundary: Boundary) -> None:
    tails = tails_from_empty(boundary)
    states = tails.bounds.shape[1]
    moves = dense(boundary, states)
    laws = [np.eye(states)[0]]
    for _ in range(400):
        laws.append(laws[-1] @ moves)
    seen = 1 - np.cumsum(laws, axis=1)
    stationary = 1 - np.cumsum(stationary_law(boundary).pmf)
    for start in (0, 1, 3, 20, 300):
        highest, bound = seen[start:].max(axis=0), tails.after(start)
        assert (highest <= bound + 1e-12).all()
        # It is no larger than from the next start below on, or than the stationary tail's margin.
        begin = tails.runs[tails.runs <= start][-1]
        own = seen[begin:].max(axis=0)
        assert (bound <= np.maximum(own, 1.01 * stationary) + 1e-12).all()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("count", [40, 2000])
def test_the_law_of_the_longest_queue_is_that_of_its_runs_one_by_one(
    boundary: Boundary, count: int
) -> None:
    runs = RunCounts(np.array([count - 5.0, float(count)]), np.array([0.25, 0.75]))
    law = OneQueue(boundary, 1.0, 0.0, runs)
    for queue in range(boundary.threshold + 1, boundary.largest(1e-6), boundary.threshold):
        alive, stays = np.ones(queue + 1), dense(boundary, queue + 1)
        survived = []
        for _ in range(count):
            alive = stays @ alive
            survived.append(alive[0])
        expected = 1 - 0.25 * survived[count - 6] - 0.75 * survived[-1]
        found = law.above(queue)
        assert found >= expected * (1 - 1e-6) - 1e-9
        if expected < 0.5 and count > 100:
            # The start weighs as much as some runs do.
            assert found <= expected * (1 + 60 / count) + 1e-9


def test_few_runs_are_counted_from_their_poisson_law() -> None:
    segments = finest(TWO, LONG_DECODE)
    runs = RunCounts.within(3.0, 4, segments)
    assert runs.shares.sum() == pytest.approx(1)
    arrivals = np.arange(200)
    expected = np.maximum(arrivals // 4 - segments.stages[0], 0) @ stats.poisson.pmf(arrivals, 30.0)
    assert runs.mean == pytest.approx(expected, abs=1e-12)
    slow = segments.server.iteration_time.overhead_s
    assert RunCounts.within(3.0, 1, segments).counts.max() <= 1 + 3.0 / slow


def _shares(
    thresholds: tuple[int, ...], segments: Segments, horizon_s: float
) -> list[tuple[float, float, float]]:
    law = queues_law(thresholds, segments, horizon_s)
    assert law is not None
    rng = np.random.default_rng(7)
    most = largest_kv(thresholds, segments, horizon_s, 3_000, rng)
    found = []
    for delta in (0.2, 0.05, 0.01):
        tokens = law.least_tokens(delta)
        chance = law.overflow(tokens)
        assert chance <= delta < law.overflow(tokens - 1)
        events = int((most > tokens).sum())
        interval = stats.binomtest(events, len(most)).proportion_ci(0.9999, "exact")
        found.append((chance, interval.low, interval.high))
    return found


def test_a_memory_without_end_needs_no_chain_without_end() -> None:
    boundary = Boundary(before=7493, threshold=1, survival=1.5e-6)
    for runs in (0.0, 1e6):
        law = OneQueue(boundary, 1.0, 10.0, RunCounts(np.array([runs]), np.ones(1)))
        assert law.overflow(1e12) <= 1e-13 * runs
    assert queues_law((10**8, 9 * 10**7), finest(TWO, SMALL), 300.0) is None


@pytest.mark.parametrize("server", [LONG_DECODE, SMALL])
def test_simulated_overflows_of_two_segments_agree_with_the_law(server: Server) -> None:
    for chance, low, high in _shares((6, 3), finest(TWO, server), 300.0):
        assert low <= chance <= high


@pytest.mark.parametrize("block_tokens", [1, 16])
@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_kv_of_the_policy_is_what_the_law_counts(first_token: str, block_tokens: int) -> None:
    """Largest KV on the simulator is M(n) + b_2 (q − n_2), q whole, in every convention."""
    changes = {"first_token": first_token, "block_tokens": block_tokens}
    server = SERVER.model_copy(update=changes)
    law = queues_law((10, 6), finest(TWO_LENGTHS, server), HORIZON_S)
    assert isinstance(law, OneQueue)
    policy = POLICIES["nested-wait"].configure(thresholds=(10, 6))
    model = poisson_model(TWO_LENGTHS, server)
    most = most_kv(model, policy, HORIZON_S, 30, Effort("quick"))
    waiting = (most - law.full) / law.held
    np.testing.assert_allclose(waiting, np.rint(waiting), atol=1e-9)
    assert 0 < waiting.min() < waiting.max()
    chance = law.overflow(law.full + law.held * float(np.median(waiting)))
    assert 0.2 < chance < 0.8


def test_simulated_overflows_of_three_segments_are_those_of_the_joint_law() -> None:
    load = workload((5.0, 100, 3), (3.0, 100, 6), (2.0, 100, 12))
    for chance, low, high in _shares((10, 6, 3), finest(load, LONG_DECODE), 300.0):
        assert low <= chance <= high


def test_simulated_overflows_of_four_segments_stay_below_the_bound() -> None:
    load = workload((4.0, 100, 2), (2.0, 100, 3), (2.0, 100, 4), (2.0, 100, 5))
    for chance, low, _ in _shares((10, 8, 6, 4), finest(load, LONG_DECODE), 300.0):
        assert low <= chance


def _halfway(segments: Segments, first: int) -> list[float]:
    """Whole thresholds half way between what drift needs and the one before."""
    n = [float(first)]
    for p in segments.survivals:
        n.append(float(np.ceil(n[-1] * (1 + p) / 2)))
    return n


@pytest.mark.parametrize("seed", range(25))
def test_the_law_asks_for_no_more_than_theorem_2(seed: int) -> None:
    load, server = random_instance(seed, 2 + seed % 4)
    segments = finest(load, server)
    n = next(
        n for n in map(partial(_halfway, segments), range(10, 400)) if chain_holds(n, segments)
    )
    theorem = nested_memory(n, segments, log_of(segments))
    law = memory_law(n, segments, 3600.0, 0.01)
    assert law is not None
    assert theorem.base <= law.tokens <= theorem.total
    assert (law.overflow_probability <= 0.01) == (law.tokens <= server.usable_kv_tokens)


def test_tables_show_both_certificates() -> None:
    table = NestedWait(segments=2).solve(TWO, LONG_DECODE)
    law, memory = table.memory.queue_law, table.memory
    assert law is not None
    assert law.is_exact
    assert memory.required_tokens < law.tokens < memory.required_tokens + memory.buffer_tokens
    assert "the law of the boundary queues (exact) asks for" in str(table)
    assert NestedWait(segments=1).solve(TWO, LONG_DECODE).memory.queue_law is None
    mixed = workload((4.0, 800, 20), (3.0, 100, 20), (3.0, 300, 50))
    worst = NestedWait(segments=2).solve(mixed, LONG_DECODE).memory.queue_law
    assert worst is not None
    assert not worst.is_exact
    weighted = NestedWait(segments=2, prompts="weighted").solve(mixed, LONG_DECODE)
    assert weighted.memory.queue_law is None


def test_designs_may_be_held_to_the_law_instead() -> None:
    """Memory between the two requirements: Theorem 2 refuses, the law gives a table that fits."""
    table = NestedWait(objective="memory", segments=2).solve(TWO, LONG_DECODE)
    law, memory = table.memory.queue_law, table.memory
    assert law is not None
    between = int((law.tokens + memory.required_tokens + memory.buffer_tokens) / 2)
    tight = LONG_DECODE.model_copy(update={"kv_capacity_tokens": between})
    with pytest.raises(InfeasibleError):
        NestedWait(segments=2).solve(TWO, tight)
    by_law = NestedWait(segments=2, certificate="law").solve(TWO, tight)
    found = by_law.memory.queue_law
    assert found is not None
    assert found.tokens == by_law.memory.required_tokens + by_law.memory.buffer_tokens <= between
    assert found.overflow_probability <= 0.01
    assert by_law.memory.stochastic_buffer_tokens is None
    assert by_law.solver.optimality_gap is None
    assert by_law.certificate[-1].condition == "memory: law of the boundary queues ≤ C"
    assert "That is Theorem 2" not in str(by_law)
    tiny = LONG_DECODE.model_copy(update={"kv_capacity_tokens": int(memory.required_tokens) - 1})
    with pytest.raises(InfeasibleError, match="fits by the law"):
        NestedWait(segments=2, certificate="law").solve(TWO, tiny)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"certificate": "proof"}, "certificate"),
        ({"certificate": "law", "objective": "memory"}, "objective"),
        ({"certificate": "law", "prompts": "weighted"}, "prompts"),
    ],
)
def test_options_that_the_law_does_not_serve_are_refused(
    options: dict[str, str], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        NestedWait(**options)  # type: ignore[arg-type]
    assert caught.value.field == field


def held_tokens(q: tuple[int, int], n: tuple[int, int, int], cuts: tuple[int, int, int]) -> int:
    """KV of full stages and of two queues, request by request; prompts of 3, prefill emits one."""
    prompt, tokens = 3, n[0] * sum(3 + s for s in range(cuts[0]))
    runs = True
    for segment in (1, 2):
        runs = runs and q[segment - 1] >= n[segment]
        begin, end = cuts[segment - 1], cuts[segment]
        entering = n[segment] if runs else 0
        tokens += entering * (prompt + begin) + (q[segment - 1] - entering) * (prompt + begin - 1)
        tokens += sum(n[segment] * (prompt + s - (not runs)) for s in range(begin + 1, end))
    return tokens


def test_the_joint_law_of_two_queues_is_that_of_their_chain() -> None:
    """Every path of the chain, added up in a dictionary, with KV counted request by request."""
    n, cuts, iterations = (4, 3, 2), (1, 3, 4), 14
    load = workload((0.5, 3, 1), (0.3, 3, 3), (0.2, 3, 4))
    segments = finest(load, paper_server(1.0, 0.001))
    p = segments.survivals.tolist()
    boundaries = [Boundary(4, 3, p[0]), Boundary(3, 2, p[1])]
    pair = TwoQueues.of(boundaries, np.array(n, dtype=float), segments)
    assert pair is not None
    first = stats.binom.pmf(np.arange(5), 4, p[0]).tolist()
    second = stats.binom.pmf(np.arange(4), 3, p[1]).tolist()
    for capacity in (75, 85):
        found = pair.staying(capacity, iterations)
        law = {(0, 0): 1.0}
        for ran in range(iterations + 1):
            law = {q: mass for q, mass in law.items() if held_tokens(q, n, cuts) <= capacity}
            assert found[ran] == pytest.approx(sum(law.values()), abs=1e-11)
            following: dict[tuple[int, int], float] = defaultdict(float)
            for (q, r), mass in law.items():
                runs = q >= 3
                for a, chance in enumerate(first):
                    for b, other in enumerate(second) if runs else ((0, 1.0),):
                        to = (q - 3 * runs + a, r - 2 * (runs and r >= 2) + b)
                        following[to] += mass * chance * other
            law = following
        assert 0.01 < found[iterations] < 1


@given(st.floats(-14, -1e-3), st.integers(0, 5000), st.floats(0.01, 0.99, exclude_max=True))
def test_the_binomial_quantile_is_scipys(exponent: float, trials: int, success: float) -> None:
    chance = 10**exponent
    assert _binomial_quantile(chance, trials, success) == stats.binom.ppf(chance, trials, success)
