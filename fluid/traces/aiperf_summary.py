"""Reader of the summary of a run of aiperf or genai-perf (``profile_export_aiperf.json``).

Fields: `request_throughput`, `request_count`, `input_sequence_length` and `output_sequence_length`,
with `avg`, `std`, `min`, `max` and percentiles p1 … p99.
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

THROUGHPUT, PROMPTS, OUTPUTS = (
    "request_throughput",
    "input_sequence_length",
    "output_sequence_length",
)


def _detect(head: str) -> bool:
    named = (f'"{THROUGHPUT}"', f'"{PROMPTS}"')
    return head.lstrip().startswith("{") and all(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Snapshot:
    file = str(path)
    report = json_document(path)
    lengths = [
        _lengths(report, kind, field, file)
        for kind, field in (("prompt", PROMPTS), ("output", OUTPUTS))
    ]
    count = value_at(report, "request_count.avg") or value_at(report, f"{PROMPTS}.count")
    rate = value_at(report, f"{THROUGHPUT}.avg")
    requests, rate_per_s = requests_and_rate(count or 1, rate, file)
    caveats = ["where no rate is given, it is request_throughput, that of completions"]
    in_flight = value_at(report, "input_config.loadgen.concurrency")
    if in_flight:
        caveats.append(
            f"the client kept at most {in_flight} requests in flight, so that the server's pace set"
            " the rate"
        )
    return summary_snapshot(lengths[0], lengths[1], requests, rate_per_s, tuple(caveats))


AIPERF_SUMMARY = TraceFormat(
    "aiperf-summary", "summary of aiperf or genai-perf (JSON)", _detect, _open
)


def _lengths(report: dict[str, Any], kind: str, field: str, file: str) -> LengthSummary:
    said = report.get(field)
    if not isinstance(said, dict):
        raise InputError(field, said, "an object with avg and perhaps percentiles", file)
    quantiles = {0.0: said.get("min"), 1.0: said.get("max")}
    for name, tokens in said.items():
        if re.fullmatch(r"p\d\d?", name):
            quantiles[int(name[1:]) / 100] = tokens
    return LengthSummary.read(kind, said.get("avg"), said.get("std"), quantiles, file)
