"""Reader of a Prometheus text snapshot of a vLLM server, such as its ``/metrics`` page.

From the histograms `vllm:request_prompt_tokens` and `vllm:request_generation_tokens`, summed over
engines. They say nothing of which prompt met which output.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluid.errors import InputError
from fluid.files import read_text
from fluid.traces.marginals import Marginal
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions
from fluid.traces.trace_format import TraceFormat

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

PROMPT = "vllm:request_prompt_tokens"
OUTPUT = "vllm:request_generation_tokens"
LOST = (
    "a snapshot has no requests: which prompt met which output is lost, and arrivals are taken as"
    " Poisson"
)

SINCE_THE_START = (
    "where no rate is given, it is the mean since the server started, idle hours included"
)


@dataclass
class Histogram:
    """Sums over engines: cumulative counts by upper end, all requests, all tokens."""

    cumulative: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    count: float = 0.0
    total_tokens: float = 0.0


def _detect(head: str) -> bool:
    return re.match(r"\s*(# (HELP|TYPE) \S|vllm:\w+(\{.*\})? \d)", head) is not None


def _open(path: Path, options: ReadOptions) -> Snapshot:
    file = str(path)
    samples = _samples(path)
    _require_one_model(samples, options.part, file)
    if options.part is not None:
        samples = [s for s in samples if s.labels.get("model_name", options.part) == options.part]
    prompts, outputs = (_histogram(samples, name, file) for name in (PROMPT, OUTPUT))
    prompt, prompt_caveats = _marginal(prompts, PROMPT, file)
    output, output_caveats = _marginal(outputs, OUTPUT, file)
    rate_per_s = _rate(samples, prompts.count)
    mean_rate = [] if rate_per_s is None else [SINCE_THE_START]
    return Snapshot(
        prompt,
        output,
        requests=round(prompts.count),
        rate_per_s=rate_per_s,
        caveats=(LOST, *mean_rate, *prompt_caveats, *output_caveats),
    )


PROMETHEUS = TraceFormat("prometheus", "Prometheus snapshot of vLLM (text)", _detect, _open)


def _samples(path: Path) -> list[Sample]:
    from prometheus_client.parser import text_string_to_metric_families

    text = read_text(path)
    try:
        families = text_string_to_metric_families(text)
        return [sample for family in families for sample in family.samples]
    except ValueError as error:
        raise InputError("", str(error), "Prometheus text", str(path)) from None


def _require_one_model(samples: list[Sample], model: str | None, file: str) -> None:
    names = {s.labels.get("model_name", "") for s in samples if s.name == f"{PROMPT}_count"}
    if model is not None and model not in names:
        raise InputError("part", model, f"one of the models {', '.join(sorted(names))}", file)
    if model is None and len(names) > 1:
        allowed = "one of them, named as part"
        raise InputError("model_name", ", ".join(sorted(names)), allowed, file)


def _histogram(samples: list[Sample], name: str, file: str) -> Histogram:
    histogram = Histogram()
    for sample in samples:
        if sample.name == f"{name}_bucket":
            histogram.cumulative[_upper_end(sample, file)] += sample.value
        elif sample.name == f"{name}_count":
            histogram.count += sample.value
        elif sample.name == f"{name}_sum":
            histogram.total_tokens += sample.value
    if histogram.count < 1:
        raise InputError(name, "no requests", "a histogram with at least one request", file)
    return histogram


def _upper_end(sample: Sample, file: str) -> float:
    try:
        return float(sample.labels.get("le", ""))
    except ValueError:
        allowed = "a number or +Inf as le"
        raise InputError(sample.name, str(sample.labels), allowed, file) from None


def _marginal(histogram: Histogram, name: str, file: str) -> tuple[Marginal, list[str]]:
    ends = sorted(histogram.cumulative)
    counts = np.diff([histogram.cumulative[end] for end in ends], prepend=0.0)
    if not ends or ends[-1] != np.inf or (counts < 0).any() or counts.sum() != histogram.count:
        allowed = 'cumulative counts up to le="+Inf", which is the _count, equal for all engines'
        raise InputError(f"{name}_bucket", counts.tolist(), allowed, file)
    high = np.floor(ends)
    low = np.concatenate([[1.0], high[:-1] + 1])
    # The longest of all, if every other request were as short as its bucket allows.
    beyond = histogram.total_tokens - counts @ low + low[-1]
    high[-1] = max(beyond, low[-1])
    filled = counts > 0
    counts, low, high = counts[filled], low[filled], np.maximum(high, low)[filled]
    if not counts @ low <= histogram.total_tokens <= counts @ high:
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


def _rate(samples: list[Sample], requests: float) -> float | None:
    """Requests per second since the start, where the samples carry the time of the scrape."""
    scraped_s = [float(s.timestamp or 0) for s in samples if s.name == f"{PROMPT}_count"]
    for name in (f"{PROMPT}_created", "process_start_time_seconds"):
        started_s = [float(s.value) for s in samples if s.name == name]
        if started_s and max(scraped_s) > min(started_s):
            return requests / (max(scraped_s) - min(started_s))
    return None
