"""Reader of guidellm reports (``benchmarks.json``), of one of their benchmarks.

Per request: `request_start_time` (`start_time` up to version 0.3), `prompt_tokens` and
`output_tokens`. Requests that are listed as errored, or as incomplete when time was up, are failed.
A report may list a sample of its requests or none, as `request_totals` tells; then its `metrics`
give means, deviations and percentiles of the lengths, and the rate of completions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.traces.documents import RequestRows, json_events
from fluid.traces.length_summary import LengthSummary, requests_and_rate, summary_snapshot
from fluid.traces.parts import part_number, require_part
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

BENCHMARK = "benchmarks.item"
LISTS = ("successful", "incomplete", "errored")
STARTS = ("request_start_time", "start_time")
TOTALS = ("metrics.request_totals.successful", "request_totals.successful")
STRATEGY = ("config.strategy.", "args.strategy.")
LENGTHS = {"prompt": "metrics.prompt_token_count.", "output": "metrics.output_token_count."}
RATE = "metrics.requests_per_second.successful.mean"
PERCENTILES = {
    "min": 0.0,
    **{f"percentiles.p{digits}": float(f"0.{digits}") for digits in ("001", "01", "05", "10")},
    **{f"percentiles.p{digits}": float(f"0.{digits}") for digits in ("25", "50", "75", "90")},
    **{f"percentiles.p{digits}": float(f"0.{digits}") for digits in ("95", "99", "999")},
    "max": 1.0,
}
_PACED_BY_THE_SERVER = ("synchronous", "concurrent", "throughput")


@dataclass
class Benchmark:
    """One benchmark of a report: its listed requests, and single figures by where they are."""

    requests: RequestRows = field(default_factory=RequestRows)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> int:
        """How many requests succeeded, by its own count."""
        listed = self.requests.failures.count("")
        counts = [self.figures[one] for one in TOTALS if isinstance(self.figures.get(one), int)]
        return counts[0] if counts else listed

    @property
    def strategy(self) -> dict[str, Any]:
        """How the client sent requests: `type_`, and `rate` or `streams`."""
        return {
            name: self.figures[place + name]
            for place in STRATEGY
            for name in ("type_", "rate", "streams", "max_concurrency")
            if place + name in self.figures
        }

    @property
    def told(self) -> str:
        """The benchmark in a few words."""
        kind, rate = self.strategy.get("type_", "?"), self.strategy.get("rate")
        pace = f"{kind} at {rate} /s" if rate is not None else str(kind)
        return f"{pace}, {self.succeeded} requests"


def _detect(head: str) -> bool:
    named = ('"guidellm_version"', '"generative_benchmark"', '"benchmarks"')
    return head.lstrip().startswith("{") and any(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Trace | Snapshot:
    file = str(path)
    number = part_number(options.part)
    benchmarks = _benchmarks(path, number or 1)
    if not benchmarks:
        raise InputError("benchmarks", "nothing", "at least one benchmark", file)
    require_part(number, [one.told for one in benchmarks], file)
    chosen = benchmarks[(number or 1) - 1]
    listed = chosen.requests.failures.count("")
    if listed < chosen.succeeded:
        return _snapshot(chosen, listed, file)
    return Trace(chosen.requests.chunks(options, file), said=tuple(_paced(chosen)))


GUIDELLM = TraceFormat(
    "guidellm", "guidellm report (JSON)", _detect, _open, takes=frozenset({"part"})
)


def _benchmarks(path: Path, number: int) -> list[Benchmark]:
    """All benchmarks, with the requests of one of them."""
    benchmarks: list[Benchmark] = []
    request: dict[str, Any] = {}
    for place, event, value in json_events(path):
        if place == BENCHMARK:
            if event == "start_map":
                benchmarks.append(Benchmark())
            continue
        if not benchmarks or not place.startswith(f"{BENCHMARK}."):
            continue
        inside = place.removeprefix(f"{BENCHMARK}.")
        if not inside.startswith("requests."):
            if event in ("number", "string", "null") and _is_figure(inside):
                benchmarks[-1].figures[inside] = value
        elif len(benchmarks) == number:
            kind, _, rest = inside.removeprefix("requests.").partition(".item")
            if event == "end_map" and not rest and kind in LISTS:
                _append(benchmarks[-1].requests, request, kind)
                request = {}
            elif rest.count(".") == 1:
                request[rest.removeprefix(".")] = value
    return benchmarks


def _is_figure(place: str) -> bool:
    return place in TOTALS or place.startswith(("metrics.", *STRATEGY))


def _append(requests: RequestRows, request: dict[str, Any], kind: str) -> None:
    failure = None if kind == "successful" else kind
    place = f"{kind} request {len(requests.places) + 1}"
    requests.append(place, request.get("prompt_tokens"), request.get("output_tokens"), failure)
    requests.starts_s.append(next((request[one] for one in STARTS if one in request), None))


def _snapshot(benchmark: Benchmark, listed: int, file: str) -> Snapshot:
    """The load of a report whose list of requests is a sample, or empty."""
    figures = benchmark.figures
    if any(f"{place}successful.mean" not in figures for place in LENGTHS.values()):
        allowed = f"all {benchmark.succeeded} successful requests, or their lengths in metrics"
        raise InputError("requests.successful", f"{listed} of them", allowed, file)
    requests, rate_per_s = requests_and_rate(benchmark.succeeded, figures.get(RATE), file)
    prompt, output = (
        LengthSummary.read(
            kind,
            figures[f"{place}successful.mean"],
            figures.get(f"{place}successful.std_dev"),
            {
                share: figures.get(f"{place}successful.{name}")
                for name, share in PERCENTILES.items()
            },
            file,
        )
        for kind, place in LENGTHS.items()
    )
    listing = f"the report lists {listed:,} of {requests:,} requests, so that its means are used"
    rate = "where no rate is given, it is requests_per_second, that of completions"
    caveats = (listing, rate, *_paced(benchmark))
    return summary_snapshot(prompt, output, requests, rate_per_s, caveats)


def _paced(benchmark: Benchmark) -> list[str]:
    kind = benchmark.strategy.get("type_")
    if kind not in _PACED_BY_THE_SERVER:
        return []
    return [f"the client sent by the strategy {kind}, so that the server's pace set their times"]
