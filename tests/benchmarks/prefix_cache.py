"""The fluid model of a prefix cache against simulation: hits, iteration time, α*, two states.

    python -m tests.benchmarks.prefix_cache [CASE …] [--scale N] [--trace FILE.jsonl]

Servers are so many times as large and fast as that of THEORY 10.6 and at as many times the rate,
by case: the fluid limit without the noise of a small server (`--scale` for another size). The fluid
model is asked at the rates that the simulated run had. A case's α* is bracketed by the nearest
steps of 3 % that are held, and are not.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import fluidwait as fw
from fluid.cache.recorded import recorded_states
from fluid.cache.states import cache_states
from fluid.server import Server
from fluid.traces.registry import read_trace
from fluid.workload import Workload
from tests.support.cache_simulator import Outcome, arrivals, flood, simulate, tape_arrivals

SCALE = 3.0
LEAST_S = 400.0
LOAD = 0.85
"""Of α*, where hits and iteration times are compared."""

LONGEST = 8
"""Settling times of a run at the limit: just above it memory fills slowly."""

LARGE = {"think fixed 8 s": 96.0, "think 0": 24.0, "think fixed 15 s, few": 24.0}
"""Sizes of servers where noise decides: a crowd that comes back together stays together."""

WATERMARKS = {"think fixed 15 s, few": 0.15}
"""Kept free where a crowd would overflow the memory: who is put back computes its prompt again,
which the model does not count."""

HELD = 0.98
"""Share of the turns asked for that come: a queue, or what is lost with the hits, holds them up."""

SUMMARY = Path(__file__).parents[1] / "data" / "mooncake-conversation-summary.json"


def server(scale: float) -> Server:
    """The server of THEORY 10.6, so many times as large."""
    tau = fw.IterationTime.affine(10.6e-3, 45e-6 / scale, 0.26e-6 / scale)
    tokens = round(137_000 * scale)
    return Server(
        name="example", source="THEORY 10.6", kv_capacity_tokens=tokens, iteration_time=tau
    )


def talk(
    rate: float,
    think_s: float,
    *,
    turns: float | dict[int, float] = 5.0,
    new: int = 200,
    output: int = 200,
    law: str = "exponential",
    shared: int = 0,
) -> fw.Requests:
    """A class of conversations."""
    how = fw.Conversation(
        turns=turns,
        think_time_s=think_s,
        new_tokens=new,
        think_time_law=law,  # type: ignore[arg-type]
    )
    return fw.Requests(rate, 0, output, shared_prefix=shared, conversation=how)


def cases() -> dict[str, Workload]:
    """Workloads by name, at rates of a server of scale 1."""
    weights = [k**-0.8 for k in range(1, 201)]
    prompts = {
        f"p{k}": fw.Requests(8 * weight / sum(weights), 1200, 100, shared_prefix=1000)
        for k, weight in enumerate(weights)
    }
    plain = fw.Requests(1.5, 1500, 150)
    short = {1: 0.5, 4: 0.3, 10: 0.2}
    found = {
        "200 system prompts": prompts,
        "one system prompt": {"chat": fw.Requests(10.0, 2300, 150, shared_prefix=2000)},
        "system prompt, plain": {
            "chat": fw.Requests(5.0, 1800, 150, shared_prefix=1500),
            "plain": plain,
        },
        "think exp 20 s": {"talk": talk(3.8, 20.0)},
        "think exp 30 s, prompt": {"talk": talk(2.0, 30.0, turns=4.0, new=100, shared=1000)},
        "think exp 5 s": {"talk": talk(4.3, 5.0)},
        "think fixed 8 s": {"talk": talk(3.8, 8.0, law="fixed")},
        "think fixed 15 s, few": {"talk": talk(4.0, 15.0, turns=short, new=150, law="fixed")},
        "think 0": {"agent": talk(5.0, 0.0, turns=10.0, new=300, output=100)},
        "think exp 10 s, plain": {"talk": talk(2.5, 10.0), "plain": plain},
    }
    return {name: Workload.of(name, **classes) for name, classes in found.items()}


def run(
    load: Workload,
    rate_factor: float,
    horizon_s: float,
    warm_up_s: float,
    scale: float = SCALE,
    watermark: float = 0.0,
) -> Outcome:
    """One simulation from empty."""
    coming = arrivals(load.scaled(scale * rate_factor), random.Random(1), horizon_s)
    most_waiting = 1000 * scale
    return simulate(
        coming,
        server(scale),
        horizon_s,
        warm_up_s=warm_up_s,
        seed=2,
        most_waiting=most_waiting,
        watermark_fraction=watermark,
    )


def as_it_came(load: Workload, seen: Outcome) -> Workload:
    """The workload at the rates of a run."""
    classes = [
        one.model_copy(update={"rate_per_s": seen.turns_per_s[one.name]})
        for one in load.classes
        if seen.turns_per_s.get(one.name)
    ]
    return load.model_copy(update={"classes": tuple(classes)})


def settling_s(load: Workload) -> float:
    """Seconds until conversations of all lengths are there: seven times one of mean length."""
    talks = [one.conversation for one in load.classes if one.conversation]
    longest = max((float(one.mean_turns) * (one.think_time_s + 6) for one in talks), default=0.0)
    return max(LEAST_S, 7 * longest)


def edge(load: Workload, max_scale: float, scale: float) -> tuple[float, float]:
    """Largest multiple of α* in steps of 3 % that is held, and the next one; same draws in all."""
    horizon_s = (LONGEST if scale <= SCALE else 3) * settling_s(load)

    def held(share: float) -> bool:
        seen = run(load, share * max_scale, horizon_s, horizon_s / 2, scale)
        asked = scale * share * max_scale * load.rate_per_s
        return seen.stable and sum(seen.turns_per_s.values()) > HELD * asked

    low, high = 0.97, 1.03
    if held(low):
        while held(high) and high < 1.2:
            low, high = high, high + 0.03
        return low, high
    high = low
    while low > 0.7:
        low -= 0.03
        if held(low):
            break
        high = low
    return low, high


def compare(name: str, load: Workload, scale: float, watermark: float) -> str:
    """A row of the table."""
    start = time.process_time()
    alone = cache_states(load.scaled(scale), server(scale))
    warm_up_s = settling_s(load)
    seen = run(load, LOAD * alone.max_scale, 4 * warm_up_s, warm_up_s, scale, watermark)
    here = cache_states(as_it_came(load, seen), server(scale)).from_empty
    assert here is not None
    low, high = edge(load, alone.max_scale, scale)
    gap = 100 * (here.iteration_s / seen.iteration_s - 1)
    return (
        f"| {name} | {scale:g} | {100 * here.hit_share:.1f} | {100 * seen.hit_share:.1f} | "
        f"{100 * (here.hit_share - seen.hit_share):+.1f} | {1e3 * here.iteration_s:.2f} | "
        f"{1e3 * seen.iteration_s:.2f} | {gap:+.1f} | {100 * seen.again_share:.1f} | "
        f"{load.rate_per_s * alone.max_scale:.2f} | "
        f"{low:.2f}–{high:.2f} | {time.process_time() - start:.0f} |"
    )


def mooncake(trace: Path) -> str:
    """The trace replayed, and the fluid model with the hit curve of its committed summary."""
    summary = json.loads(SUMMARY.read_text())
    load = Workload.from_document(summary["workload"])
    big = Server(
        name="big",
        source="an example",
        kv_capacity_tokens=summary["example_server"]["kv_capacity_tokens"],
        iteration_time=fw.IterationTime.affine(10.6e-3, 12e-6, 0.002e-6),
    )
    tape = read_trace(trace)
    seen = simulate(tape_arrivals(tape), big, float(tape.arrived_at_s[-1]))
    curve = [(one["cache_tokens"], one["share"]) for one in summary["hit_curve"]]
    state = recorded_states(load, big, curve)[0]
    gap = 100 * (state.iteration_time_s / seen.iteration_s - 1)
    return (
        f"| Mooncake conversations | – | {100 * state.hit_share:.1f} | "
        f"{100 * seen.hit_share:.1f} | {100 * (state.hit_share - seen.hit_share):+.1f} | "
        f"{1e3 * state.iteration_time_s:.2f} | "
        f"{1e3 * seen.iteration_s:.2f} | {gap:+.1f} | {100 * seen.again_share:.1f} | – | – | – |"
    )


def two_states() -> str:
    """Case (c) at 5.0/s from empty and after a flood."""
    load = Workload.of(talk=talk(5.0, 5.0))
    empty = run(load, 1.0, 3000.0, 1500.0)
    scaled = load.scaled(SCALE)
    flooded = simulate(
        arrivals(scaled, random.Random(1), 3000.0),
        server(SCALE),
        3000.0,
        warm_up_s=1500.0,
        flooded=flood(scaled.classes[0], round(1500 * SCALE)),
    )
    waiting = flooded.waiting
    return (
        f"Think time 5 s, 5.0/s: from empty {100 * empty.hit_share:.0f} % found; after a flood "
        f"{100 * flooded.hit_share:.0f} %, {waiting[len(waiting) // 2]} waiting after 1,500 s and "
        f"{waiting[-1]} after 3,000 s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--scale", type=float, help="size of every server in place of its own")
    parser.add_argument("--watermark", type=float, help="kept free in place of its own share")
    parser.add_argument("--trace", type=Path)
    given = parser.parse_args()
    columns = ("workload", "size", "found %", "sim.", "diff.", "ΔT* ms", "sim.", "diff. %")
    print("| " + " | ".join((*columns, "again %", "α*λ /s", "sim. ÷ α*", "s")) + " |")
    print("|---" * 12 + "|")
    for name, load in cases().items():
        if not given.cases or name in given.cases:
            scale = given.scale or LARGE.get(name, SCALE)
            own = WATERMARKS.get(name, 0.0) if given.watermark is None else given.watermark
            print(compare(name, load, scale, own), flush=True)
    if given.trace:
        print(mooncake(given.trace), flush=True)
    if not given.cases:
        print(two_states())


if __name__ == "__main__":
    main()
