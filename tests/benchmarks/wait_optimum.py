"""Whether the solved thresholds of literal WAIT are the best in simulation as well.

    python tests/benchmarks/wait_optimum.py [--out FOLDER]

On 20 random two-class workloads every whole threshold vector within a few steps of the solved ones
is simulated on the same arrivals: of those solved for "latency" (THEORY 3.5) against the best table
that satisfies the drift conditions (sufficient, not necessary: 3.2), of those for "sharp-latency"
against the best of all. Prints the thresholds, formula over simulation, and the loss: simulated
latency of the solved table over the smallest one. Draws latency over slack for one workload.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from thresholds.solvers.wait.batch import FullBatch, full_batch
from thresholds.solvers.wait.sharp import SHARP
from thresholds.solvers.wait.solver import Wait
from validation.experiments.pictures import plot_slack
from validation.experiments.simulate import simulate
from validation.policies import POLICIES
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

WORKLOADS = 20
REACH = 3
"""Steps around the solved thresholds, per class."""

REPLICATIONS = 8
REQUESTS = 40_000


@dataclass(frozen=True)
class Neighbourhood:
    """Simulated tables around the solved one.

    Attributes:
        thresholds: Shape (k, 2), those solved for latency first.
        sharp: Index of those solved for sharp-latency.
        formulas_s: Latencies that the two tables state for themselves.
        latency_s: Simulated mean latencies, infinite where not stable, shape (k,).
        half_width_s: Of their 95 % intervals, shape (k,).
    """

    workload: Workload
    batch: FullBatch
    thresholds: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    half_width_s: NDArray[np.float64]
    sharp: int
    formulas_s: tuple[float, float]

    def loss(self, solved: int, among: NDArray[np.bool_]) -> tuple[int, float, float]:
        """The best simulated of some tables, how far the solved one is from it, and ± how much."""
        best = int(np.where(among, self.latency_s, np.inf).argmin())
        noise = np.hypot(self.half_width_s[solved], self.half_width_s[best])
        lost = self.latency_s[solved] - self.latency_s[best]
        return best, float(lost / self.latency_s[best]), float(noise / self.latency_s[best])

    @property
    def slack(self) -> NDArray[np.float64]:
        """Least relative drift slack, shape (k,)."""
        return np.asarray(1 - self.batch.loads(self.thresholds).max(axis=-1))


def random_load(seed: int) -> tuple[Workload, Server]:
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
    return workload.scaled(scale), server


def simulated(workload: Workload, server: Server) -> Neighbourhood:
    """Every feasible vector within `REACH` steps, simulated."""
    batch = full_batch(workload, server)
    tables = [one.solve(workload, server) for one in (Wait(), Wait(SHARP))]
    solved, sharp = (
        np.array([one.threshold for one in table.thresholds], dtype=float) for table in tables
    )
    steps = np.array(list(itertools.product(range(-REACH, REACH + 1), repeat=2)), dtype=float)
    steps = steps[np.argsort(np.abs(steps).sum(axis=1), kind="stable")]
    near = np.vstack([solved + steps, sharp + steps])
    near = near[np.sort(np.unique(near, axis=0, return_index=True)[1])]
    # Drift is sufficient, not necessary: tables that break it by a little may hold in simulation.
    possible = (near >= 1).all(axis=1) & (batch.memory(near) <= server.usable_kv_tokens)
    near = near[possible]
    near = near[batch.loads(near).max(axis=-1) < 1.3]
    policies = [POLICIES["wait"].configure({}, tuple(int(n) for n in one)) for one in near]
    model = poisson_model(workload, server)
    found = simulate(model, policies, Runs(REPLICATIONS, REQUESTS, seed=1))
    latency = [
        (one.latency_s.mean, one.latency_s.half_width or 0.0)
        if one.verdict == "stable" and one.latency_s is not None
        else (np.inf, np.inf)
        for one in found
    ]
    mean_s, half_s = np.array(latency).T
    index = int((near == sharp).all(axis=1).argmax())
    formulas = [table.predicted.policy_latency_s or np.nan for table in tables]
    return Neighbourhood(workload, batch, near, mean_s, half_s, index, (formulas[0], formulas[1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=None, help="folder for wait-slack.svg")
    out = parser.parse_args().out
    print("          latency (Theorem 1)                    sharp-latency")
    print("workload  solved  formula  best     loss         solved  formula  best     loss")
    losses: list[list[float]] = [[], []]
    for seed in range(WORKLOADS):
        found = simulated(*random_load(seed))
        line = f"{seed:8}"
        for which, (index, among) in enumerate(
            ((0, found.slack > 0), (found.sharp, np.full(len(found.slack), True)))
        ):
            best, loss, noise = found.loss(index, among)
            bias = found.formulas_s[which] / found.latency_s[index] - 1
            losses[which].append(loss)
            line += (
                f"  {_name(found.thresholds[index]):6}  {100 * bias:5.1f} %"
                f"  {_name(found.thresholds[best]):6}  {100 * loss:5.2f} ± {100 * noise:4.2f} %"
            )
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
    for said, each in zip(
        ("latency, best of the tables that satisfy drift", "sharp-latency, best of all tables"),
        losses,
        strict=True,
    ):
        within = sum(one <= 0.02 for one in each)
        print(f"{said}: {within} of {WORKLOADS} within 2 %, largest loss {100 * max(each):.2f} %")


def _name(thresholds: NDArray[np.float64]) -> str:
    return "/".join(f"{n:.0f}" for n in thresholds)


if __name__ == "__main__":
    main()
