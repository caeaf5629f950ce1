"""Reader of the requests that aiperf records (``profile_export.jsonl``, a JSON object each).

Fields: `metadata.request_start_ns`, `metrics.input_sequence_length.value` and
`metrics.output_sequence_length.value`. Requests of the warm-up are left out; one with an error, or
cancelled, is failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluid.traces.documents import RequestRows, json_records
from fluid.traces.trace import ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

WANTED = {
    "metadata.request_start_ns": "start_ns",
    "metadata.benchmark_phase": "phase",
    "metadata.was_cancelled": "cancelled",
    "metrics.input_sequence_length.value": "prompt",
    "metrics.output_sequence_length.value": "output",
    "error": "error",
    "error.type": "error",
    "error.message": "error",
}
PACE_UNKNOWN = (
    "the file does not say how the client paced its requests: where it kept a number of them in"
    " flight, the server's pace set their times"
)


def _detect(head: str) -> bool:
    named = ('"request_start_ns"', '"metadata"')
    return head.lstrip().startswith("{") and all(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Trace:
    requests, warm_up = RequestRows(), 0
    for number, record in enumerate(json_records(path, WANTED, several=True), 1):
        if record.get("phase") == "warmup":
            warm_up += 1
            continue
        failure = record.get("error") or ("cancelled" if record.get("cancelled") else None)
        requests.append(f"record {number}", record.get("prompt"), record.get("output"), failure)
        requests.starts_s.append(record.get("start_ns"))
    requests.starts_s = _seconds(requests.starts_s)
    left_out = (f"requests of the warm-up left out: {warm_up:,}",) if warm_up else ()
    return Trace(requests.chunks(options, str(path)), said=(PACE_UNKNOWN, *left_out))


AIPERF = TraceFormat("aiperf", "requests of aiperf (JSON lines)", _detect, _open)


def _seconds(starts_ns: list[Any]) -> list[Any]:
    """Seconds since the first start; as differences of whole numbers they keep nanoseconds."""
    first_ns = min((start for start in starts_ns if type(start) is int), default=0)
    return [(start - first_ns) / 1e9 if type(start) is int else None for start in starts_ns]
