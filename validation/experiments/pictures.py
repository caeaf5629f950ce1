"""Plots of simulations, in one style: colour-blind safe, units on the axes, vector output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from fluid.plots.style import COLOURS, MARKERS, STYLE
from fluid.traces.tape import Tape
from validation.experiments.compare import PolicyResult
from validation.experiments.replay import Replay, policy_of, replay_model
from validation.policies import POLICIES, ConfiguredPolicy
from validation.simulator.arrivals import Arrivals
from validation.simulator.cpu import Job, SamplePath, run_traced
from validation.simulator.engine import WINDOW_END
from validation.simulator.model import Model

_POINTS = 1500
"""Points per line: more than a page can show."""


def plot_replay(
    found: Replay,
    path: Path,
    tape: Tape | None = None,
    rate_scale: float = 1.0,
    arrivals: Arrivals | None = None,
) -> None:
    """One replication over time under each policy: waiting requests, KV in use, completions.

    Shown is the replication in which the first policy beside the table did as well as in the
    median, until the end of the measured window.
    """
    first = found.results[0]
    shares = found.results[min(1, len(found.results) - 1)].completed_shares
    replication = int(np.argsort(shares)[len(shares) // 2])
    jobs = {}
    for policy, result in zip(_policies(found), found.results, strict=True):
        label = f"this table ({found.table.policy})" if result is first else policy.label
        jobs[f"{label}: {result.verdict}"] = Job(policy, replication, found.seed, rate_scale)
    title = (
        f"{found.table.workload.name} on {found.table.server.name} "
        f"at {first.rate_per_s:.4g} requests/s, a median run of {first.replications}"
    )
    plot_paths(replay_model(found.table, tape, arrivals), jobs, first.requests, title, path)


def plot_paths(
    model: Model, jobs: Mapping[str, Job], requests: int, title: str, path: Path
) -> None:
    """One replication over time per label, the first drawn thickest, until the window ends."""
    capacity_tokens = int(model.constants[0]["kv_capacity_tokens"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 8), layout="constrained")
        axes: Sequence[Axes] = figure.subplots(3, 1, sharex=True)
        for index, (colour, (label, job)) in enumerate(zip(COLOURS, jobs.items(), strict=False)):
            trace = run_traced(model, job, requests)
            _draw(axes, trace, capacity_tokens, colour, label, own=index == 0)
        arrived = trace.arrived_at_s
        count = np.arange(1.0, len(arrived) + 1)
        axes[2].plot(_thinned(arrived), _thinned(count), "k:", lw=1, label="arrived")
        axes[0].set_ylabel("waiting requests")
        axes[1].set_ylabel("KV in use (% of capacity)")
        axes[2].set_ylabel("completed requests")
        axes[2].set_xlabel("time (s)")
        axes[2].set_xlim(0, arrived[int(WINDOW_END * len(arrived))])
        axes[2].legend(fontsize=8)
        axes[0].set_title(title)
        figure.savefig(path, bbox_inches="tight")


def plot_compare(results: Sequence[PolicyResult], limit_per_s: float | None, path: Path) -> None:
    """Mean latency against offered rate, and completed against offered, one line per policy."""
    labels = list(dict.fromkeys(one.label for one in results))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        latency, completed = figure.subplots(1, 2)
        for index, label in enumerate(labels):
            rows = sorted((one for one in results if one.label == label), key=_rate)
            stable = [(one, one.latency_s) for one in rows if one.latency_s]
            style: dict[str, Any] = {
                "color": COLOURS[index % len(COLOURS)],
                "marker": MARKERS[index % len(MARKERS)],
                "ms": 4,
                "lw": 1.2,
                "label": label,
            }
            latency.errorbar(
                [one.rate_per_s for one, _ in stable],
                [spread.mean for _, spread in stable],
                yerr=[spread.half_width or 0.0 for _, spread in stable],
                capsize=2,
                **style,
            )
            completed.plot(
                [one.rate_per_s for one in rows], [one.completed_per_s for one in rows], **style
            )
        for ax in (latency, completed):
            ax.set_xlabel("offered rate (requests/s)")
            if limit_per_s is not None:
                ax.axvline(limit_per_s, color="black", ls=":", lw=1, label="fluid limit")
        offered = [one.rate_per_s for one in results]
        completed.plot([min(offered), max(offered)], [min(offered), max(offered)], "k-", lw=0.6)
        latency.set_ylabel("mean latency (s), where not unstable")
        latency.set_yscale("log")
        for axis_format in (latency.yaxis.set_major_formatter, latency.yaxis.set_minor_formatter):
            axis_format(LogFormatter(minor_thresholds=(2, 0.5)))
        completed.set_ylabel("completed rate (requests/s)")
        completed.legend(fontsize=8)
        figure.savefig(path, bbox_inches="tight")


def plot_slack(
    slack: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    half_width_s: NDArray[np.float64],
    formula_s: NDArray[np.float64],
    path: Path,
) -> None:
    """Mean latency of threshold tables over their least drift slack; arrays of shape (k,).

    Args:
        slack: 1 − max_j λ_j ΔT(n)/n_j; the first table is the solved one.
        latency_s: Simulated, with `half_width_s` of its 95 % interval.
        formula_s: Predicted (THEORY 3.5); infinite where drift fails, left out there.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4), layout="constrained")
        axes = figure.subplots()
        percent = 100 * slack
        axes.errorbar(
            percent, latency_s, half_width_s, fmt="o", ms=4, color=COLOURS[0], label="simulated"
        )
        known = np.isfinite(formula_s)
        axes.plot(percent[known], formula_s[known], "x", ms=5, color=COLOURS[1], label="formula")
        axes.plot(percent[:1], latency_s[:1], "o", ms=11, mfc="none", color="black", label="solved")
        axes.axvline(0, color="black", ls=":", lw=1)
        axes.set_xlabel("least relative slack of the drift conditions (%)")
        axes.set_ylabel("mean latency (s)")
        axes.legend(fontsize=8)
        figure.savefig(path, bbox_inches="tight")


def _rate(result: PolicyResult) -> float:
    return result.rate_per_s


def _policies(found: Replay) -> list[ConfiguredPolicy]:
    others = [
        POLICIES[one.policy].configure(
            {k: v for k, v in one.params.items() if k not in ("thresholds", "cuts")},
            tuple(one.params.get("thresholds", ())),
            tuple(one.params.get("cuts", ())),
        )
        for one in found.results[1:]
    ]
    return [policy_of(found.table), *others]


def _draw(
    axes: Sequence[Axes], trace: SamplePath, capacity: float, colour: str, label: str, own: bool
) -> None:
    clock, held, _, waiting = trace.series.T
    done = np.sort(trace.completed_at_s[np.isfinite(trace.completed_at_s)])
    width = 1.6 if own else 1.0
    for ax, x, y in (
        (axes[0], clock, waiting),
        (axes[1], clock, 100 * held / capacity),
        (axes[2], done, np.arange(1.0, len(done) + 1)),
    ):
        ax.plot(_thinned(x), _thinned(y), color=colour, lw=width, zorder=2 + own, label=label)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every k-th point, so that a vector file stays small."""
    return values[:: max(1, len(values) // _POINTS)]
