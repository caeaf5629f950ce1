"""Working memory of a replication that caches prefixes: a lane, and every block of KV beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from validation.simulator.model import Model
from validation.simulator.state import RESIDENT, new_lane

BLOCK = np.dtype(
    [
        ("key", "i8"),  # what it holds, if it has entered; -1 elsewhere
        ("users", "i4"),  # requests that hold it
        ("next", "i4"),  # while free: its neighbours in the order in which they are handed out
        ("previous", "i4"),
        ("later", "i4"),  # if it has entered: its neighbours in its bucket, in order of entry
        ("earlier", "i4"),
    ],
    align=True,
)
"""Block 0 is never handed out; it stands at both ends of the free queue."""

BUCKET = np.dtype([("first", "i4"), ("last", "i4")], align=True)
"""Blocks that have entered, by a hash of their keys; 0 ends the list."""

HOLDER = np.dtype(
    [
        ("request", "i8"),
        ("owned", "i4"),  # blocks in its row of `PrefixLane.tables`
        ("entered", "i4"),  # of these, those that have entered, found ones included
        ("seen", "i8"),  # the last decision at which it was in service
        ("order", "i4"),  # in the record of number i: row of the i-th in service
        ("spare", "i4"),  # likewise: the i-th row that nobody has
    ],
    align=True,
)
"""A request in service."""

POOL = np.dtype(
    [
        ("free", "i8"),  # blocks that nobody uses
        ("spare_rows", "i8"),
        ("holders", "i8"),  # in service after the last decision
        ("decision", "i8"),
        ("first_own", "i8"),  # ids from here on are those of requests
        ("queried_tokens", "i8"),  # inside the window: known at first admissions,
        ("hit_tokens", "i8"),  # of these found,
        ("saved_tokens", "i8"),  # found at all admissions,
        ("evicted_blocks", "i8"),  # handed out again although they had entered
    ],
    align=True,
)


class PrefixLane(NamedTuple):
    """The arrays of a `Lane`, by the same names, and of the pool of blocks.

    Attributes:
        pool: One record of POOL, shape (1,).
        blocks: BLOCK records, shape (M,).
        buckets: BUCKET records, shape (a power of two,).
        holders: HOLDER records, a row for each request that can be in service.
        tables: Blocks of each of them, shape (rows, blocks of the longest request).
        computed_before: Tokens that each request had computed when it was preempted last.
        runs: RUN records: what requests hold that others hold too.
        tape: TAPE_ROW records of recorded requests; empty if they are drawn.
    """

    scalars: NDArray[np.void]
    requests: NDArray[np.void]
    residents: NDArray[np.void]
    queues: NDArray[np.void]
    clients: NDArray[np.void]
    sums: NDArray[np.float64]
    histogram: NDArray[np.int32]
    stage_count: NDArray[np.int32]
    series: NDArray[np.float64]
    path: NDArray[np.float64]
    calendar: NDArray[np.void]
    pool: NDArray[np.void]
    blocks: NDArray[np.void]
    buckets: NDArray[np.void]
    holders: NDArray[np.void]
    tables: NDArray[np.int32]
    computed_before: NDArray[np.int64]
    runs: NDArray[np.void]
    tape: NDArray[np.void]


def new_prefix_lane(model: Model, requests: int, seats: float, series_rows: int = 0) -> PrefixLane:
    """Allocate a lane for runs of `requests` requests, so many of them in service at once."""
    lane = new_lane(model, requests, series_rows)
    constants = model.constants[0]
    block = int(constants["block_tokens"])
    blocks = int(constants["kv_capacity_tokens"]) // block
    longest = int((model.shapes["prompt_tokens"] + model.shapes["output_tokens"]).max())
    # Each holds a block at least that nobody else does.
    rows = int(min(requests, blocks, seats)) + 1
    return PrefixLane(
        *lane._replace(residents=np.zeros(rows, RESIDENT)),
        pool=np.zeros(1, POOL),
        blocks=np.zeros(blocks, BLOCK),
        buckets=np.zeros(1 << max(blocks - 1, 1).bit_length(), BUCKET),
        holders=np.zeros(rows, HOLDER),
        tables=np.zeros((rows, -(-longest // block)), np.int32),
        computed_before=np.zeros(requests, np.int64),
        runs=model.runs,
        tape=model.tape,
    )
