"""What a policy is: a rule that forms the next batch, with named, checked parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from thresholds.labels import policy_label
from validation.simulator.compiling import bind
from validation.simulator.loop import run_lane
from validation.simulator.model import Model


@dataclass(frozen=True)
class Parameter:
    """A number with a range, or a word from `choices` (passed to the kernel as its position).

    Attributes:
        limit: Field of the model's constants that is the default instead, where it is not 0.
    """

    name: str
    default: float
    lowest: float
    highest: float
    summary: str
    choices: tuple[str, ...] = ()
    limit: str = ""

    def parsed(self, value: float | str) -> float | str:
        """A word as it is, a number as a number, a whole one as an integer.

        Raises:
            InputError: Not a number, out of range, or not one of the choices.
        """
        if self.choices:
            if value not in self.choices:
                raise InputError(self.name, value, "one of " + ", ".join(self.choices))
            return str(value)
        allowed = f"a number from {self.lowest:g} to {self.highest:g}"
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InputError(self.name, value, allowed) from None
        if not self.lowest <= number <= self.highest:
            raise InputError(self.name, value, allowed)
        return int(number) if number.is_integer() else number

    def number(self, parsed: float | str) -> float:
        """What the kernel reads for a value that `parsed` has checked."""
        return float(self.choices.index(str(parsed)) if self.choices else parsed)


EVICTION_PARAMETERS = (
    Parameter("victim", 0, 0, 1, "who is evicted first", ("last-admitted", "latest-arrival")),
    Parameter("requeue", 0, 0, 1, "where an evicted request waits", ("front", "back")),
    Parameter("progress", 0, 0, 1, "what becomes of its generated tokens", ("lost", "kept")),
)
"""THEORY 1.4; the defaults are the paper's rule."""

RECOMPUTE_PARAMETERS = (*EVICTION_PARAMETERS[:2], replace(EVICTION_PARAMETERS[2], default=1))
"""The same with the defaults of serving systems: generated tokens are kept and recomputed."""


SEATS = ("max_num_seqs", "max_num_active_seqs", "cap")
"""Parameters that bound the requests in service."""

PARTIAL = ("long_prefill_token_threshold",)
"""Parameters under which many requests may hold a part of their prompts at the same time."""


@dataclass(frozen=True)
class Policy:
    """A scheduling rule.

    Attributes:
        form_batch: Kernel (model, lane, params, thresholds) that evicts, admits and sets `work`.
        queue_of: Kernel (model, shape) that says in which queue a request waits.
        parameters: In the order in which the kernel reads `params`.
        per_class: Whether the rule needs one threshold per class.
        engine_convention_only: Whether it needs a server whose prefill emits the first token.
        require_served: Function (model, params) that raises InputError where the rule could never
            serve some request of the model; None where it serves all that fit into memory.
        per_segment: Whether the rule needs one threshold per segment of output length.
        never_evicts: Whether the rule guarantees that memory never runs out.
        form_aggregated: Kernel with the arguments of `form_batch` that does the same in ordinary
            iterations without touching parked residents (`validation.simulator.decoders`); where it
            returns False it has changed nothing but `work` and `held` of active residents, and
            `form_batch` decides. None where the rule has to see every resident.
        prioritises: Whether classes may have priorities.
        caches: Whether its kernels keep a pool of blocks, and run in a `PrefixLane`.
        variant: Function of the configured policy that gives the kernels for its parameters, as a
            policy of another name; None where they are always these.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    form_batch: Any
    queue_of: Any
    per_class: bool = False
    engine_convention_only: bool = False
    require_served: Callable[[Model, NDArray[np.float64]], None] | None = None
    per_segment: bool = False
    never_evicts: bool = False
    form_aggregated: Any = None
    prioritises: bool = False
    caches: bool = False
    variant: Callable[[ConfiguredPolicy], Policy] | None = None

    @property
    def suffix(self) -> str:
        """Of the names of its kernels."""
        return self.name.replace("-", "_").replace(" ", "_")

    def loop(self, model: Model) -> Any:
        """The engine's loop compiled for this policy and the kind of traffic of a model.

        That for clients that do not react knows no pool of blocks.
        """
        reacts = self.caches or model.constants[0]["reacts"]
        return self.run_reacting_lane if reacts else self.run_lane

    @cached_property
    def run_lane(self) -> Any:
        """The loop for requests whose clients do not react, which is the faster one."""
        return self._bound("", REACTS=False)

    @cached_property
    def run_reacting_lane(self) -> Any:
        """The loop that refuses requests, lets clients give up, or send the next one."""
        return self._bound("_reacting", REACTS=True)

    def _bound(self, suffix: str, **constants: bool) -> Any:
        name = self.suffix + suffix
        kernels = {"form_batch": self.form_batch, "queue_of": self.queue_of}
        if self.form_aggregated is None:
            return bind(run_lane, name, kernels, **constants)
        kernels["form_aggregated"] = self.form_aggregated
        return bind(run_lane, f"{name}_aggregated", kernels, AGGREGATES=True, **constants)

    @property
    def general(self) -> Policy:
        """The same rule without `form_aggregated`: every resident is touched in every iteration."""
        return replace(self, form_aggregated=None)

    def configure(
        self,
        values: Mapping[str, float | str] | None = None,
        thresholds: tuple[int, ...] = (),
        cuts: tuple[int, ...] = (),
        priorities: tuple[int, ...] = (),
    ) -> ConfiguredPolicy:
        """Fix parameters; those not named keep their defaults.

        Args:
            thresholds: One per class or segment, where the rule needs them.
            cuts: Output length at which each segment ends, ascending; by default the distinct
                output lengths of the workload.
            priorities: One per class; the smaller, the earlier it goes.

        Raises:
            InputError: An unknown parameter (lists what exists), or a value out of range.
        """
        parsed = {name: self._parsed(name, value) for name, value in (values or {}).items()}
        if (self.per_class or self.per_segment) and (not thresholds or min(thresholds) < 1):
            field = f"policy {self.name}: thresholds"
            unit = "class" if self.per_class else "segment"
            raise InputError(field, list(thresholds), f"integers ≥ 1, one per {unit}")
        self._check_cuts(thresholds, cuts)
        self._check_priorities(priorities, parsed)
        return ConfiguredPolicy(self, parsed, thresholds, cuts, priorities)

    def _parsed(self, name: str, value: float | str) -> float | str:
        parameters = {one.name: one for one in self.parameters}
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise InputError(f"policy {self.name}: parameter", name, f"one of {known}")
        try:
            return parameters[name].parsed(value)
        except InputError as error:
            field = f"policy {self.name}: {error.field}"
            raise InputError(field, error.value, error.allowed) from None

    def _check_priorities(
        self, priorities: tuple[int, ...], values: Mapping[str, float | str]
    ) -> None:
        if not priorities:
            return
        field = f"policy {self.name}: priorities"
        if not self.prioritises:
            raise InputError(field, list(priorities), "none, the rule has no priorities")
        order = (values.get("victim", "last-admitted"), values.get("requeue", "front"))
        if order != ("latest-arrival", "front"):
            allowed = "none but with victim=latest-arrival and requeue=front, the order they change"
            raise InputError(field, list(priorities), allowed)

    def _check_cuts(self, thresholds: tuple[int, ...], cuts: tuple[int, ...]) -> None:
        field = f"policy {self.name}: cuts"
        if cuts and not self.per_segment:
            raise InputError(field, list(cuts), "none, the rule has no segments")
        ascending = all(a < b for a, b in itertools.pairwise((0, *cuts)))
        if cuts and not (ascending and len(cuts) == len(thresholds)):
            raise InputError(field, list(cuts), "ascending integers ≥ 1, one per threshold")


@dataclass(frozen=True)
class ConfiguredPolicy:
    """A policy with its parameters; made by `Policy.configure`.

    Attributes:
        values: Those that were given: numbers, and words where the parameter has choices.
        thresholds, cuts: Where the rule needs them.
        priorities: One per class, where they have any; the smaller, the earlier it goes.
    """

    policy: Policy
    values: Mapping[str, float | str]
    thresholds: tuple[int, ...] = ()
    cuts: tuple[int, ...] = ()
    priorities: tuple[int, ...] = ()

    @cached_property
    def rule(self) -> Policy:
        """The policy whose kernels run with these parameters."""
        return self.policy.variant(self) if self.policy.variant else self.policy

    def seats_on(self, model: Model) -> float:
        """Requests in service at most; infinite where no parameter says it."""
        values = zip(self.policy.parameters, self.numbers_on(model), strict=True)
        return min((float(value) for one, value in values if one.name in SEATS), default=math.inf)

    def most_residents(self, model: Model) -> int:
        """An upper bound on requests that hold KV at the same time.

        All but one hold at least their prompts, or a block under `PARTIAL` parameters.
        """
        if not any(self.values.get(name) for name in PARTIAL):
            return model.most_residents
        constants = model.constants[0]
        return int(constants["kv_capacity_tokens"]) // int(constants["block_tokens"])

    def numbers_on(self, model: Model) -> NDArray[np.float64]:
        """As `numbers`, with what the model's engine can run as the default."""
        found = self.numbers.copy()
        for index, one in enumerate(self.policy.parameters):
            known = one.limit and int(model.constants[0][one.limit])
            if known and one.name not in self.values:
                found[index] = known
        return found

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """Parameters as given or by the policy's own defaults, shape (parameters,)."""
        return np.array(
            [
                parameter.number(self.values[parameter.name])
                if parameter.name in self.values
                else parameter.default
                for parameter in self.policy.parameters
            ]
        )

    def check(self, model: Model) -> None:
        """Refuse a model that this policy cannot run.

        Raises:
            InputError: The wrong first-token convention, thresholds that do not match the
                model, or a request that could never be served.
        """
        policy = self.policy
        if policy.engine_convention_only and model.constants[0]["silent_prefill"]:
            raise InputError("server.first_token", "decode", f"prefill for policy {policy.name}")
        self.threshold_table(model)
        if policy.require_served:
            policy.require_served(model, self.numbers_on(model))

    def threshold_table(self, model: Model) -> NDArray[np.float64]:
        """What the kernel reads as `thresholds`: one per class; or the L thresholds of the segments
        followed by the L output lengths at which they end; or the priorities of the classes; empty
        where the rule needs none.

        Raises:
            InputError: The thresholds do not match the classes or segments, or an output of the
                workload is longer than the last segment, or priorities do not match the classes.
        """
        if self.priorities:
            if len(self.priorities) != model.classes:
                raise InputError(
                    f"policy {self.policy.name}: priorities",
                    "/".join(map(str, self.priorities)),
                    f"{model.classes} integers, one per class",
                )
            return np.array(self.priorities, dtype=float)
        needed, unit, cuts = len(self.thresholds), "", self.cuts
        if self.policy.per_class:
            needed, unit = model.classes, "class"
        elif self.policy.per_segment:
            lengths = np.unique(model.shapes["output_tokens"])
            cuts = cuts or tuple(lengths.tolist())
            needed, unit = len(cuts), "segment"
            if cuts[-1] < lengths[-1]:
                field = f"policy {self.policy.name}: cuts"
                raise InputError(field, list(cuts), f"the last one at least {lengths[-1]}")
        if len(self.thresholds) != needed:
            raise InputError(
                f"policy {self.policy.name}: thresholds",
                "/".join(map(str, self.thresholds)),
                f"{needed} integers, one per {unit}",
            )
        return np.array((*self.thresholds, *cuts), dtype=float)

    @property
    def params(self) -> dict[str, Any]:
        """Given parameters, thresholds among them, ready for JSON: infinity is a word."""
        values = {name: "inf" if one == math.inf else one for name, one in self.values.items()}
        lists = {
            "thresholds": list(self.thresholds),
            "cuts": list(self.cuts),
            "priorities": list(self.priorities),
        }
        return {**values, **{name: one for name, one in lists.items() if one}}

    @property
    def label(self) -> str:
        """Name and given parameters, as `parse_policy` reads them."""
        return policy_label(self.policy.name, self.params)
