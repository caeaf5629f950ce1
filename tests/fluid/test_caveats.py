"""A server knows what it was measured on, and the equilibrium says when a load leaves that."""

from __future__ import annotations

from typing import Any

import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from tests.support.builders import server, workload
from thresholds.solvers.paced.solver import Paced

WIDE = {
    "tokens": [1, 1e6],
    "kv_tokens": [0, 1e7],
    "decode_requests": [0, 1e5],
    "prompt_tokens": [1, 1e5],
}
LOAD = workload((5.0, 512, 100))


def measured_server(**ranges: Any) -> Server:
    tau = IterationTime.affine(0.01, per_token_s=5e-5, per_kv_token_s=3e-7)
    return server(tau, kv_capacity_tokens=100_000, measured_range=WIDE | ranges)


def told(one: Server) -> list[str]:
    return [caveat for caveat in equilibrium(LOAD, one).caveats if "extrapolated" in caveat]


def test_inside_the_range_nothing_is_said() -> None:
    assert told(measured_server()) == []


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"kv_tokens": [0, 100]}, "at equilibrium an iteration has"),
        ({"kv_tokens": [0, 20_000]}, "at the edge of stability an iteration has"),
        ({"decode_requests": [0, 2]}, "decode requests, measured from 0 to 2"),
        ({"tokens": [1, 10]}, "tokens, measured from 1 to 10"),
        ({"prompt_tokens": [1, 511]}, "512 prompt tokens, measured from 1 to 511"),
        ({"prompt_tokens": [0, 0]}, "512 prompt tokens, measured from 0 to 0"),
    ],
)
def test_outside_the_range_it_is_said_once(ranges: dict[str, Any], words: str) -> None:
    (caveat,) = told(measured_server(**ranges))
    assert words in caveat


def test_a_table_carries_the_warning() -> None:
    table = Paced().solve(LOAD, measured_server(prompt_tokens=[1, 100]))
    assert any("extrapolated" in one for one in table.notes)


def test_an_unstable_load_is_judged_at_the_edge() -> None:
    heavy = LOAD.at_rate(500.0)
    caveats = equilibrium(heavy, measured_server(kv_tokens=[0, 10])).caveats
    assert any(one.startswith("at the edge of stability") for one in caveats)


def test_a_range_upside_down() -> None:
    with pytest.raises(InputError, match=r"kv_tokens must be \[least, most\]"):
        measured_server(kv_tokens=[5, 1])
