"""`make gpu-check` as a whole, at toy size and with no more packages than a GPU machine has."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("numba_cuda")

from fluid.server import Server
from tests.benchmarks.loads import OUTPUT, PROMPT, model_with
from tests.gpu.runner import PARTS
from tests.gpu.traffic import TRAFFIC
from validation.policies import POLICIES, parse_policy
from validation.simulator import cpu

ROOT = Path(__file__).resolve().parents[2]

NOT_THERE = """\
import sys

ABSENT = {
    "cvxpy", "distributed", "ijson", "matplotlib", "prometheus_client", "pyarrow",
    "pytest", "rich", "safetensors", "transformers", "typer",
}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""
"""A `sitecustomize` under which packages that the check must do without cannot be imported.

Two of the project's own, sympy and jinja2, come with every torch.
"""


@pytest.mark.slow
def test_make_gpu_check_runs_every_part_at_toy_size(tmp_path: Path) -> None:
    """One call, as starting the processes takes longest."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOT_THERE)
    out = tmp_path / "out"
    # Quiet, as `make test` may be above this.
    command = ["make", "--silent", "--no-print-directory", "gpu-check"]
    done = subprocess.run(
        [*command, f"GPU_PYTHON={sys.executable}", f"GPU_ARGS=--toy --limit-s 3600 --out {out}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    logs = {path.stem: path.read_text() for path in out.glob("*.log")}
    assert done.returncode == 0, (done.stdout, done.stderr, logs)
    first = done.stdout.splitlines()[0]
    assert "numba-cuda " in first
    assert "torch " in first
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in PARTS}
    assert {one["status"] for one in found.values()} == {"done"}
    page = (out / "report.md").read_text()
    for name in PARTS:
        section = (out / f"{name}.md").read_text()
        assert section.startswith(f"## {name}: done")
        assert section in page
    card_has_ceilings(found["card"])
    agree_has_every_policy_and_traffic(found["agree"])
    speed_counts_the_iterations_of_the_processor(found["speed"])
    sweep_has_the_same_rows_on_disk(found["sweep"], out)
    fit_wrote_a_server(found["fit"], found["sweep"], out)
    loop_has_two_policies_at_three_rates(found["loop"])


def rows(found: dict[str, Any], title: str) -> list[dict[str, Any]]:
    """Of the table of that title."""
    return next(table["rows"] for table in found["tables"] if table["title"] == title)


def card_has_ceilings(found: dict[str, Any]) -> None:
    # Memory of no computer is slower than 0.1 GB/s, or faster than 100 TB/s.
    assert 1e8 < found["figures"]["bandwidth_bytes_per_s"] < 1e14
    assert 1e8 < found["figures"]["operations_per_s"] < 1e16


def agree_has_every_policy_and_traffic(found: dict[str, Any]) -> None:
    policies = rows(found, "Policies")
    assert [row["policy"] for row in policies] == list(POLICIES)
    assert {row["servers × traffic"] for row in policies} == {len(TRAFFIC)}
    assert sum(row["evictions"] for row in policies) > 0
    assert found["aims"][0]["met"] is True


def speed_counts_the_iterations_of_the_processor(found: dict[str, Any]) -> None:
    launches = rows(found, "On the card")
    assert [(row["policy"], row["replications"]) for row in launches] == [
        (policy, replications) for policy in ("greedy", "vllm-v1") for replications in (1, 2)
    ]
    for row in launches:
        model = model_with(row["residents"], 2 * row["residents"] * (PROMPT + OUTPUT))
        policy = parse_policy(row["policy"])
        jobs = [cpu.Job(policy, index) for index in range(row["replications"])]
        iterations = sum(one.iterations for one in cpu.run(model, jobs, 4))
        assert row["iterations_per_s"] * row["seconds"] == pytest.approx(iterations)
        assert row["bandwidth_share"] > 0
        assert row["times_processor"] > 0
    assert len(rows(found, "Kernels")) == len(rows(found, "All processor cores")) == 2


def sweep_has_the_same_rows_on_disk(found: dict[str, Any], out: Path) -> None:
    batches = rows(found, "Batches")
    assert {row["kind"] for row in batches} == {"decode", "prefill", "mixed"}
    with (out / "sweep-eager.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["iteration_ms"]) for row in table] == pytest.approx(
        [row["eager_ms"] for row in batches], rel=1e-4
    )
    # 16 MiB are all that it may take; a token has 2 × 2 × 4 × 16 values of 4 bytes.
    assert found["figures"]["kv_capacity_tokens"] == (16 << 20) // 1024


def fit_wrote_a_server(found: dict[str, Any], sweep: dict[str, Any], out: Path) -> None:
    server = Server.read(out / "server-eager.json")
    assert server.kv_capacity_tokens == sweep["figures"]["kv_capacity_tokens"]
    (row,) = rows(found, "Fits")
    assert row["rows"] == sweep["figures"]["batches"]
    assert row["per_kv_token_s"] == server.iteration_time.per_kv_token_s
    assert len(rows(found, "Measured ÷ floor")) == 3


def loop_has_two_policies_at_three_rates(found: dict[str, Any]) -> None:
    runs = rows(found, "Runs")
    assert [(row["policy"], row["rate_share"]) for row in runs] == [
        (policy, share) for share in (0.3, 0.5, 0.7) for policy in ("greedy", "table")
    ]
    for row in runs:
        ratio = row["latency_s"] / row["simulated_latency_s"]
        assert row["latency_ratio"] == pytest.approx(ratio)
        assert 0 < row["ttft_s"] < row["latency_s"]
