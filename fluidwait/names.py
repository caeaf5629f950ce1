"""Names that a shell offers for the values of options; each list is imported when it is asked for.

A name may be followed by parameters (``greedy:cap=90``): these are left to the reader.
"""

from __future__ import annotations

from collections.abc import Iterable

SIMULATED_QUERIES = ("slo-rate", "slo-servers", "slo-queue")
"""Questions about a capacity that are simulated: those about service levels."""


def servers(incomplete: str) -> list[str]:
    """Built-in servers."""
    from fluid.server import builtin_servers

    return _starting(incomplete, builtin_servers())


def policies(incomplete: str) -> list[str]:
    """Rules of the simulator."""
    from validation.policies import POLICIES

    return _starting(incomplete, POLICIES)


def solvers(incomplete: str) -> list[str]:
    """Policies that tables are computed for."""
    from thresholds.solvers.registry import SOLVERS

    return _starting(incomplete, SOLVERS)


def engines(incomplete: str) -> list[str]:
    """Serving systems, and autoscalers, that a table is exported to."""
    from thresholds.export.autoscaling.scalers import SCALERS
    from thresholds.export.engines import ENGINES

    return _starting(incomplete, (*ENGINES, *SCALERS))


def queries(incomplete: str) -> list[str]:
    """Questions about a capacity."""
    from fluid.steady.queries import QUERIES

    return _starting(incomplete, (*QUERIES, *SIMULATED_QUERIES))


def routers(incomplete: str) -> list[str]:
    """Ways to split requests over servers."""
    from validation.experiments.slo.servers import ROUTERS

    return _starting(incomplete, ROUTERS)


def schedulers(incomplete: str) -> list[str]:
    """Rules that latencies are predicted for."""
    from fluid.steady.latency.scheduler import SCHEDULERS

    return _starting(incomplete, SCHEDULERS)


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [one for one in names if one.startswith(incomplete)]
