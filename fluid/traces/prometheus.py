"""Reader of a Prometheus text snapshot of a serving program, such as its ``/metrics`` page.

From the histograms of prompt and output lengths of vLLM, SGLang, TGI or Dynamo, summed over
engines. They say nothing of which prompt met which output. A second, earlier scrape is subtracted.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fluid.errors import InputError
from fluid.traces.marginals import Marginal
from fluid.traces.metrics_programs import PROGRAMS, Program, other_page, plain, program_of
from fluid.traces.scrapes import Sample, read_samples, window
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions
from fluid.traces.trace_format import TraceFormat

LOST = (
    "a snapshot has no requests: which prompt met which output is lost, and arrivals are taken as"
    " Poisson"
)
SINCE_THE_START = (
    "where no rate is given, it is the mean since the server started, idle hours included"
)
MOST_COUNTED = 1e15
"""Requests or tokens: more than a server has seen in its life, and whole in a double."""

CONTRADICTION = 0.05
"""Counters and histograms that differ by this share are told."""


_ROUNDING = 1e-9
"""Relative error of sums of weighted counts."""


@dataclass
class Histogram:
    """Sums over engines: cumulative counts by upper end, all requests, all tokens."""

    cumulative: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    count: float = 0.0
    total_tokens: float = 0.0


def _detect(head: str) -> bool:
    prefixes = "|".join(one.prefix.rstrip("_") for one in PROGRAMS)
    return re.match(rf"\s*(# (HELP|TYPE) \S|({prefixes})[:_]\w+(\{{.*\}})? \d)", head) is not None


def _open(path: Path, options: ReadOptions) -> Snapshot:
    file = str(path)
    samples = read_samples(path)
    program = page_program(samples, file)
    rate_per_s, told = _rate(samples, program, options.part)
    if options.since is not None:
        between = window(path, Path(options.since), program.prefix)
        samples = between.samples
        told = _told_of_window(between.seconds, between.by_the_files)
    require_one_model(samples, program, options.part, file)
    samples = of_model(samples, program, options.part)
    prompts, outputs = (histogram(samples, name, file) for name in (program.prompt, program.output))
    if options.since is not None:
        rate_per_s = prompts.count / between.seconds
    prompt, prompt_caveats = marginal(prompts, program.prompt, file)
    output, output_caveats = marginal(outputs, program.output, file)
    return Snapshot(
        prompt,
        output,
        requests=round(prompts.count),
        rate_per_s=rate_per_s,
        caveats=(
            LOST,
            *told,
            *prompt_caveats,
            *output_caveats,
            *_contradictions(samples, program, prompts, outputs),
        ),
    )


PROMETHEUS = TraceFormat(
    "prometheus",
    "metrics page of vLLM, SGLang, TGI or Dynamo (text)",
    _detect,
    _open,
    takes=frozenset({"part", "since"}),
)


def page_program(samples: list[Sample], file: str) -> Program:
    """Which program a page is of.

    Raises:
        InputError: One that tells no lengths of requests; names whose page it is.
    """
    program = program_of(one.plain for one in samples)
    if program is None:
        allowed = "a page with the lengths of requests, of vLLM, SGLang, TGI or Dynamo"
        raise InputError("", other_page({one.plain for one in samples}), allowed, file)
    return program


def require_one_model(
    samples: list[Sample], program: Program, model: str | None, file: str
) -> None:
    """Refuse a page of several models, and a model that is not on it.

    Raises:
        InputError: Naming the models.
    """
    names = {
        one.label(program.model) for one in samples if one.plain == plain(f"{program.prompt}_count")
    }
    listed = ", ".join(sorted(names))
    if model is not None and model not in names:
        raise InputError("part", model, f"one of the models {listed}")
    if model is None and len(names) > 1:
        raise InputError("part", "nothing", f"one of the models {listed}", file)


def of_model(samples: list[Sample], program: Program, model: str | None) -> list[Sample]:
    """The samples of one model, and those of none."""
    if model is None:
        return samples
    return [one for one in samples if one.label(program.model) in ("", model)]


def histogram(samples: list[Sample], name: str, file: str) -> Histogram:
    """A histogram of lengths, summed over all other labels.

    Raises:
        InputError: It holds no request, or values that no counter has.
    """
    found = lengths_of(samples, name, file)
    if found.count < 1:
        raise InputError(name, "no requests", "a histogram with at least one request", file)
    return found


def lengths_of(samples: list[Sample], name: str, file: str) -> Histogram:
    """The same, where it may be empty."""
    histogram = Histogram()
    for sample in samples:
        if sample.plain.startswith(plain(name)) and not 0 <= sample.value <= MOST_COUNTED:
            allowed = f"a number from 0 to {MOST_COUNTED:g}"
            raise InputError(sample.name, sample.value, allowed, file)
        if sample.plain == plain(f"{name}_bucket"):
            histogram.cumulative[_upper_end(sample, file)] += sample.value
        elif sample.plain == plain(f"{name}_count"):
            histogram.count += sample.value
        elif sample.plain == plain(f"{name}_sum"):
            histogram.total_tokens += sample.value
    return histogram


def _upper_end(sample: Sample, file: str) -> float:
    try:
        end = float(sample.label("le"))
    except ValueError:
        end = math.nan
    if not end > 0:
        allowed = "a number > 0 or +Inf as le"
        raise InputError(sample.name, str(dict(sample.labels)), allowed, file)
    return end


def marginal(histogram: Histogram, name: str, file: str) -> tuple[Marginal, list[str]]:
    """A histogram as what it says of lengths, and caveats.

    Raises:
        InputError: Its buckets, its count and its sum contradict each other.
    """
    ends = sorted(histogram.cumulative)
    counts = np.diff([histogram.cumulative[end] for end in ends], prepend=0.0)
    if (
        not ends
        or ends[-1] != np.inf
        or (counts < 0).any()
        or not math.isclose(counts.sum(), histogram.count)
    ):
        allowed = 'cumulative counts up to le="+Inf", which is the _count, equal for all engines'
        raise InputError(f"{name}_bucket", counts.tolist(), allowed, file)
    high = np.floor(ends)
    low = np.concatenate([[1.0], high[:-1] + 1])
    # The longest of all, if every other request were as short as its bucket allows.
    beyond = histogram.total_tokens - counts @ low + low[-1]
    high[-1] = max(beyond, low[-1])
    filled = counts > 0
    counts, low, high = counts[filled], low[filled], np.maximum(high, low)[filled]
    slack = _ROUNDING * histogram.total_tokens
    if not counts @ low - slack <= histogram.total_tokens <= counts @ high + slack:
        allowed = f"{counts @ low:.0f} to {counts @ high:.0f} tokens, as in the buckets"
        raise InputError(f"{name}_sum", histogram.total_tokens, allowed, file)
    caveats = []
    open_above = bool(filled[-1])
    if open_above:
        caveats.append(
            f"{counts[-1]:.0f} requests of {name} lie above the last bucket of {low[-1] - 1:.0f}"
            " tokens: only the mean bounds their length, and the intervals are wide"
        )
    mean = histogram.total_tokens / histogram.count
    return Marginal(counts / histogram.count, low, high, mean, open_above), caveats


def _rate(
    samples: list[Sample], program: Program, model: str | None
) -> tuple[float | None, list[str]]:
    """Requests per second since the start, where the samples carry the time of the scrape."""
    counts = [
        one
        for one in of_model(samples, program, model)
        if one.plain == plain(f"{program.prompt}_count")
    ]
    scraped_s = [one.scraped_s or 0.0 for one in counts]
    for name in (f"{program.prompt}_created", "process_start_time_seconds"):
        started_s = [one.value for one in samples if one.plain == plain(name)]
        if scraped_s and started_s and max(scraped_s) > min(started_s):
            requests = sum(one.value for one in counts)
            return requests / (max(scraped_s) - min(started_s)), [SINCE_THE_START]
    return None, []


def _told_of_window(seconds: float, by_the_files: bool) -> list[str]:
    clock = ", by the times of modification of the two files" if by_the_files else ""
    return [f"the rate is that of {seconds:,.4g} s between two scrapes{clock}"]


def _contradictions(
    samples: list[Sample], program: Program, prompts: Histogram, outputs: Histogram
) -> Iterator[str]:
    """Where counters of all tokens say other than the histograms of finished requests."""
    for histogram, place in ((prompts, 0), (outputs, 1)):
        counter = program.counters[place] if program.counters else ""
        counted = sum(one.value for one in samples if one.plain == plain(counter))
        listed = histogram.total_tokens
        if not counted or abs(counted - listed) <= CONTRADICTION * listed:
            continue
        evicted = sum(one.value for one in samples if one.plain == plain(program.preemptions))
        why = "tokens that the counter leaves out, such as those of a prefix cache"
        if counted > listed:
            preempted = f", of which the page counts {evicted:,.0f}" if evicted else ""
            why = (
                "requests that were aborted or are not finished, or tokens that were computed"
                f" again after an eviction{preempted}"
            )
        yield (
            f"the counter {counter} is {counted:,.0f}, but the histogram of finished requests holds"
            f" {listed:,.0f} tokens: {why}; the workload has the histogram's"
        )
