"""All trace formats, and how a file finds its own."""

from __future__ import annotations

from pathlib import Path

from fluid.errors import InputError
from fluid.traces.azure import AZURE
from fluid.traces.burstgpt import BURSTGPT
from fluid.traces.guidellm import GUIDELLM
from fluid.traces.mooncake import MOONCAKE
from fluid.traces.prometheus import PROMETHEUS
from fluid.traces.sharegpt import SHAREGPT
from fluid.traces.snapshot import Snapshot
from fluid.traces.tape import Tape, whole_tape
from fluid.traces.tape_csv import TAPE
from fluid.traces.trace import ReadOptions, open_bytes
from fluid.traces.trace_format import TraceFormat
from fluid.traces.vllm_bench import VLLM_BENCH

TRACE_FORMATS: dict[str, TraceFormat] = {
    one.name: one
    for one in (
        AZURE,
        BURSTGPT,
        GUIDELLM,
        MOONCAKE,
        PROMETHEUS,
        SHAREGPT,
        TAPE,
        VLLM_BENCH,
    )
}
_HEAD_BYTES = 1 << 16


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
        raise InputError("format", name, "one of " + ", ".join(TRACE_FORMATS))
    return TRACE_FORMATS[name]


def read_trace(
    path: str | Path, name: str | None = None, options: ReadOptions | None = None
) -> Tape:
    """Read a trace whole, where a simulation needs all of it at once.

    Args:
        name: The format; detected if None.

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
    chosen = named_format(name) if name else detect_format(path)
    trace = chosen.open(Path(path), options or ReadOptions())
    if isinstance(trace, Snapshot) or not trace.timed:
        raise InputError("", f"{chosen.summary} without times", "a trace with times", str(path))
    return whole_tape(trace.chunks)
