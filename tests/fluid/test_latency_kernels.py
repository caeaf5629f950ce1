"""Compiled loops of THEORY 9 against plain transcriptions."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.server import load_server
from fluid.steady.latency.budget import window_quad_s
from fluid.steady.latency.chain import Lattice, costs_of, spaced_nodes
from fluid.steady.latency.chunk_kernels import (
    Over,
    cumulated,
    fitting_points,
    fitting_shares,
    land,
    land_all,
)
from fluid.steady.latency.decoders import count_law, nobody
from fluid.steady.latency.kernels import (
    added_seconds,
    balance,
    cross_sums,
    linear_moments,
    place,
    token_seconds,
)
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import Slopes, SlowTheory
from fluid.steady.latency.walks import blurred, relaxation, seconds_ahead, sum_waves, worth_by_age
from fluid.steady.latency.whole import FINE, lay_out, take_step
from tests.support.latency_cases import mix

A100 = load_server("a100-80gb-llama-2-7b")
LOAD = Load.of(mix("two", (512, 30, 3.0), (1200, 90, 0.6)), A100)


def random_chain(size: int, seed: int) -> np.ndarray:
    step = np.random.default_rng(seed).exponential(size=(size, size)) ** 3
    return step / step.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [2, 7, 60])
def test_balance_is_the_left_eigenvector(size: int) -> None:
    step = random_chain(size, size)
    law = balance(step)
    np.testing.assert_allclose(law @ step, law, atol=1e-12)
    assert law.sum() == pytest.approx(1)


def test_balance_with_nodes_that_nothing_leads_to() -> None:
    step = np.array([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(balance(step), [0, 2 / 3, 1 / 3], atol=1e-9)


def test_sums_of_iterations_are_powers_of_the_turned_chain() -> None:
    step, seconds = random_chain(6, 1), np.linspace(0.1, 0.9, 6)
    turn = np.exp(-1j * np.outer(seconds, np.arange(5)))
    starts = random_chain(6, 2)[:2]
    real, imag = sum_waves(step, starts, turn.real.copy(), turn.imag.copy(), np.array([1, 4]))
    for k in range(5):
        turned = step @ np.diag(turn[:, k])
        for index, count in enumerate((1, 4)):
            expected = starts @ np.linalg.matrix_power(turned, count).sum(axis=1)
            np.testing.assert_allclose(real[index, :, k] + 1j * imag[index, :, k], expected)


def test_mass_is_placed_so_that_means_are_kept() -> None:
    nodes = spaced_nodes(0.01, 0.9, 40, 4.0)
    for value in np.random.default_rng(0).uniform(0.01, 0.9, 200):
        low, share = place(nodes, value)
        assert (1 - share) * nodes.at[low] + share * nodes.at[low + 1] == pytest.approx(value)


def test_f_is_that_of_the_server() -> None:
    costs, tau = costs_of(LOAD), A100.iteration_time
    for tokens in (1, 5, 6, 7, 128, 129, 512, 513, 4096, 9000):
        expected = float(tau.token_seconds(tokens))
        assert token_seconds(costs, float(tokens)) == pytest.approx(expected, rel=1e-9)


def test_one_step_of_whole_prompts_term_by_term() -> None:
    """Row sums, means of the next iteration and moments by a loop over all combinations."""
    slow = SlowTheory(LOAD).at(Slopes(6e-5, 6e-5), 0.03)
    layout = lay_out(LOAD, slow, FINE)
    step = take_step(LOAD, slow, layout, costs_of(LOAD), 0.03)
    np.testing.assert_allclose(step.matrix.sum(axis=1), 1, atol=1e-9)
    tau, row = A100.iteration_time, 30
    mean = 0.0
    decoders = step.decoders
    for b, kv, weight in zip(
        decoders.requests[row], decoders.kv_tokens[row], decoders.weights[row], strict=True
    ):
        tokens = np.floor(layout.tokens + b + 0.5)
        f = np.maximum(tau.token_seconds(tokens), tau.overhead_s)
        seconds = f + layout.fixed_s + tau.per_decode_request_s * b + tau.per_kv_token_s * kv
        seconds = np.minimum(seconds, layout.nodes.at[-1])
        mean += weight * float(layout.prompts[row] @ seconds)
    assert step.matrix[row] @ layout.nodes.at == pytest.approx(mean, rel=1e-6)


def test_what_first_tokens_add_term_by_term() -> None:
    """E[f(P + B + extra) − f(P + B)], within the table of f, across its end and beyond it."""
    costs, tau = costs_of(LOAD), A100.iteration_time
    end = costs.table_s.size
    law = np.array([0.3, 0.0, 0.7])
    prompts = np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.1, 0.4, 0.5]])
    tokens = np.array([0.0, 511.0, end + 300.0])
    decodes, weights = np.array([[1.0, 40.0]] * 3), np.array([[0.6, 0.4]] * 3)
    extra = np.array([1.0, 130.0, end + 7.0])
    expected = np.zeros(3)
    for i, q, y in np.ndindex(3, 2, 3):
        start = tokens[y] + decodes[i, q]
        rise = tau.token_seconds(start + extra) - tau.token_seconds(start)
        expected += law[i] * weights[i, q] * prompts[i, y] * rise
    found = added_seconds(law, prompts, tokens, decodes, weights, extra, costs)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_arriving_tokens_have_the_compound_poisson_moments() -> None:
    lattice = Lattice(LOAD.prompts, LOAD.rates_per_s, 16.0, 2000)
    law = lattice.laws(np.array([0.7]))[0]
    mean = 0.7 * LOAD.rates_per_s @ LOAD.prompts
    variance = 0.7 * LOAD.rates_per_s @ LOAD.prompts**2
    assert law @ lattice.values == pytest.approx(mean, rel=1e-6)
    assert law @ (lattice.values - mean) ** 2 == pytest.approx(variance, rel=1e-3)
    ones, tokens = lattice.given_value(np.stack([np.ones(2), LOAD.prompts]), 0.7, 0.0, 0.3)
    np.testing.assert_allclose(tokens, lattice.values, rtol=1e-6, atol=1e-3)
    assert ones[75] == pytest.approx(1, rel=1e-3)  # 1,200 tokens: one of the long prompts


@pytest.mark.parametrize("ratio", [1.0, 1.7])
def test_counts_have_their_mean_and_variance(ratio: float) -> None:
    counts = np.arange(200)
    law = count_law(np.array([4.0]), ratio, counts)[0]
    assert law.sum() == pytest.approx(1)
    assert law @ counts == pytest.approx(4)
    assert law @ (counts - 4.0) ** 2 == pytest.approx(4 * ratio)
    assert law[0] == pytest.approx(nobody(np.array([4.0]), ratio)[0])


def test_walks_along_the_chain_are_powers_of_it() -> None:
    step = random_chain(5, 3)
    law, seconds = balance(step), np.linspace(0.1, 0.9, 5)
    away = seconds - law @ seconds
    powers = [np.linalg.matrix_power(step, age) for age in range(400)]
    covariances = np.array([(law * away) @ power @ away for power in powers])
    expected = covariances.sum() / covariances[0]
    assert relaxation(law, step, seconds, 400, 0.0) == pytest.approx(expected)
    worth = np.array([[1.0, 0.5, 2.0], [0.0, 3.0, 1.0]])
    aged = sum(worth[:, [age]] * (law * away) @ powers[age] for age in range(3))
    np.testing.assert_allclose(worth_by_age(law * away, step, worth), aged, atol=1e-12)
    starts, ahead = random_chain(5, 4)[:2], np.zeros((2, 7))
    seconds_ahead(starts, step, away, ahead, 0.0)
    for s in range(7):
        np.testing.assert_allclose(ahead[:, s], starts @ powers[s + 1] @ away, atol=1e-12)


def test_moments_of_the_linear_theory_class_by_class() -> None:
    """Sums over classes once against the requests' responses one by one."""
    rng = np.random.default_rng(5)
    rates, m, size = np.array([2.0, 0.5, 1.0]), 3, 16
    rows = np.fft.rfft(rng.exponential(size=(4, m, size)))
    known, total = cross_sums(rates, rows[:0], rows[:2], np.zeros((0, 0, size // 2 + 1), complex))
    cross, more = cross_sums(rates, rows[:2], rows[2:], known)
    total = np.concatenate([total, more])
    wave = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    own, lag, feedback = (
        np.array([0.01, 0.002, 0.0, 0.0]),
        0.6 / (1 - 0.4 * wave),
        1 / (1 - 0.3 * wave),
    )
    spectrum, sums = linear_moments(cross, total, own, 2, 3, 0.7, 0.1, feedback, lag, wave)
    added = np.einsum("a,ajk->jk", own, rows)
    weights = np.append(0.7 * rates, 0.1)[:, None]
    response = np.concatenate([lag * feedback * added, feedback[None]])
    np.testing.assert_allclose(spectrum, (weights * np.abs(response) ** 2).sum(axis=0))
    x, y = (
        np.concatenate([lag * rows[one], np.zeros((1, len(wave)))])
        + wave * lag * total[one] * response
        for one in (2, 3)
    )
    inner = np.where(np.isin(np.arange(len(wave)), (0, len(wave) - 1)), 1.0, 2.0) / size
    expected = [
        *((weights * inner * one * np.conj(response * wave)).real.sum() for one in (x, y)),
        *((weights * inner * np.abs(one) ** 2).sum() for one in (x, y)),
        (weights * inner * x * np.conj(y)).real.sum(),
    ]
    np.testing.assert_allclose(sums, expected)


def test_a_uniform_rest_before_a_value() -> None:
    """P(V + U ≤ x) = (A(x) − A(x − width))/width, A the integral of the distribution function."""
    masses, width = np.random.default_rng(6).dirichlet(np.ones(30), size=2) / 2, [7.0, 0.5]
    masses = np.pad(masses, ((0, 0), (0, 10)))
    points, expected = np.arange(40.0), np.zeros(40)
    for mass, wide in zip(masses, width, strict=True):
        below = np.cumsum(mass)
        area = np.concatenate([[0.0], np.cumsum((below[1:] + below[:-1]) / 2)])
        expected += (area - np.interp(points - wide, points, area, left=0.0)) / wide
    found = blurred(masses, np.array(width))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found[-1] == pytest.approx(1)


def test_who_comes_before_a_moment() -> None:
    """Two equal arrivals at uniform times: a third moment is before both, between, after both."""
    lattice = Lattice(np.array([3.0]), np.array([1.0]), 1.0, 80)
    shares, weights = np.polynomial.legendre.leggauss(8)
    shares, weights = (shares + 1) / 2, weights / 2
    (whole,) = lattice.laws(np.array([2.0]))
    before, behind = lattice.laws(2 * shares), lattice.laws(2 * (1 - shares))
    fits = fitting_shares(before, behind, weights, whole, 8)
    np.testing.assert_allclose(
        fits[:7, 6], [1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 1], rtol=1e-6
    )


def test_tokens_left_over_land_beside_their_number() -> None:
    """The mean is kept, with a full iteration at 0."""
    times, lefts = spaced_nodes(0.01, 0.2, 10, 2.0), spaced_nodes(0.0, 900.0, 12, 3.0)
    left = np.concatenate([np.zeros(10), lefts.at[1:]])
    for over in (0.3, 5.0, 77.0, 640.0):
        row = np.zeros(21)
        land(row, 0.25, over, 0.15, times, lefts)
        assert row.sum() == pytest.approx(0.25)
        assert row @ left == pytest.approx(0.25 * over)
    assert row[:10].sum() == 0


@pytest.mark.parametrize("spare", [-5000.0, -130.0, 0.0, 77.7, 80.0, 1e6])
def test_a_law_lands_like_its_points_one_by_one(spare: float) -> None:
    times, lefts = spaced_nodes(0.01, 0.2, 10, 2.0), spaced_nodes(0.0, 900.0, 12, 3.0)
    law, step = np.random.default_rng(3).exponential(size=60) ** 3, 20.0
    law /= law.sum()
    start = fitting_points(spare, step, law.size)
    assert start == np.sum(np.arange(60) * step <= spare)
    found, expected = np.zeros(21), np.zeros(21)
    land_all(found, Over(0.3, *cumulated(law), spare, step), start, 0.05, times, lefts)
    for x in range(start, 60):
        land(expected, 0.3 * law[x], x * step - spare, 0.05, times, lefts)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_a_window_of_one_prompt_length_in_whole_budgets() -> None:
    """Windows of l tokens cut an endless row of prompts of l uniformly: Σp² = l²·2/3 on average."""
    load = Load.of(mix("one", (1000, 30, 3.0)), A100)
    tau = A100.iteration_time
    expected = tau.per_prefill_token_sq_s * 1e6 * 2 / 3
    expected += tau.per_prefill_context_token_s * 1e6 / 6
    assert window_quad_s(load, 1000.0) == pytest.approx(expected, rel=1e-3)
