"""The paper's table of 20 runs at 22 and 23/s, in its arrivals and in exact ones."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from fluid.workload import Workload
from validation.paper.experiment import (
    CLIPPED,
    EXACT,
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
from validation.paper.pictures import logarithmic, side_by_side
from validation.paper.published import TWENTY_RUNS, Latency
from validation.paper.settings import SARATHI, SINGLE, TWO, VLLM, a100, nested_cap

RATES_PER_S = (22.0, 23.0)

_LITERAL = ("wait:thresholds=1", "wait:thresholds=2", "wait:thresholds=3")
_LITERAL_NESTED = ("nested-wait:thresholds=1/1", "nested-wait:thresholds=2/1")
_LIMITS = (20, 30, 40, 60, 80, 100, 150, 200)


def wait_forms(workload: Workload) -> tuple[str, ...]:
    """WAIT as the paper tunes it: literal thresholds, and caps tl on requests in service."""
    server, lengths = a100(), len(workload.classes)
    literal = _LITERAL if lengths == 1 else _LITERAL_NESTED
    caps = (nested_cap(workload, server, total, lengths, eta=0.0) for total in _LIMITS)
    return literal + tuple(one for one in caps if one is not None)


def tuned(lab: Lab, workload: Workload, rate_per_s: float, arrivals: str) -> str:
    """The form of WAIT of least latency, on other arrivals than those it is judged on."""
    pilot = lab.simulate(
        workload,
        a100(),
        named(wait_forms(workload)),
        [rate_per_s],
        arrivals=arrivals,
        seed=lab.sizes.seed + 1,
    )
    return min(pilot, key=lambda one: one.mean_s).name


def run_twenty(lab: Lab) -> ExperimentResult:
    """Both workloads, both kinds of arrivals."""
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    runs: list[Run] = []
    for load, workload in (("single", SINGLE), ("two classes", TWO)):
        for rate_per_s in RATES_PER_S:
            by_arrivals = [_three(lab, workload, rate_per_s, kind) for kind in (CLIPPED, EXACT)]
            runs += by_arrivals[0]
            claims += _claims(f"{load} at {rate_per_s:g}/s", by_arrivals[0])
            for policy, *found in zip(("vLLM", "Sarathi", "WAIT"), *by_arrivals, strict=True):
                published = str(TWENTY_RUNS[load, rate_per_s][policy])
                shown = [f"{cell(one)} (`{one.name}`)" for one in found]
                rows.append((load, f"{rate_per_s:g}", policy, published, *shown))
    table = PageTable(
        f"Mean latency ± standard deviation of {lab.sizes.table_replications} runs, seconds",
        ("load", "rate /s", "policy", "published", "here", "here, exact Poisson"),
        tuple(rows),
    )
    single = [one for one in runs if one.rate_per_s == RATES_PER_S[0]][:3]
    facts = {
        "vllm": single[0],
        "sarathi": single[1],
        "wait": single[2],
        "published": TWENTY_RUNS["single", RATES_PER_S[0]],
    }
    return ExperimentResult(tuple(runs), (table,), tuple(claims), facts)


def _three(lab: Lab, workload: Workload, rate_per_s: float, arrivals: str) -> list[Run]:
    """vLLM, Sarathi and tuned WAIT."""
    policies = [VLLM, SARATHI, tuned(lab, workload, rate_per_s, arrivals)]
    runs = lab.simulate(
        workload,
        a100(),
        named(policies),
        [rate_per_s],
        arrivals=arrivals,
        replications=lab.sizes.table_replications,
    )
    return [find(runs, name, rate_per_s) for name in policies]


def _claims(where: str, runs: Sequence[Run]) -> list[Claim]:
    vllm, sarathi, wait = runs
    return [
        faster(f"{where}: Sarathi before vLLM", sarathi, vllm),
        faster(f"{where}: WAIT before Sarathi", wait, sarathi),
        faster(f"{where}: WAIT before vLLM", wait, vllm),
    ]


def draw(result: ExperimentResult) -> Figure:
    """Published beside measured, a group for each load and rate."""
    table = result.tables[0]
    published = [TWENTY_RUNS[row[0], float(row[1])][row[2]] for row in table.rows]
    measured = [Latency(one.mean_s, one.sd_s) for one in result.runs]
    places = range(len(table.rows))
    with side_by_side(width=8.5) as (figure, (axes,)):
        for latencies, marker, label in ((published, "k*", "published"), (measured, "o", "here")):
            means_s = [one.mean_s for one in latencies]
            widths_s = [one.sd_s or 0.0 for one in latencies]
            axes.errorbar(places, means_s, yerr=widths_s, fmt=marker, capsize=2, label=label)
        logarithmic(axes)
        labels = [f"{row[2]}\n{row[1]}/s" for row in table.rows]
        axes.set_xticks(places, labels, fontsize=7)
        axes.set_xlabel("left half: one class; right half: two classes")
        axes.set_ylabel("mean latency (s)")
        axes.legend(fontsize=8)
        return figure


TWENTY = Experiment(
    "twenty-runs",
    "Twenty runs",
    "Mean latency at 22 and 23/s: vLLM far behind, Sarathi second, WAIT first.",
    run_twenty,
    draw,
)
