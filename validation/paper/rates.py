"""Latency by rate: one class, two classes, long outputs, real chats, a decode-only server."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fluid.stages import class_stages
from fluid.workload import Workload
from validation.paper.experiment import (
    Claim,
    Experiment,
    ExperimentResult,
    Lab,
    PageTable,
    Run,
    at_least,
    best,
    cell,
    faster,
    find,
    named,
)
from validation.paper.pictures import latency_lines, published_points, side_by_side
from validation.paper.published import DECODE_ONLY_SAVING, LONG_DECODE, TWENTY_RUNS, Latency
from validation.paper.settings import (
    BASELINES,
    CLIPPED_RATE,
    DECODE_ONLY,
    FITTED_VLLM,
    LONG,
    SARATHI,
    SINGLE,
    TABLE,
    TWO,
    VLLM,
    a100,
    chat,
    limit_per_s,
    nested_cap,
    practical_table,
)


@dataclass(frozen=True)
class Load:
    """A workload over rates.

    Attributes:
        wait: Forms of WAIT to run beside the baselines.
        rates_per_s: Nominal.
        long: Whether outputs are long, so that fewer requests do.
        published: Latencies by rate and policy.
        claims: From the runs to what the paper finds.
        facts: From the runs to what the explanation cites.
    """

    workload: Workload
    wait: tuple[str, ...]
    rates_per_s: tuple[float, ...]
    long: bool
    published: Mapping[float, Mapping[str, Latency]]
    claims: Callable[[Sequence[Run]], tuple[Claim, ...]] = lambda runs: ()
    facts: Callable[[Sequence[Run]], dict[str, Any]] = lambda runs: {}

    def run(self, lab: Lab) -> ExperimentResult:
        """All policies at all rates."""
        server = a100()
        table = practical_table(self.workload, server)
        runs = lab.simulate(
            self.workload,
            server,
            {**named((*BASELINES, *self.wait)), TABLE: table},
            self.rates_per_s,
            requests=lab.sizes.long_requests if self.long else None,
        )
        limit = limit_per_s(self.workload, server)
        facts = {
            "table": table.label,
            "limit_per_s": limit,
            "nominal_limit_per_s": limit / CLIPPED_RATE,
        }
        return ExperimentResult(
            runs, (rates_table(runs),), self.claims(runs), facts | self.facts(runs)
        )

    def draw(self, result: ExperimentResult) -> Figure:
        """Latency by rate, the fluid limit and what is published."""
        with side_by_side() as (figure, (axes,)):
            latency_lines(axes, result.runs)
            axes.axvline(result.facts["nominal_limit_per_s"], color="black", ls=":", lw=1)
            published_points(axes, self.published)
            axes.set_xlabel("nominal rate (requests/s); dotted: fluid limit; stars: published")
            axes.set_title(f"{self.workload.name} on the A100")
            return figure


def rates_table(runs: Sequence[Run]) -> PageTable:
    """Rates down, policies across."""
    names = tuple(dict.fromkeys(one.name for one in runs))
    rates_per_s = dict.fromkeys(one.rate_per_s for one in runs)
    return PageTable(
        "Mean latency ± standard deviation between runs, seconds",
        ("rate /s", *(f"`{name}`" if name != TABLE else name for name in names)),
        tuple(
            (f"{rate_per_s:g}", *(cell(find(runs, name, rate_per_s)) for name in names))
            for rate_per_s in rates_per_s
        ),
    )


def same_latency_rate(runs: Sequence[Run], name: str, latency_s: float) -> float | None:
    """Rate at which a policy has this latency here, log-linear between rates; None outside."""
    rows = sorted((one for one in runs if one.name == name), key=lambda one: one.rate_per_s)
    for low, high in itertools.pairwise(rows):
        if low.mean_s <= latency_s < high.mean_s:
            share = math.log(latency_s / low.mean_s) / math.log(high.mean_s / low.mean_s)
            return low.rate_per_s + share * (high.rate_per_s - low.rate_per_s)
    return None


def _same_rates(load: str) -> Callable[[Sequence[Run]], dict[str, Any]]:
    """Where Sarathi has its published latencies here."""

    def facts(runs: Sequence[Run]) -> dict[str, Any]:
        return {
            "same": {
                rate: same_latency_rate(runs, SARATHI, TWENTY_RUNS[load, rate]["Sarathi"].mean_s)
                for rate in (22.0, 23.0)
            }
        }

    return facts


LONG_WAIT = "nested-cap:thresholds=100"


LONG_NAMES = (*BASELINES, LONG_WAIT, TABLE)


def _long_claims(runs: Sequence[Run]) -> tuple[Claim, ...]:
    at = {name: find(runs, name, 4.5) for name in (VLLM, SARATHI, LONG_WAIT)}
    return (
        faster("512/1000 at 4.5/s: WAIT before Sarathi", at[LONG_WAIT], at[SARATHI]),
        faster("512/1000 at 4.5/s: Sarathi before vLLM", at[SARATHI], at[VLLM]),
    )


DISAGGREGATED_WAIT = ("wait:thresholds=6", "nested-cap:thresholds=100", "nested-cap:thresholds=180")


def savings(runs: Sequence[Run], baseline: str) -> dict[float, float]:
    """By how much the best form of WAIT is below a baseline, by rate; a share of its latency."""
    return {
        rate: 1 - best(runs, DISAGGREGATED_WAIT, rate).mean_s / find(runs, baseline, rate).mean_s
        for rate in dict.fromkeys(one.rate_per_s for one in runs)
    }


def _decode_only_claims(runs: Sequence[Run]) -> tuple[Claim, ...]:
    found = savings(runs, VLLM).values()
    least = DECODE_ONLY_SAVING[0]
    evidence = f"latency {-max(found):+.0%} to {-min(found):+.0%}"
    text = f"decode-only at 100 to 500/s: WAIT at least {least:.0%} below vLLM"
    return (at_least(text, min(found), least, 0.0, evidence),)


def _published(load: str) -> dict[float, dict[str, Latency]]:
    return {rate: found for (name, rate), found in TWENTY_RUNS.items() if name == load}


def _chat_wait() -> tuple[str, ...]:
    texts = [nested_cap(chat(), a100(), 200, segments, 0.05) for segments in (1, 5)]
    return tuple(one for one in texts if one is not None)


def _rates(first: float, last: float, step: float) -> tuple[float, ...]:
    return tuple(float(one) for one in np.arange(first, last + step / 2, step))


SINGLE_LOAD = Load(
    SINGLE,
    ("wait:thresholds=1", "wait:thresholds=2", "nested-cap:thresholds=100"),
    _rates(12, 24, 1),
    False,
    _published("single"),
    facts=_same_rates("single"),
)
TWO_LOAD = Load(
    TWO,
    ("nested-wait:thresholds=1/1", "nested-cap:thresholds=21/9", "nested-cap:thresholds=69/31"),
    _rates(12, 24, 1),
    False,
    _published("two classes"),
    facts=_same_rates("two classes"),
)
LONG_LOAD = Load(
    LONG,
    (LONG_WAIT,),
    _rates(0.5, 5, 0.5),
    True,
    LONG_DECODE,
    _long_claims,
    lambda runs: {
        "restarts": {name: find(runs, name, 4.5).restarts for name in LONG_NAMES},
        "literal_tokens": class_stages(LONG.classes[0], a100()).memory_sum,
        "capacity_tokens": a100().usable_kv_tokens,
    },
)
DECODE_ONLY_LOAD = Load(
    DECODE_ONLY,
    (*DISAGGREGATED_WAIT, FITTED_VLLM),
    _rates(100, 500, 50),
    False,
    {},
    _decode_only_claims,
    lambda runs: {
        "fitted": FITTED_VLLM,
        "savings": savings(runs, VLLM),
        "fitted_savings": savings(runs, FITTED_VLLM),
        "seats_of_memory": a100().usable_kv_tokens // a100().block_rounded(630 + 20),
    },
)


def run_chat(lab: Lab) -> ExperimentResult:
    """Real chats; their lengths are read from the examples when it runs."""
    return chat_load().run(lab)


def chat_load() -> Load:
    """Rates 10 to 150 as in the paper."""
    return Load(chat(), _chat_wait(), _rates(10, 150, 10), False, {})


SINGLE_CLASS = Experiment(
    "single-class",
    "One class, 512/20",
    "Latency over rates 12 to 24/s: WAIT stays flat longest, vLLM rises first.",
    SINGLE_LOAD.run,
    SINGLE_LOAD.draw,
)
TWO_CLASSES = Experiment(
    "two-classes",
    "Two classes, 512/20 and 512/50",
    "The same for 70 % and 30 % of the requests; WAIT with tl = 30, which is 21 and 9.",
    TWO_LOAD.run,
    TWO_LOAD.draw,
)
LONG_DECODES = Experiment(
    "long-decode",
    "Long outputs, 512/1000",
    "Latency over rates 0.5 to 5/s: WAIT below Sarathi below vLLM.",
    LONG_LOAD.run,
    LONG_LOAD.draw,
)
CHATS = Experiment(
    "chat",
    "Chat lengths",
    "Latency over rates 10 to 150/s with caps by segment (THEORY 5.3).",
    run_chat,
    lambda result: chat_load().draw(result),
)
DISAGGREGATED = Experiment(
    "decode-only",
    "Decode-only server, 630/20",
    "Prompts arrive with their KV, rates 100 to 500/s: WAIT 45 to 55 % below vLLM.",
    DECODE_ONLY_LOAD.run,
    DECODE_ONLY_LOAD.draw,
)
