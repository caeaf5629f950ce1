"""Reader of guidellm reports (``benchmarks.json``), of one of their benchmarks.

Per request: `request_start_time` (`start_time` up to version 0.3), `prompt_tokens` and
`output_tokens`. Requests that are listed as errored, or as incomplete when time was up, are failed.
A report may keep a sample of its requests only, which has another rate: `request_totals` tells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.traces.documents import RequestRows, json_events
from fluid.traces.trace import ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

BENCHMARK = "benchmarks.item"
LISTS = ("successful", "incomplete", "errored")
STARTS = ("request_start_time", "start_time")
TOTALS = tuple(f"{BENCHMARK}{part}.request_totals.successful" for part in (".metrics", ""))


def _detect(head: str) -> bool:
    named = ('"guidellm_version"', '"generative_benchmark"', '"benchmarks"')
    return head.lstrip().startswith("{") and any(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Trace:
    number = _number(options.part, str(path))
    requests, benchmarks, listed = _requests(path, number or 1)
    if benchmarks == 0:
        raise InputError("benchmarks", "nothing", "at least one benchmark", str(path))
    if number is None and benchmarks > 1:
        allowed = f"part 1 to {benchmarks}, each another load"
        raise InputError("benchmarks", f"{benchmarks} of them", allowed, str(path))
    if number is not None and number > benchmarks:
        raise InputError("part", number, f"1 to {benchmarks}", str(path))
    succeeded = requests.failures.count("")
    if succeeded < listed:
        allowed = f"all {listed} successful requests, so a report written without sampling them"
        raise InputError("requests.successful", f"{succeeded} of them", allowed, str(path))
    return Trace(requests.chunks(options, str(path)))


GUIDELLM = TraceFormat("guidellm", "guidellm report (JSON)", _detect, _open)


def _number(part: str | None, file: str) -> int | None:
    if part is None:
        return None
    if not (part.isascii() and part.isdigit() and int(part)):
        raise InputError("part", part, "the number of a benchmark, from 1", file)
    return int(part)


def _requests(path: Path, number: int) -> tuple[RequestRows, int, int]:
    """Requests of one benchmark, how many benchmarks there are, and its own count of successes."""
    requests = RequestRows()
    benchmarks = listed = 0
    request: dict[str, Any] = {}
    for place, event, value in json_events(path):
        if place == BENCHMARK:
            benchmarks += event == "start_map"
        elif benchmarks != number or not place.startswith(BENCHMARK):
            continue
        elif place in TOTALS:
            listed = value or 0
        elif place.startswith(f"{BENCHMARK}.requests."):
            kind, _, rest = place.removeprefix(f"{BENCHMARK}.requests.").partition(".item")
            if event == "end_map" and not rest and kind in LISTS:
                _append(requests, request, kind)
                request = {}
            elif rest.count(".") == 1:
                request[rest.removeprefix(".")] = value
    return requests, benchmarks, listed


def _append(requests: RequestRows, request: dict[str, Any], kind: str) -> None:
    requests.places.append(f"{kind} request {len(requests.places) + 1}")
    requests.starts_s.append(next((request[one] for one in STARTS if one in request), None))
    requests.prompts.append(request.get("prompt_tokens"))
    requests.outputs.append(request.get("output_tokens"))
    requests.failures.append("" if kind == "successful" else kind)
