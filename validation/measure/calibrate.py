"""From measured iterations to a server file: what was fitted, and how far to trust it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fluid.errors import InputError
from fluid.files import write_document
from fluid.iteration import IterationTime
from fluid.result import Block, Note, Result, Table, number, percent
from fluid.server import MeasuredRange, Server
from fluid.workload import Workload
from validation.measure.carry import Carried, carry
from validation.measure.composition import LINEAR_TERMS, Floats, Measurements
from validation.measure.estimate import (
    CONFIDENCE,
    FOLDS,
    EstimatedTime,
    estimate_iteration_time,
)
from validation.measure.fit import FitError
from validation.measure.importers import read_measurements


@dataclass(frozen=True, repr=False, eq=False)
class Calibration(Result):
    """A server made of measured iterations, with intervals and the error of held-out rows.

    Attributes:
        estimate: The fitted iteration time with its residuals and bootstrap repetitions.
        server: What the other commands read; its source tells origin and error.
        capacity_is_known: Whether the rows or the caller said how much KV fits.
        carried: Figures of a workload on this server, with their intervals; empty without one.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import fluidwait as fw
    >>> rows = Path(mkdtemp()) / "gpu.csv"
    >>> columns = ["prefill_tokens", "prefill_context_tokens", "decode_batch"]
    >>> columns += ["decode_context_tokens_total", "iteration_ms"]
    >>> batches = [(n, n * context) for n in (1, 4, 16, 64) for context in (64, 512, 2048)]
    >>> lines = [f"0,0,{n},{kv},{10 + 0.05 * n + 3e-4 * kv}" for n, kv in batches]
    >>> written = rows.write_text("\\n".join([",".join(columns), *lines]))
    >>> found = fw.calibrate(rows, kv_tokens=50_000)
    >>> print(f"{found.server.name}: {found.iteration_time.per_kv_token_s:.1e} s per KV token")
    gpu: 3.0e-07 s per KV token
    """

    estimate: EstimatedTime
    server: Server
    capacity_is_known: bool
    carried: Mapping[str, Carried]

    @property
    def iteration_time(self) -> IterationTime:
        """τ of a batch, as in the server file."""
        return self.server.iteration_time

    @property
    def held_out(self) -> FitError:
        """Relative error of rows that took no part in fit and choice of knots."""
        return self.estimate.held_out

    @property
    def measured_range(self) -> MeasuredRange:
        """The batches that the fit has seen."""
        return self.estimate.measured_range

    def intervals(self) -> dict[str, Any]:
        """Joint intervals by coefficient, [low, high]; None where the rows say nothing."""
        return self.estimate.intervals()

    def write(self, path: str | Path) -> None:
        """Write the server file.

        Raises:
            InputError: The folder does not exist, or cannot be written to.
        """
        write_document(self.server.document(), path)

    def blocks(self) -> Iterable[Block]:
        """Coefficients with joint intervals, the error of held-out rows, and what they mean."""
        tau, held_out = self.iteration_time, self.held_out
        if not self.capacity_is_known:
            yield Note(
                "the rows do not say how much KV fits: kv_capacity_tokens "
                f"{self.server.kv_capacity_tokens} is the most that one batch read; give kv_tokens"
            )
        yield self._coefficients()
        yield (
            f"f has {len(tau.tokens_knots)} knots up to {number(tau.tokens_knots[-1])} tokens. "
            f"Relative error of held-out rows ({FOLDS} folds): {percent(held_out.mean, 2)} in "
            f"the mean, {percent(held_out.p95, 2)} at the 95th percentile."
        )
        for quantity, (low, high) in self.measured_range:
            yield f"Measured {quantity}: {low:,.10g} to {high:,.10g}."
        for name in self.estimate.unmeasured:
            yield Note(f"{name} was not measured: no row depends on it; it is 0")
        if self.carried:
            yield Table(
                "Carried to the workload",
                ("figure", "value", "from", "to"),
                tuple(
                    (name, number(one.estimate), number(one.low), number(one.high))
                    for name, one in self.carried.items()
                ),
            )

    def _coefficients(self) -> Table:
        intervals = self.intervals()
        ends = {"overhead_s": intervals["seconds_knots"][0]}
        ends |= {name: intervals[name] or (None, None) for name in LINEAR_TERMS}
        return Table(
            f"Iteration time of {self.server.name}, joint {percent(CONFIDENCE, 0)} intervals",
            ("coefficient", "value", "from", "to"),
            tuple(
                (name, number(getattr(self.iteration_time, name)), number(low), number(high))
                for name, (low, high) in ends.items()
            ),
        )

    def document(self) -> dict[str, Any]:
        """Iteration time, intervals, errors and range; `carried` if there was a workload."""
        in_sample = self.estimate.in_sample
        document: dict[str, Any] = {
            "name": self.server.name,
            "rows": len(self.estimate.measurements),
            "kv_capacity_tokens": self.server.kv_capacity_tokens,
            "iteration_time": self.iteration_time.document(),
            "intervals": self.intervals(),
            "held_out_mean": self.held_out.mean,
            "held_out_p95": self.held_out.p95,
            "in_sample_mean": in_sample.mean,
            "in_sample_p95": in_sample.p95,
            "measured_range": self.measured_range.document(),
            "unmeasured": list(self.estimate.unmeasured),
        }
        if self.carried:
            document["carried"] = {name: asdict(one) for name, one in self.carried.items()}
        return document

    def frame(self) -> dict[str, Floats]:
        """A row per measured batch: what it consisted of, measured and predicted seconds."""
        data = self.estimate.measurements
        batches = data.compositions
        return {
            "tokens": batches.tokens,
            "kv_tokens": batches.kv_tokens,
            "prefill_tokens": batches.prefill_tokens,
            "decode_requests": batches.decode_requests,
            "prefill_tokens_sq": batches.prefill_tokens_sq,
            "prefill_context_tokens": batches.prefill_context_tokens,
            "measured_s": data.seconds,
            "predicted_s": batches.seconds(self.iteration_time),
        }

    def plot(self, ax: Any = None) -> Any:
        """Residuals above; below f, and the measured times less their linear terms.

        Args:
            ax: Two axes to draw into; None for a figure of their own.
        """
        from validation.measure.residuals import draw_residuals

        return draw_residuals(self.iteration_time, self.frame(), ax)


def calibrate(
    rows: Measurements | str | Path,
    *,
    layout: str = "csv",
    name: str | None = None,
    kv_tokens: int | None = None,
    block_tokens: int = 16,
    workload: Workload | None = None,
    seed: int = 0,
) -> Calibration:
    """A server from measured iteration times (THEORY 1.3), with intervals and held-out error.

    Args:
        rows: Measured batches, or their file.
        layout: Format of that file: "csv" (docs/calibrate.md) or "vllm-bench".
        name: Of the server; that of the file if None.
        kv_tokens: KV tokens that fit; None takes what the rows know, else the most that a batch
            read.
        block_tokens: KV tokens of a block.
        workload: Load to whose M*, α* and thresholds the intervals are carried.
        seed: Of the folds and of the bootstrap.

    Raises:
        InputError: A file that is not of this layout, a number out of range, fewer rows than the
            smallest model needs, or batches from which two coefficients cannot be told apart.

    >>> import fluidwait as fw
    >>> fw.calibrate("gpu.csv", layout="excel")
    Traceback (most recent call last):
    fluid.errors.InputError: from: got 'excel'; allowed: one of csv, vllm-bench
    """
    for field, value in (("kv_tokens", kv_tokens), ("block_tokens", block_tokens)):
        if value is not None and value < 1:
            raise InputError(field, value, "at least 1")
    if isinstance(rows, Measurements):
        estimate = estimate_iteration_time(rows, seed)
    else:
        measurements = read_measurements(rows, layout)
        try:
            estimate = estimate_iteration_time(measurements, seed)
        except InputError as error:
            raise error.in_file(str(rows)) from None
    data = estimate.measurements
    capacity = kv_tokens or data.kv_capacity_tokens
    server = _server(estimate, data.name if name is None else name, capacity, block_tokens)
    carried = carry(estimate.draws, workload, server, CONFIDENCE) if workload else {}
    return Calibration(estimate, server, capacity is not None, carried)


def _server(
    estimate: EstimatedTime, name: str, capacity_tokens: int | None, block_tokens: int
) -> Server:
    """The server file, with the error and the origin in its source."""
    data, error = estimate.measurements, estimate.held_out
    most_read = int(data.measured_range.kv_tokens[1])
    return Server.from_document(
        {
            "name": name,
            "source": f"{data.source}; {len(data)} batches, fitted by fluidwait calibrate: "
            f"relative error {percent(error.mean)} in the mean and {percent(error.p95)} at the "
            f"95th percentile of held-out rows, {percent(estimate.in_sample.largest)} at most in "
            "sample",
            "kv_capacity_tokens": capacity_tokens or max(most_read, block_tokens),
            "block_tokens": block_tokens,
            "first_token": "prefill",
            "iteration_time": estimate.iteration_time.document(),
            "measured_range": estimate.measured_range.document(),
        }
    )
