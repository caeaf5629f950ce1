"""Whether the solved thresholds of literal WAIT are the best in simulation as well.

    python tests/benchmarks/wait_optimum.py [--out FOLDER]

On 20 random two-class workloads every whole threshold vector within a few steps of the solved one
is simulated on the same arrivals. Prints, per workload, the solved and the best simulated
thresholds, how far the formula (THEORY 3.5) is from the simulated latency, and the loss: simulated
latency of the solved table over the smallest simulated one, among the tables that satisfy the drift
conditions (sufficient, not necessary: THEORY 3.2) and among all. Draws latency over slack for one
workload.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluid.equilibrium import equilibrium
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from thresholds.batch import FullBatch, full_batch
from thresholds.problem import Problem
from thresholds.solve import solve
from validation.compare import compare
from validation.plots import plot_slack
from validation.policies import POLICIES
from validation.simulator.model import poisson_model

WORKLOADS = 20
REACH = 3
"""Steps around the solved thresholds, per class."""

REPLICATIONS = 8
REQUESTS = 40_000


@dataclass(frozen=True)
class Neighbourhood:
    """Simulated tables around the solved one.

    Attributes:
        thresholds: Shape (k, 2), the solved ones first.
        latency_s: Simulated mean latencies, infinite where not stable, shape (k,).
        half_width_s: Of their 95 % intervals, shape (k,).
    """

    workload: Workload
    batch: FullBatch
    thresholds: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    half_width_s: NDArray[np.float64]

    def best(self, certified: bool) -> int:
        """Index of the best simulated table, of all or of those that satisfy drift."""
        allowed = self.slack > 0 if certified else np.full(len(self.slack), True)
        return int(np.where(allowed, self.latency_s, np.inf).argmin())

    def loss(self, certified: bool) -> float:
        """Relative distance of the solved table to the best simulated one."""
        return float(self.latency_s[0] / self.latency_s[self.best(certified)] - 1)

    def noise(self, certified: bool) -> float:
        """Half width of that distance, as if the two were independent."""
        best = self.best(certified)
        return float(np.hypot(self.half_width_s[0], self.half_width_s[best]) / self.latency_s[best])

    @property
    def bias(self) -> float:
        """Formula over simulation − 1 at the solved table."""
        return float(self.batch.mean_latency_s(self.thresholds[0]) / self.latency_s[0] - 1)

    @property
    def slack(self) -> NDArray[np.float64]:
        """Least relative drift slack, shape (k,)."""
        return np.asarray(1 - self.batch.loads(self.thresholds).max(axis=-1))


def random_problem(seed: int) -> Problem:
    """Two classes with several requests per stage, at 60–90 % of the largest stable rates."""
    draw = np.random.default_rng(seed)
    server = Server(
        name="affine",
        source="benchmark",
        kv_capacity_tokens=60_000,
        first_token="prefill",
        iteration_time=IterationTime.affine(
            draw.uniform(0.01, 0.03), draw.uniform(1e-5, 5e-5), draw.uniform(1e-7, 5e-7)
        ),
    )
    classes = tuple(
        RequestClass(
            name=name,
            rate_per_s=draw.uniform(1.0, 3.0),
            prefill_tokens=int(draw.integers(50, 400)),
            decode_tokens=int(draw.integers(2, 13)),
        )
        for name in ("one", "two")
    )
    workload = Workload(name=f"random {seed}", classes=classes)
    scale = equilibrium(workload, server).max_scale * draw.uniform(0.6, 0.9)
    return Problem(workload.scaled(scale), server, "wait")


def simulated(problem: Problem) -> Neighbourhood:
    """Every feasible vector within `REACH` steps, simulated."""
    table = solve(problem)
    batch = full_batch(problem.workload, problem.server)
    solved = np.array([one.threshold for one in table.thresholds], dtype=float)
    steps = np.array(list(itertools.product(range(-REACH, REACH + 1), repeat=2)), dtype=float)
    steps = steps[np.argsort(np.abs(steps).sum(axis=1), kind="stable")]
    near = solved + steps
    # Drift is sufficient, not necessary: tables that break it by a little may hold in simulation.
    possible = (near >= 1).all(axis=1) & (batch.memory(near) <= problem.server.usable_kv_tokens)
    near = near[possible]
    near = near[batch.loads(near).max(axis=-1) < 1.1]
    policies = [POLICIES["wait"].configure({}, tuple(int(n) for n in one)) for one in near]
    found = compare(
        poisson_model(problem.workload, problem.server),
        policies,
        replications=REPLICATIONS,
        requests=REQUESTS,
        seed=1,
    )
    latency = [
        (one.latency_s.mean, one.latency_s.half_width or 0.0)
        if one.verdict == "stable" and one.latency_s is not None
        else (np.inf, np.inf)
        for one in found
    ]
    mean_s, half_s = np.array(latency).T
    return Neighbourhood(problem.workload, batch, near, mean_s, half_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=None, help="folder for wait-slack.svg")
    out = parser.parse_args().out
    print("workload  solved   formula  best with drift    loss        best of all  loss")
    losses: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(WORKLOADS):
        found = simulated(random_problem(seed))
        line = f"{seed:8}  {_name(found.thresholds[0]):7}  {100 * found.bias:5.1f} %"
        for certified in (True, False):
            losses[certified].append(found.loss(certified))
            best = _name(found.thresholds[found.best(certified)])
            loss, noise = 100 * found.loss(certified), 100 * found.noise(certified)
            line += f"  {best:9}  {loss:5.2f} ± {noise:.2f} %"
        print(line, flush=True)
        if out is not None and seed == 0:
            stable = np.isfinite(found.latency_s)
            plot_slack(
                found.slack[stable],
                found.latency_s[stable],
                found.half_width_s[stable],
                np.asarray(found.batch.mean_latency_s(found.thresholds[stable])),
                out / "wait-slack.svg",
            )
    for certified, said in ((True, "tables that satisfy drift"), (False, "all tables")):
        within = sum(one <= 0.02 for one in losses[certified])
        print(
            f"within 2 % of the best simulated of {said}: {within} of {WORKLOADS}, "
            f"largest loss {100 * max(losses[certified]):.2f} %"
        )


def _name(thresholds: NDArray[np.float64]) -> str:
    return "/".join(f"{n:.0f}" for n in thresholds)


if __name__ == "__main__":
    main()
