"""Reader of the result of ``vllm bench serve --save-result --save-detailed`` (JSON).

Fields: `input_lens`, `output_lens`, `errors`, and `start_times` from the versions that write them,
by the client's own clock. An error, or no output token, is a failed request. Without `start_times`
there is only the rate `request_throughput`, and arrivals are taken as Poisson.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.traces.documents import RequestRows, json_events
from fluid.traces.lines import finite_number
from fluid.traces.trace import ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

ARRAYS = ("input_lens", "output_lens", "start_times", "errors")
ABOUT_THE_RUN = ("request_throughput", "max_concurrency", "request_rate")


def _detect(head: str) -> bool:
    named = ('"input_lens"', '"total_input_tokens"')
    return head.lstrip().startswith("{") and any(name in head for name in named)


def _open(path: Path, options: ReadOptions) -> Trace:
    file = str(path)
    arrays: dict[str, list[Any]] = {name: [] for name in ARRAYS}
    about: dict[str, Any] = {}
    for place, event, value in json_events(path):
        name, _, rest = place.partition(".")
        if rest == "item" and name in arrays and event != "end_array":
            arrays[name].append(value)
        elif name in ABOUT_THE_RUN and not rest:
            about[name] = value
    requests = _requests(arrays, file)
    return Trace(
        requests.chunks(options, file),
        timed=bool(requests.starts_s),
        rate_per_s=_throughput(about, file) if not requests.starts_s else None,
        caveats=tuple(_caveats(about, bool(requests.starts_s))),
    )


VLLM_BENCH = TraceFormat("vllm-bench", "result of vllm bench serve (JSON)", _detect, _open)


def _requests(arrays: dict[str, list[Any]], file: str) -> RequestRows:
    count = len(arrays["input_lens"])
    if not count:
        allowed = "one number per request, as vllm bench serve writes with --save-detailed"
        raise InputError("input_lens", "nothing", allowed, file)
    for name in ("output_lens", "start_times", "errors"):
        if len(arrays[name]) != count and (arrays[name] or name == "output_lens"):
            allowed = f"{count} of them, as of input_lens"
            raise InputError(name, f"{len(arrays[name])} entries", allowed, file)
    return RequestRows(
        places=[f"request {number}" for number in range(1, count + 1)],
        starts_s=arrays["start_times"],
        prompts=arrays["input_lens"],
        outputs=arrays["output_lens"],
        failures=[str(error or "") for error in arrays["errors"]] or [""] * count,
    )


def _throughput(about: dict[str, Any], file: str) -> float | None:
    rate = about.get("request_throughput")
    if rate is None:
        return None
    return finite_number(rate, "request_throughput", "requests per second", file) or None


def _caveats(about: dict[str, Any], timed: bool) -> list[str]:
    caveats = []
    if not timed:
        caveats.append(
            "the file has no start times: where no rate is given, it is the request_throughput,"
            " that of completions, and arrivals are taken as Poisson"
        )
    if about.get("max_concurrency"):
        caveats.append(
            f"the client kept at most {about['max_concurrency']} requests in flight, so that the"
            " server's pace set their times; another rate can be given"
        )
    if about.get("request_rate") == "inf":
        caveats.append(
            "the client sent as fast as it could, so that the rate is its own; another can be given"
        )
    return caveats
