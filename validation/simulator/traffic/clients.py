"""A closed loop: clients that send their next request some time after the last one has ended.

Requests that are sent but have not arrived stand behind those that have, in order of arrival; the
rest of `Lane.requests` is not sent yet and arrives at infinity. What client c draws for its k-th
request is numbered c + k·N, so that it does not depend on the policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fluid.errors import InputError
from validation.simulator.arrivals import choose_shape
from validation.simulator.compiling import kernel
from validation.simulator.rng import two_uniforms
from validation.simulator.traffic.conversations import follow

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_TURN = np.uint64(21)
"""Think time before a request, and its class."""

ThinkLaw = Literal["deterministic", "exponential"]
THINK_LAWS: tuple[ThinkLaw, ...] = ("deterministic", "exponential")


@dataclass(frozen=True)
class Clients:
    """So many clients, each of which waits for its answer, thinks, and sends its next request.

    All send their first request at time 0. What they send follows the mix of the workload, whose
    rates have no other meaning here, or a recording, one request after the other.

    Attributes:
        number: N, at least 1.
        think_s: Mean time between the end of a request and the client's next one.
        think_law: "deterministic" or "exponential".

    Raises:
        InputError: Naming the first field that is out of range.

    >>> import fluidwait as fw
    >>> fw.Clients(16, think_s=2.0, think_law="exponential").label
    '16 clients, 2 s of think time (exponential)'
    """

    number: int
    think_s: float = 0.0
    think_law: ThinkLaw = "deterministic"

    def __post_init__(self) -> None:
        if isinstance(self.number, bool) or self.number != int(self.number) or self.number < 1:
            raise InputError("clients", self.number, "a whole number, at least 1")
        if not 0 <= self.think_s < math.inf:
            raise InputError("think_s", self.think_s, "finite seconds, 0 or more")
        if self.think_law not in THINK_LAWS:
            raise InputError("think_law", self.think_law, " or ".join(THINK_LAWS))
        if self.think_law == "exponential" and self.think_s == 0:
            raise InputError("think_s", 0, "a mean > 0 for an exponential think time")

    @property
    def label(self) -> str:
        """In words."""
        who = "1 client" if self.number == 1 else f"{self.number:,} clients"
        if self.think_s == 0:
            return who
        law = " (exponential)" if self.think_law == "exponential" else ""
        return f"{who}, {self.think_s:g} s of think time{law}"


@kernel
def send_first(model, lane):
    """Every client sends its first request at time 0."""
    lane.scalars[0].sent = 0
    for index in range(lane.requests.size):
        lane.requests[index].arrived_at_s = math.inf
    for client in range(min(model.constants[0].clients, lane.requests.size)):
        _send(model, lane, client, 0.0)


@kernel
def send_next(model, lane, index, ended_at_s):
    """The client of a request that has ended sends its next one after it has thought."""
    clients = model.constants[0].clients
    if model.constants[0].conversations:
        follow(model, lane, index, ended_at_s)
    if clients == 0 or lane.scalars[0].sent == lane.requests.size:
        return
    draw = lane.clients[index].draw + clients
    think_s = model.constants[0].think_s
    if model.constants[0].think_random:
        uniform, _ = two_uniforms(lane.scalars[0].seed, lane.scalars[0].replication, draw, _TURN)
        think_s *= -math.log(uniform)
    _send(model, lane, draw, ended_at_s + think_s)


@kernel
def in_order_of_admission(lane, first):
    """The list of requests that end together as their clients go on, the first admitted first."""
    ordered = -1
    while first >= 0:
        following = lane.requests[first].next
        before, after = -1, ordered
        while after >= 0 and lane.clients[after].admitted < lane.clients[first].admitted:
            before, after = after, lane.requests[after].next
        lane.requests[first].next = after
        if before < 0:
            ordered = first
        else:
            lane.requests[before].next = first
        first = following
    return ordered


@kernel
def _send(model, lane, draw, at_s):
    """Put a request among those that are sent; equal times in the order of their clients."""
    scalars = lane.scalars[0]
    drawn = model.constants[0].listed == 0
    place = scalars.sent
    while place > scalars.next_arrival and _is_later(lane, place - 1, at_s, draw):
        lane.requests[place].arrived_at_s = lane.requests[place - 1].arrived_at_s
        lane.clients[place].draw = lane.clients[place - 1].draw
        if drawn:
            lane.requests[place].shape = lane.requests[place - 1].shape
        place -= 1
    lane.requests[place].arrived_at_s = at_s
    lane.clients[place].draw = draw
    if drawn:
        _, choice = two_uniforms(scalars.seed, scalars.replication, draw, _TURN)
        lane.requests[place].shape = choose_shape(model.shapes, choice)
    scalars.sent += 1


@kernel
def _is_later(lane, index, at_s, draw):
    other_s = lane.requests[index].arrived_at_s
    return other_s > at_s or (other_s == at_s and lane.clients[index].draw > draw)
