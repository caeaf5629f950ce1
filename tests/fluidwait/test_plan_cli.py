"""``fluidwait plan``: what is refused; what it finds is in `tests.validation.test_planning`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluid.workload import Requests, Workload
from tests.support.command_line import Call


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--budget-s", 0), "--budget-s: got 0"),
        (("--cost", "nobody=3"), "--cost: got 'nobody=3'"),
        (("--objective", "joy"), "--objective: got 'joy'"),
    ],
)
def test_bad_command_lines(
    call: Call, tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    load = Workload.of(chat=Requests(1.0, prompt=64, output=20))
    load.write(tmp_path / "load.yaml")
    done = call("plan", tmp_path / "load.yaml", "--server", "engine-long-decode", *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert told in done.err
