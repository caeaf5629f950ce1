"""Public measurements beside what the toolkit says of the same server and load.

Prints the table of docs/public-measurements.md, or writes that page with ``--write``. Seconds.
The servers lie in `tests/data/public`, each with what it was made from.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server, load_server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from tests.support.finite_job import simulated
from thresholds.export.engines import ENGINES
from thresholds.solvers.paced.solver import Paced

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ROOT / "tests" / "data" / "public"
PAGE = ROOT / "docs" / "public-measurements.md"
TEMPLATE = Path(__file__).with_name("public_measurements.md.jinja")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, and what the toolkit says.

    Attributes:
        measured, said: The figure; None where the report or the toolkit has words only.
        words: In place of figures: what was measured, what the toolkit says.
        digits: Digits after the point.
        half_width: Of the 95 % interval of what the toolkit says, over drawn lengths.
    """

    quantity: str
    measured: float | None = None
    said: float | None = None
    digits: int = 2
    half_width: float | None = None
    words: tuple[str, str] = ("", "")

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Quantity, measured, the toolkit, difference."""
        if self.measured is None or self.said is None:
            return (self.quantity, *self.words, "")
        measured, said = f"{self.measured:,.{self.digits}f}", f"{self.said:,.{self.digits}f}"
        if self.half_width is not None:
            said += f" ± {self.half_width:,.{self.digits}f}"
        if self.measured == 0:
            return self.quantity, measured, said, ""
        return self.quantity, measured, said, f"{100 * (self.said / self.measured - 1):+.0f} %"


def server_of(name: str) -> Server:
    """One of `tests/data/public`."""
    return load_server(str(SERVERS / f"{name}.json"))


def uniform(rng: np.random.Generator, least: int, most: int, requests: int) -> Ints:
    """Lengths from `least` to `most` tokens."""
    return rng.integers(least, most + 1, requests)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval."""
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5)


def watermarks() -> Iterator[Row]:
    """450 requests by 128 clients: whoever is the 129th waits outside, as in the queue."""
    measured = {
        0: (1065, 2.306),
        2: (400, 2.416),
        5: (187, 2.423),
        10: (168, 2.356),
        15: (168, 2.317),
    }
    requests, server = 450, server_of("gb200-qwen-7b")
    for percent, (preemptions, rate_per_s) in measured.items():
        policy = f"vllm-v1:max_num_batched_tokens=8192,max_num_seqs=128,watermark={percent / 100}"
        evictions, rates = [], []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            prompts = uniform(rng, 800, 1200, requests)
            path = simulated(server, policy, prompts, uniform(rng, 4000, 6000, requests))
            evictions.append(path.evictions.mean())
            rates.append(requests / path.makespan_s)
        (per_request, width), (rate, rate_width) = spread(evictions), spread(rates)
        yield Row(
            f"evictions per request, watermark {percent} %",
            preemptions / requests,
            per_request,
            half_width=width,
        )
        yield Row(f"requests/s, watermark {percent} %", rate_per_s, rate, half_width=rate_width)


MIXES = {
    "1:1": (3.387, ((10, 1600, 10, 1600),)),
    "2:1": (3.650, ((10, 2133, 10, 1066),)),
    "1:2": (2.969, ((10, 1066, 10, 2133),)),
    "2:1, then 1:2": (3.137, ((10, 2133, 10, 1066), (10, 1066, 10, 2133))),
}


def saturated(mix: str, watermark: float) -> tuple[float, float]:
    """Completions per second of the middle of 4,000 requests; evictions per request."""
    rng = np.random.default_rng(0)
    halves = MIXES[mix][1]
    lengths = [
        (uniform(rng, *one[:2], 4000 // len(halves)), uniform(rng, *one[2:], 4000 // len(halves)))
        for one in halves
    ]
    prompts, outputs = (np.concatenate(one) for one in zip(*lengths, strict=True))
    policy = f"vllm-v1:max_num_batched_tokens=512,watermark={watermark}"
    path = simulated(server_of("a100-llama-3-8b"), policy, prompts, outputs)
    done_s = np.sort(path.completed_at_s)
    return float(3200 / (done_s[3600] - done_s[400])), float(path.evictions.mean())


def mixes() -> Iterator[Row]:
    """Uniform lengths on an A100; the server's times come from the same report."""
    for mix, (measured, _) in MIXES.items():
        rate, evictions = saturated(mix, 0.0)
        calm, _ = saturated(mix, 0.02)
        yield Row(f"requests/s, {mix}, {evictions:.2f} evictions per request", measured, rate, 3)
        yield Row(f"requests/s, {mix}, with a watermark that avoids evictions", measured, calm, 3)
    one, _ = saturated("1:1", 0.02)
    yield Row("requests/s, 1:1, eight servers (with that watermark)", 26.710, 8 * one, 2)


def seats() -> Iterator[Row]:
    """5,000 requests by 256 clients, and the seats that the export sets."""
    server, requests = server_of("a10g-qwen-7b"), 5000
    load = Workload.read(SERVERS / "a10g-job.yaml")
    job = load.classes[0]
    prompts = np.full(requests, job.prefill_tokens)
    outputs = np.full(requests, job.decode_tokens)
    path = simulated(server, "vllm-v1:max_num_seqs=256", prompts, outputs)
    middle = slice(len(path.clock_s) // 5, 4 * len(path.clock_s) // 5)
    in_service = float(path.in_service[middle].mean())
    yield Row("evictions per request, 256 seats", 480 / requests, path.evictions.mean(), 3)
    yield Row("requests in service", 72, in_service, 0)
    waiting_s = (256 - in_service) * path.makespan_s / requests
    yield Row("TTFT in s, median measured, mean of the toolkit", 60, waiting_s, 0)
    exported = ENGINES["vllm"].configure(Paced().solve(load, server), flags_only=True)
    told = {one.name: int(one.value) for one in exported.flags if one.name == "max-num-seqs"}
    fewer = simulated(server, f"vllm-v1:max_num_seqs={told['max-num-seqs']}", prompts, outputs)
    gain, evicted = path.makespan_s / fewer.makespan_s - 1, fewer.evictions.sum()
    said = f"{told['max-num-seqs']}: {evicted} evictions, {gain:+.0%} requests/s"
    yield Row("seats that the memory holds", words=("70 to 80, the report says", said))


def long_prompts() -> Iterator[Row]:
    """100 prompts of 40,000 tokens at once, in chunks of 8,192; the log's lines are 10 s apart."""
    policy = "vllm-v1:max_num_batched_tokens=8192,max_num_seqs=1024"
    server = server_of("qwen3-235b-tp8")
    path = simulated(server, policy, np.full(100, 40_000), np.full(100, 1000))
    # The first line has 10 in service: the tenth prompt is half computed on average.
    end_s = 9.5 * 40_000 / 24_000
    for index, measured in enumerate((18.1, 35.4, 52.6, 69.6, 83.7)):
        said = path.decoded_per_s(end_s - 10 + 10 * index, end_s + 10 * index)
        yield Row(f"decoded tokens/s, {10 + 6 * index} in service", measured, said, 1)


def admitted_by_the_chunk() -> Iterator[Row]:
    """Four prompts fill 90 % of the cache; the fifth is admitted by its first chunk, or not."""
    server, requests = server_of("four-long-prompts"), 60
    paths = {
        whole: simulated(
            server,
            f"vllm-v1:max_num_batched_tokens=8192,reserve_full_prompt={whole}",
            np.full(requests, 100_000),
            np.full(requests, 1000),
        )
        for whole in (0, 1)
    }
    chunk_s = float(server.iteration_time.token_seconds(8192))
    yield Row("decoded tokens/s while chunks are computed, at worst", 1.5, 4 / chunk_s, 1)
    by_chunk, reserved = (requests * 1000 / paths[whole].makespan_s for whole in (0, 1))
    evictions = [paths[whole].evictions.mean() for whole in (0, 1)]
    yield Row(
        "admitted by the first chunk, against the whole prompt",
        words=(
            "cycles of preemption, against none",
            f"{evictions[0]:.0f} evictions per request and {by_chunk:.0f} tokens/s, against "
            f"{evictions[1]:.0f} and {reserved:.0f}",
        ),
    )


def prompts_bind() -> Iterator[Row]:
    """A Poisson stream above what the prompts allow: queues at a third of the cache."""
    server, requests, rate_per_s = server_of("h100-prompts"), 3000, 8.0
    policy = "vllm-v1:max_num_batched_tokens=65000,max_num_seqs=1024"
    times_s = np.cumsum(np.random.default_rng(0).exponential(1 / rate_per_s, requests))
    for outputs, measured in ((2, 20), (200, 60)):
        lengths = np.full(requests, 6000), np.full(requests, outputs)
        path = simulated(server, policy, *lengths, times_s)
        late = (path.clock_s > times_s[-1] / 2) & (path.clock_s < times_s[-1])
        in_service = float(path.in_service[late].mean())
        yield Row(f"in service, 6,000 + {outputs} tokens, queue growing", measured, in_service, 0)


def prompts_bind_at_a_sixth() -> Iterator[Row]:
    """1,000 + 250 tokens; server and model are not told: the built-in A100 stands in."""
    server = load_server("a100-80gb-llama-2-7b")
    one = RequestClass(name="one", rate_per_s=1.0, prefill_tokens=1000, decode_tokens=250)
    load = Workload(name="one", classes=(one,))
    limit = equilibrium(load, server)
    shares = {
        percent: equilibrium(load.scaled(percent / 100 * limit.max_scale), server)
        for percent in (50, 60, 70, 80, 90)
    }
    held = ", ".join(
        f"{(found.kv_tokens or 0) / server.usable_kv_tokens:.0%} at {percent} %"
        for percent, found in shares.items()
    )
    yield Row(
        "KV in use while requests queue and are dropped, 1,000 + 250 tokens",
        words=("16.2 %", f"{limit.binding} binds; KV in use by load: {held}"),
    )


def one_decoder_and_two_prompts() -> Iterator[Row]:
    """One client decodes; after 10 s two prompts of 72,000 tokens come, in chunks of 8,192."""
    path = simulated(
        server_of("dgx-spark"),
        "vllm-v1:max_num_batched_tokens=8192",
        np.array([500, 72_000, 72_000]),
        np.array([6000, 200, 200]),
        np.array([0.0, 10.0, 10.0]),
    )
    end_s = float(path.first_token_at_s[2])
    within = (path.clock_s > 10) & (path.clock_s < end_s)
    yield Row("tokens/s of the decoder meanwhile", 0.2, within.sum() / (end_s - 10), 2)
    yield Row("seconds until both prompts are computed", 110, end_s - 10, 0)


@dataclass(frozen=True)
class Report:
    """A public report, and the rows made from it."""

    name: str
    where: str
    rows: Callable[[], Iterator[Row]]


REPORTS = (
    Report("watermarks", "vllm-project/vllm 44594", watermarks),
    Report("mixes", "arXiv 2605.04595", mixes),
    Report("seats", "Tandemn-Labs/tandemn-system 11", seats),
    Report("long-prompts", "vllm-project/vllm 37307, its log", long_prompts),
    Report("by-chunk", "vllm-project/vllm 37307, its purpose", admitted_by_the_chunk),
    Report("prompts-bind", "llm-d/llm-d-autoscaling 662", prompts_bind),
    Report("a-sixth", "llm-d/llm-d-autoscaling 1500", prompts_bind_at_a_sixth),
    Report("decoder", "blazux/qwen3.8-Flash-DGX 9", one_decoder_and_two_prompts),
)


@functools.cache
def rows_of(report: Report) -> tuple[Row, ...]:
    """The rows, simulated once."""
    return tuple(report.rows())


def table_of(report: Report) -> str:
    """The rows of a report as a table of the page."""
    lines = ["| measured quantity | measured | the toolkit | difference |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row.cells) + " |" for row in rows_of(report)]
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or write the page."""
    import jinja2

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name}")
    write = parser.parse_args().write
    tables = {report.name: table_of(report) for report in REPORTS}
    if write:
        where = {report.name: report.where for report in REPORTS}
        page = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
        text = page.from_string(TEMPLATE.read_text(encoding="utf-8"))
        PAGE.write_text(text.render(tables=tables, where=where), encoding="utf-8")
        return
    for report in REPORTS:
        print(f"\n{report.where}\n{tables[report.name]}")


if __name__ == "__main__":
    main()
