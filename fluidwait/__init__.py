"""The front door of fluidwait: ``import fluidwait as fw``.

Describe a load and a server, ask, and get a result that prints, draws and gives its data.

>>> import fluidwait as fw
>>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
>>> server = fw.Server.named("a100-80gb-llama-2-7b")
>>> fw.stability(load, server).stable
True

Every name is imported from its room when it is first used, so that importing this package costs
next to nothing. Rooms for those who look further: `fw.symbolic` (the derivations in sympy),
`fw.transient` (the fluid over time), `fw.nested` (parts of Nested WAIT), `fw.measure` (timing a
device), `fw.policy_kit` (what a policy of your own is made of), `fw.plots` (their style on paper).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluid import symbolic, transient
    from fluid.cache.result import PrefixCache, prefix_cache
    from fluid.cache.routing import Routing, routing
    from fluid.conversation import Conversation
    from fluid.errors import FluidwaitError, InfeasibleError, InputError
    from fluid.explorer.notebook import region_explorer
    from fluid.iteration import IterationTime
    from fluid.overload.bounded_queue import BoundedQueue, bounded_queue
    from fluid.overload.fixed_clients import FixedClients, fixed_clients
    from fluid.overload.impatience import Impatience, Patience, impatience
    from fluid.overload.queue_for_limit import QueueForLimit, queue_for_limit
    from fluid.server import Server
    from fluid.steady.bounds import bounds
    from fluid.steady.capacity import CapacityAnswer, capacity
    from fluid.steady.equilibrium import Equilibrium, equilibrium
    from fluid.steady.fluctuation import Fluctuation, fluctuation
    from fluid.steady.fluid_sweep import FluidSweep
    from fluid.steady.full_memory.stability import FullMemory, full_memory
    from fluid.steady.latency.predict import latency
    from fluid.steady.latency.result import Latency
    from fluid.steady.latency.rule import BatchRule
    from fluid.steady.phase import phase
    from fluid.steady.stability import Stability, stability
    from fluid.traces.prompt_blocks import PromptBlocks
    from fluid.traces.registry import read_trace
    from fluid.traces.summarise import TraceSummary, summarise_trace
    from fluid.traces.tape import Tape
    from fluid.transient.path import FluidPath, simulate_fluid
    from fluid.transient.saturated import PredictedLoss, predicted_loss
    from fluid.workload import RequestClass, Requests, Slo, Workload
    from fluidwait import plots
    from thresholds.fleet import Fleet, ServerType, fleet
    from thresholds.limits import Limits
    from thresholds.schedule import Schedule
    from thresholds.solvers import nested
    from thresholds.solvers.nested.nested_cap import NestedCap
    from thresholds.solvers.nested.nested_wait import NestedWait
    from thresholds.solvers.paced.boundary import boundary_load
    from thresholds.solvers.paced.solver import Paced
    from thresholds.solvers.wait.solver import Wait
    from thresholds.table import ThresholdTable
    from thresholds.uncertain.rates import RateBox, RateMix, RatePosterior
    from validation import measure
    from validation.experiments.compare import Comparison, compare
    from validation.experiments.following import policy_of
    from validation.experiments.largest_rate import LargestRate, largest_stable_rate
    from validation.experiments.planning.plan import plan
    from validation.experiments.planning.result import Plan
    from validation.experiments.recovery import Recovery, recovery
    from validation.experiments.region import Region, region
    from validation.experiments.replay import Replay, replay
    from validation.experiments.slo.load import SloLoad
    from validation.experiments.slo.overload import OverloadCurve, overload_curve
    from validation.experiments.slo.rate import SloRate, slo_rate
    from validation.experiments.slo.servers import SloServers, slo_servers
    from validation.experiments.solve import solve
    from validation.experiments.sweep import Sweep, sweep
    from validation.measure.calibrate import Calibration, calibrate
    from validation.policies import policy, policy_kit
    from validation.report.content import Report, make_report
    from validation.servers.estimate import EstimatedServer, estimate_server
    from validation.simulator.runs import Runs
    from validation.simulator.traffic.clients import Clients
    from validation.simulator.traffic.job import FiniteJob
    from validation.simulator.traffic.outputs import Outputs
    from validation.simulator.traffic.queue_limit import QueueLimit
    from validation.simulator.traffic.traffic import Traffic
    from validation.theorems.bench import TheoremReport, theorem_report

_ROOMS = {
    "fluid": "symbolic transient",
    "fluid.cache.result": "PrefixCache prefix_cache",
    "fluid.cache.routing": "Routing routing",
    "fluid.conversation": "Conversation",
    "fluid.errors": "FluidwaitError InfeasibleError InputError",
    "fluid.explorer.notebook": "region_explorer",
    "fluid.iteration": "IterationTime",
    "fluid.overload.bounded_queue": "BoundedQueue bounded_queue",
    "fluid.overload.fixed_clients": "FixedClients fixed_clients",
    "fluid.overload.impatience": "Impatience Patience impatience",
    "fluid.overload.queue_for_limit": "QueueForLimit queue_for_limit",
    "fluid.server": "Server",
    "fluid.steady.bounds": "bounds",
    "fluid.steady.capacity": "CapacityAnswer capacity",
    "fluid.steady.equilibrium": "Equilibrium equilibrium",
    "fluid.steady.fluctuation": "Fluctuation fluctuation",
    "fluid.steady.fluid_sweep": "FluidSweep",
    "fluid.steady.full_memory.stability": "FullMemory full_memory",
    "fluid.steady.latency.predict": "latency",
    "fluid.steady.latency.result": "Latency",
    "fluid.steady.latency.rule": "BatchRule",
    "fluid.steady.phase": "phase",
    "fluid.steady.stability": "Stability stability",
    "fluid.traces.prompt_blocks": "PromptBlocks",
    "fluid.traces.registry": "read_trace",
    "fluid.traces.summarise": "TraceSummary summarise_trace",
    "fluid.traces.tape": "Tape",
    "fluid.transient.path": "FluidPath simulate_fluid",
    "fluid.transient.saturated": "PredictedLoss predicted_loss",
    "fluid.workload": "RequestClass Requests Slo Workload",
    "fluidwait": "plots",
    "thresholds.fleet": "Fleet ServerType fleet",
    "thresholds.limits": "Limits",
    "thresholds.schedule": "Schedule",
    "thresholds.solvers": "nested",
    "thresholds.solvers.nested.nested_cap": "NestedCap",
    "thresholds.solvers.nested.nested_wait": "NestedWait",
    "thresholds.solvers.paced.boundary": "boundary_load",
    "thresholds.solvers.paced.solver": "Paced",
    "thresholds.solvers.wait.solver": "Wait",
    "thresholds.table": "ThresholdTable",
    "thresholds.uncertain.rates": "RateBox RateMix RatePosterior",
    "validation": "measure",
    "validation.experiments.compare": "Comparison compare",
    "validation.experiments.following": "policy_of",
    "validation.experiments.largest_rate": "LargestRate largest_stable_rate",
    "validation.experiments.planning.plan": "plan",
    "validation.experiments.planning.result": "Plan",
    "validation.experiments.recovery": "Recovery recovery",
    "validation.experiments.replay": "Replay replay",
    "validation.experiments.region": "Region region",
    "validation.experiments.slo.load": "SloLoad",
    "validation.experiments.slo.overload": "OverloadCurve overload_curve",
    "validation.experiments.slo.rate": "SloRate slo_rate",
    "validation.experiments.slo.servers": "SloServers slo_servers",
    "validation.experiments.solve": "solve",
    "validation.experiments.sweep": "Sweep sweep",
    "validation.measure.calibrate": "Calibration calibrate",
    "validation.policies": "policy policy_kit",
    "validation.report.content": "Report make_report",
    "validation.servers.estimate": "EstimatedServer estimate_server",
    "validation.simulator.runs": "Runs",
    "validation.simulator.traffic.clients": "Clients",
    "validation.simulator.traffic.job": "FiniteJob",
    "validation.simulator.traffic.outputs": "Outputs",
    "validation.simulator.traffic.queue_limit": "QueueLimit",
    "validation.simulator.traffic.traffic": "Traffic",
    "validation.theorems.bench": "TheoremReport theorem_report",
}
"""Public names by the module that defines them."""

_MODULE_OF = {name: module for module, names in _ROOMS.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import a public name from its room (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("fluidwait")
    module_name = _MODULE_OF.get(name)
    if module_name is None:
        raise AttributeError(f"module 'fluidwait' has no attribute {name!r}")
    # Not `getattr`, with which this package would ask itself for ever.
    found = vars(importlib.import_module(module_name)).get(name)
    if found is None:
        found = importlib.import_module(f"{module_name}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
