"""What the full blocks of requests hold: equal keys where everything up to their ends is equal.

A request's blocks hold, first, *runs* that other requests may hold too, then what is its own, its
outputs included. A run says up to which block it reaches; that two requests have a run in common
means that they have everything in common up to its end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.traces.prompt_blocks import PromptBlocks
from validation.simulator.compiling import kernel
from validation.simulator.traffic.conversations import conversation_of

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

RUN = np.dtype([("end_block", "i8"), ("id", "i8")], align=True)
"""`end_block`: the first block behind it; ascending within a request."""

_INDEX_BITS = 20
"""Of a key, for the position of the block in its request."""


@kernel
def key_of(model, lane, request, index):
    """Key of the block of this index of a request."""
    low, count = 0, 0
    if lane.tape.size > 0:
        low, count = lane.tape[request].first_run, lane.tape[request].runs
    else:
        shape = model.shapes[lane.requests[request].shape]
        low, count = shape.first_run, shape.runs
    end = low + count
    high = end
    while low < high:
        middle = (low + high) // 2
        if lane.runs[middle].end_block > index:
            high = middle
        else:
            low = middle + 1
    if low < end:
        stream = lane.runs[low].id
    elif model.constants[0].conversations:
        stream = lane.pool[0].first_own + conversation_of(lane, request)
    else:
        stream = lane.pool[0].first_own + request
    return (stream << _INDEX_BITS) | index


def runs_of(
    blocks: PromptBlocks, prompt_tokens: NDArray[np.int64], block_tokens: int
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Runs of a recording whose prompts are named piece by piece.

    Args:
        prompt_tokens: Shape (requests,).
        block_tokens: Of the server.

    Returns:
        RUN records of all requests, one after the other, and where those of each begin, shape
        (requests + 1,).
    """
    owner = np.repeat(np.arange(len(blocks.counts)), blocks.counts)
    place = np.arange(len(blocks.ids)) - blocks.starts[owner]
    end_tokens = np.minimum((place + 1) * blocks.block_tokens, prompt_tokens[owner])
    ends = end_tokens // block_tokens
    # Pieces in which no block of the server ends say nothing.
    some = ends > place * blocks.block_tokens // block_tokens
    runs = np.zeros(int(some.sum()), RUN)
    runs["end_block"] = ends[some]
    # Ids may be any numbers: a key has room for their ranks.
    runs["id"] = np.unique(blocks.ids, return_inverse=True)[1].reshape(-1)[some]
    first = np.concatenate([[0], np.cumsum(np.bincount(owner[some], minlength=len(blocks.counts)))])
    return runs, first
