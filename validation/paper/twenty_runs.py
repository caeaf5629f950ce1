"""The paper's table of 20 runs at 22 and 23/s, in its arrivals and in exact ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    best,
    cell,
    faster,
    find,
    named,
)
from validation.paper.pictures import logarithmic, side_by_side
from validation.paper.published import TWENTY_RUNS, Latency
from validation.paper.settings import SARATHI, SINGLE, TWO, VLLM, a100, authors_rules, nested_cap

RATES_PER_S = (22.0, 23.0)

_LITERAL = ("wait:thresholds=1", "wait:thresholds=2", "wait:thresholds=3")
_LITERAL_NESTED = ("nested-wait:thresholds=1/1", "nested-wait:thresholds=2/1")
_LIMITS = (20, 30, 40, 60, 80, 100, 150, 200)


def wait_forms(workload: Workload) -> dict[str, tuple[str, ...]]:
    """WAIT by its readings: literal thresholds, caps tl on requests in service, the authors' rules.

    Caps are tuned over tl as in the paper; so is the authors' one number.
    """
    server, lengths = a100(), len(workload.classes)
    caps = (nested_cap(workload, server, total, lengths, eta=0.0) for total in _LIMITS)
    return {
        "literal": _LITERAL if lengths == 1 else _LITERAL_NESTED,
        "cap": tuple(one for one in caps if one is not None),
        "authors' rules": tuple(one for total in _LIMITS for one in authors_rules(workload, total)),
    }


def tuned(lab: Lab, workload: Workload, rate_per_s: float, arrivals: str) -> dict[str, Run]:
    """The best of each reading of WAIT, on other arrivals than those it is judged on."""
    forms = wait_forms(workload)
    pilot = lab.simulate(
        workload,
        a100(),
        named(name for names in forms.values() for name in names),
        [rate_per_s],
        arrivals=arrivals,
        seed=lab.sizes.seed + 1,
    )
    return {reading: best(pilot, names, rate_per_s) for reading, names in forms.items()}


def run_twenty(lab: Lab) -> ExperimentResult:
    """Both workloads, both kinds of arrivals."""
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    runs: list[Run] = []
    readings: list[tuple[str, dict[str, Run]]] = []
    for load, workload in (("single", SINGLE), ("two classes", TWO)):
        for rate_per_s in RATES_PER_S:
            by_reading = [tuned(lab, workload, rate_per_s, kind) for kind in (CLIPPED, EXACT)]
            by_arrivals = [
                _three(lab, workload, rate_per_s, kind, found)
                for kind, found in zip((CLIPPED, EXACT), by_reading, strict=True)
            ]
            runs += by_arrivals[0]
            readings.append((f"{load} at {rate_per_s:g}/s", by_reading[0]))
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
    shown_readings = PageTable(
        "The best of each reading of WAIT on the arrivals that choose, mean latency ± standard "
        "deviation, seconds",
        ("load", *readings[0][1]),
        tuple(
            (where, *(f"{cell(one)} (`{one.name}`)" for one in found.values()))
            for where, found in readings
        ),
    )
    single = [one for one in runs if one.rate_per_s == RATES_PER_S[0]][:3]
    facts = {
        "vllm": single[0],
        "sarathi": single[1],
        "wait": single[2],
        "published": TWENTY_RUNS["single", RATES_PER_S[0]],
        "authors": [(where, found["authors' rules"]) for where, found in readings],
        "authors_first": sum(
            min(found.values(), key=lambda one: one.mean_s) is found["authors' rules"]
            for _, found in readings
        ),
    }
    return ExperimentResult(tuple(runs), (table, shown_readings), tuple(claims), facts)


def _three(
    lab: Lab, workload: Workload, rate_per_s: float, arrivals: str, found: Mapping[str, Run]
) -> list[Run]:
    """vLLM, Sarathi and the best WAIT that was found on other arrivals."""
    policies = [VLLM, SARATHI, min(found.values(), key=lambda one: one.mean_s).name]
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
