"""Compiled loops of THEORY 9 against plain transcriptions."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.server import load_server
from fluid.steady.latency.budget import ends_in, token_budget, window_quad_s
from fluid.steady.latency.chain import Lattice, costs_of, spaced_nodes
from fluid.steady.latency.decoders import count_law, nobody
from fluid.steady.latency.kernels import balance, place, sum_waves, token_seconds
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import Slopes, SlowTheory
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
    real, imag = sum_waves(step, turn.real.copy(), turn.imag.copy(), np.array([1, 4]))
    for k in range(5):
        turned = step @ np.diag(turn[:, k])
        for index, count in enumerate((1, 4)):
            expected = np.linalg.matrix_power(turned, count).sum(axis=1)
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


def test_tokens_left_over_hold_a_renewal_process() -> None:
    """One prompt length l: ⌈r/l⌉ prompts end in r tokens."""
    load = Load.of(mix("one", (512, 30, 3.0)), A100)
    budget = token_budget(load, 2048.0)
    left = np.array([0.0, 100.0, 511.0, 600.0, 1500.0])
    np.testing.assert_allclose(ends_in(load, budget, left), [0, 1, 1, 2, 3], atol=0.1)


def test_a_window_of_one_prompt_length_in_whole_budgets() -> None:
    """Windows of l tokens cut an endless row of prompts of l uniformly: Σp² = l²·2/3 on average."""
    load = Load.of(mix("one", (1000, 30, 3.0)), A100)
    tau = A100.iteration_time
    expected = tau.per_prefill_token_sq_s * 1e6 * 2 / 3
    expected += tau.per_prefill_context_token_s * 1e6 / 6
    assert window_quad_s(load, 1000.0) == pytest.approx(expected, rel=1e-3)
