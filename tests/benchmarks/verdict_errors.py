"""How often the verdict on a recording is wrong: a Markdown table of false and open verdicts.

Single recordings of 10 … 20,000 requests of each kind of arrivals, on servers with few and with
hundreds in service, bound by compute, memory or seats, or held back by the rule itself. ρ is the
rate ÷ the policy's own largest stable rate, its throughput at saturation in long runs. Arrivals of
`mmpp` stay about ten requests in a state: fluctuations slower than the recording are part of what
it says, and no verdict on it can know them. Recordings of Azure are the arrivals of windows of the
trace, each brought to its ρ by its own mean rate, with lengths drawn from the whole trace; they
need ``--azure AzureLLMInferenceTrace_conv.csv``.

Where greedy admission is metastable, between its throughput once it evicts and the fluid limit, a
recording is stable until it collapses, and no verdict on the policy is false: ``--band`` tells what
recordings there are called, by whether they have collapsed.

``--full`` takes about fifteen minutes on two cores, the default about two; ``--only TEXT`` takes
the systems of that name. ``--seed`` changes all recordings; the constants of the verdict were
chosen on other seeds and servers.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.stability import stability
from fluid.traces.registry import read_trace
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from validation.experiments.boundary_search import OVERLOAD
from validation.policies import ConfiguredPolicy, parse_policy
from validation.simulator import cpu
from validation.simulator.arrivals import parse_arrivals
from validation.simulator.backlog import Word, verdict
from validation.simulator.metrics import Replication
from validation.simulator.model import Model, poisson_model, tape_model

KINDS = ("poisson", "gamma:cv=3", "mmpp", "deterministic")
SIZES = (10, 30, 100, 300, 1_000, 2_000, 5_000, 20_000)
STABLE, UNSTABLE = (0.05, 0.3, 0.6, 0.8, 0.9, 0.95), (1.02, 1.05, 1.1, 1.3, 2.0)
STATE_REQUESTS = 10
"""Mean requests of `mmpp` before it changes state."""

LONG_SOJOURNS, LONG_REQUESTS = 50, 2_000


@dataclass(frozen=True)
class System:
    """A load on a server under a policy."""

    name: str
    workload: Workload
    server: Server
    policy: ConfiguredPolicy
    largest_per_s: float | None = None

    def model(self, kind: str, largest_per_s: float) -> Model:
        """With arrivals of this kind."""
        if kind == "mmpp":
            kind = f"mmpp:ratio=5,mean_s={STATE_REQUESTS / largest_per_s:g}"
        return poisson_model(self.workload, self.server, parse_arrivals(kind))


@dataclass(frozen=True)
class Row:
    """Verdicts on all recordings of one kind on one system."""

    system: str
    kind: str
    rho: float
    requests: int
    words: tuple[Word, ...]
    sojourns: float

    @property
    def wrong(self) -> int:
        """Verdicts on the other side."""
        return self.words.count("unstable" if self.rho < 1 else "stable")


def load(*lengths: tuple[float, int, int]) -> Workload:
    """Classes of (rate, prompt, output)."""
    classes = tuple(
        RequestClass(name=f"c{k}", rate_per_s=rate, prefill_tokens=p, decode_tokens=d)
        for k, (rate, p, d) in enumerate(lengths)
    )
    return Workload(name="verdict", classes=classes)


def affine(overhead_s: float, per_token_s: float, per_kv_token_s: float, tokens: int) -> Server:
    """A server of few constants."""
    time_s = IterationTime.affine(overhead_s, per_token_s, per_kv_token_s)
    return Server(
        name="affine",
        source="benchmark",
        kv_capacity_tokens=tokens,
        block_tokens=1,
        iteration_time=time_s,
    )


def systems() -> tuple[System, ...]:
    """Few and hundreds in service; bound by compute, seats or memory; a standing inventory."""
    a100, long_decode = load_server("a100-80gb-llama-2-7b"), load_server("paper-long-decode")
    one_token_s = 4e-5
    return (
        System(
            "one at a time", load((1, 1, 1)), affine(0.5, 0, 0, 16), parse_policy("greedy:cap=1")
        ),
        System(
            "compute, few (384/40)",
            load((1, 384, 40)),
            affine(0.009, one_token_s, 0.0, 400_000),
            parse_policy("vllm-v1"),
        ),
        System("A100, 512/20", load((1, 512, 20)), a100, parse_policy("vllm-v1")),
        System(
            "64 seats (220/190)",
            load((1, 220, 190)),
            affine(0.007, 7.5e-5, 0.0, 400_000),
            parse_policy("vllm-v1:max_num_seqs=64"),
        ),
        System(
            "compute, hundreds (100/100)",
            load((1, 100, 100)),
            affine(0.012, 6e-5, 0.0, 400_000),
            parse_policy("vllm-v1:max_num_seqs=1000"),
        ),
        System(
            "memory, 120 in service (512/600)",
            load((1, 512, 600)),
            long_decode,
            parse_policy("greedy:cap=120"),
        ),
        System(
            "held for company (WAIT, 512/20)",
            load((1, 512, 20)),
            a100,
            parse_policy("wait:thresholds=20"),
        ),
        System(
            "memory, mixed lengths",
            load((10, 512, 20), (2, 2048, 50), (1, 100, 300)),
            a100.model_copy(update={"kv_capacity_tokens": 20_000}),
            parse_policy("vllm-v1"),
        ),
    )


def largest_rate(model: Model, policy: ConfiguredPolicy, requests: int) -> float:
    """Throughput at saturation, from the second half of long runs."""
    rate_per_s = model.rate_per_s
    for _ in range(12):
        job = cpu.Job(policy, 999, 999, OVERLOAD * rate_per_s / model.rate_per_s)
        before, rate_per_s = rate_per_s, late_throughput(cpu.run(model, [job], requests)[0])
        if abs(rate_per_s / before - 1) < 1e-3:
            break
    return rate_per_s


def late_throughput(replication: Replication) -> float:
    """Completions per second over the second half of the arrivals."""
    path = replication.path[len(replication.path) // 2 :]
    done = path[:, 0] - path[:, 2]
    return float((done[-1] - done[0]) / (path[-1, 1] - path[0, 1]))


def recordings(size: int, most: int) -> int:
    """How many of them: fewer of the long ones."""
    return max(3, min(most, most * 2_000 // size))


def drawn(system: System, kind: str, largest_per_s: float, seed: int, most: int) -> Iterator[Row]:
    """Rows of generated arrivals."""
    model = system.model(kind, largest_per_s)
    usual_s = usual_sojourn_s(system, largest_per_s, seed)
    for rho in (*STABLE, *UNSTABLE):
        scale = rho * largest_per_s / model.rate_per_s
        for size in SIZES:
            jobs = [
                cpu.Job(system.policy, k, seed + size, scale) for k in range(recordings(size, most))
            ]
            done = cpu.run(model, jobs, size)
            yield row(system, kind, rho, size, done, size / (rho * largest_per_s) / usual_s)


def usual_sojourn_s(system: System, largest_per_s: float, seed: int) -> float:
    """Mean latency at ρ = 0.9, in which the length of a recording is told."""
    model = poisson_model(system.workload, system.server)
    job = cpu.Job(system.policy, 0, seed, 0.9 * largest_per_s / model.rate_per_s)
    return float(cpu.run(model, [job], 20_000)[0].mean_s[-1, 0])


def azure(file: Path, seed: int, most: int, length: int) -> Iterator[Row]:
    """Arrivals of windows of the trace, lengths of the whole.

    The largest rate is that of the same draw of lengths: along the trace itself they change, and
    its second half carries a tenth less.
    """
    trace = read_trace(file)
    times, prompts, outputs = trace.arrived_at_s, trace.num_prefill_tokens, trace.num_decode_tokens
    server = load_server("a100-80gb-llama-2-7b")
    policy = parse_policy("vllm-v1")
    rng = np.random.default_rng(seed)
    mix = rng.integers(0, len(times), length)
    drawn_lengths = Tape(np.arange(length) / trace.rate_per_s, prompts[mix], outputs[mix])
    largest_per_s = largest_rate(tape_model(drawn_lengths, server), policy, 0)
    print(f"A100, Azure rows: {largest_per_s:.4g} /s", flush=True)
    system = System("A100, Azure rows", load((1, 1, 1)), server, policy)
    for rho in (*STABLE, *UNSTABLE):
        for size in SIZES[:-1]:
            done = []
            for _ in range(recordings(size, max(4, most // 4))):
                first = int(rng.integers(0, len(times) - size))
                part = slice(first, first + size)
                mix = rng.integers(0, len(times), size)
                tape = Tape(times[part] - times[first], prompts[mix], outputs[mix])
                model = tape_model(tape, server)
                scale = rho * largest_per_s / model.rate_per_s
                done += cpu.run(model, [cpu.Job(policy, 0, 0, scale)], 0)
            yield row(system, "Azure", rho, size, done, 0.0)


def band(seed: int, most: int) -> str:
    """What recordings of a metastable policy are called, by whether they have collapsed."""
    workload, server = load((1, 512, 1_000)), load_server("paper-long-decode")
    policy, model = parse_policy("greedy:watermark=0.01"), poisson_model(workload, server)
    limit_per_s = stability(workload, server).max_scale * workload.rate_per_s
    saturated_per_s = largest_rate(model, policy, 20_000)
    lines = [
        f"greedy:watermark=0.01, 512/1000 on paper-long-decode: {saturated_per_s:.3g} /s once it "
        f"evicts, fluid limit {limit_per_s:.3g} /s",
        "",
        "| ÷ limit | requests | collapsed: unstable, stable, open | not: unstable, stable, open |",
        "|---|---|---|---|",
    ]
    for share_of_limit in (0.7, 0.8, 0.9, 0.95, 0.99):
        for size in (2_000, 20_000, 100_000):
            scale = share_of_limit * limit_per_s / model.rate_per_s
            jobs = [cpu.Job(policy, k, seed + size, scale) for k in range(5 * most)]
            words: dict[bool, Counter[Word]] = {True: Counter(), False: Counter()}
            for one in cpu.run(model, jobs, size):
                words[one.collapsed][verdict([one]).word] += 1
            cells = (
                ", ".join(str(words[had][word]) for word in ("unstable", "stable", "undecided"))
                for had in (True, False)
            )
            lines.append(f"| {share_of_limit:g} | {size:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def row(
    system: System, kind: str, rho: float, size: int, done: list[Replication], sojourns: float
) -> Row:
    """Each recording judged by itself."""
    words = tuple(verdict([one]).word for one in done)
    return Row(system.name, kind, rho, size, words, sojourns)


def summary(rows: list[Row]) -> str:
    """One line per system and kind."""
    lines = [
        "| system | arrivals | false unstable | false stable | undecided | of long Poisson |",
        "|---|---|---|---|---|---|",
    ]
    for system, kind in dict.fromkeys((one.system, one.kind) for one in rows):
        mine = [one for one in rows if (one.system, one.kind) == (system, kind)]
        lines.append(f"| {system} | {kind} | {' | '.join(figures(mine))} |")
    lines.append(f"| all | all | {' | '.join(figures(rows))} |")
    return "\n".join(lines)


def figures(rows: list[Row]) -> tuple[str, str, str, str]:
    """Errors, open verdicts, and those of the Poisson recordings that should be decided."""
    below, above = [r for r in rows if r.rho < 1], [r for r in rows if r.rho > 1]
    long = [
        one
        for one in rows
        if one.kind == "poisson"
        and one.requests >= LONG_REQUESTS
        and one.sojourns >= LONG_SOJOURNS
        and (one.rho <= 0.9 or one.rho >= 1.1)
    ]
    return (
        share(sum(r.wrong for r in below), below),
        share(sum(r.wrong for r in above), above),
        share(sum(r.words.count("undecided") for r in rows), rows),
        share(sum(r.words.count("undecided") for r in long), long),
    )


def share(count: int, rows: list[Row]) -> str:
    """Count and percentage of the recordings."""
    total = sum(len(one.words) for one in rows)
    return f"{count}/{total} ({100 * count / total:.1f} %)" if total else "–"


def by_size(rows: list[Row]) -> str:
    """Errors and open verdicts by length, all kinds of arrivals together."""
    lines = ["| requests | recordings | wrong | undecided |", "|---|---|---|---|"]
    for size in sorted({one.requests for one in rows}):
        mine = [one for one in rows if one.requests == size]
        words = Counter(word for one in mine for word in one.words)
        wrong = sum(one.wrong for one in mine)
        total = sum(words.values())
        open_share = words["undecided"] / total
        lines.append(f"| {size:,} | {total} | {100 * wrong / total:.1f} % | {open_share:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--only", action="append", metavar="TEXT", help="systems with it in name")
    parser.add_argument("--azure", type=Path, metavar="FILE", help="conversations of Azure, 2023")
    parser.add_argument("--band", action="store_true", help="only where greedy is metastable")
    arguments = parser.parse_args()
    most, length = (60, 200_000) if arguments.full else (8, 40_000)
    if arguments.band:
        print(band(arguments.seed, most))
        return
    begun = time.perf_counter()
    rows: list[Row] = []
    for system in systems():
        if arguments.only and not any(text in system.name for text in arguments.only):
            continue
        model = poisson_model(system.workload, system.server)
        largest_per_s = largest_rate(model, system.policy, length)
        for kind in KINDS:
            rows += drawn(system, kind, largest_per_s, arguments.seed, most)
        seconds = time.perf_counter() - begun
        print(f"{system.name}: {largest_per_s:.4g} /s, {seconds:.0f} s", flush=True)
    if arguments.azure:
        rows += azure(arguments.azure, arguments.seed, most, length)
    print(summary(rows), by_size(rows), sep="\n\n")


if __name__ == "__main__":
    main()
