"""Plots of simulations, in one style: colour-blind safe, units on the axes, vector output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.traces.tape import Tape
from validation.policies import POLICIES, ConfiguredPolicy
from validation.replay import Replay, policy_of, replay_model
from validation.simulator.cpu import Job, Trace, run_traced
from validation.simulator.engine import WINDOW_END

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette."""

STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "svg.hashsalt": "fluidwait",
}

_POINTS = 1500
"""Points per line: more than a page can show."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix chooses the format.

    Raises:
        InputError: A suffix that matplotlib cannot write, or a folder that does not exist.
    """
    formats = figure.canvas.get_supported_filetypes()
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in formats:
        raise InputError("--plot", str(path), "a file ending in svg, pdf or png")
    try:
        figure.savefig(path, bbox_inches="tight")
    except OSError as error:
        raise InputError("--plot", str(path), f"a writable path ({error.strerror})") from None


def plot_replay(
    found: Replay, path: Path, tape: Tape | None = None, rate_scale: float = 1.0
) -> None:
    """One replication over time under each policy: waiting requests, KV in use, completions.

    Shown is the replication in which the first policy beside the table did as well as in the
    median, until the end of the measured window.
    """
    model = replay_model(found.table, tape)
    capacity = found.table.memory.capacity_tokens
    first = found.results[0]
    shares = found.results[min(1, len(found.results) - 1)].completed_shares
    replication = int(np.argsort(shares)[len(shares) // 2])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 8), layout="constrained")
        axes: Sequence[Axes] = figure.subplots(3, 1, sharex=True)
        for colour, policy, result in zip(COLOURS, _policies(found), found.results, strict=False):
            job = Job(policy, replication, seed=found.seed, rate_scale=rate_scale)
            trace = run_traced(model, job, first.requests)
            own = result is first
            label = f"this table ({found.table.policy})" if own else policy.label
            _draw(axes, trace, capacity, colour, f"{label}: {result.verdict}", own)
        arrived = trace.arrived_at_s
        count = np.arange(1.0, len(arrived) + 1)
        axes[2].plot(_thinned(arrived), _thinned(count), "k:", lw=1, label="arrived")
        axes[0].set_ylabel("waiting requests")
        axes[1].set_ylabel("KV in use (% of capacity)")
        axes[2].set_ylabel("completed requests")
        axes[2].set_xlabel("time (s)")
        axes[2].set_xlim(0, arrived[int(WINDOW_END * len(arrived))])
        axes[2].legend(fontsize=8)
        axes[0].set_title(
            f"{found.table.workload.name} on {found.table.server.name} "
            f"at {first.rate_per_s:.4g} requests/s, a median run of {first.replications}"
        )
        save(figure, path)


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
    axes: Sequence[Axes], trace: Trace, capacity: float, colour: str, label: str, own: bool
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
