"""Overflows of Nested WAIT against the law of its boundary queues (THEORY 4.5).

For several loads the least memory for δ = 0.2 … 10⁻³ by the law and by Theorem 2, with the share of
runs that exceed the law's: of the queues simulated as a chain, and of the policy on the simulator.
Shares that disagree with the law at 99.99 % are marked; for more than three segments the law is a
bound, and only shares above it are. About six minutes on two cores.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from tests.support.boundary_chain import largest_kv
from thresholds.solvers.nested.memory_law import SeveralQueues, queues_law
from thresholds.solvers.nested.requirement import chain_holds, log_term, nested_memory
from thresholds.solvers.nested.segments import distinct_lengths
from validation.policies import POLICIES
from validation.simulator.model import poisson_model
from validation.theorems.cases import load, paper_server
from validation.theorems.nested_buffer import most_kv
from validation.theorems.statement import LEVEL, Effort

OVERHEAD_S = 8.0
HORIZON_S = 400 * OVERHEAD_S
PROBABILITIES = (0.2, 0.05, 0.01, 0.001)

CASES = (
    ("2/6, p = 1/2", ((0.5, 10, 2), (0.5, 10, 6)), (10, 6)),
    ("2/6, p = 0.55", ((0.45, 10, 2), (0.55, 10, 6)), (10, 6)),
    ("3/5, p = 1/5", ((0.8, 10, 3), (0.2, 10, 5)), (10, 3)),
    ("2/4/6", ((0.5, 10, 2), (0.3, 10, 4), (0.2, 10, 6)), (10, 6, 3)),
    ("2/4/6/9", ((0.5, 10, 2), (0.25, 10, 4), (0.15, 10, 6), (0.1, 10, 9)), (12, 7, 4, 2)),
    ("1/2/3/4/5", tuple((0.2, 10, k) for k in range(1, 6)), (15, 13, 11, 8, 5)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=4_000)
    arguments = parser.parse_args()
    server = paper_server(OVERHEAD_S, 0.001)
    print("| outputs | n | δ | M(n) | KV by the law | by Theorem 2 | law | chain | policy |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, classes, thresholds in CASES:
        workload = load(*classes)
        lengths = distinct_lengths(workload, server)
        segments = lengths.segments(np.arange(len(lengths.outputs)))
        assert chain_holds(thresholds, segments)
        assert segments.load(thresholds) < 1
        law = queues_law(thresholds, segments, HORIZON_S)
        assert law is not None
        rng = np.random.default_rng(5)
        chain = largest_kv(thresholds, segments, HORIZON_S, arguments.chains, rng)
        policy = POLICIES["nested-wait"].configure(thresholds=thresholds)
        model = poisson_model(workload, server)
        simulated = most_kv(model, policy, HORIZON_S, arguments.runs, Effort())
        for delta in PROBABILITIES:
            log = log_term(segments.count, HORIZON_S, OVERHEAD_S, delta)
            memory = nested_memory(thresholds, segments, log)
            tokens = law.least_tokens(delta)
            chance = law.overflow(tokens)
            exact = not isinstance(law, SeveralQueues)
            shares = [_share(most > tokens, chance, exact) for most in (chain, simulated)]
            print(
                f"| {name} | {'/'.join(map(str, thresholds))} | {delta} | {memory.base:.0f} "
                f"| {tokens:.0f} | {memory.total:.0f} | {chance:.2g} | {' | '.join(shares)} |",
                flush=True,
            )


def _share(events: np.ndarray, chance: float, exact: bool) -> str:
    """A share with its interval, marked where it disagrees."""
    found = stats.binomtest(int(events.sum()), len(events)).proportion_ci(LEVEL, "exact")
    agrees = found.low <= chance and (chance <= found.high or not exact)
    text = f"{events.mean():.2g} [{found.low:.2g}, {found.high:.2g}]"
    return text if agrees else f"{text} !"


if __name__ == "__main__":
    main()
