"""λ*: the largest rate each policy carries, in both kinds of arrivals."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure

from fluid.workload import Workload
from validation.experiments.boundary_search import TOLERANCE
from validation.experiments.largest_rate import largest_stable_rates
from validation.paper.experiment import (
    CLIPPED,
    EXACT,
    Claim,
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    at_least,
    named,
)
from validation.paper.pictures import side_by_side
from validation.paper.published import LARGEST_RATES_PER_S
from validation.paper.settings import (
    BASELINES,
    SARATHI,
    SINGLE,
    TABLE,
    TWO,
    VLLM,
    a100,
    practical_table,
)
from validation.simulator.runs import Runs

WAIT = {
    "single": (
        "wait:thresholds=1",
        "wait:thresholds=2",
        "nested-cap:thresholds=100",
        "wait-authors:thresholds=2,cap=30",
    ),
    "two classes": (
        "nested-wait:thresholds=1/1",
        "nested-wait:thresholds=2/1",
        "nested-cap:thresholds=21/9",
        "nested-cap:thresholds=69/31",
        "nested-authors:thresholds=2/1,cap=40",
    ),
}
_LOADS = {"single": SINGLE, "two classes": TWO}


def run_largest_rates(lab: Lab) -> ExperimentResult:
    """Every policy on both workloads."""
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    found: dict[str, dict[str, float]] = {}
    for load, workload in _LOADS.items():
        here = _by_policy(lab, workload, load, CLIPPED)
        exact = _by_policy(lab, workload, load, EXACT)
        found[load] = here
        for name, rate_per_s in here.items():
            published = LARGEST_RATES_PER_S[load].get(_published_name(name))
            shown = "" if published is None else f"{published:g}"
            rows.append((load, _code(name), shown, _rate(rate_per_s), _rate(exact[name])))
        claims += _claims(load, here)
    header = ("load", "policy", "published /s", "here, nominal /s", "here, exact Poisson /s")
    table = PageTable("Largest stable rate", header, tuple(rows))
    single = found["single"]
    facts = {
        "rates": found,
        "literal": [single[name] for name in WAIT["single"][:2]],
        "two_caps": [found["two classes"][name] for name in WAIT["two classes"][2:4]],
        "vllm": single[VLLM],
        "sarathi": single[SARATHI],
    }
    return ExperimentResult((), (table,), tuple(claims), facts)


def _by_policy(lab: Lab, workload: Workload, load: str, arrivals: str) -> dict[str, float]:
    """Largest stable rate, nominal, of every policy; NaN where none was found."""
    server = a100()
    policies = named((*BASELINES, *WAIT[load])) | {TABLE: practical_table(workload, server)}
    sizes = lab.sizes
    runs = Runs(sizes.replications, sizes.requests, sizes.seed)
    rates = {}
    for name, policy in policies.items():
        (found,) = largest_stable_rates(
            workload, server, policy, arrivals=arrivals, runs=runs, on_done=lab.on_done
        )
        largest = found.largest_stable_rate_per_s
        rates[name] = math.nan if largest is None else largest
    return rates


def _rate(rate_per_s: float) -> str:
    return "none" if math.isnan(rate_per_s) else f"{rate_per_s:.2f}"


def _published_name(policy: str) -> str:
    names = {VLLM: "vLLM", SARATHI: "Sarathi"}
    is_wait = policy.startswith(("wait", "nested"))
    return "WAIT" if is_wait else names.get(policy, policy)


def _code(name: str) -> str:
    return name if name == TABLE else f"`{name}`"


def _claims(load: str, rates: Mapping[str, float]) -> list[Claim]:
    wait = max(WAIT[load], key=lambda name: -math.inf if math.isnan(rates[name]) else rates[name])
    pairs = (("WAIT", wait, "Sarathi", SARATHI), ("Sarathi", SARATHI, "vLLM", VLLM))
    return [
        at_least(
            f"{load}: {large} carries more than {small}",
            rates[one],
            rates[other],
            TOLERANCE,
            f"{rates[one]:.2f} (`{one}`) against {rates[other]:.2f}/s (`{other}`)",
        )
        for large, one, small, other in pairs
    ]


def draw(result: ExperimentResult) -> Figure:
    """Published against measured, by policy."""
    with side_by_side(2, width=9) as (figure, axes):
        for one, (load, rates) in zip(axes, result.facts["rates"].items(), strict=True):
            published = LARGEST_RATES_PER_S[load]
            for place, (name, rate_per_s) in enumerate(rates.items()):
                one.plot(rate_per_s, place, "o", color="C0", label="here" if not place else None)
                if _published_name(name) in published:
                    one.plot(
                        published[_published_name(name)],
                        place,
                        "k*",
                        label="published" if not place else None,
                    )
            one.set_yticks(range(len(rates)), list(rates), fontsize=7)
            one.set_ylim(len(rates) - 0.5, -0.5)
            one.set_xlabel("largest stable nominal rate (requests/s)")
            one.set_title(load)
        axes[0].legend(fontsize=8)
        return figure


LARGEST_RATES = Experiment(
    "largest-rates",
    "Largest stable rates",
    "λ* of one class: WAIT 23, Sarathi 22, vLLM 19; of two classes: 22, 21, 18.",
    run_largest_rates,
    draw,
)
