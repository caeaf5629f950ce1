"""The explorer's way into a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fluid.explorer.state import Explorer
from fluid.server import Server, ServerList
from fluid.workload import Workload


def region_explorer(workload: Workload, servers: Server | Sequence[Server] | None = None) -> Any:
    """Sliders for rates, lengths, memory and overhead, and the region and latencies that they give.

    Args:
        workload: Up to twelve classes without prefixes; the picture shows two.
        servers: One, or what to choose from; the first is the start. All built-in ones if None.

    Returns:
        A widget: controls, region with a point that can be dragged, latencies by rate.

    Raises:
        InputError: Too many classes, a shared prefix, or a request that does not fit into the first
            server.
        ModuleNotFoundError: The extra ``notebooks`` is not installed.

    >>> import fluidwait as fw
    >>> pair = {"chat": fw.Requests(2.0, 512, 200), "report": fw.Requests(0.5, 512, 1000)}
    >>> shown = fw.region_explorer(fw.Workload.of(**pair), fw.Server.named("engine-long-decode"))
    >>> shown.known["classes"]
    ['chat', 'report']
    """
    if servers is None:
        servers = ServerList.builtin().servers
    choice = (servers,) if isinstance(servers, Server) else tuple(servers)
    explorer = Explorer(workload, choice)
    try:
        from fluid.explorer.widget import RegionExplorer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the explorer needs: pip install 'fluidwait[notebooks]'"
        ) from None
    return RegionExplorer(explorer)
