"""Traces of ten million requests: rows per second and memory of each format that streams.

    python tests/benchmarks/trace_stream.py [ROWS]

Writes each file to a temporary folder (some 700 MB at a time) with lengths of a wide log-normal
law, so that there are more distinct pairs than a digest keeps. Reads it in a process of its own: to
a workload of 24 classes, and to a tape as well. Memory is the peak resident size of that process,
some 120 MB before it reads anything. Printed as a Markdown table.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as arrow
from pyarrow import csv

ROWS = 10_000_000
_AT_ONCE = 1_000_000
FORMATS = ("azure", "burstgpt", "mooncake", "tape")


def columns(rows: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Arrivals in whole milliseconds, prompts, outputs, a million at a time."""
    rng = np.random.default_rng(0)
    last_ms = 0
    for start in range(0, rows, _AT_ONCE):
        count = min(_AT_ONCE, rows - start)
        arrived_ms = last_ms + np.cumsum(rng.integers(0, 100, count))
        last_ms = int(arrived_ms[-1])
        prompts = np.ceil(rng.lognormal(6.5, 1.2, count)).astype(int)
        yield arrived_ms, prompts, np.ceil(rng.lognormal(5, 1.2, count)).astype(int)


def table(form: str, arrived_ms: np.ndarray, prompts: np.ndarray, outputs: np.ndarray) -> object:
    """Some rows under the names of a CSV format."""
    if form == "azure":
        stamps = pyarrow.array(arrived_ms + 1_715_299_200_000, pyarrow.timestamp("ms"))
        named = (arrow.strftime(stamps, "%Y-%m-%d %H:%M:%S"), prompts, outputs)
        return pyarrow.table(named, ["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
    if form == "burstgpt":
        model = pyarrow.array(["ChatGPT"]).take(pyarrow.array(np.zeros(len(prompts), int)))
        names = ["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens"]
        return pyarrow.table(
            (arrived_ms // 1000, model, prompts, outputs, prompts + outputs), names
        )
    names = ["arrived_at", "num_prefill_tokens", "num_decode_tokens"]
    return pyarrow.table((arrived_ms / 1000, prompts, outputs), names)


def write(form: str, path: Path, rows: int) -> None:
    """A file of so many requests."""
    if form == "mooncake":
        with path.open("w") as file:
            for chunk in columns(rows):
                file.writelines(
                    f'{{"timestamp": {t}, "input_length": {p}, "output_length": {o},'
                    f' "hash_ids": [{t}, {p}]}}\n'
                    for t, p, o in zip(*(part.tolist() for part in chunk), strict=True)
                )
        return
    writer = None
    for chunk in columns(rows):
        some = table(form, *chunk)
        writer = writer or csv.CSVWriter(
            str(path), some.schema, write_options=csv.WriteOptions(quoting_style="none")
        )
        writer.write(some)
    writer.close()


def read(path: Path, tape: Path | None) -> None:
    """What `fluidwait workload from-trace` does; prints seconds, bytes and groups."""
    from fluid.traces import Trace, detect_format, digest, tape_writer, workload_of_digest
    from fluid.traces.trace import ReadOptions

    start_s = time.perf_counter()
    trace = detect_format(path).open(path, ReadOptions())
    assert isinstance(trace, Trace)
    if tape is None:
        found = digest(trace.chunks)
    else:
        with tape_writer(tape) as append:
            found = digest(append(chunk) or chunk for chunk in trace.chunks)
    workload_of_digest(found, "benchmark")
    seconds = time.perf_counter() - start_s
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(seconds, peak_kib, len(found.sums))


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(f"{rows:,} rows\n")
    print("| format | file MB | to | rows /s | peak MB | groups |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            path, tape = Path(folder, form), Path(folder, "out.csv")
            write(form, path, rows)
            for out in (None, tape):
                command = [sys.executable, __file__, "--read", str(path)]
                command += [str(out)] if out else []
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                seconds, peak_kib, groups = map(float, done.stdout.split())
                written = "workload and tape" if out else "workload"
                print(
                    f"| {form} | {path.stat().st_size / 1e6:.0f} | {written}"
                    f" | {rows / seconds:,.0f} | {peak_kib / 1024:.0f} | {groups:,.0f} |",
                    flush=True,
                )
            path.unlink()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    else:
        main()
