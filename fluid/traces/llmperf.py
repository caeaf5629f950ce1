"""Reader of LLMPerf's ``…_individual_responses.json`` (ray-project/llmperf), a JSON list.

Fields: `number_input_tokens`, `number_output_tokens`; one with an `error_code` is failed. It has no
times, and LLMPerf keeps a number of requests in flight.
"""

from __future__ import annotations

from pathlib import Path

from fluid.traces.documents import RequestRows, json_records
from fluid.traces.trace import NO_TIMES, ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

WANTED = {
    "number_input_tokens": "prompt",
    "number_output_tokens": "output",
    "error_code": "error",
}


def _detect(head: str) -> bool:
    return head.lstrip().startswith("[") and '"number_input_tokens"' in head


def _open(path: Path, options: ReadOptions) -> Trace:
    requests = RequestRows()
    for number, record in enumerate(json_records(path, WANTED, root="item"), 1):
        prompt, output, error = (record.get(name) for name in ("prompt", "output", "error"))
        failure = None if error is None else f"error code {error}"
        requests.append(f"response {number}", prompt, output, failure)
    return Trace(requests.chunks(options, str(path)), timed=False, said=(NO_TIMES,))


LLMPERF = TraceFormat("llmperf", "responses of LLMPerf (JSON)", _detect, _open)
