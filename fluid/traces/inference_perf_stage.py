"""Reader of what inference-perf says of a stage (``stage_N_lifecycle_metrics.json``).

Fields: `load_summary` with the rates asked for and achieved, and of the `successes` `count`,
`prompt_len` and `output_len`, with `mean` and in most versions `min`, `max`, `median` and
percentiles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.traces.documents import json_document, value_at
from fluid.traces.length_summary import LengthSummary, requests_and_rate, summary_snapshot
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions
from fluid.traces.trace_format import TraceFormat

ACHIEVED, ASKED = "load_summary.achieved_rate", "load_summary.requested_rate"
THROUGHPUT = "successes.throughput.requests_per_sec"


def _detect(head: str) -> bool:
    named = ('"load_summary"', '"successes"')
    return head.lstrip().startswith("{") and all(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Snapshot:
    file = str(path)
    report = json_document(path)
    lengths = [
        _lengths(report, kind, f"successes.{field}", file)
        for kind, field in (("prompt", "prompt_len"), ("output", "output_len"))
    ]
    place = next((one for one in (ACHIEVED, ASKED, THROUGHPUT) if value_at(report, one)), ACHIEVED)
    count = value_at(report, "successes.count")
    requests, rate_per_s = requests_and_rate(count, value_at(report, place), file)
    caveats = [f"where no rate is given, it is {place}"]
    failed = value_at(report, "failures.count")
    if failed:
        caveats.append(f"{failed} failed requests are in that rate, and not in the lengths")
    in_flight = value_at(report, "load_summary.concurrency")
    if in_flight:
        caveats.append(
            f"the client kept at most {in_flight} requests in flight, so that the server's pace set"
            " the rate"
        )
    return summary_snapshot(lengths[0], lengths[1], requests, rate_per_s, tuple(caveats))


INFERENCE_PERF_STAGE = TraceFormat(
    "inference-perf-stage", "stage of inference-perf (JSON)", _detect, _open
)


def _lengths(report: dict[str, Any], kind: str, place: str, file: str) -> LengthSummary:
    said = value_at(report, place)
    if not isinstance(said, dict):
        raise InputError(place, said, "an object with mean and perhaps percentiles", file)
    quantiles = {0.0: said.get("min"), 0.5: said.get("median"), 1.0: said.get("max")}
    for name, tokens in said.items():
        if re.fullmatch(r"p\d\d?(\.\d+)?", name):
            quantiles[float(name[1:]) / 100] = tokens
    return LengthSummary.read(kind, said.get("mean"), None, quantiles, file)
