"""The settings of each engine that are tried together, on a grid around what the load needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from fluid.errors import InputError
from fluid.server import Server
from fluid.workload import Workload
from thresholds.solvers.paced.boundary import BoundaryLoad, boundary_load
from validation.policies import POLICIES, ConfiguredPolicy
from validation.simulator.model import Model

Values = tuple[tuple[str, float], ...]
"""Parameters that are set, by name; the others are the engine's defaults."""

_TOKENS = (1024, 2048, 4096, 8192)
_WATERMARKS = (0.0, 0.02, 0.05, 0.1, 0.2)
_SEATS = (0.6, 0.8, 0.95, 1.1)
"""Of the fluid population at the edge of the stable region."""

_CONSERVATIVENESS = (0.3, 0.5, 0.75, 1.0, 1.3)
_FEWEST_SEATS = 2


@dataclass(frozen=True)
class Setting:
    """A policy of an engine with the parameters that are not the engine's defaults."""

    policy: str
    values: Values = ()

    def configured(self) -> ConfiguredPolicy:
        """For the simulator."""
        return POLICIES[self.policy].configure(dict(self.values))

    def without(self, name: str) -> Setting:
        """With the engine's default for one parameter."""
        return Setting(self.policy, tuple(one for one in self.values if one[0] != name))

    @property
    def label(self) -> str:
        """As `--policy` takes it."""
        return self.configured().label


@dataclass(frozen=True)
class EngineSpace:
    """What an engine lets be set.

    Attributes:
        policies: Of the simulator, the engine's default first.
        tokens, seats: Parameters that bound tokens per iteration and requests in service.
    """

    engine: str
    policies: tuple[str, ...]
    tokens: str
    seats: str

    @property
    def default(self) -> Setting:
        """The engine as it starts."""
        return Setting(self.policies[0])

    def grid(self, load: BoundaryLoad) -> dict[str, tuple[float, ...]]:
        """Levels of each parameter beside its default; what a policy lacks is passed over."""
        seats = {max(_FEWEST_SEATS, round(share * load.population)) for share in _SEATS}
        found: dict[str, tuple[float, ...]] = {
            self.tokens: _TOKENS,
            self.seats: tuple(sorted(seats)),
        }
        if self.engine == "vllm":
            found["watermark"] = _WATERMARKS
            found["pace"] = (load.pace_per_iteration,)
            found["long_prefill_token_threshold"] = (512, 2048)
        if self.engine == "sglang":
            found["schedule_conservativeness"] = _CONSERVATIVENESS
        return found


ENGINES = {
    one.engine: one
    for one in (
        EngineSpace("vllm", ("vllm-v1",), "max_num_batched_tokens", "max_num_seqs"),
        EngineSpace("sglang", ("sglang",), "chunked_prefill_size", "max_running_requests"),
        EngineSpace(
            "trtllm",
            ("trtllm-no-evict", "trtllm-max-utilization"),
            "max_num_tokens",
            "max_batch_size",
        ),
    )
}
"""By the engine that a server names."""


def defaults(setting: Setting, model: Model) -> Mapping[str, float]:
    """What the engine takes for each parameter unless it is set."""
    policy = POLICIES[setting.policy]
    numbers = policy.configure({}).numbers_on(model)
    return dict(zip((one.name for one in policy.parameters), numbers.tolist(), strict=True))


def settings_of(
    space: EngineSpace, workload: Workload, server: Server, model: Model
) -> tuple[Setting, ...]:
    """Every combination of levels that the engine can run, its defaults first.

    Raises:
        InputError: Not even the defaults can serve every request.
    """
    space.default.configured().check(model)
    load = boundary_load(workload, server)
    found = {space.default: None}
    for policy in space.policies:
        base = Setting(policy)
        usual = defaults(base, model)
        levels = [
            [(name, value) for value in dict.fromkeys((usual[name], *values))]
            for name, values in space.grid(load).items()
            if name in usual
        ]
        for combination in itertools.product(*levels):
            changed = tuple((name, value) for name, value in combination if value != usual[name])
            setting = Setting(policy, changed)
            try:
                setting.configured().check(model)
            except InputError:
                continue
            if _pointless(setting, usual, space):
                continue
            found[setting] = None
    return tuple(found)


def _pointless(setting: Setting, usual: Mapping[str, float], space: EngineSpace) -> bool:
    """Whether seats beyond the default are asked for, or fewer tokens than seats that decode."""
    values = {**usual, **dict(setting.values)}
    if not math.isfinite(values[space.seats]):
        return False
    return values[space.seats] > usual[space.seats] or (
        space.tokens in dict(setting.values)
        and values[space.tokens] < values[space.seats]
        and space.seats in dict(setting.values)
    )
