"""Reader of the requests of inference-perf (``per_request_lifecycle_metrics.json``, a JSON list).

Fields: `start_time` (s), `info.input_tokens`, `info.output_tokens`, in later versions
`info.request_metrics.text.input_tokens` and `info.response_metrics.output_tokens`; one with an
`error` is failed.
"""

from __future__ import annotations

from pathlib import Path

from fluid.traces.documents import RequestRows, json_records
from fluid.traces.trace import ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

WANTED = {
    "start_time": "start_s",
    "info.input_tokens": "prompt",
    "info.output_tokens": "output",
    "info.request_metrics.text.input_tokens": "prompt",
    "info.response_metrics.output_tokens": "output",
    "error": "error",
    "error.error_type": "error",
    "error.error_msg": "error",
}


def _detect(head: str) -> bool:
    named = ('"start_time"', '"end_time"', '"request"')
    return head.lstrip().startswith("[") and all(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Trace:
    requests = RequestRows()
    for number, record in enumerate(json_records(path, WANTED, root="item"), 1):
        prompt, output = record.get("prompt"), record.get("output")
        requests.append(f"request {number}", prompt, output, record.get("error"))
        requests.starts_s.append(record.get("start_s"))
    return Trace(requests.chunks(options, str(path)))


INFERENCE_PERF = TraceFormat("inference-perf", "requests of inference-perf (JSON)", _detect, _open)
