"""Holds of Nested WAIT in an engine, against the simulator's slow rules on random states."""

from __future__ import annotations

import math
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from fluid.server import load_server
from thresholds.export.admission import Restraints
from thresholds.export.holds import SegmentHolds
from validation.reference.core import Queueing
from validation.reference.nested import nested_cap, nested_wait
from validation.reference.request import Request

SERVER = load_server("engine-long-decode")
ENDS = (3, 6, 10)


def residents(generated: list[int]) -> list[Request]:
    """Residents that have generated so many tokens; prefill emits the first of them."""
    found = []
    for number, tokens in enumerate(generated):
        one = Request(number, 0.0, 0, prefill_tokens=8, context_tokens=0, decode_tokens=100)
        one.stage = one.outputs = tokens
        found.append(one)
    return found


def state(generated: list[int], waiting: int, thresholds: tuple[int, ...]) -> Queueing:
    queued = [Request(100 + k, 0.0, 0, 8, 0, 100) for k in range(waiting)]
    return Queueing(
        SERVER, {}, thresholds, waiting=queued, residents=residents(generated), cuts=ENDS
    )


STATES = {
    "generated": st.lists(st.integers(1, ENDS[-1] - 1), max_size=20),
    "waiting": st.integers(0, 5),
    "thresholds": st.tuples(*[st.integers(1, 4)] * len(ENDS)),
}


@given(**STATES, gated=st.booleans())
def test_holds_are_those_of_the_simulators_rule(
    generated: list[int], waiting: int, thresholds: tuple[int, ...], gated: bool
) -> None:
    limits = Restraints(segment_thresholds=thresholds, segment_ends=ENDS, gated=gated)
    running = [(str(number), tokens) for number, tokens in enumerate(generated)]
    holds = SegmentHolds(limits).decide(running, waiting, 0.0, 0.0)
    queueing = state(generated, waiting, thresholds)
    before = list(queueing.residents)
    batch = (nested_wait if gated else nested_cap)(queueing)
    expected = [index for index, one in enumerate(before) if one not in batch]
    assert list(holds.held) == expected
    admitted = len(queueing.residents) - len(before)
    assert admitted == min(holds.room, waiting)


def test_a_boundary_opens_after_the_longest_wait_and_closes_behind_it() -> None:
    limits = Restraints(segment_thresholds=(1, 3), segment_ends=(3, 9), gated=True, max_wait_s=2.0)
    rule = SegmentHolds(limits)
    waits = [("a", 3)]
    assert rule.decide(waits, 1, 0.0, 10.0).held == (0,)
    assert rule.decide(waits, 1, 0.0, 11.9).held == (0,)
    assert rule.decide(waits, 1, 0.0, 12.0).held == ()
    # Another one at the same boundary starts its own wait.
    rule.forget("a")
    assert rule.decide([("b", 3)], 1, 0.0, 12.1).held == (0,)


def test_beyond_the_last_end_a_request_stays_in_the_last_segment() -> None:
    limits = Restraints(segment_thresholds=(1, 1), segment_ends=(3, 9))
    assert [limits.segment_of(tokens) for tokens in (0, 2, 3, 8, 9, 1000)] == [0, 0, 1, 1, 1, 1]
    assert math.isinf(limits.max_wait_s)


def test_reading_a_table_needs_none_of_the_solvers_libraries() -> None:
    """A serving engine imports these."""
    heavy = "{'scipy', 'cvxpy', 'numba', 'sympy', 'matplotlib', 'typer', 'rich'}"
    program = (
        "import sys, thresholds.table, thresholds.export.admission, "
        f"thresholds.export.holds; assert not {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
