"""A stability region to play with in a notebook.

The explorer draws with the functions behind ``fluidwait region``; sliders only change the workload
and the server. It needs ipywidgets (extra ``notebooks``).
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fluid.errors import InputError
from fluid.plots.steady import draw_region
from fluid.plots.style import STYLE
from fluid.server import Server, ServerList
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


def region_png(region: StabilityRegion, start: StabilityRegion) -> bytes:
    """The region of two classes, with the boundary at the start for comparison.

    Raises:
        InputError: The region does not have two classes.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4.5), layout="constrained")
        axes: Axes = figure.subplots()
        axes.plot(*start.boundary().T, color="0.5", ls="--", label="fluid boundary at the start")
        draw_region(axes, region)
        axes.legend(fontsize=8, loc="upper right")
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


def region_explorer(workload: Workload, servers: Sequence[Server] | None = None) -> Any:
    """Sliders for rate, memory and output length, a choice of servers, and the region they give.

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

    def update(*_: Any) -> None:
        # Values are read under the lock, so that the last update to draw knows all changes.
        with _DRAWING:
            setting = Setting(**{name: control.value for name, control in controls.items()})
            try:
                region = StabilityRegion(*explored(workload, setting))
            except InputError as error:  # a request no longer fits
                sentence.value = f"{error} (the picture is that of the last setting that fits)"
                return
            sentence.value = verdict_text(region.workload, region.server)
            image.value = region_png(region, start)

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return widgets.VBox([*controls.values(), sentence, image])


_LABELS = {
    "server": "server",
    "rate_per_s": "total rate (requests/s)",
    "memory_factor": "KV memory (×)",
    "output_factor": "output lengths (×)",
}
