"""`watch` on metrics of the simulator: are its rates right, its times, and does it keep still?

    python -m tests.benchmarks.live_metrics [--runs 100] [--hours 100]

The true server is the file's with each of its three coefficients multiplied by 0.7 to 1.4, at
random; `watch` knows the file. Rates: that of the last second against the 95 % interval. TPOT: mean
between tokens over the third of the windows with the fewest, middling and most tokens per second,
measured against what the learned coefficients say of these windows. α* is that of the whole answer,
far beyond the states that were visited.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluid.server import Server
from fluid.steady.stability import stability
from fluid.workload import RatePiece, Requests, Workload
from tests.support.metrics_page import SimulatedEngine
from validation.live.seen import Seen
from validation.live.speed import scaled
from validation.live.step import Step
from validation.live.watcher import Watcher

FILE = Server.named("engine-long-decode")
LOAD = Workload.of(
    "live", chat=Requests(1.7, prompt=512, output=120), code=Requests(0.3, prompt=2048, output=250)
)
INTERVAL_S = {"step": 15.0, "ramp": 15.0, "daily wave": 120.0}
MINUTES = 12


def profiles() -> dict[str, list[tuple[float, float]]]:
    """(start, multiplier) of a step half-way, a ramp, and six hours of a daily wave."""
    minutes = np.arange(MINUTES)
    quarters = np.arange(0, 6 * 3600, 300)
    wave = 1.2 + 0.8 * np.sin(2 * np.pi * quarters / 86_400 - 0.6)
    return {
        "step": [(0.0, 1.0), (MINUTES * 30.0, 2.0)],
        "ramp": [(60.0 * k, 1 + 1.5 * k / MINUTES) for k in minutes],
        "daily wave": list(zip(quarters.tolist(), wave.tolist(), strict=True)),
    }


def loaded(pieces: list[tuple[float, float]]) -> Workload:
    """The load with a rate profile."""
    profile = tuple(RatePiece(start_s=start, multiplier=factor) for start, factor in pieces)
    return LOAD.model_copy(update={"rate_profile": profile})


@dataclass(frozen=True)
class Run:
    """Whether the rate lies in its interval, errors of TPOT by thirds, and factors learned.

    `scale_error` is that of α* against the true load on the true server.
    """

    inside: bool
    errors: list[float]
    scale_error: float
    factors: tuple[float, ...]
    unexcited: tuple[str, ...]


def run(name: str, seed: int) -> Run:
    """One run of a profile."""
    pieces = profiles()[name]
    rng = np.random.default_rng(seed)
    truth = scaled(FILE.iteration_time, tuple(rng.uniform(0.7, 1.4, 3)))
    server = FILE.model_copy(update={"iteration_time": truth})
    # One piece more of the last rate: the simulator stops at four fifths of the arrivals.
    end_s = pieces[-1][0] + (pieces[-1][0] - pieces[-2][0])
    mean = float(np.mean([factor for _, factor in pieces]))
    requests = int(1.4 * LOAD.rate_per_s * mean * end_s) + 200
    engine = SimulatedEngine.run(loaded(pieces), server, requests, seed)
    watcher, steps = watched(engine, INTERVAL_S[name], min(end_s, engine.end_s))
    last = steps[-1]
    assert last.load is not None
    at_s = last.at_s - steps[0].at_s
    rate = LOAD.rate_per_s * [factor for start, factor in pieces if start < at_s][-1]
    inside = bool(last.load.rate_per_s.low <= rate <= last.load.rate_per_s.high)
    speed = watcher._speed.speed()
    assert last.answer is not None
    scale = stability(LOAD.at_rate(rate), server).max_scale
    error = last.answer.stability.max_scale / scale - 1
    return Run(inside, list(errors(watcher, steps)), error, speed.factors, speed.unexcited)


def watched(engine: SimulatedEngine, interval_s: float, end_s: float) -> tuple[Watcher, list[Step]]:
    """All steps up to a time."""
    with tempfile.TemporaryDirectory() as folder:
        watcher = Watcher(FILE, Path(folder) / "table.json", dry_run=True)
        steps = [
            watcher.step(one)
            for one in engine.scrapes(interval_s, interval_s)
            if one.at_s - engine.started_at_s <= end_s
        ]
    return watcher, steps


def errors(watcher: Watcher, steps: list[Step]) -> Iterator[float]:
    """Relative error of the mean TPOT in each third of the windows, by tokens per second."""
    seen = [one.seen for one in steps if one.seen is not None and one.seen.gap_count >= 200]
    load = steps[-1].load
    assert load is not None
    seen.sort(key=lambda one: one.gap_count / one.seconds)
    for part in np.array_split(np.arange(len(seen)), 3):
        windows = [seen[k] for k in part]
        said = sum(one.gap_count * _predicted_s(watcher, one, steps) for one in windows)
        yield said / sum(one.gap_sum_s for one in windows) - 1


def _predicted_s(watcher: Watcher, seen: Seen, steps: list[Step]) -> float:
    load = steps[-1].load
    assert load is not None
    found = watcher._speed.predicted_tpot_s(
        seen, load.prompt_tokens.value, load.kv_per_decode_token
    )
    assert found is not None
    return found


def false_changes(hours: float, interval_s: float = 120.0) -> tuple[int, float]:
    """New tables after the first, and hours simulated, on a constant load in runs of 10 hours."""
    changes, done_h, seed = 0, 0.0, 0
    while done_h < hours:
        spell_h = min(10.0, hours - done_h)
        engine = SimulatedEngine.run(LOAD, FILE, int(LOAD.rate_per_s * spell_h * 4500) + 200, seed)
        _, steps = watched(engine, interval_s, spell_h * 3600)
        changes += sum(one.status in ("would write", "kept") for one in steps) - 1
        done_h, seed = done_h + spell_h, seed + 1
    return changes, done_h


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--hours", type=float, default=100.0)
    given = parser.parse_args()
    names = list(profiles())
    by_name: dict[str, list[Run]] = {name: [] for name in names}
    for seed in range(given.runs):
        name = names[seed % len(names)]
        by_name[name].append(run(name, seed))
        print(name, seed, by_name[name][-1], file=sys.stderr, flush=True)
    columns = ("traffic", "runs", "rate in its interval", "TPOT, largest error", "median")
    print("| " + " | ".join((*columns, "α*, largest error", "unexcited")) + " |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in by_name.items():
        if not runs:
            continue
        worst = [max(map(abs, one.errors)) for one in runs]
        unexcited = sorted({part for one in runs for part in one.unexcited})
        print(
            f"| {name} | {len(runs)} | {sum(one.inside for one in runs)} | {max(worst):.1%} |"
            f" {np.median(worst):.1%} | {max(abs(one.scale_error) for one in runs):.0%} |"
            f" {', '.join(unexcited) or 'none'} |"
        )
    within = sum(max(map(abs, one.errors)) <= 0.05 for runs in by_name.values() for one in runs)
    inside = sum(one.inside for runs in by_name.values() for one in runs)
    print(f"\nRates inside: {inside} of {given.runs}; TPOT within 5 %: {within} of {given.runs}.")
    changes, hours = false_changes(given.hours)
    print(f"Changes on a constant load: {changes} in {hours:g} simulated hours.")


if __name__ == "__main__":
    main()
