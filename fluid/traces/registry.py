"""All trace formats, and how a file finds its own."""

from __future__ import annotations

from pathlib import Path

from fluid.errors import InputError, not_a_name
from fluid.traces.aiperf import AIPERF
from fluid.traces.aiperf_summary import AIPERF_SUMMARY
from fluid.traces.azure import AZURE
from fluid.traces.bailian import BAILIAN
from fluid.traces.burstgpt import BURSTGPT
from fluid.traces.guidellm import GUIDELLM
from fluid.traces.inference_perf import INFERENCE_PERF
from fluid.traces.inference_perf_stage import INFERENCE_PERF_STAGE
from fluid.traces.llmperf import LLMPERF
from fluid.traces.llmperf_summary import LLMPERF_SUMMARY
from fluid.traces.messages import MESSAGES
from fluid.traces.mooncake import MOONCAKE
from fluid.traces.prometheus import PROMETHEUS
from fluid.traces.servegen import SERVEGEN
from fluid.traces.sglang_bench import SGLANG_BENCH
from fluid.traces.sharegpt import SHAREGPT
from fluid.traces.snapshot import Snapshot
from fluid.traces.splitwise import SPLITWISE
from fluid.traces.tape import Tape, whole_tape
from fluid.traces.tape_csv import TAPE
from fluid.traces.trace import ALL_AT_ONCE, ReadOptions, Trace, open_bytes
from fluid.traces.trace_format import TraceFormat
from fluid.traces.vidur_lengths import VIDUR_LENGTHS
from fluid.traces.vllm_bench import VLLM_BENCH
from fluid.traces.wildchat import WILDCHAT

TRACE_FORMATS: dict[str, TraceFormat] = {
    one.name: one
    for one in (
        AIPERF,
        AIPERF_SUMMARY,
        AZURE,
        BAILIAN,
        BURSTGPT,
        GUIDELLM,
        INFERENCE_PERF,
        INFERENCE_PERF_STAGE,
        LLMPERF,
        LLMPERF_SUMMARY,
        MESSAGES,
        MOONCAKE,
        PROMETHEUS,
        SERVEGEN,
        SGLANG_BENCH,
        SHAREGPT,
        SPLITWISE,
        TAPE,
        VIDUR_LENGTHS,
        VLLM_BENCH,
        WILDCHAT,
    )
}
_HEAD_BYTES = 1 << 16
_TIMES = "a trace with times"


def detect_format(path: str | Path) -> TraceFormat:
    """The format that a file's beginning belongs to.

    Raises:
        InputError: None, or more than one.
    """
    with open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES).decode("utf-8-sig", "ignore")
    fitting = [one for one in TRACE_FORMATS.values() if one.detect(head)]
    if len(fitting) == 1:
        return fitting[0]
    shown = head.partition("\n")[0] or "an empty file"
    names = ", ".join(one.name for one in fitting or TRACE_FORMATS.values())
    why = (
        "fits several formats, choose one as format" if fitting else "a trace in one of the formats"
    )
    raise InputError("", shown, f"{why}: {names}", str(path))


def named_format(name: str) -> TraceFormat:
    """A format by name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in TRACE_FORMATS:
        raise not_a_name("format", name, TRACE_FORMATS)
    return TRACE_FORMATS[name]


def open_trace(
    path: str | Path, name: str | None = None, options: ReadOptions | None = None
) -> Trace | Snapshot:
    """Open a file of any format.

    Args:
        name: The format; detected if None.

    Raises:
        InputError: A broken file, or options that do not fit it.
    """
    chosen = named_format(name) if name else detect_format(path)
    return chosen.open(Path(path), options or ReadOptions())


def read_trace(
    path: str | Path,
    name: str | None = None,
    options: ReadOptions | None = None,
    *,
    times: bool = True,
) -> Tape:
    """Read a trace whole, where a simulation needs all of it at once.

    Args:
        name: The format; detected if None.
        times: Whether they are needed; where not, requests without times are taken as coming at
            once, for a finite job or for clients that send one after the other.

    Raises:
        InputError: A broken file, or one without arrival times.

    >>> import pathlib, tempfile
    >>> import fluidwait as fw
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tape.csv"
    >>> lines = ["arrived_at,num_prefill_tokens,num_decode_tokens", "0,512,20", "2,64,10"]
    >>> _ = file.write_text("\\n".join(lines))
    >>> tape = fw.read_trace(file)
    >>> len(tape), tape.rate_per_s
    (2, 0.5)
    """
    trace = open_timed(path, name, options, times=times)
    if times and trace.finite_job:
        raise InputError("", "a trace", f"{_TIMES}; here {ALL_AT_ONCE}", str(path))
    return whole_tape(trace.chunks)


def open_timed(
    path: str | Path,
    name: str | None = None,
    options: ReadOptions | None = None,
    *,
    times: bool = True,
) -> Trace:
    """Open a file whose requests arrive over time, or all at once as a finite job.

    What it leaves out is known once it is read.

    Args:
        name: The format; detected if None.
        times: Whether they are needed, so that a file without them is refused.

    Raises:
        InputError: A broken file, or one without arrival times.
    """
    chosen = named_format(name) if name else detect_format(path)
    trace = chosen.open(Path(path), options or ReadOptions())
    if isinstance(trace, Snapshot) or not (trace.timed or trace.finite_job or not times):
        raise InputError("", f"{chosen.summary} without times", _TIMES, str(path))
    return trace
