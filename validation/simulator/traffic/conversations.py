"""Conversations: the next turn comes a think time after the last one was answered.

Their first turns, and requests of classes without conversations, come at a rate and are laid out
before the run. As in a closed loop, requests that are sent but have not arrived stand behind those
that have, in order of arrival; one start is among them, and is followed by the next when it
arrives. What turn k of the conversation that started as number c draws is numbered by both, so that
it does not depend on the policy.
"""

from __future__ import annotations

import math

import numpy as np

from validation.simulator.compiling import kernel
from validation.simulator.rng import two_uniforms

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_FOLLOW = np.uint64(25)
"""Whether another turn follows, and the think time before it."""

_TURN_BITS = 14
"""Of `CLIENT.draw`, for the turn: a workload has fewer."""


@kernel
def conversation_of(lane, index):
    """Number of the start of a request's conversation."""
    return lane.clients[index].draw >> _TURN_BITS


@kernel
def keep_starts(lane):
    """Put what has been laid out aside, and send the first start."""
    lane.scalars[0].sent = 0
    for index in range(lane.requests.size):
        lane.clients[index].start_s = lane.requests[index].arrived_at_s
        lane.clients[index].start_shape = lane.requests[index].shape
        lane.requests[index].arrived_at_s = math.inf
    _send_start(lane, 0)


@kernel
def start_next(lane, index):
    """If the request that arrives now is a start, send the next one."""
    draw = lane.clients[index].draw
    if draw & ((1 << _TURN_BITS) - 1) == 0:
        _send_start(lane, (draw >> _TURN_BITS) + 1)


@kernel
def follow(model, lane, index, ended_at_s):
    """After an answer, send the next turn of the conversation, if it goes on."""
    scalars = lane.scalars[0]
    request = lane.requests[index]
    shape = model.shapes[request.shape]
    if shape.go_on == 0.0 or math.isnan(request.completed_at_s):
        return
    draw = lane.clients[index].draw
    goes_on, uniform = two_uniforms(scalars.seed, scalars.replication, draw, _FOLLOW)
    if goes_on > shape.go_on:
        return
    think_s = shape.think_s
    if shape.think_random:
        think_s *= -math.log(uniform)
    _send(lane, draw + 1, ended_at_s + think_s, request.shape + 1)


@kernel
def _send_start(lane, number):
    if number < lane.clients.size:
        start = lane.clients[number]
        _send(lane, number << _TURN_BITS, start.start_s, start.start_shape)


@kernel
def _send(lane, draw, at_s, shape):
    """Put a request among those that are sent; equal times in the order of their numbers.

    Where there is room for no more, the last to come gives way.
    """
    scalars = lane.scalars[0]
    place = scalars.sent
    if place == lane.requests.size:
        place -= 1
        if place < scalars.next_arrival or not _is_later(lane, place, at_s, draw):
            return
    else:
        scalars.sent += 1
    while place > scalars.next_arrival and _is_later(lane, place - 1, at_s, draw):
        lane.requests[place].arrived_at_s = lane.requests[place - 1].arrived_at_s
        lane.requests[place].shape = lane.requests[place - 1].shape
        lane.clients[place].draw = lane.clients[place - 1].draw
        place -= 1
    lane.requests[place].arrived_at_s = at_s
    lane.requests[place].shape = shape
    lane.clients[place].draw = draw


@kernel
def _is_later(lane, index, at_s, draw):
    other_s = lane.requests[index].arrived_at_s
    return other_s > at_s or (other_s == at_s and lane.clients[index].draw > draw)
