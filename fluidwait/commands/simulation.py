"""What `compare` and `sweep` share: the load, ranges of rates and parameters, where it runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fluid.errors import InputError
from fluid.server import load_server
from fluid.steady.stability import stability
from fluid.traces.registry import read_trace
from fluid.workload import Workload
from fluidwait.console import note
from validation.experiments.sweep import LOCAL, Runner
from validation.policies import ConfiguredPolicy, parse_policy
from validation.simulator.arrivals import parse_arrivals
from validation.simulator.model import Model, poisson_model, tape_model

MOST_VALUES = 10_000


@dataclass(frozen=True)
class Load:
    """What arrives, and where, as given on the command line."""

    workload: Path | None
    tape: Path | None
    server: str
    arrivals: str | None

    def model(self) -> tuple[Model, float | None]:
        """What to simulate, and the fluid limit of its rate where there is a workload.

        Raises:
            InputError: Not exactly one of workload and tape, or a file that is not right.
        """
        server = load_server(self.server)
        if (self.workload is None) == (self.tape is None):
            raise InputError("WORKLOAD", "both or neither", "a workload file, or --tape FILE")
        arrivals = parse_arrivals(self.arrivals) if self.arrivals else None
        if self.tape is not None:
            if arrivals is not None:
                raise InputError(
                    "arrivals", arrivals.label, "none beside a tape, which has its own"
                )
            return tape_model(read_trace(self.tape), server), None
        assert self.workload is not None
        workload = Workload.read(self.workload)
        limit_per_s = stability(workload, server).max_scale * workload.rate_per_s
        return poisson_model(workload, server, arrivals), limit_per_s


@dataclass(frozen=True)
class Place:
    """Where configurations run: a scheduler, processes on this machine, or (both None) here."""

    cluster: str | None
    workers: int | None

    @contextmanager
    def runner(self) -> Iterator[Runner]:
        """Connect, and let go at the end.

        Raises:
            InputError: Dask is not installed, both are given, or nobody answers.
        """
        if self.cluster is None and self.workers is None:
            yield LOCAL
            return
        from validation.experiments.cluster import cluster

        with cluster(self.cluster, self.workers) as runner:
            if runner.threads() == 0:
                note(f"No worker has joined {runner.address} yet: waiting for one.")
            yield runner


def offered_rates(text: str | None, model: Model) -> list[float]:
    """The rates asked for, else the model's own; see `parse_rates`."""
    return parse_rates(text) if text else [model.rate_per_s]


def parse_rates(text: str) -> list[float]:
    """``a:b:step`` with both ends, or ``a,b,c``, or one rate; requests per second.

    Raises:
        InputError: Not of that form, not positive, or too many.
    """
    rates = [rate for part in text.split(",") for rate in _values("--rates", part)]
    if not all(0 < rate < math.inf for rate in rates):
        raise InputError("--rates", text, "rates > 0 as a:b:step, a,b,c or one number")
    return rates


def parse_policies(text: str) -> list[ConfiguredPolicy]:
    """``NAME[:key=value,…]``, where ``a:b:step`` for a value stands for a policy at each of them.

    Raises:
        InputError: Unknown policy or parameter, or a value out of range.
    """
    name, colon, rest = text.partition(":")
    choices = []
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if ":" in value:
            values = _values(f"policy {name}: {key}", value)
            choices.append([f"{key}={one!r}" for one in values])
        else:
            choices.append([part])
    return [parse_policy(name + colon + ",".join(one)) for one in itertools.product(*choices)]


def _values(field: str, text: str) -> list[float]:
    """``a:b:step`` with both ends, or one number; 0.1 + 2 · 0.1 is 0.3."""
    try:
        if ":" not in text:
            return [float(text)]
        low, high, step = (float(part) for part in text.split(":"))
        if not (-math.inf < low <= high < math.inf and 0 < step < math.inf):
            raise ValueError
    except ValueError:
        raise InputError(field, text, "a number, or a:b:step with a ≤ b and step > 0") from None
    count = math.floor((high - low) / step * (1 + 1e-12) + 1e-9) + 1
    if count > MOST_VALUES:
        raise InputError(field, text, f"at most {MOST_VALUES} values")
    return [float(f"{low + index * step:.12g}") for index in range(count)]
