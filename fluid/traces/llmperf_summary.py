"""Reader of LLMPerf's ``…_summary.json`` (ray-project/llmperf).

Fields: `results_number_input_tokens_` and `results_number_output_tokens_` with `mean`, `stddev`,
`min`, `max` (as texts) and `quantiles_p25` … `quantiles_p99`; `results_num_completed_requests` and
its rate per minute.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fluid.traces.documents import json_document
from fluid.traces.length_summary import LengthSummary, requests_and_rate, summary_snapshot
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions
from fluid.traces.trace_format import TraceFormat

PROMPTS, OUTPUTS = "results_number_input_tokens_", "results_number_output_tokens_"
COMPLETED = "results_num_completed_requests"


def _detect(head: str) -> bool:
    return head.lstrip().startswith("{") and f'"{PROMPTS}mean"' in head


def _open(path: Path, options: ReadOptions) -> Snapshot:
    file = str(path)
    report = json_document(path)
    prompt, output = (
        _lengths(report, kind, field, file)
        for kind, field in (("prompt", PROMPTS), ("output", OUTPUTS))
    )
    per_minute = report.get(f"{COMPLETED}_per_min")
    rate = per_minute / 60 if isinstance(per_minute, int | float) else per_minute
    requests, rate_per_s = requests_and_rate(report.get(COMPLETED), rate, file)
    in_flight = report.get("num_concurrent_requests", "a number of")
    caveat = (
        f"the client kept {in_flight} requests in flight, so that the server's pace set the rate;"
        f" where none is given, it is {COMPLETED}_per_min"
    )
    return summary_snapshot(prompt, output, requests, rate_per_s, (caveat,))


LLMPERF_SUMMARY = TraceFormat("llmperf-summary", "summary of LLMPerf (JSON)", _detect, _open)


def _lengths(report: dict[str, Any], kind: str, field: str, file: str) -> LengthSummary:
    said = {
        name.removeprefix(field): _number(value)
        for name, value in report.items()
        if name.startswith(field)
    }
    quantiles = {0.0: said.get("min"), 1.0: said.get("max")}
    for name, tokens in said.items():
        if re.fullmatch(r"quantiles_p\d\d?", name):
            quantiles[int(name.removeprefix("quantiles_p")) / 100] = tokens
    return LengthSummary.read(kind, said.get("mean"), said.get("stddev"), quantiles, file)


def _number(value: Any) -> Any:
    """A number that was written as a text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value) else value
