"""Several servers behind a router that looks at them, slow and obvious."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

from validation.reference.request import Request


def simulate_fleet_slowly(
    requests: Sequence[Request], servers: int, simulate: Callable[[list[Request]], object]
) -> list[int]:
    """Send each request to the server with the fewest outstanding tokens, the first of several.

    Outstanding are all tokens, of prompt and output, of the requests that were sent to it and have
    not completed by then. What a server has done by then does not depend on who comes later.

    Args:
        requests: In order of arrival; they are changed in place.
        simulate: Runs the requests of one server to their end, as `simulate_slowly`.

    Returns:
        The server of each request.
    """
    chosen: list[int] = []
    sent: list[list[Request]] = [[] for _ in range(servers)]
    so_far = deepcopy(sent)
    for request in requests:
        outstanding = [
            sum(tokens_of(one) for one in own if not one.completed_at_s <= request.arrived_at_s)
            for own in so_far
        ]
        index = outstanding.index(min(outstanding))
        chosen.append(index)
        sent[index].append(request)
        so_far[index] = deepcopy(sent[index])
        simulate(so_far[index])
    for own in sent:
        simulate(own)
    return chosen


def tokens_of(request: Request) -> int:
    """Those of its prompt and of its output."""
    return request.prefill_tokens + request.context_tokens + request.decode_tokens
