"""What the full blocks of requests hold: equal keys where everything up to their ends is equal.

A request's blocks hold, first, *runs* that other requests may hold too, then what is its own, its
outputs included. A run says up to which block it reaches; that two requests have a run in common
means that they have everything in common up to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from validation.simulator.compiling import kernel

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

RUN = np.dtype([("end_block", "i8"), ("id", "i8")], align=True)
"""`end_block`: the first block behind it; ascending within a request."""

_INDEX_BITS = 20
"""Of a key, for the position of the block in its request."""


@kernel
def key_of(model, lane, request, index):
    """Key of the block of this index of a request."""
    shape = model.shapes[lane.requests[request].shape]
    low, high = shape.first_run, shape.first_run + shape.runs
    end = high
    while low < high:
        middle = (low + high) // 2
        if lane.runs[middle].end_block > index:
            high = middle
        else:
            low = middle + 1
    stream = lane.pool[0].first_own + request
    if low < end:
        stream = lane.runs[low].id
    return (stream << _INDEX_BITS) | index


def runs_of_ids(
    ids: Sequence[Sequence[int]], named_tokens: Sequence[int], id_tokens: int, block_tokens: int
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Runs of requests whose tokens are named piece by piece.

    Args:
        ids: Of each request, an id for every `id_tokens` of its tokens, the last of them maybe for
            fewer; equal ids mean that everything up to the end of the piece is equal.
        named_tokens: How many tokens those are: its prompt, or its outputs too.
        block_tokens: Of the server.

    Returns:
        RUN records of all requests, one after the other, and where those of each begin, shape
        (requests + 1,).
    """
    parts, first = [], [0]
    for own, named in zip(ids, named_tokens, strict=True):
        ends = np.minimum(np.arange(1, len(own) + 1) * id_tokens, named) // block_tokens
        run = np.zeros(len(own), RUN)
        run["end_block"], run["id"] = ends, own
        # Pieces that no block ends in say nothing.
        run = run[np.diff(ends, prepend=0) > 0]
        parts.append(run)
        first.append(first[-1] + len(run))
    return np.concatenate(parts) if parts else np.zeros(0, RUN), np.array(first)


def shapes_with_runs(
    shapes: NDArray[np.void],
    shape_of: NDArray[np.int64],
    ids: Sequence[Sequence[int]],
    named_tokens: Sequence[int],
    id_tokens: int,
    block_tokens: int,
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """A shape for each request of a recording, with what its blocks hold.

    Args:
        shapes: SHAPE records that requests share.
        shape_of: Which of them each request has, shape (requests,).
        ids, named_tokens, id_tokens, block_tokens: As in `runs_of_ids`.

    Returns:
        SHAPE records of shape (requests,), and RUN records.
    """
    runs, first = runs_of_ids(ids, named_tokens, id_tokens, block_tokens)
    found = shapes[shape_of].copy()
    found["first_run"], found["runs"] = first[:-1], np.diff(first)
    return found, runs
