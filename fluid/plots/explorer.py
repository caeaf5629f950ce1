"""A stability region and its latencies to play with in a notebook.

The explorer draws with the functions behind ``fluidwait region`` and ``equilibrium``; sliders only
change the workload and the server. It needs ipywidgets (extra ``notebooks``).
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fluid.errors import InputError
from fluid.plots.steady import draw_region
from fluid.plots.style import STYLE
from fluid.result import number
from fluid.server import Server, ServerList
from fluid.steady.equilibrium import equilibrium
from fluid.steady.latency_by_rate import LatencyByRate, latency_by_rate
from fluid.steady.phase import PARAMETERS
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import Workload

_DPI = 100

_DRAWING = threading.Lock()
"""One drawing at a time: a kernel may serve sliders in a thread beside the one that runs cells."""


@dataclass(frozen=True)
class Setting:
    """What the sliders say.

    Attributes:
        rate_per_s: Total rate of the mix.
        memory_factor: Multiple of the server's KV memory.
        output_factor: Multiple of all output lengths.
    """

    server: Server
    rate_per_s: float
    memory_factor: float = 1.0
    output_factor: float = 1.0


def explored(workload: Workload, setting: Setting) -> tuple[Workload, Server]:
    """The workload and the server under a setting.

    Raises:
        InputError: The rate is not a positive finite number.
    """
    changed = workload, setting.server
    kv_tokens = setting.server.kv_capacity_tokens * setting.memory_factor
    for name, value in (
        ("rate", setting.rate_per_s),
        ("kv_tokens", kv_tokens),
        ("output_factor", setting.output_factor),
    ):
        changed = PARAMETERS[name][1](*changed, value)
    return changed


def explorer_png(region: StabilityRegion, start: StabilityRegion, times: LatencyByRate) -> bytes:
    """The region of two classes, with the boundary at the start, and beside it times by rate.

    Raises:
        InputError: The region does not have two classes.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.5), layout="constrained")
        axes: Axes
        beside: Axes
        axes, beside = figure.subplots(1, 2)
        axes.plot(*start.boundary().T, color="0.5", ls="--", label="fluid boundary at the start")
        draw_region(axes, region)
        axes.legend(fontsize=8, loc="upper right")
        times.plot(beside)
        beside.axvline(region.workload.rate_per_s, color="black", lw=1)
        beside.set_title("Latencies of this mix; the line is this workload")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=_DPI)
    return written.getvalue()


def verdict_text(workload: Workload, server: Server) -> str:
    """Inside or outside, by how much and why, in one sentence."""
    found = stability(workload, server)
    share = found.compute_share if found.binding == "compute" else found.memory_share
    side = "INSIDE" if found.stable else "OUTSIDE"
    return (
        f"{side}: {workload.rate_per_s:.2f} requests/s are {1 / found.max_scale:.1%} of the "
        f"boundary load of this mix; {found.binding} binds ({share:.0%} of that load)."
    )


def latency_text(workload: Workload, server: Server) -> str:
    """Mean and p99 under greedy admission in one sentence, or why there are none."""
    found = equilibrium(workload, server).prediction
    if found is None:
        return "No latencies: the queue of an unstable load grows for ever."
    if found.latency.pooled is None:
        return str(found.absence)
    times = found.latency.pooled
    return (
        f"TTFT {number(times.ttft_s.mean, 3)} s (p99 {number(times.ttft_s.p99, 3)} s), "
        f"latency {number(times.latency_s.mean, 3)} s (p99 {number(times.latency_s.p99, 3)} s)."
    )


def region_explorer(workload: Workload, servers: Sequence[Server] | None = None) -> Any:
    """Sliders for rate, memory and output length, servers, and region and latencies that they give.

    Args:
        workload: Two classes.
        servers: What to choose from; the first is the start. All built-in ones if None.

    Returns:
        An ipywidgets box: controls, sentence, picture.

    Raises:
        InputError: Not two classes, or a request that does not fit into the first server.
        ModuleNotFoundError: The extra is not installed.

    >>> import fluidwait as fw
    >>> pair = {"chat": fw.Requests(2.0, 512, 200), "report": fw.Requests(0.5, 512, 1000)}
    >>> box = fw.region_explorer(fw.Workload.of(**pair), [fw.Server.named("engine-long-decode")])
    >>> len(box.children)  # four controls, the sentence and the picture
    6
    """
    try:
        import ipywidgets as widgets
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the explorer needs: pip install 'fluidwait[notebooks]'"
        ) from None
    choice = servers or ServerList.builtin().servers
    start = StabilityRegion(workload, choice[0])
    limit_per_s = start.reach(start.operating_point_per_s) * workload.rate_per_s
    # The value that a slider starts with is one of its steps, or it would be moved when shown.
    step_per_s = workload.rate_per_s / 50
    most_per_s = step_per_s * math.ceil(2 * limit_per_s / step_per_s)
    controls = {
        "server": widgets.Dropdown(options=[(one.name, one) for one in choice]),
        "rate_per_s": widgets.FloatSlider(
            value=50 * step_per_s, min=step_per_s, max=most_per_s, step=step_per_s
        ),
        "memory_factor": widgets.FloatSlider(value=1.0, min=0.1, max=3.0, step=0.05),
        "output_factor": widgets.FloatSlider(value=1.0, min=0.1, max=10.0, step=0.1),
    }
    for name, control in controls.items():
        control.description = _LABELS[name]
        control.style = {"description_width": "12em"}
        control.layout = {"width": "32em"}
    sentence = widgets.HTML()
    image = widgets.Image(format="png")

    curves: dict[tuple[Server, float, float], LatencyByRate] = {}

    def times(setting: Setting) -> LatencyByRate:
        """Curves do not depend on the rate: that slider moves without solving them again."""
        key = setting.server, setting.memory_factor, setting.output_factor
        if key not in curves:
            mix = replace(setting, rate_per_s=workload.rate_per_s)
            curves[key] = latency_by_rate(*explored(workload, mix), shares=_SHARES)
        return curves[key]

    def update(*_: Any) -> None:
        # Values are read under the lock, so that the last update to draw knows all changes.
        with _DRAWING:
            setting = Setting(**{name: control.value for name, control in controls.items()})
            try:
                region = StabilityRegion(*explored(workload, setting))
            except InputError as error:  # a request no longer fits
                sentence.value = f"{error} (the picture is that of the last setting that fits)"
                return
            load = region.workload, region.server
            sentence.value = f"{verdict_text(*load)} {latency_text(*load)}"
            image.value = explorer_png(region, start, times(setting))

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls.values(), sentence, image])


_SHARES = (0.05, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Of the limit: as few rates as a curve needs, since a slider waits for them."""

_LABELS = {
    "server": "server",
    "rate_per_s": "total rate (requests/s)",
    "memory_factor": "KV memory (×)",
    "output_factor": "output lengths (×)",
}
