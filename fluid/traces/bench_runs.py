"""Results of `vllm bench serve` and `sglang.bench_serving`: runs, one JSON object after another.

With details a run has lists of one value per request: `input_lens`, `output_lens`, `errors`, and
`start_times` from the versions that write them, by the client's own clock. An error, or no output
token, is a failed request. Without `start_times` there is only the rate `request_throughput`, and
arrivals are taken as Poisson. Without details there are totals, of which the means follow.

A run with `request_rate` inf and no bound on the requests in flight sent them all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.traces.documents import RequestRows, json_events
from fluid.traces.length_summary import LengthSummary, requests_and_rate, summary_snapshot
from fluid.traces.lines import finite_number
from fluid.traces.parts import part_number, require_part
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ALL_AT_ONCE, AS_POISSON, ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

ARRAYS = ("input_lens", "output_lens", "start_times", "errors")
ABOUT_THE_RUN = (
    "date",
    "request_rate",
    "max_concurrency",
    "completed",
    "num_prompts",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
)
_SENT_AT_ONCE = "inf"


@dataclass
class Run:
    """One run of a benchmark: what it says of itself, and its lists."""

    about: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in ARRAYS})

    @property
    def requests(self) -> Any:
        """How many requests it had, by its own count."""
        count = len(self.arrays["input_lens"])
        return count or self.about.get("completed", self.about.get("num_prompts", "?"))

    @property
    def all_at_once(self) -> bool:
        """Whether nothing but the client's speed set apart the requests."""
        if self.about.get("request_rate") != _SENT_AT_ONCE:
            return False
        bound, requests = self.about.get("max_concurrency"), self.requests
        both = isinstance(bound, int) and isinstance(requests, int)
        return not bound or (both and bound >= requests)

    @property
    def told(self) -> str:
        """The run in a few words, for a list of runs."""
        words = [str(self.about["date"])] if self.about.get("date") else []
        words.append(f"request rate {self.about.get('request_rate', '?')}")
        return ", ".join([*words, f"{self.requests} requests"])


def bench_format(name: str, summary: str, detect: Callable[[str], bool]) -> TraceFormat:
    """A format of runs."""
    return TraceFormat(name, summary, detect, _open, takes=frozenset({"part"}))


def _open(path: Path, options: ReadOptions) -> Trace | Snapshot:
    file = str(path)
    number = part_number(options.part)
    runs = _runs(path, number)
    require_part(number, [run.told for run in runs], file)
    if not runs:
        raise InputError("", "no result", "a JSON object per run", file)
    run = runs[(number or 1) - 1]
    if not run.arrays["input_lens"]:
        return _snapshot(run, file)
    requests = _requests(run, file)
    timed = bool(requests.starts_s) and not run.all_at_once
    if not timed:
        requests.starts_s.clear()
    return Trace(
        requests.chunks(options, file),
        timed=timed,
        rate_per_s=None if timed or run.all_at_once else _throughput(run, file),
        said=tuple(_caveats(run, timed)),
        finite_job=run.all_at_once,
    )


def _runs(path: Path, number: int | None) -> list[Run]:
    """All runs of a file, with the lists of the one that is wanted: by number, or if alone."""
    runs: list[Run] = []
    for place, event, value in json_events(path, several=True):
        if not place and event == "start_map":
            if number is None and runs:
                _forget_lists(runs[0])
            runs.append(Run())
            continue
        name, _, rest = place.partition(".")
        if not runs or (not rest and event.startswith(("start", "end", "map"))):
            continue
        if rest == "item" and name in ARRAYS and event != "end_array":
            if len(runs) == (number or 1):
                runs[-1].arrays[name].append(value)
        elif name in ABOUT_THE_RUN and not rest:
            runs[-1].about[name] = value
    return runs


def _forget_lists(run: Run) -> None:
    """Keep only how many requests a run had: it is not the one, and lists take memory."""
    run.about.setdefault("completed", len(run.arrays["input_lens"]))
    for values in run.arrays.values():
        values.clear()


def _requests(run: Run, file: str) -> RequestRows:
    arrays, count = run.arrays, len(run.arrays["input_lens"])
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


def _snapshot(run: Run, file: str) -> Snapshot:
    """The load of a run without details, from its totals."""
    totals = [run.about.get(f"total_{kind}_tokens") for kind in ("input", "output")]
    if None in (*totals, run.about.get("completed")):
        allowed = "one number per request, or the totals of a run"
        raise InputError("input_lens", "nothing", allowed, file)
    throughput = run.about.get("request_throughput")
    requests, rate_per_s = requests_and_rate(run.about["completed"], throughput, file)
    prompt, output = (
        LengthSummary.read(
            kind, finite_number(total, f"{kind} tokens", "tokens", file) / requests, None, {}, file
        )
        for kind, total in zip(("prompt", "output"), totals, strict=True)
    )
    caveats = _paced(run)
    if not run.all_at_once:
        caveats.append("where no rate is given, it is request_throughput, that of completions")
    return summary_snapshot(
        prompt, output, requests, rate_per_s, tuple(caveats), finite_job=run.all_at_once
    )


def _throughput(run: Run, file: str) -> float | None:
    rate = run.about.get("request_throughput")
    if rate is None:
        return None
    return finite_number(rate, "request_throughput", "requests per second", file) or None


def _caveats(run: Run, timed: bool) -> list[str]:
    if run.all_at_once:
        return [ALL_AT_ONCE, f"without its times, {AS_POISSON}"]
    caveats = _paced(run)
    if not timed:
        caveats.append(
            "the file has no start times: where no rate is given, it is the request_throughput,"
            " that of completions, and arrivals are taken as Poisson"
        )
    return caveats


def _paced(run: Run) -> list[str]:
    if run.all_at_once or not run.about.get("max_concurrency"):
        return []
    return [
        f"the client kept at most {run.about['max_concurrency']} requests in flight, so that the"
        " server's pace set their times"
    ]
