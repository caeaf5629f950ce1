"""What requests and their clients do beside arriving, as one thing that the model is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.overload.impatience import Patience
from validation.simulator.traffic.clients import Clients, ThinkLaw
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.outputs import OUTPUT_LAWS, Outputs
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.state import UNLIMITED


@dataclass(frozen=True)
class Traffic:
    """How clients behave; by default they come, wait as long as it takes, and are never refused.

    Attributes:
        clients: A closed loop of so many clients instead of arrivals at a rate.
        job: Whether the run is a finite job, measured as a whole.
        queue: The most that waits; what comes beyond is refused.
        patience: How long a client waits for its first token before it gives up; in service too,
            which it then leaves between iterations.
        outputs: The law of output lengths around that of each class, which is their mean and all
            that the fluid model sees; they are as the class says where None.
        refuse_too_long: Whether requests that never fit into memory are refused at submission and
            counted; otherwise they are an error.

    Raises:
        InputError: Clients without a think time who would send again at the moment at which they
            are refused, or a job of clients that come at once anyway.

    >>> import fluidwait as fw
    >>> fw.Traffic(queue=fw.QueueLimit(requests=200), patience=fw.Patience(10.0)).label
    'at most 200 requests wait; patience 10 s (exponential)'
    """

    clients: Clients | None = None
    job: FiniteJob | None = None
    queue: QueueLimit | None = None
    patience: Patience | None = None
    refuse_too_long: bool = False
    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        if self.clients is None:
            return
        if self.job is not None and self.job.at_once:
            raise InputError("job", "at-once", "as-recorded: clients send one after another")
        if self.queue is not None and self.clients.think_s == 0:
            allowed = "more than 0: a client that is refused would send again at once, for ever"
            raise InputError("think_s", 0, allowed)

    @property
    def reacts(self) -> bool:
        """Whether anything has to be known of the clients."""
        kinds = (self.clients, self.queue, self.patience)
        return self.refuse_too_long or any(one is not None for one in kinds)

    @property
    def at_a_rate(self) -> bool:
        """Whether requests come at a rate: not those of clients, nor of a job at once."""
        return self.clients is None and not (self.job is not None and self.job.at_once)

    @property
    def may_grow(self) -> bool:
        """Whether the backlog can grow without bound, so that there is something to judge."""
        kinds = (self.clients, self.job, self.queue, self.patience)
        return all(one is None for one in kinds)

    @property
    def word(self) -> Literal["closed loop", "finite job", "bounded", "impatient"]:
        """What stands in place of a verdict where the backlog cannot grow."""
        if self.job is not None:
            return "finite job"
        if self.clients is not None:
            return "closed loop"
        return "bounded" if self.queue is not None else "impatient"

    @property
    def reason(self) -> str:
        """Why there is no verdict, in one sentence."""
        if self.job is not None:
            return "the job ends: whether the backlog would grow is not asked"
        if self.clients is not None:
            return "clients wait for their answers, so that the backlog cannot grow beyond them"
        if self.queue is not None:
            return "the queue is bounded: what the server cannot do is refused"
        return "clients give up, so that the backlog cannot grow"

    @property
    def label(self) -> str:
        """All kinds in words, empty for plain arrivals."""
        parts = [one.label for one in (self.clients, self.job, self.queue) if one is not None]
        if self.patience is not None:
            parts.append(patience_label(self.patience))
        if self.outputs is not None:
            parts.append(self.outputs.label)
        if self.refuse_too_long:
            parts.append("too long requests are refused")
        return "; ".join(parts)

    def numbers(self) -> dict[str, float]:
        """The fields of TRAFFIC, but for `listed`, which the model knows."""
        clients, queue = self.clients, self.queue
        bounds = (None, None) if queue is None else (queue.requests, queue.prompt_tokens)
        return {
            "clients": 0 if clients is None else clients.number,
            "think_s": 0.0 if clients is None else clients.think_s,
            "think_random": clients is not None and clients.think_law == "exponential",
            "queue_requests": UNLIMITED if bounds[0] is None else bounds[0],
            "queue_tokens": UNLIMITED if bounds[1] is None else bounds[1],
            "patience_s": 0.0 if self.patience is None else self.patience.mean_s,
            "patience_cv": 0.0 if self.patience is None else self.patience.variation,
            "whole_run": self.job is not None,
            "at_a_rate": self.at_a_rate,
            "output_law": 0 if self.outputs is None else 1 + OUTPUT_LAWS.index(self.outputs.law),
            "output_variation": 0.0 if self.outputs is None else self.outputs.variation,
            "reacts": self.reacts,
        }

    @classmethod
    def of_numbers(cls, numbers: np.void, shapes: NDArray[np.void]) -> Traffic:
        """The traffic that has these `numbers`, and gave a model these shapes."""
        clients, job, queue, patience = None, None, None, None
        if numbers["clients"]:
            law: ThinkLaw = "exponential" if numbers["think_random"] else "deterministic"
            clients = Clients(int(numbers["clients"]), float(numbers["think_s"]), law)
        if numbers["whole_run"]:
            job = FiniteJob(clients is None and not numbers["at_a_rate"])
        bounds = [int(numbers[name]) for name in ("queue_requests", "queue_tokens")]
        if min(bounds) < UNLIMITED:
            queue = QueueLimit(*(None if one == UNLIMITED else one for one in bounds))
        if numbers["patience_s"] > 0:
            patience = Patience(float(numbers["patience_s"]), float(numbers["patience_cv"]))
        outputs = None
        if numbers["output_law"]:
            law_of_outputs = OUTPUT_LAWS[int(numbers["output_law"]) - 1]
            variation = float(numbers["output_variation"])
            if law_of_outputs == "empirical":
                drawn = shapes[shapes["report_class"] == 0]
                shares = np.diff(drawn["share_cumulative"], prepend=0.0)
                lengths = drawn["output_tokens"].tolist()
                outputs = Outputs("empirical", variation, tuple(lengths), tuple(shares.tolist()))
            else:
                outputs = Outputs(law_of_outputs, variation)
        return cls(clients, job, queue, patience, bool(shapes["too_long"].any()), outputs)


def patience_label(patience: Patience) -> str:
    """In words."""
    variation = patience.variation
    law = {0.0: "constant", 1.0: "exponential"}.get(variation, f"variation {variation:g}")
    return f"patience {patience.mean_s:g} s ({law})"
