"""Fluid equilibrium: iteration time, inventory, memory and first-order latency (THEORY 2.2–2.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.result import Block, Result, Table, columns_of, notes, number, percent, seconds
from fluid.server import Server, require_fits
from fluid.stages import Stages, class_stages
from fluid.steady.caveats import condition_caveats, profile_caveats, range_caveats
from fluid.steady.intake import Intake, Method, intake
from fluid.steady.overflow import Overflow, overflow
from fluid.steady.phase import rate_and_memory
from fluid.steady.stability import Binding, curve_stability, largest_scale, verdict
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_CURVE_POINTS = 60
"""Rates of a latency curve."""


@dataclass(frozen=True)
class ClassEquilibrium:
    """One class at equilibrium; times and inventory are None where the workload is unstable.

    Attributes:
        stages: S_j, iterations that a request needs.
        in_service_per_stage: n*_j = λ_j·ΔT*, requests at each stage.
        ttft_s: Arrival to first output token.
        tpot_s: Mean time between output tokens; None with one output token.
        latency_s: Arrival to completion.
    """

    name: str
    rate_per_s: float
    stages: int
    in_service_per_stage: float | None
    ttft_s: float | None
    tpot_s: float | None
    latency_s: float | None


@dataclass(frozen=True, repr=False)
class Equilibrium(Result):
    """The fluid equilibrium of a workload on a server.

    Attributes:
        stable: Whether the equilibrium exists and fits into memory.
        method: "closed-form" (affine f), "poisson" (E[τ] with Poisson new prompts) or "mean" (τ of
            the mean composition).
        utilisation: ρ, share of an iteration that work takes; see `Stability`.
        iteration_time_s: ΔT*; None where there is no equilibrium at any memory.
        kv_tokens: M*, mean KV held; None as above. Above `kv_capacity_tokens` it does not fit.
        max_scale: α*, largest stable multiple of the rates; with margin, binding and the two
            shares as in `fluid.steady.stability.Stability`.
        tpot_s: Rate-weighted mean over the classes with at least two output tokens.
        ttft_s: Rate-weighted mean; latency_s alike.
        throughput_tokens_per_s: Σ λ_j l'_j.
        caveats: One sentence for each condition of THEORY 2.6 that does not hold, for each quantity
            of the batches that leaves the server's measured range, and one where the rates vary
            over time.
        evictions: Share of iterations that may exceed the memory, where that was asked about.
        fluctuations: The answer; None where nothing was asked or the workload is unstable.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> found = fw.equilibrium(load, fw.Server.named("a100-80gb-llama-2-7b"))
    >>> print(f"{found.utilisation:.2f} {found.kv_tokens:,.0f} {found.classes[0].name}")
    0.41 7,752 chat
    """

    workload: Workload
    server: Server
    stable: bool
    method: Method
    utilisation: float
    iteration_time_s: float | None
    kv_tokens: float | None
    kv_capacity_tokens: int
    max_scale: float
    margin: float
    binding: Binding
    compute_share: float
    memory_share: float
    tpot_s: float | None
    ttft_s: float | None
    latency_s: float | None
    throughput_tokens_per_s: float | None
    caveats: tuple[str, ...]
    classes: tuple[ClassEquilibrium, ...]
    evictions: float | None = None
    fluctuations: Overflow | None = None

    @property
    def title(self) -> str:
        """What is in balance where."""
        return f"{self.workload.name} on {self.server.name}"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, with its cause."""
        return verdict(self.max_scale, self.margin, self.binding)

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class."""
        return columns_of(self.classes)

    def blocks(self) -> Iterator[Block]:
        yield Table(self.title, ("figure", "value"), self._figures())
        yield Table(
            "Classes",
            ("class", "rate /s", "stages", "n* per stage", "TTFT s", "TPOT s", "latency s"),
            tuple(
                (
                    one.name,
                    number(one.rate_per_s),
                    str(one.stages),
                    number(one.in_service_per_stage),
                    number(one.ttft_s),
                    number(one.tpot_s),
                    number(one.latency_s),
                )
                for one in self.classes
            ),
            spare=("stages", "n* per stage", "TPOT s", "TTFT s"),
        )
        yield from notes(self.caveats)
        if self.fluctuations is not None:
            yield self.fluctuations.table()
        yield self.sentence

    def _figures(self) -> tuple[tuple[str, str], ...]:
        shares = f"{percent(self.compute_share)} / {percent(self.memory_share)}"
        return (
            ("arrival rate", f"{number(self.workload.rate_per_s)} /s"),
            ("utilisation ρ", number(self.utilisation)),
            ("iteration time ΔT*", seconds(self.iteration_time_s)),
            ("KV tokens M*", number(self.kv_tokens)),
            ("KV capacity C", number(float(self.kv_capacity_tokens))),
            ("largest stable multiple α*", number(self.max_scale)),
            ("compute / memory share", shares),
            ("mean TTFT", seconds(self.ttft_s)),
            ("mean TPOT", seconds(self.tpot_s)),
            ("mean latency", seconds(self.latency_s)),
            ("throughput tokens/s", number(self.throughput_tokens_per_s)),
        )

    def document(self) -> dict[str, Any]:
        apart = ("workload", "server", "caveats", "classes", "evictions", "fluctuations")
        document = {
            "workload": self.workload.name,
            "server": self.server.name,
            **{one.name: getattr(self, one.name) for one in fields(self) if one.name not in apart},
            "caveats": list(self.caveats),
            "classes": [asdict(one) for one in self.classes],
        }
        if self.evictions is not None:
            document["fluctuations"] = self.fluctuations and asdict(self.fluctuations)
        return document

    def plot(self, ax: Axes | None = None, picture: str = "latency") -> Axes:
        """One of `PICTURES`: mean times by rate, KV by stage, or the margin by rate and memory.

        Raises:
            InputError: Another picture, or that of stages where there is no equilibrium.
        """
        if picture not in PICTURES:
            raise InputError("picture", picture, "one of " + ", ".join(PICTURES))
        drawn: Axes = getattr(self, f"_plot_{picture}")(ax)
        return drawn

    def _plot_latency(self, ax: Axes | None) -> Axes:
        from fluid.plots.steady import plot_latency

        rates_per_s, curves_s, limit_per_s = latency_curves(self.workload, self.server)
        title = f"{self.title}, fluid model"
        return plot_latency(ax, rates_per_s, curves_s, limit_per_s, title)

    def _plot_stages(self, ax: Axes | None) -> Axes:
        from fluid.plots.steady import plot_composition

        if not self.stable:
            raise InputError("workload", self.workload.name, "a stable workload")
        stages = [class_stages(one, self.server) for one in self.workload.classes]
        held = np.zeros((len(stages), max(int(one.index[-1]) for one in stages) + 1))
        for row, one, balanced in zip(held, stages, self.classes, strict=True):
            row[one.index] = (balanced.in_service_per_stage or 0.0) * one.held_kv_tokens
        names = [one.name for one in self.classes]
        title = f"{self.title}: {self.kv_tokens:,.0f} of {self.kv_capacity_tokens:,} tokens"
        return plot_composition(ax, dict(zip(names, held, strict=True)), title)

    def _plot_phase(self, ax: Axes | None) -> Axes:
        return rate_and_memory(self.workload, self.server).plot(ax)


PICTURES = ("latency", "stages", "phase")
"""What `Equilibrium.plot` draws."""


def equilibrium(
    workload: Workload,
    server: Server,
    method: Method | None = None,
    *,
    evictions: float | None = None,
) -> Equilibrium:
    """Solve ΔT* = E[τ(λΔT*)] and derive inventory, memory and latencies (THEORY 2.2, 2.5, 2.6).

    Args:
        method: "closed-form" needs affine f; "poisson" and "mean" take any f. By default the
            closed form where f is affine, else "poisson".
        evictions: Also say when this share of the iterations exceeds the memory (THEORY 2.7, 9.2).

    Raises:
        InputError: One request of a class does not fit, `method` does not suit f, the rates vary
            over time around another mean than the given ones, or `evictions` is not a share.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=1000))
    >>> found = fw.equilibrium(load, fw.Server.named("paper-long-decode"), evictions=0.01)
    >>> found.stable, round(found.fluctuations.eviction_onset_per_s, 1)
    (True, 2.5)
    """
    require_fits(workload, server)
    curve = intake(workload, server, method)
    boundary, balance_s = curve_stability(curve)
    served = balance_s if boundary.stable else None
    added_s = () if served is None else curve.stage_seconds(served)
    classes = _classes(workload, curve, served, added_s)
    throughput = sum(one.rate_per_s * one.decode_tokens for one in workload.classes)
    return Equilibrium(
        workload=workload,
        server=server,
        stable=boundary.stable,
        method=curve.method,
        utilisation=boundary.utilisation,
        iteration_time_s=balance_s,
        kv_tokens=None if balance_s is None else balance_s * curve.kv_tokens_per_s,
        kv_capacity_tokens=server.usable_kv_tokens,
        max_scale=boundary.max_scale,
        margin=boundary.margin,
        binding=boundary.binding,
        compute_share=boundary.compute_share,
        memory_share=boundary.memory_share,
        tpot_s=_weighted_mean([(one.rate_per_s, one.tpot_s) for one in classes]),
        ttft_s=_weighted_mean([(one.rate_per_s, one.ttft_s) for one in classes]),
        latency_s=_weighted_mean([(one.rate_per_s, one.latency_s) for one in classes]),
        throughput_tokens_per_s=throughput if boundary.stable else None,
        caveats=(
            *condition_caveats(curve, boundary.utilisation, served, added_s),
            *range_caveats(curve, served, boundary.max_scale * boundary.boundary_iteration_time_s),
            *profile_caveats(workload, boundary.max_scale),
        ),
        classes=classes,
        evictions=evictions,
        fluctuations=None
        if evictions is None or served is None
        else overflow(workload, server, evictions),
    )


def latency_curves(workload: Workload, server: Server) -> tuple[Floats, dict[str, Floats], float]:
    """First-order means against the total rate of the mix, up to the boundary.

    Returns:
        Rates, shape (60,); means in seconds by name, alike, those that exist; the boundary.
    """
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s
    rates_per_s = limit_per_s * np.linspace(0.02, 0.999, _CURVE_POINTS)
    found = [equilibrium(workload.at_rate(rate), server) for rate in rates_per_s.tolist()]
    curves_s = {
        label: [getattr(one, name) for one in found]
        for label, name in (("latency", "latency_s"), ("TTFT", "ttft_s"), ("TPOT", "tpot_s"))
    }
    known = {label: np.array(means) for label, means in curves_s.items() if None not in means}
    return rates_per_s, known, limit_per_s


def _classes(
    workload: Workload,
    curve: Intake,
    iteration_s: float | None,
    added_s: tuple[NDArray[np.float64], ...],
) -> tuple[ClassEquilibrium, ...]:
    if iteration_s is None:
        return tuple(
            ClassEquilibrium(one.name, one.rate_per_s, stages.count, None, None, None, None)
            for one, stages in zip(workload.classes, curve.stages, strict=True)
        )
    found = []
    for one, stages, own_s in zip(workload.classes, curve.stages, added_s, strict=True):
        ttft_s, tpot_s, latency_s = _latencies(stages, own_s, iteration_s)
        found.append(
            ClassEquilibrium(
                name=one.name,
                rate_per_s=one.rate_per_s,
                stages=stages.count,
                in_service_per_stage=one.rate_per_s * iteration_s,
                ttft_s=ttft_s,
                tpot_s=tpot_s,
                latency_s=latency_s,
            )
        )
    return tuple(found)


def _latencies(
    stages: Stages, added_s: NDArray[np.float64], iteration_s: float
) -> tuple[float, float | None, float]:
    """TTFT, TPOT and latency in seconds (THEORY 2.6).

    The first k stages take (k + ½)·ΔT* — half an iteration until the next one starts — plus what
    the request itself adds to each of them.
    """
    through_first = stages.first_output + 1
    ttft_s = (through_first + 0.5) * iteration_s + float(added_s[:through_first].sum())
    latency_s = (stages.count + 0.5) * iteration_s + float(added_s.sum())
    gaps = stages.count - through_first
    return ttft_s, (latency_s - ttft_s) / gaps if gaps else None, latency_s


def _weighted_mean(pairs: list[tuple[float, float | None]]) -> float | None:
    """Mean of the values that exist, weighted by rate; None if none does."""
    known = [(rate, value) for rate, value in pairs if value is not None]
    if not known:
        return None
    return sum(rate * value for rate, value in known) / sum(rate for rate, _ in known)
