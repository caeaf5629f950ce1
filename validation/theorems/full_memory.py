"""What greedy admission does once memory is full (THEORY 11)."""

from __future__ import annotations

import numpy as np

from fluid.server import Server
from fluid.steady.full_memory.stability import full_memory
from fluid.steady.stability import stability
from fluid.transient.admission import Admission
from fluid.transient.saturated import predicted_loss
from fluid.workload import Workload
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model, poisson_model
from validation.simulator.state import Lane
from validation.theorems.cases import Reader, load, paper_server, simulated, watched
from validation.theorems.estimates import at_least, between, equals, mean, points
from validation.theorems.statement import Effort, Estimate, Finding, Line, Plot, Policies, Statement

CAPACITY_TOKENS = 20_000
SERVER = paper_server(0.01, 1e-6, CAPACITY_TOKENS)

OFFERED = 1.3
"""Multiple of the largest stable load that arrives."""

FLOODS = 2.0
"""Times that the memory is filled by those who come at once at the beginning."""

SETTLED = 0.3
"""Share of a run before completions are counted."""

CYCLES = ((50, 120), (150, 100), (400, 60))
"""Prompt and output of one length each."""

MIXES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "one length": ((1, 100, 80),),
    "40 or 80": ((1, 100, 40), (1, 100, 80)),
    "80 ± 70": tuple((1, 100, output) for output in range(10, 151, 7)),
}
"""Share, prompt and output of the classes."""

WATERMARK = 0.05
CLOSE = 0.04
"""Of the limit or of a formula, by which a simulated share may differ from a predicted one."""


def eviction_cycle(effort: Effort, policies: Policies) -> Finding:
    """Completions of one length after a flood against 11.4."""
    greedy = policies["greedy"].configure({"watermark": 0.01})
    found: dict[str, Estimate] = {}
    for prompt, output in CYCLES:
        workload = load((1.0, prompt, output))
        cycle = full_memory(workload, SERVER).cycle
        assert cycle is not None
        rates = _flooded(workload, SERVER, greedy, effort)[:, 0]
        found[f"{prompt}/{output}"] = mean(rates / cycle.completed_per_s)
    measures = tuple(
        between(f"{name}: simulated ÷ formula", one, 1 - CLOSE, 1 + CLOSE)
        for name, one in found.items()
    )
    return Finding(measures, _picture("completions ÷ formula", found, np.ones(len(found))))


def no_eviction(effort: Effort, policies: Policies) -> Finding:
    """Nobody is evicted while the KV of a generation never grows; one length always is."""
    greedy = policies["greedy"].configure()
    blocks = SERVER.model_copy(update={"block_tokens": 64})
    certified = load((1.0, 10, 20), (1.0, 10, 30), (1.0, 10, 47))
    state = full_memory(certified, blocks)
    growing = load((1.0, 100, 80))
    none = _flooded(certified, blocks, greedy, effort)[:, 1]
    some = _flooded(growing, SERVER, greedy, effort, flooded=False)[:, 1]
    found = {"KV never grows": mean(none), "one length": mean(some)}
    return Finding(
        (
            equals("certificate of the first", float(state.never_increases), 1.0),
            equals("first: most evictions in a run", float(none.max()), 0.0),
            at_least("one length without a flood: evictions per request", found["one length"], 0.1),
        ),
        _picture("evictions per request", found, np.zeros(2)),
    )


def losses(effort: Effort, policies: Policies) -> Finding:
    """Completions of mixes after a flood, with a watermark, against the predicted loss."""
    greedy = policies["greedy"].configure({"watermark": WATERMARK})
    found: dict[str, Estimate] = {}
    expected, measures = [], []
    for name, classes in MIXES.items():
        workload = load(*((float(share), prompt, output) for share, prompt, output in classes))
        predicted = predicted_loss(workload, SERVER, {"here": Admission(WATERMARK)})
        assert predicted is not None
        share = 1 - predicted.rules[-1].lost_share
        rates = _flooded(workload, SERVER, greedy, effort)[:, 0]
        found[name] = mean(rates / predicted.limit_per_s)
        expected.append(share)
        measures.append(
            between(f"{name}: share of the limit", found[name], share - CLOSE, share + CLOSE)
        )
    return Finding(tuple(measures), _picture("share of the limit", found, np.array(expected)))


def _flooded(
    workload: Workload,
    server: Server,
    policy: ConfiguredPolicy,
    effort: Effort,
    flooded: bool = True,
) -> np.ndarray:
    """Completions per second once settled, and evictions per request; shape (runs, 2)."""
    limit_per_s = stability(workload, server).max_scale * workload.rate_per_s
    prompts = [one.prefill_tokens for one in workload.classes]
    flood = round(FLOODS * CAPACITY_TOKENS / min(prompts)) if flooded else 0
    offered = workload.at_rate(OFFERED * limit_per_s)
    model = poisson_model(offered, server, f"poisson:burst={flood}")
    requests = flood + effort.choose(12_000, 40_000)
    runs = effort.choose(16, 40)
    return simulated(model, policy, requests, runs, effort, _settled(model))


def _settled(model: Model) -> Reader:
    def read(lane: Lane) -> tuple[float, float]:
        arrived, end_s = watched(lane)
        requests = lane.requests[:arrived]
        begin_s = SETTLED * end_s
        done = requests["completed_at_s"]
        inside = (done > begin_s) & (done <= end_s)  # NaN, never completed, compares as False
        rate_per_s = float(inside.sum()) / (end_s - begin_s)
        return rate_per_s, float(requests["evictions"].sum()) / arrived

    return read


def _picture(label: str, found: dict[str, Estimate], expected: np.ndarray) -> Plot:
    x = np.arange(len(found), dtype=float)
    lines = (points("simulated", x, [*found.values()]), Line("stated", x, expected))
    return Plot("", label, lines, names=tuple(found))


STATEMENTS = (
    Statement(
        "full-memory-certificate",
        "11.2",
        "Where the KV of a generation never grows nobody is ever evicted, whatever comes at once; "
        "one length always ends in evictions.",
        "greedy at 1.3 α*, prompts of 10 in blocks of 64 tokens after a flood; 100/80 without one",
        no_eviction,
    ),
    Statement(
        "eviction-cycle",
        "11.4",
        "After a flood one length completes X = (C/h_{S−1}) ÷ Σ_s τ(C/h_s requests at stage s), "
        "within 4 %.",
        "greedy with 1 % watermark at 1.3 α*: 50/120, 150/100 and 400/60",
        eviction_cycle,
    ),
    Statement(
        "predicted-loss",
        "11.5",
        "After a flood a mix completes what the fluid's collapsed state says, within 4 points of "
        "the limit.",
        "greedy with 5 % watermark at 1.3 α*, prompts of 100; outputs 80, 40 or 80, 80 ± 70",
        losses,
    ),
)
