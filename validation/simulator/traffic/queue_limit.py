"""A bounded queue: who comes when too much waits is refused at once."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.errors import InputError
from validation.simulator.compiling import kernel

# mypy: disable-error-code="no-untyped-def"


@dataclass(frozen=True)
class QueueLimit:
    """The most that waits; what comes when that much or more waits is refused at once.

    Evicted requests come back to the queue all the same, and count as waiting.

    Attributes:
        requests: Requests; no bound where None.
        prompt_tokens: Prompt tokens of the requests that wait; no bound where None.

    Raises:
        InputError: Neither bound, or one below 1.

    >>> import fluidwait as fw
    >>> fw.QueueLimit(requests=200).label
    'at most 200 requests wait'
    """

    requests: int | None = None
    prompt_tokens: int | None = None

    def __post_init__(self) -> None:
        bounds = {"queue_requests": self.requests, "queue_tokens": self.prompt_tokens}
        if self.requests is None and self.prompt_tokens is None:
            raise InputError("queue_requests", "none", "a bound in requests or in prompt tokens")
        for field, value in bounds.items():
            if value is not None and value < 1:
                raise InputError(field, value, "at least 1")

    @property
    def label(self) -> str:
        """In words."""
        bounds = (
            ("" if self.requests is None else f"{self.requests:,} requests"),
            ("" if self.prompt_tokens is None else f"{self.prompt_tokens:,} prompt tokens"),
        )
        return f"at most {' and '.join(filter(None, bounds))} wait"


@kernel
def is_accepted(model, lane, index):
    """Whether a request that arrives now may wait."""
    constants = model.constants[0]
    scalars = lane.scalars[0]
    if model.shapes[lane.requests[index].shape].too_long:
        return False
    return (
        scalars.waiting < constants.queue_requests
        and scalars.waiting_tokens < constants.queue_tokens
    )
