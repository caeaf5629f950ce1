"""The pool of KV blocks: handing out, finding, entering and taking back (rules: docs/policies.md).

A full block whose tokens are all known *enters*: from then on it can be found by its key, which
stands for its tokens and all before them. Of several blocks with one key the one that entered
first is found. A free block keeps its key until it is handed out again.
"""

from __future__ import annotations

from validation.simulator.compiling import called_kernel, kernel
from validation.simulator.prefix.content import key_of
from validation.simulator.window import in_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_GOLDEN = 0x1E3779B97F4A7C15
"""An odd number without pattern: its products spread over all bits."""


@called_kernel
def clear_pool(model, lane):
    """Everything free, in order of number, and nothing entered."""
    pool = lane.pool[0]
    pool.free = 0
    pool.holders = 0
    pool.decision = 0
    pool.first_own = 0
    pool.queried_tokens = 0
    pool.hit_tokens = 0
    pool.saved_tokens = 0
    pool.evicted_blocks = 0
    for index in range(lane.runs.size):
        pool.first_own = max(pool.first_own, lane.runs[index].id + 1)
    for index in range(lane.buckets.size):
        lane.buckets[index].first = 0
        lane.buckets[index].last = 0
    for block in range(lane.blocks.size):
        lane.blocks[block].key = -1
        lane.blocks[block].users = 0
        lane.blocks[block].next = 0
        lane.blocks[block].previous = 0
    for block in range(1, lane.blocks.size):
        _free_last(lane, block)
    pool.spare_rows = lane.holders.size
    for row in range(lane.holders.size):
        lane.holders[row].spare = lane.holders.size - 1 - row
        lane.holders[row].seen = 0


@kernel
def find(model, lane, row, request, known):
    """Put the longest run of found blocks, from the first on, into a row; returns their number.

    At least one of the known tokens is left over.
    """
    count = (known - 1) // model.constants[0].block_tokens
    for index in range(count):
        block = _found(lane, key_of(model, lane, request, index))
        if block == 0:
            return index
        lane.tables[row, index] = block
    return count


@kernel
def free_among(lane, row, found):
    """How many of the found blocks nobody uses."""
    free = 0
    for index in range(found):
        if lane.blocks[lane.tables[row, index]].users == 0:
            free += 1
    return free


@kernel
def take_found(lane, row, request, found):
    """Begin a row with the blocks that were found."""
    holder = lane.holders[row]
    holder.request = request
    holder.owned = found
    holder.entered = found
    for index in range(found):
        block = lane.tables[row, index]
        if lane.blocks[block].users == 0:
            _leave_queue(lane, block)
        lane.blocks[block].users += 1


@kernel
def take(model, lane, row, tokens, known):
    """Give a row the blocks for so many tokens, of which `known` have a value already."""
    holder = lane.holders[row]
    size = model.constants[0].block_tokens
    needed = (tokens + size - 1) // size
    while holder.owned < needed:
        block = lane.blocks[0].next
        _leave_queue(lane, block)
        if lane.blocks[block].key >= 0:
            if in_window(lane.scalars[0]):
                lane.pool[0].evicted_blocks += 1
            _forget(lane, block)
        lane.blocks[block].users = 1
        lane.tables[row, holder.owned] = block
        holder.owned += 1
    enter(model, lane, row, min(tokens, known))


@kernel
def enter(model, lane, row, tokens):
    """Let the blocks of a row enter that so many tokens fill."""
    holder = lane.holders[row]
    full = tokens // model.constants[0].block_tokens
    while holder.entered < full:
        block = lane.tables[row, holder.entered]
        key = key_of(model, lane, holder.request, holder.entered)
        bucket = lane.buckets[_bucket(lane, key)]
        record = lane.blocks[block]
        record.key = key
        record.earlier = bucket.last
        record.later = 0
        if bucket.last == 0:
            bucket.first = block
        else:
            lane.blocks[bucket.last].later = block
        bucket.last = block
        holder.entered += 1


@kernel
def release(lane, row):
    """Take back the blocks of a row, the last first: those that never entered go out next."""
    holder = lane.holders[row]
    for index in range(holder.owned - 1, -1, -1):
        block = lane.tables[row, index]
        lane.blocks[block].users -= 1
        if lane.blocks[block].users == 0 and lane.blocks[block].key >= 0:
            _free_last(lane, block)
    for index in range(holder.owned):
        block = lane.tables[row, index]
        if lane.blocks[block].users == 0 and lane.blocks[block].key < 0:
            _free_first(lane, block)
    pool = lane.pool[0]
    lane.holders[pool.spare_rows].spare = row
    pool.spare_rows += 1


@kernel
def _found(lane, key):
    """The block with this key that entered first; 0 where there is none."""
    block = lane.buckets[_bucket(lane, key)].first
    while block != 0 and lane.blocks[block].key != key:
        block = lane.blocks[block].later
    return block


@kernel
def _bucket(lane, key):
    return (key * _GOLDEN >> 24) & (lane.buckets.size - 1)


@kernel
def _forget(lane, block):
    """A block that is handed out again cannot be found any more."""
    record = lane.blocks[block]
    bucket = lane.buckets[_bucket(lane, record.key)]
    if record.earlier == 0:
        bucket.first = record.later
    else:
        lane.blocks[record.earlier].later = record.later
    if record.later == 0:
        bucket.last = record.earlier
    else:
        lane.blocks[record.later].earlier = record.earlier
    record.key = -1


@kernel
def _leave_queue(lane, block):
    """Take a block out of the free queue, wherever it stands."""
    record = lane.blocks[block]
    lane.blocks[record.previous].next = record.next
    lane.blocks[record.next].previous = record.previous
    lane.pool[0].free -= 1


@kernel
def _free_last(lane, block):
    """Put a block at the end of the free queue."""
    _put_between(lane, block, lane.blocks[0].previous, 0)


@kernel
def _free_first(lane, block):
    """Put a block at the head of the free queue."""
    _put_between(lane, block, 0, lane.blocks[0].next)


@kernel
def _put_between(lane, block, previous, following):
    record = lane.blocks[block]
    record.previous = previous
    record.next = following
    lane.blocks[previous].next = block
    lane.blocks[following].previous = block
    lane.pool[0].free += 1
