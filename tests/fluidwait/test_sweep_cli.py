"""``sweep``, and ``compare`` on workers: rows, resume, lost schedulers, bad input."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyarrow.dataset import dataset

from fluidwait.commands import sweep as command
from tests.support.command_line import Call
from tests.support.dask_processes import DaskProcesses
from validation.experiments import cluster as clusters
from validation.experiments.sweep import Sweep

SERVER = "paper-long-decode"

WORKLOAD = """
name: long-decode
classes:
  - {name: chat, rate_per_s: 2.0, prefill_tokens: 512, decode_tokens: 100}
"""


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "load.yaml"
    path.write_text(WORKLOAD)
    return path


@pytest.fixture
def sweep(call: Call, workload: Path, tmp_path: Path) -> Callable[..., Any]:
    """`fluidwait sweep` of 24 configurations into a folder of `tmp_path`."""

    def sweeping(folder: str, *options: object) -> Any:
        return call(
            *("sweep", workload, "--server", SERVER, "--policy", "greedy"),
            *("--policy", "greedy:pace=0.1:0.3:0.2", "--rates", "2:8:2", "--seeds", 2),
            *("--replications", 2, "--requests", 300, "-o", tmp_path / folder, *options),
        )

    return sweeping


def acting(row: int, act: Callable[..., object], *arguments: object) -> Callable[..., Any]:
    """In place of the progress bar: acts after so many rows."""

    @contextmanager
    def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
        done: list[None] = []

        def advance() -> None:
            done.append(None)
            if len(done) == row:
                act(*arguments)

        yield advance

    return progress


def rows_by_key(folder: Path) -> dict[str, dict[str, Any]]:
    rows = dataset(folder).to_table().to_pylist()
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def test_a_sweep_fills_a_folder_and_continues_from_it(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    first = sweep("rows", "--json")
    assert first.code == 0
    assert first.document["rows"] == first.document["new_rows"] == 24
    policies = first.document["policies"]
    assert [one["policy"] for one in policies] == ["greedy", "greedy:pace=0.1", "greedy:pace=0.3"]
    for one in policies:
        assert one["stable"] + one["undecided"] + one["unstable"] == one["rows"] == 8
    rows = rows_by_key(tmp_path / "rows")
    assert {(row["label"], row["rate_per_s"], row["seed"]) for row in rows.values()} == {
        (one["policy"], rate, seed)
        for one in policies
        for rate in (2.0, 4.0, 6.0, 8.0)
        for seed in (0, 1)
    }

    again = sweep("rows")
    assert again.code == 0
    assert "24 rows, 0 of them new, in" in again.out
    assert "rows holds 24 rows: those of this sweep are not run again." in again.err
    assert rows_by_key(tmp_path / "rows") == rows

    other = sweep("rows", "--seed", 1, "--json")
    assert other.document["new_rows"] == 12  # seed 2; seed 1 is there
    assert rows.items() <= rows_by_key(tmp_path / "rows").items()


def test_a_summary_counts_verdicts_and_finds_where_stability_ends() -> None:
    class Row:
        def __init__(self, rate_per_s: float, verdict: str) -> None:
            self.label, self.rate_per_s, self.verdict = "p", rate_per_s, verdict

    def up_to(*rows: tuple[float, str]) -> float | None:
        return Sweep([Row(*one) for one in rows], (), None, 0).summaries[0].stable_up_to_per_s

    assert up_to((1.0, "stable"), (2.0, "stable"), (2.0, "undecided"), (3.0, "stable")) == 1.0
    assert up_to((2.0, "stable"), (1.0, "stable")) == 2.0
    assert up_to((1.0, "unstable"), (2.0, "stable")) is None


def test_rows_of_workers_are_those_of_this_process(
    sweep: Callable[..., Any], tmp_path: Path
) -> None:
    assert sweep("here").code == 0
    assert sweep("workers", "--workers", 2).code == 0
    assert rows_by_key(tmp_path / "workers") == rows_by_key(tmp_path / "here")


def test_compare_on_workers_is_compare(call: Call, workload: Path) -> None:
    arguments = (
        *("compare", workload, "--server", SERVER, "--policy", "greedy"),
        *("--policy", "greedy:pace=0.13", "--rates", "2,4", "--find-capacity"),
        *("--replications", 2, "--requests", 300, "--json"),
    )
    here, there = call(*arguments), call(*arguments, "--workers", 2)
    assert here.code == there.code == 0
    assert there.document == here.document


def test_a_lost_scheduler_is_one_line_and_the_same_command_continues(
    sweep: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep("here").code == 0
    (tmp_path / "dask").mkdir()
    with DaskProcesses(tmp_path / "dask").start_workers("a", "b") as processes:
        monkeypatch.setattr(command, "progress", acting(3, processes.kill_scheduler))
        monkeypatch.setattr(clusters, "TASK_S", 0.01)
        lost = sweep("rows", "--cluster", processes.address)
    assert lost.code == 1
    assert lost.err.startswith(f"fluidwait: lost the scheduler at {processes.address}; ")
    assert lost.err.count("\n") == 1
    kept = rows_by_key(tmp_path / "rows")
    assert 3 <= len(kept) < 24
    assert f"; {len(kept)} rows are kept in {tmp_path / 'rows'}: start again to" in lost.err
    monkeypatch.undo()
    assert sweep("rows").code == 0
    assert rows_by_key(tmp_path / "rows") == rows_by_key(tmp_path / "here")


def test_bad_arrivals_leave_no_folder(sweep: Callable[..., Any], tmp_path: Path) -> None:
    found = sweep("rows", "--arrivals", "greedy:cap=-1")
    assert found.code == 2
    assert "arrivals: got 'greedy'" in found.err
    assert not (tmp_path / "rows").exists()


def test_ctrl_c_keeps_the_rows(
    sweep: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "progress", acting(5, signal.raise_signal, signal.SIGINT))
    # Where the tests run behind a shell that goes on, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert sweep("rows").code == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(rows_by_key(tmp_path / "rows")) == 5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cluster", "nonsense"), "--cluster: got 'nonsense'; allowed: the address of"),
        (
            ("--cluster", "tcp://127.0.0.1:1", "--workers", 2),
            "--workers: got 2; allowed: a number, where no cluster",
        ),
        (("--workers", 0), "Invalid value for '--workers'"),
        (("--seeds", 0), "Invalid value for '--seeds'"),
        (("--policy", "greedy:pace=0.2:0.1:0.1"), "policy greedy: pace: got '0.2:0.1:0.1'"),
        (("--policy", "greedy:pace=1:2"), "policy greedy: pace: got '1:2'; allowed: a number, or"),
        (("--policy", "greedy:speed=1:2:1"), "got 'speed'; allowed: one of"),
        (("--seeds", 10**6), "got 12000000; allowed: at most 1,000,000 rows"),
        (("--rates", "1:x:1"), "--rates: got '1:x:1'"),
        (("--rates", "-1,2"), "--rates: got '-1,2'; allowed: rates > 0"),
    ],
)
def test_bad_sweeps(
    sweep: Callable[..., Any], tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    done = sweep("rows", *options)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def test_a_folder_of_something_else_is_refused(sweep: Callable[..., Any], tmp_path: Path) -> None:
    done = sweep(".")
    assert done.code == 2
    assert "got 'load.yaml'; allowed: a new folder, or one with rows only" in done.err


@pytest.mark.parametrize(("module", "name"), [("distributed", "Dask"), ("cryptography",) * 2])
def test_a_missing_extra_is_one_line(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda asked: None if asked == module else asked)
    done = sweep("rows", "--workers", 2)
    assert done.code == 2
    assert f"--workers: got 2; allowed: {name}, which is not installed" in done.err
    assert "pip install fluidwait[dask]" in done.err
    assert done.err.count("\n") == 1
