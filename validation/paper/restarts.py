"""Restarts with long outputs, and what server the published latencies would need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from fluid.server import Server
from fluid.stages import class_stages
from validation.paper.experiment import (
    MET,
    NOT_MET,
    Claim,
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    cell,
    faster,
    find,
    named,
)
from validation.paper.pictures import latency_lines, published_points, side_by_side
from validation.paper.published import (
    A100_BYTES_PER_S,
    KV_BYTES_PER_TOKEN,
    LONG_DECODE,
    LONG_DECODE_RESTARTS,
)
from validation.paper.settings import (
    CLIPPED_RATE,
    LONG,
    READ_SHARE,
    SARATHI,
    TABLE,
    VLLM,
    a100,
    cheap_reads,
    limit_per_s,
    practical_table,
)

WAIT = tuple(f"nested-cap:thresholds={total}" for total in (80, 90, 100, 110))
A100_RATES_PER_S = (1.8, 2.0, 2.2, 4.0)
CHEAP_RATES_PER_S = (3.0, 3.5, 4.0, 4.5, 5.0)


def run_restarts(lab: Lab) -> ExperimentResult:
    """The A100 at rates it carries and at the published one; the what-if server at those."""
    server, cheap = a100(), cheap_reads(READ_SHARE)
    requests = lab.sizes.long_requests
    here = _simulate(lab, server, A100_RATES_PER_S, requests)
    there = _simulate(lab, cheap, CHEAP_RATES_PER_S, requests)
    shorter = _simulate(lab, cheap, CHEAP_RATES_PER_S, requests // 2)
    facts: dict[str, Any] = {
        "read_bytes_per_s": 4.0 * _kv_reads(server) * KV_BYTES_PER_TOKEN,
        "bandwidth_per_s": A100_BYTES_PER_S,
        "limit_per_s": limit_per_s(LONG, server) / CLIPPED_RATE,
        "cheap_limit_per_s": limit_per_s(LONG, cheap) / CLIPPED_RATE,
        "read_share": READ_SHARE,
        "wait_here": _best_without_restarts(here, 4.0),
        "cheap": {
            (policy, rate): find(shorter, name, rate)
            for policy, name in (("vLLM", VLLM), ("Sarathi", SARATHI), ("WAIT", WAIT[2]))
            for rate in (4.0, 4.5)
        },
        "published": LONG_DECODE,
        "published_restarts": LONG_DECODE_RESTARTS[4.0]["Sarathi"],
        "requests": requests,
        "order": _order(shorter),
    }
    what_if = f"What-if: KV is read in {READ_SHARE:.0%} of the time"
    tables = (
        _table(f"The A100, {requests:,} requests", here, A100_RATES_PER_S),
        _table(f"{what_if}, {requests:,} requests", there, CHEAP_RATES_PER_S),
        _table(f"{what_if}, {requests // 2:,} requests", shorter, CHEAP_RATES_PER_S),
    )
    return ExperimentResult(shorter, tables, _claims(here), facts)


def _kv_reads(server: Server) -> float:
    """KV tokens that one long request reads over its decodes."""
    stages = class_stages(LONG.classes[0], server)
    return float(stages.kv_tokens[stages.decodes].sum())


def _simulate(
    lab: Lab, server: Server, rates_per_s: Sequence[float], requests: int
) -> tuple[Run, ...]:
    policies = named((VLLM, SARATHI, *WAIT)) | {TABLE: practical_table(LONG, server)}
    return lab.simulate(LONG, server, policies, rates_per_s, requests=requests)


def _best_without_restarts(runs: Sequence[Run], rate_per_s: float) -> Run:
    """The cap of least latency among those that restart least."""
    found = [find(runs, name, rate_per_s) for name in WAIT]
    return min(found, key=lambda one: (one.restarts, one.mean_s))


def _claims(here: Sequence[Run]) -> tuple[Claim, ...]:
    sarathi, wait = find(here, SARATHI, 4.0), _best_without_restarts(here, 4.0)
    fewer = MET if wait.restarts == 0 < sarathi.restarts else NOT_MET
    evidence = f"{wait.restarts:.2%} (`{wait.name}`) against {sarathi.restarts:.2%}"
    return (Claim("512/1000 at 4/s: Sarathi restarts requests and WAIT none", fewer, evidence),)


def _order(runs: Sequence[Run]) -> dict[str, str]:
    """Verdicts on the published order at 4.5/s."""
    vllm, sarathi, wait = (find(runs, name, 4.5) for name in (VLLM, SARATHI, WAIT[2]))
    return {
        "WAIT before Sarathi": faster("", wait, sarathi).verdict,
        "Sarathi before vLLM": faster("", sarathi, vllm).verdict,
    }


def _table(caption: str, runs: Sequence[Run], rates_per_s: Sequence[float]) -> PageTable:
    rows = []
    for name in dict.fromkeys(one.name for one in runs):
        found = [find(runs, name, rate) for rate in rates_per_s]
        shown = (f"{cell(one)}; {one.restarts:.2%}" for one in found)
        rows.append((f"`{name}`" if name != TABLE else name, *shown))
    rates = tuple(f"{rate:g}/s" for rate in rates_per_s)
    published = " and ".join(
        f"{policy} {share:.2%}" for policy, share in LONG_DECODE_RESTARTS[4.0].items()
    )
    return PageTable(
        f"{caption}: latency ± standard deviation, seconds; restarts per request "
        f"(published at 4/s: {published})",
        ("policy", *rates),
        tuple(rows),
    )


def draw(result: ExperimentResult) -> Figure:
    """The what-if server beside the published points."""
    with side_by_side() as (figure, (axes,)):
        latency_lines(axes, result.runs)
        published_points(axes, LONG_DECODE)
        axes.axvline(result.facts["cheap_limit_per_s"], color="black", ls=":", lw=1)
        axes.set_xlabel("nominal rate (requests/s); dotted: fluid limit; stars: published")
        axes.set_title(f"512/1000 where KV is read in {READ_SHARE:.0%} of the time")
        return figure


RESTARTS = Experiment(
    "restarts",
    "Restarts with long outputs",
    "512/1000 at 4/s: Sarathi 30.2 s with 2.88 % restarts, WAIT 26.4 s with none.",
    run_restarts,
    draw,
)
