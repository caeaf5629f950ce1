"""Requests that give up waiting, above capacity (THEORY 12.2).

Who waits longer than its patience leaves before it is admitted. The wait w then settles where those
who stay are as many as can be completed,

    Σ_j λ_j (1 − G_j(w)) a_j = 1,

for one class λ(1 − G(w)) = μ. G_j is the law of patience, smooth and independent of size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.gamma import Gamma
from fluid.overload.demand import Demand, demand
from fluid.result import Block, Note, Result, Table, columns_of, notes, number, percent, seconds
from fluid.server import Server
from fluid.steady.stability import stability
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_LONG = 10.0
"""Waits of fewer iterations than this are no longer than what a request takes without a queue."""

_POINTS = 60
_MOST_OFFERED = 3.0


@dataclass(frozen=True)
class Patience:
    """How long requests wait before they give up: a gamma law.

    Attributes:
        mean_s: Mean patience.
        variation: Its coefficient of variation; 1 is an exponential law, 0 the same patience for
            all, which can be simulated but has no balance here (`impatience`).

    Raises:
        InputError: A figure out of range.

    >>> import fluidwait as fw
    >>> round(fw.Patience(10.0).gone_after(4.055), 3)
    0.333
    """

    mean_s: float
    variation: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.mean_s < math.inf:
            raise InputError("mean_s", self.mean_s, "a positive finite number")
        if not 0 <= self.variation < math.inf:
            raise InputError("variation", self.variation, "a finite number, 0 or more")

    def gone_after(self, wait_s: float) -> float:
        """G(w), the share that has given up by then."""
        return Gamma(self.mean_s, self.variation * self.mean_s).cdf(wait_s)


@dataclass(frozen=True)
class ClassImpatience:
    """One class: what is offered, who gives up, what is left."""

    name: str
    rate_per_s: float
    gave_up_share: float
    completed_per_s: float


@dataclass(frozen=True, repr=False)
class Impatience(Result):
    """The balance of waiting and giving up.

    Attributes:
        wait_s: w, how long those who stay wait for admission.
        gave_up_share: Of all requests.
        completed_per_s: Of all servers together.
        boundary_iteration_s: Iteration time at the edge of the stable region.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(20.0, prompt=512, output=200))
    >>> found = fw.impatience(load, fw.Server.named("engine-long-decode"), fw.Patience(10.0))
    >>> print(f"{found.wait_s:.2f} {found.gave_up_share:.3f}")
    3.82 0.317
    """

    workload: Workload
    server: Server
    servers: int
    patience: Mapping[str, Patience]
    found: Demand
    wait_s: float
    gave_up_share: float
    completed_per_s: float
    boundary_iteration_s: float
    classes: tuple[ClassImpatience, ...]

    @property
    def caveats(self) -> tuple[str, ...]:
        """Conditions that fail, with their numbers."""
        least_s = _LONG * self.boundary_iteration_s
        if self.wait_s >= least_s:
            return ()
        return (
            f"the wait is shorter than {_LONG:g} iterations ({least_s:.2g} s): what requests take "
            "without a queue is no longer small beside it",
        )

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class."""
        return columns_of(self.classes)

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"Patience of {self.workload.name} at {number(self.workload.rate_per_s)} /s",
            ("class", "offered /s", "patience s", "give up", "completed /s"),
            tuple(
                (
                    one.name,
                    number(one.rate_per_s),
                    number(self.patience[one.name].mean_s),
                    percent(one.gave_up_share),
                    number(one.completed_per_s),
                )
                for one in self.classes
            ),
        )
        yield from notes(self.caveats)
        yield Note(
            "patience ends at admission; where it lasts until the first token, prompts are "
            "computed for nothing, and less is completed: simulate that"
        )
        yield (
            f"Those who stay wait {seconds(self.wait_s)}; {percent(self.gave_up_share)} give up, "
            f"{number(self.completed_per_s)} /s are completed."
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "servers": self.servers,
            "offered_per_s": self.workload.rate_per_s,
            "wait_s": self.wait_s,
            "gave_up_share": self.gave_up_share,
            "completed_per_s": self.completed_per_s,
            "classes": [
                asdict(one) | {"patience": asdict(self.patience[one.name])} for one in self.classes
            ],
            "caveats": list(self.caveats),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Wait and share that gives up, against the offered rate from capacity on."""
        from fluid.plots.overload import plot_impatience

        least, here = self.found.saturated_per_s, self.workload.rate_per_s
        rates = np.linspace(least, max(_MOST_OFFERED * least, 1.2 * here), _POINTS)[1:]
        laws = [self.patience[one.name] for one in self.workload.classes]
        waits_s = [balanced_wait_s(self.found, laws, rate) for rate in rates.tolist()]
        shares = [gave_up(self.found, laws, wait) for wait in waits_s]
        title = f"{self.workload.name} on {self.servers} × {self.server.name}"
        return plot_impatience(
            ax, rates, np.array(waits_s), np.array(shares), (here, self.wait_s), title
        )


def impatience(
    workload: Workload,
    server: Server,
    patience: Patience | Mapping[str, Patience],
    *,
    saturated_per_s: float | None = None,
    servers: int = 1,
) -> Impatience:
    """Where waiting and giving up balance, above capacity (THEORY 12.2).

    Args:
        patience: Of all classes, or of each by name; it ends at admission.
        saturated_per_s: What a server completes under the policy that it runs; None for the
            fluid limit.
        servers: Replicas behind an ideal router (THEORY 12.3).

    Raises:
        InputError: A request does not fit, a class without patience or with one that does not
            vary, a figure out of range, or rates that the servers keep up with.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(15.0, 512, 100), code=fw.Requests(5.0, 512, 400))
    >>> laws = {"chat": fw.Patience(5.0), "code": fw.Patience(60.0)}
    >>> found = fw.impatience(load, fw.Server.named("engine-long-decode"), laws)
    >>> found.classes[0].gave_up_share > found.classes[1].gave_up_share
    True
    """
    names = [one.name for one in workload.classes]
    laws = dict.fromkeys(names, patience) if isinstance(patience, Patience) else dict(patience)
    if set(laws) != set(names):
        allowed = "a Patience, or one for each of " + ", ".join(names)
        raise InputError("patience", ", ".join(laws), allowed)
    ordered = [laws[name] for name in names]
    if any(law.variation == 0 for law in ordered):
        allowed = "more than 0: equal patience makes all waiting requests give up at once"
        raise InputError("variation", 0, allowed)
    found = demand(workload, server, saturated_per_s, servers)
    wait_s = balanced_wait_s(found, ordered, workload.rate_per_s)
    classes = []
    for one, law in zip(workload.classes, ordered, strict=True):
        gone = law.gone_after(wait_s)
        kept_per_s = one.rate_per_s * (1 - gone)
        classes.append(ClassImpatience(one.name, one.rate_per_s, gone, kept_per_s))
    return Impatience(
        workload=workload,
        server=server,
        servers=servers,
        patience=laws,
        found=found,
        wait_s=wait_s,
        gave_up_share=gave_up(found, ordered, wait_s),
        completed_per_s=sum(one.completed_per_s for one in classes),
        boundary_iteration_s=stability(workload, server).boundary_iteration_time_s,
        classes=tuple(classes),
    )


def balanced_wait_s(found: Demand, laws: list[Patience], offered_per_s: float) -> float:
    """w at which those who stay are as much work as is done."""
    from scipy.optimize import brentq

    def excess(wait_s: float) -> float:
        stay = np.array([1 - one.gone_after(wait_s) for one in laws])
        return offered_per_s * float(found.mix @ (stay * found.relative)) - found.saturated_per_s

    longest_s = max(one.mean_s for one in laws)
    while excess(longest_s) > 0:
        longest_s *= 2
    return float(brentq(excess, 0.0, longest_s, xtol=1e-12 * longest_s))


def gave_up(found: Demand, laws: list[Patience], wait_s: float) -> float:
    """Share of all requests that do not stay for a wait."""
    return float(found.mix @ [one.gone_after(wait_s) for one in laws])
