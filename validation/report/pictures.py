"""Pictures of a report, as SVG elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fluid.plots.style import save
from fluid.steady.equilibrium import equilibrium
from fluid.steady.region import StabilityRegion
from thresholds.fields import PolicyValidation, Validated
from thresholds.table import ThresholdTable
from thresholds.validated_picture import draw_validated
from validation.experiments.compare import compare
from validation.experiments.pictures import plot_paths
from validation.experiments.replay import replay_model
from validation.policies import ConfiguredPolicy
from validation.report.page import inline_svg
from validation.simulator.arrivals import Arrivals, parse_arrivals
from validation.simulator.cpu import Job
from validation.simulator.model import Model

TAPE = "tape"
"""Arrivals of a table validated on a recording, which the table does not hold."""


@dataclass(frozen=True)
class Picture:
    """An inline SVG with the sentence that belongs under it."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Row:
    """One simulated policy; the first of a report is the table's own."""

    label: str
    result: PolicyValidation


def _arrivals(validated: Validated) -> Arrivals | None:
    """The process to simulate: that of the validation, Poisson in place of a recording."""
    return None if validated.arrivals == TAPE else parse_arrivals(validated.arrivals)


def report_pictures(
    table: ThresholdTable,
    validated: Validated,
    rows: Sequence[Row],
    policies: dict[str, ConfiguredPolicy],
) -> list[Picture]:
    """What a report shows of a table, from the simulation outwards.

    Args:
        rows: Validated policies at one rate, the table's own first; `policies` alike, by label.
    """
    workload, server = table.workload, table.server
    balance = equilibrium(workload, server)
    rate_per_s = rows[0].result.rate_per_s
    scale = rate_per_s / workload.rate_per_s
    model = replay_model(table, arrivals=_arrivals(validated))
    replication = _median_replication(model, [*policies.values()][:2][-1], validated, scale)
    jobs = {
        label: Job(policy, replication, seed=validated.seed, rate_scale=scale)
        for label, policy in policies.items()
    }
    process = "poisson" if validated.arrivals == TAPE else validated.arrivals
    title = f"{workload.name} on {server.name} at {rate_per_s:.4g} requests/s"
    made = [
        Picture(
            "Side by side",
            "Means with 95 % intervals over the replications.",
            inline_svg(
                "compare",
                partial(save, lambda: draw_validated({r.label: r.result for r in rows})),
            ),
        ),
        Picture(
            "One run",
            f"The run of {validated.replications} in which {[*jobs][:2][-1]} did as well as in the "
            f"median (replication {replication} of seed {validated.seed}, arrivals: {process}).",
            inline_svg(
                "run", lambda path: plot_paths(model, jobs, validated.requests, title, path)
            ),
        ),
    ]
    if len(workload.classes) == 2:
        region = StabilityRegion(workload, server)
        caption = "Rates that the server carries in the fluid model, and this load."
        picture = inline_svg("region", partial(save, region.plot))
        made.append(Picture("Stable rates", caption, picture))
    made += [
        Picture(
            "Latency by rate",
            "First-order fluid figures of work-conserving service, up to the boundary.",
            inline_svg("latency", partial(save, balance.plot)),
        ),
        Picture(
            "KV by stage",
            "Where the cache goes at equilibrium, by age of the requests.",
            inline_svg("stages", partial(save, partial(balance.plot, picture="stages"))),
        ),
    ]
    return made


def _median_replication(
    model: Model, policy: ConfiguredPolicy, validated: Validated, scale: float
) -> int:
    """The run in which the policy's completed share was the median."""
    again = compare(
        model,
        [policy],
        replications=validated.replications,
        requests=validated.requests,
        seed=validated.seed,
        rate_scale=scale,
    )
    shares = again[0].completed_shares
    return int(np.argsort(shares)[len(shares) // 2])
