"""Policies compile for the cards of today, and what their kernels take of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest

pytest.importorskip("numba_cuda")

from tests.gpu.ptx import HOPPER, AssemblyError, assemble, assembler, kernel_ptx

AMPERE = (8, 0)

hopper_ptx = cache(partial(kernel_ptx, capability=HOPPER))
"""Compiling takes longest, so that both tests of a policy share its PTX."""

MOST_REGISTERS = {"greedy": 128, "vllm-v1": 168, "sarathi": 168}
"""As assembled for sm_90 by CUDA 13.0.

128 leave room for four warps on each of the four schedulers of a multiprocessor, 168 for three.
"""

COMPILED = ["greedy", "vllm-v1", "nested-wait"]
"""The widest kernels, and one with gates; ``python -m tests.gpu.ptx`` compiles all of them."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

needs_ptxas = pytest.mark.skipif(
    assembler() is None, reason="ptxas is not installed: it comes with the CUDA toolkit"
)


@pytest.mark.parametrize("name", COMPILED)
def test_every_kind_of_policy_compiles_to_ptx(name: str) -> None:
    ptx = hopper_ptx(name)
    assert ".target sm_90" in ptx
    assert ".visible .entry" in ptx


def test_the_card_before_is_compiled_for_too() -> None:
    assert ".target sm_80" in kernel_ptx("greedy", AMPERE)


@needs_ptxas
@pytest.mark.parametrize("name", COMPILED)
def test_every_kind_of_policy_assembles_without_spills(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    found = assemble(hopper_ptx(name), HOPPER, str(assembler()))
    for figure, value in vars(found).items():
        record_property(figure, value)
    print(name, found)
    assert found.spilled_bytes == 0
    assert found.registers <= MOST_REGISTERS.get(name, 255)


EMPTY = """\
.version {version}
.target sm_90
.address_size 64
.visible .entry nothing() {{ ret; }}
"""


@needs_ptxas
def test_a_ptx_that_is_too_new_is_assembled_as_the_newest_that_is_known() -> None:
    found = assemble(EMPTY.format(version="99.0"), HOPPER, str(assembler()))
    assert found.written == "99.0"
    assert float(found.assembled) < 99
    old = assemble(EMPTY.format(version="8.0"), HOPPER, str(assembler()))
    assert (old.written, old.assembled) == ("8.0", "8.0")


@needs_ptxas
def test_what_cannot_be_assembled_is_told_in_the_words_of_ptxas() -> None:
    with pytest.raises(AssemblyError, match="ptxas"):
        assemble(EMPTY.format(version="8.0").replace("ret", "no_such"), HOPPER, str(assembler()))
