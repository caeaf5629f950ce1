"""What the explorer shows, as plain data: a load on a server under a setting, what holds there.

A browser draws it and computes nothing. Every figure is asked of the functions behind ``fluidwait
region`` and ``fluidwait equilibrium``; sliders only change the workload and the server.
"""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from fluid.errors import InfeasibleError, InputError
from fluid.files import FileModel
from fluid.ranges import PositiveFloat
from fluid.server import Server, builtin_servers, require_fits
from fluid.steady.latency.scheduler import default_scheduler
from fluid.steady.phase import PARAMETERS
from fluid.steady.prediction import predict
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import largest_scale, stability
from fluid.workload import Workload

MOST_CLASSES = 12
"""A slider each; more are merged into a few before anybody can look at them."""

DIRECTIONS, SLICE_DIRECTIONS = 13, 5
"""Points of a boundary, which a slider waits for: of two classes, and of a slice that is traced."""

CURVE = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
"""Shares of the fluid limit at which latencies are asked for, one after the other."""

STEPS = 100
"""Of a slider, to either side of where it starts."""

Factor = Annotated[float, Field(ge=1e-3, le=1e3)]


class Setting(FileModel):
    """What the sliders say, m classes.

    Attributes:
        server: Which of the explorer's servers.
        rates_per_s: Of every class, m entries.
        prompt_factor, output_factor: Multiples of all prompt and output lengths.
        memory_factor, overhead_factor: Multiples of the server's KV memory and overhead.
        axes: Classes that the picture shows, by number; the rates of all others stay.
    """

    server: Annotated[int, Field(ge=0)] = 0
    rates_per_s: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    prompt_factor: Factor = 1.0
    output_factor: Factor = 1.0
    memory_factor: Factor = 1.0
    overhead_factor: Factor = 1.0
    axes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=2)]


class Question(FileModel):
    """What a page asks.

    Attributes:
        about: "region" or "latency".
        share: Of the fluid limit, for latencies of the mix there; None for the load itself.
    """

    about: Literal["region", "latency"]
    setting: Setting
    share: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass(frozen=True)
class Explorer:
    """A load and the servers that it may run on.

    Attributes:
        servers: At least one; the first is the start.

    Raises:
        InputError: More than `MOST_CLASSES` classes, prompts that share prefixes, no server, or a
            request that does not fit into the first one.

    >>> import fluidwait as fw
    >>> from fluid.explorer.state import Explorer
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> explorer = Explorer(load, (fw.Server.named("engine-long-decode"),))
    >>> found = explorer.region(explorer.start)
    >>> found["stable"], found["binding"], round(found["margin"], 2)
    (True, 'compute', 0.64)
    """

    workload: Workload
    servers: tuple[Server, ...]

    def __post_init__(self) -> None:
        count = len(self.workload.classes)
        if count > MOST_CLASSES:
            raise InputError("classes", count, f"at most {MOST_CLASSES}, a slider each")
        for index, one in enumerate(self.workload.classes):
            if one.has_prefix:
                field = f"classes[{index}] ({one.name})"
                raise InputError(field, "a shared prefix", "prompts of their own: no cache here")
        if not self.servers:
            raise InputError("servers", self.servers, "at least one")
        require_fits(self.workload, self.servers[0])

    @property
    def start(self) -> Setting:
        """The load as it is on the first server."""
        rates = tuple(self.workload.rates_per_s.tolist())
        return Setting(rates_per_s=rates, axes=(0, 1)[: len(rates)])

    @cached_property
    def known(self) -> dict[str, Any]:
        """What a page knows from the start: names, where sliders stand and may go, axes."""
        alone = StabilityRegion(self.workload, self.servers[0]).intercepts_per_s
        rates = self.workload.rates_per_s
        most = 1.25 * np.maximum(alone, rates)
        return {
            "workload": self.workload.name,
            "classes": [one.name for one in self.workload.classes],
            "servers": [
                {"name": one.name, "scheduler": default_scheduler(one)} for one in self.servers
            ],
            "start": self.start.document(),
            "most_per_s": most.tolist(),
            "rate_levels": [
                levels(rate, min(rate, top / 1000), 2 * top)
                for rate, top in zip(rates.tolist(), most.tolist(), strict=True)
            ],
            "factor_levels": {name: levels(1.0, 0.1, 10.0) for name in FACTORS},
            "curve": list(CURVE),
        }

    def load(self, setting: Setting) -> tuple[Workload, Server]:
        """The workload and the server under a setting.

        Raises:
            InputError: Another number of rates than of classes, no such server or class.
        """
        classes = self.workload.classes
        if len(setting.rates_per_s) != len(classes):
            raise InputError("rates_per_s", len(setting.rates_per_s), f"{len(classes)} rates")
        if setting.server >= len(self.servers):
            raise InputError("server", setting.server, f"below {len(self.servers)}")
        axes = set(setting.axes)
        if len(axes) != min(2, len(classes)) or max(axes) >= len(classes):
            raise InputError("axes", setting.axes, "two classes, or the only one, by number")
        server = self.servers[setting.server]
        changed = self._at(setting.rates_per_s), server
        for factor, (parameter, field) in FACTORS.items():
            value = getattr(setting, factor)
            if value != 1:
                own = field(server) if field else 1.0
                changed = PARAMETERS[parameter][1](*changed, value * own)
        return changed

    def _at(self, rates_per_s: tuple[float, ...]) -> Workload:
        classes = tuple(
            one.model_copy(update={"rate_per_s": rate})
            for one, rate in zip(self.workload.classes, rates_per_s, strict=True)
        )
        return self.workload.model_copy(update={"classes": classes})

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What a page asked, a `Question` as plain data.

        Raises:
            InputError: It is none.
        """
        asked = Question.from_document(dict(question))
        if asked.about == "region":
            return self.region(asked.setting)
        return self.latency(asked.setting, asked.share)

    def region(self, setting: Setting, directions: int = DIRECTIONS) -> dict[str, Any]:
        """Margin, cause and boundary, and the load in figures; or a refusal, why there are none.

        The boundary has the rates of the classes on the axes, shape (k, 2), or (1, 1) for one
        class; it is empty where those that stay are too much alone.

        Args:
            directions: Points of the boundary of two classes, or of a slice that is not traced.
        """
        load, server = self.load(setting)
        told: dict[str, Any] = {
            "lengths_tokens": [
                [one.prefill_tokens or one.context_tokens, one.decode_tokens]
                for one in load.classes
            ],
            "kv_tokens": server.kv_capacity_tokens,
            "overhead_s": server.iteration_time.overhead_s,
            "code": code(load, server),
        }
        try:
            found = stability(load, server)
            boundary = _boundary(
                _shown_at_one(load, setting.axes), server, setting.axes, directions
            )
        except InputError as error:
            return told | {"refusal": str(error)}
        return told | {
            "stable": found.stable,
            "margin": found.margin,
            "max_scale": found.max_scale,
            "binding": found.binding,
            "limit_per_s": found.max_scale * load.rate_per_s,
            "pace_per_iteration": float(found.boundary_per_stage.sum()),
            "boundary_iteration_s": found.boundary_iteration_time_s,
            "boundary_per_s": [list(one) for one in boundary],
        }

    def latency(self, setting: Setting, share: float | None = None) -> dict[str, Any]:
        """Times of all requests by the latency laws, under the rule of the server's engine.

        Args:
            share: As in `Question`.

        Returns:
            The rate with means and p99 and what of them holds, or with a refusal.
        """
        load, server = self.load(setting)
        try:
            if share is not None:
                load = load.at_rate(share * largest_scale(load, server) * load.rate_per_s)
            found = predict(load, server, default_scheduler(server)).latency
        except InputError as error:
            return {"rate_per_s": load.rate_per_s, "refusal": str(error)}
        if found.pooled is None or found.validity is None:
            return {"rate_per_s": load.rate_per_s, "refusal": found.refusal}
        times = found.pooled
        return {
            "rate_per_s": load.rate_per_s,
            "ttft_mean_s": times.ttft_s.mean,
            "ttft_p99_s": times.ttft_s.p99,
            "tpot_mean_s": times.tpot_s and times.tpot_s.mean,
            "holds": found.validity.scope,
        }


FACTORS: dict[str, tuple[str, Any]] = {
    "prompt_factor": ("prompt_factor", None),
    "output_factor": ("output_factor", None),
    "memory_factor": ("kv_tokens", lambda server: server.kv_capacity_tokens),
    "overhead_factor": ("overhead_s", lambda server: server.iteration_time.overhead_s),
}
"""Fields of a setting: which of `PARAMETERS` each changes, and what it is a multiple of, if not of
the workload's own."""


def levels(value: float, least: float, most: float, steps: int = STEPS) -> list[float]:
    """Steps of a logarithmic slider, `value` among them, from about `least` to about `most`.

    >>> levels(2.0, 1.0, 4.0, steps=2)
    [1.0, 1.4142135623730951, 2.0, 2.8284271247461903, 4.0]
    """
    step = np.log(most / least) / (2 * steps)
    down, up = (round(float(np.log(end / value) / step)) for end in (least, most))
    return [value if k == 0 else float(value * np.exp(k * step)) for k in range(down, up + 1)]


def _shown_at_one(load: Workload, axes: tuple[int, ...]) -> Workload:
    """The load with the rates that its boundary does not depend on at one."""
    classes = tuple(
        one.model_copy(update={"rate_per_s": 1.0}) if k in axes else one
        for k, one in enumerate(load.classes)
    )
    return load.model_copy(update={"classes": classes})


@lru_cache(maxsize=64)
def _boundary(
    load: Workload, server: Server, axes: tuple[int, ...], directions: int
) -> tuple[tuple[float, ...], ...]:
    """Rates of the classes on the axes along the boundary, all others as they are."""
    region = StabilityRegion(load, server)
    if len(axes) == 1:
        return ((float(region.intercepts_per_s[0]),),)
    if len(load.classes) == 2:
        points = region.boundary(directions)
    else:
        fixed = {one.name: one.rate_per_s for k, one in enumerate(load.classes) if k not in axes}
        try:
            directions = SLICE_DIRECTIONS if region.normal_s is None else directions
            points = region.slice(fixed, directions).boundary_per_s
        except InfeasibleError:
            return ()
    in_order = points if axes[0] < axes[1] else points[:, ::-1]
    return tuple(map(tuple, in_order.tolist()))


def code(load: Workload, server: Server) -> str:
    """Python that makes this load and this server again.

    >>> import fluidwait as fw
    >>> from fluid.explorer.state import code
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> print(code(load, fw.Server.named("engine-long-decode")))
    import fluidwait as fw
    <BLANKLINE>
    rates_per_s = [7.0]
    load = fw.Workload.of(
        'workload',
        **{
            'chat': fw.Requests(rates_per_s[0], prompt=512, output=120),
        },
    )
    server = fw.Server.named('engine-long-decode')
    print(fw.equilibrium(load, server))
    """
    classes = "".join(
        f"        {one.name!r}: fw.Requests(rates_per_s[{k}], prompt={one.prefill_tokens}, "
        f"output={one.decode_tokens}{_context(one.context_tokens)}),\n"
        for k, one in enumerate(load.classes)
    )
    if _is_builtin(server):
        made = f"named({server.name!r})"
    else:
        plain = server.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        text = pprint.pformat(plain, width=88, compact=True, sort_dicts=False)
        made = f"from_document(\n{text}\n)"
    return (
        "import fluidwait as fw\n\n"
        f"rates_per_s = {load.rates_per_s.tolist()!r}\n"
        f"load = fw.Workload.of(\n    {load.name!r},\n    **{{\n{classes}    }},\n)\n"
        f"server = fw.Server.{made}\n"
        "print(fw.equilibrium(load, server))"
    )


@lru_cache(maxsize=256)
def _is_builtin(server: Server) -> bool:
    return server.name in builtin_servers() and server == Server.named(server.name)


def _context(tokens: int) -> str:
    return f", context={tokens}" if tokens else ""
