"""Pictures of a report, as SVG elements, from what the report holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fluid.plots.style import save
from fluid.steady.equilibrium import Equilibrium
from fluid.steady.region import StabilityRegion
from thresholds.fields import PolicyValidation, Validated
from thresholds.validated_picture import draw_validated
from validation.experiments.paths import WatchedRun
from validation.experiments.pictures import draw_run
from validation.report.page import inline_svg


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


def report_pictures(
    balance: Equilibrium,
    validated: Validated,
    rows: Sequence[Row],
    watched: WatchedRun,
    process: str,
) -> list[Picture]:
    """What a report shows of a table, from the simulation outwards.

    Args:
        balance: Of the table's own load.
        rows: Validated policies at one rate, the table's own first.
        watched: A run of these policies, in this order.
        process: How its requests arrived.
    """
    workload, server = balance.workload, balance.server
    rate_per_s = rows[0].result.rate_per_s
    labels = [row.label for row in rows]
    title = f"{workload.name} on {server.name} at {rate_per_s:.4g} requests/s"
    run = partial(draw_run, watched, labels, title)
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
            f"The run of {validated.replications} in which {labels[:2][-1]} did as well as in the "
            f"median (replication {watched.replication} of seed {validated.seed}, "
            f"arrivals: {process}).",
            inline_svg("run", partial(save, run)),
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
            f"Means and the span from p50 to p99 by the latency laws, for {balance.scheduler}.",
            inline_svg("latency", partial(save, balance.plot)),
        ),
        Picture(
            "KV by stage",
            "Where the cache goes at equilibrium, by age of the requests.",
            inline_svg("stages", partial(save, partial(balance.plot, picture="stages"))),
        ),
    ]
    return made
