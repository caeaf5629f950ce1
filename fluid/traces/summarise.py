"""A trace file as a workload of a few classes, in one reading, and how good that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluid.errors import InputError
from fluid.files import require_output
from fluid.result import Block, Result, Table, number, percent
from fluid.traces.digest import FIGURES, Digest, digest
from fluid.traces.marginals import Interval
from fluid.traces.registry import detect_format, named_format
from fluid.traces.snapshot import LENGTHS, Snapshot
from fluid.traces.strata import summary_errors, workload_of_digest
from fluid.traces.tape_csv import tape_writer
from fluid.traces.trace import ALL_AT_ONCE, Chunk, ReadOptions, Trace
from fluid.workload import Workload

if TYPE_CHECKING:
    from fluid.traces.hit_curve import HitCurve, StackDistances


@dataclass(frozen=True, repr=False)
class TraceSummary(Result):
    """A trace as a few classes that load a server like it does.

    Attributes:
        file: The trace.
        workload: Its summary.
        format: Name of its format.
        requests: How many requests the trace holds, without those that are left out.
        dropped: Requests that are left out: failed, or too long.
        rate_per_s: Arrivals per second.
        errors: Relative error of the workload against the trace, by figure.
        means: Means per request in the trace, by figure.
        caveats: What a user must know before trusting the workload, a sentence each.
        intervals: For a snapshot, least and most of each mean that fits its histograms; None where
            nothing bounds the lengths.
        independent_memory_sum: The same of the memory sum where lengths are independent.
        hits: What share of the prompts a prefix cache of each size finds, where the trace tells
            what its prompts are made of.

    >>> import pathlib, tempfile
    >>> import fluidwait as fw
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tape.csv"
    >>> lines = ["arrived_at,num_prefill_tokens,num_decode_tokens", "0,512,20", "2,64,10"]
    >>> _ = file.write_text("\\n".join(lines))
    >>> found = fw.summarise_trace(file)
    >>> found.format, found.requests, found.workload.rate_per_s
    ('tape', 2, 0.5)
    """

    file: Path
    workload: Workload
    format: str
    requests: int
    dropped: int
    rate_per_s: float
    errors: dict[str, float]
    means: dict[str, float]
    caveats: tuple[str, ...]
    intervals: dict[str, Interval] | None = None
    independent_memory_sum: Interval | None = None
    hits: HitCurve | None = None

    def write(self, path: str | Path) -> None:
        """Write the workload, with what is known of it at the head of a YAML file.

        Raises:
            InputError: The folder is missing or not writable.
        """
        count = f"{self.requests:,} requests of {self.file.name} in {len(self.workload.classes)}"
        lines = [f"{count} classes.", *self._remarks()]
        for figure, value, _, limits in self._limits():
            lines.append(f"{figure} per request: {value}; the histograms allow {limits}.")
        self.workload.write(path, "\n".join(lines))

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class."""
        classes = self.workload.classes
        return {
            "class": [one.name for one in classes],
            "rate_per_s": [one.rate_per_s for one in classes],
            "prefill_tokens": [one.prefill_tokens for one in classes],
            "decode_tokens": [one.decode_tokens for one in classes],
        }

    def blocks(self) -> Iterator[Block]:
        classes = len(self.workload.classes)
        rate, reusable = number(self.rate_per_s), ""
        if self.hits is not None:
            reusable = f", {percent(self.hits.reusable_share)} of the prompt tokens reusable"
        yield Table(
            f"{self.file.name}: {self.requests:,} requests, {rate} /s, {classes} classes{reusable}",
            ("figure", "error against the trace"),
            tuple((figure, percent(error, 3)) for figure, error in self.errors.items()),
        )
        if self.intervals is not None:
            yield Table(
                "What the buckets leave open, per request",
                ("figure", "in the workload", "if independent", "whatever the correlation"),
                tuple(self._limits()),
                spare=("if independent",),
            )
        if self.hits is not None and self.hits.reusable_share > 0:
            yield Table(
                "What a prefix cache finds, least recently used blocks dropped first",
                ("cache tokens", "of the prompt tokens"),
                tuple(
                    (number(float(tokens)), percent(found / self.hits.prompt_tokens))
                    for tokens, found in self.hits.points()
                ),
            )
        yield from self._remarks()

    def _remarks(self) -> Iterator[str]:
        if self.dropped:
            share = percent(self.dropped / (self.dropped + self.requests), 2)
            left_out = f"Requests left out: {self.dropped:,}, {share} of all"
            yield f"{left_out}; the rate is without."
        yield from (f"{caveat[0].upper()}{caveat[1:]}." for caveat in self.caveats)

    def _limits(self) -> Iterator[tuple[str, str, str, str]]:
        """Figure, value in the workload, limits if lengths are independent, and without that."""
        for figure, ends in (self.intervals or {}).items():
            independent = self.independent_memory_sum if figure == "memory sum" else ends
            yield (
                figure,
                number(self.means[figure]),
                _range(independent or ends),
                _range(ends),
            )

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "workload": self.workload.document(),
            "format": self.format,
            "requests": self.requests,
            "dropped": self.dropped,
            "rate_per_s": self.rate_per_s,
            "errors": dict(self.errors),
            "caveats": list(self.caveats),
        }
        if self.intervals is not None and self.independent_memory_sum is not None:
            document["intervals"] = {name: list(ends) for name, ends in self.intervals.items()}
            document["independent_memory_sum"] = list(self.independent_memory_sum)
        if self.hits is not None:
            document["reusable_share"] = self.hits.reusable_share
            document["hit_curve"] = [
                {"cache_tokens": tokens, "share": found / self.hits.prompt_tokens}
                for tokens, found in self.hits.points()
            ]
        return document


def _range(ends: Interval) -> str:
    return " to ".join(number(end) for end in ends)


def summarise_trace(
    path: str | Path,
    classes: int = 24,
    *,
    format: str | None = None,
    rate_per_s: float | None = None,
    drop_failed: bool = False,
    part: str | None = None,
    since: str | Path | None = None,
    drop_longer_than: int | None = None,
    tokenizer: str | Path | None = None,
    lengths: str = "independent",
    name: str | None = None,
    source: str | None = None,
    tape_out: str | Path | None = None,
) -> TraceSummary:
    """A workload of a few classes that loads a server like the trace does.

    The trace is read once and never whole in memory.

    Args:
        classes: Most classes of the summary.
        format: Name of the format; detected if None.
        rate_per_s: Requests per second, in place of the trace's own.
        drop_failed: Leave out failed requests and count them; otherwise the first is an error.
        part: Number of a run or benchmark, model of a metrics page, window of a ServeGen data set.
        since: An earlier scrape of the same metrics page, which is subtracted.
        drop_longer_than: Leave out requests of more prompt and output tokens together, and count
            them.
        tokenizer: A ``tokenizer.json``, for traces of text.
        lengths: Of what fits a snapshot: "independent", "lightest" or "heaviest".
        name: Name of the workload; that of the file if None.
        source: Attribution, which every table made from the workload keeps.
        tape_out: Also write the arrivals here, which appear only if all goes well.

    Raises:
        InputError: A broken file, or something asked of a trace that it does not tell.
        InfeasibleError: That few classes miss a figure of the trace by more than 2 %.

    >>> import pathlib, tempfile
    >>> import fluidwait as fw
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tape.csv"
    >>> lines = ["arrived_at,num_prefill_tokens,num_decode_tokens", "0,512,20", "2,64,10"]
    >>> _ = file.write_text("\\n".join(lines))
    >>> sorted(one.name for one in fw.summarise_trace(file, rate_per_s=7.0).workload.classes)
    ['p512-d20', 'p64-d10']
    """
    path = Path(path)
    if tape_out is not None:
        require_output(tape_out)
    if lengths not in LENGTHS:
        raise InputError("lengths", lengths, "one of " + ", ".join(LENGTHS))
    chosen = named_format(format) if format else detect_format(path)
    trace = chosen.open(path, ReadOptions(drop_failed, tokenizer, part, since, drop_longer_than))
    _require_possible(trace, path, rate_per_s, lengths, tape_out)
    # The tape appears only if the trace has a rate and a summary too.
    reuse = _Reuse()
    with tape_writer(tape_out) if tape_out else nullcontext() as write:
        found = _at_rate(_digest(trace, lengths, write, reuse), path, rate_per_s)
        kept = _source(trace, source, lengths)
        workload = workload_of_digest(found, name or path.stem, classes, kept)
    if rate_per_s is None and isinstance(trace, Trace) and trace.timed:
        observed_s = found.requests / workload.rate_per_s
        workload = workload.model_copy(update={"observed_s": float(f"{observed_s:.6g}")})
    snapshot = trace if isinstance(trace, Snapshot) and trace.bounded else None
    return TraceSummary(
        file=path,
        workload=workload,
        format=chosen.name,
        requests=found.requests,
        dropped=found.dropped,
        rate_per_s=found.rate(),
        errors=summary_errors(workload, found),
        means=dict(zip(FIGURES[1:], found.means[1:].tolist(), strict=True)),
        caveats=trace.caveats,
        intervals=snapshot.intervals() if snapshot else None,
        independent_memory_sum=snapshot.independent_memory_sum() if snapshot else None,
        hits=reuse.curve(),
    )


def _require_possible(
    trace: Trace | Snapshot,
    path: Path,
    rate_per_s: float | None,
    lengths: str,
    tape_out: str | Path | None,
) -> None:
    """Refuse what cannot be had before all of the trace is read."""
    file, timed = str(path), isinstance(trace, Trace) and trace.timed
    if isinstance(trace, Trace) and lengths != "independent":
        allowed = "only for a snapshot, which does not know which prompt met which output"
        raise InputError("lengths", lengths, allowed, file)
    if tape_out and not timed:
        allowed = "no tape of a trace without arrival times; replay the workload"
        raise InputError("tape_out", str(tape_out), allowed, file)
    if rate_per_s is None:
        if trace.rate_per_s is None and not timed:
            raise _no_rate(file, trace.finite_job)
        return
    if not 0 < rate_per_s < float("inf"):
        raise InputError("rate_per_s", rate_per_s, "a positive finite number")
    if tape_out:
        allowed = "none where a tape is written; a replay at another rate stretches its time"
        raise InputError("rate_per_s", rate_per_s, allowed)


def _no_rate(file: str, finite_job: bool = False) -> InputError:
    why = f"here {ALL_AT_ONCE}" if finite_job else "since this trace has no arrivals over time"
    allowed = f"requests per second, {why}"
    return InputError("rate_per_s", "nothing", allowed, file)


class _Reuse:
    """The hit curve of the chunks that pass, once some have blocks."""

    def __init__(self) -> None:
        self._distances: StackDistances | None = None

    def see(self, chunk: Chunk) -> None:
        if chunk.blocks is None:
            return
        if self._distances is None:
            from fluid.traces.hit_curve import StackDistances  # numba is slow to import

            self._distances = StackDistances(chunk.blocks.block_tokens)
        self._distances.see(chunk.blocks, chunk.num_prefill_tokens)

    def curve(self) -> HitCurve | None:
        return self._distances.curve() if self._distances else None


def _digest(
    trace: Trace | Snapshot, lengths: str, write: Callable[[Chunk], None] | None, reuse: _Reuse
) -> Digest:
    """The digest of a trace, each chunk written and looked at on the way."""
    if isinstance(trace, Snapshot):
        return trace.digest(lengths)
    chunks = _passing(trace.chunks, reuse.see)
    found = digest(_passing(chunks, write) if write else chunks)
    return found if trace.timed else replace(found, rate_per_s=trace.rate_per_s)


def _passing(chunks: Iterator[Chunk], write: Callable[[Chunk], None]) -> Iterator[Chunk]:
    for chunk in chunks:
        write(chunk)
        yield chunk


def _at_rate(found: Digest, path: Path, rate_per_s: float | None) -> Digest:
    if rate_per_s is not None:
        return replace(found, rate_per_s=rate_per_s)
    if found.rate_per_s is None:
        raise _no_rate(str(path))
    return found


def _source(trace: Trace | Snapshot, source: str | None, lengths: str) -> str | None:
    """Where the numbers come from, which every table made from them keeps."""
    if isinstance(trace, Trace):
        return source
    kept = f"prompt and output lengths from {trace.origin}, {lengths} of what fits them"
    return f"{source}; {kept}" if source else kept
