"""The commands as a user meets them: output, JSON, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Call

GOOD = {
    "name": "long",
    "classes": [{"name": "a", "rate_per_s": 1.3, "prefill_tokens": 512, "decode_tokens": 1000}],
}
SERVER = "paper-long-decode"


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(GOOD))
    return path


def written(folder: Path, document: Any, name: str = "w.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_equilibrium_json(call: Call, workload: Path) -> None:
    done = call("equilibrium", workload, "--server", SERVER, "--json")
    assert done.code == 0
    assert done.err == ""
    assert done.document["stable"] is True
    for key in (
        "utilisation",
        "iteration_time_s",
        "kv_tokens",
        "kv_capacity_tokens",
        "max_scale",
        "binding",
        "tpot_s",
        "ttft_s",
        "latency_s",
        "throughput_tokens_per_s",
    ):
        assert done.document[key] is not None
    assert set(done.document["classes"][0]) >= {"name", "rate_per_s", "in_service_per_stage"}


def test_latencies_of_an_equilibrium(call: Call, workload: Path) -> None:
    arguments = ("equilibrium", workload, "--server", "engine-long-decode")
    told = call(*arguments)
    assert "Latency under greedy, seconds" in told.out
    assert "evictions begin at about" in told.out
    found = call(*arguments, "--scheduler", "vllm-v1", "--json").document
    assert found["prediction"]["rule"]["budget_tokens"] == 2048
    for name in ("ttft_s", "tpot_s", "latency_s"):
        figures = found["prediction"][name]
        assert set(figures) == {"mean", "p50", "p90", "p99"}
        assert found[name] == found["classes"][0][name] == figures["mean"]
    assert set(found["prediction"]["kv_tokens"]) == {"mean", "sd"}
    assert 0 < found["prediction"]["validity"]["budget_share"] < 1
    assert found["prediction"]["eviction_onset_per_s"] > 0


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ("fastest", "got 'fastest'; allowed: one of greedy, vllm-v1, sarathi"),
        ("vllm-v1", "got 'vllm-v1'; allowed: greedy, as first_token of server"),
        ("greedy:pace=1", "got 'greedy:pace=1'; allowed: cap, watermark as key=value"),
    ],
)
def test_schedulers_that_no_law_knows(
    call: Call, workload: Path, scheduler: str, told: str
) -> None:
    done = call("equilibrium", workload, "--server", SERVER, "--scheduler", scheduler)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"fluidwait: --scheduler: {done.err.split(': ', 2)[2]}"
    assert told in done.err
    assert done.err.count("\n") == 1


def test_simulated_points_in_the_picture(call: Call, workload: Path, tmp_path: Path) -> None:
    plot = tmp_path / "latency.svg"
    small = ("--replications", 2, "--requests", 200)
    done = call(
        *("equilibrium", workload, "--server", SERVER, "--plot", plot),
        *("--simulate", "0.5,1", *small),
    )
    assert done.code == 0
    assert "simulated: mean, bar to p99" in plot.read_text()


def test_fluctuations_of_an_equilibrium(call: Call, workload: Path) -> None:
    arguments = ("equilibrium", workload, "--server", SERVER, "--evictions", 0.01)
    found = call(*arguments, "--json").document["fluctuations"]
    assert found["kv_tokens_needed"] > found["kv_mean_tokens"]
    onset = ("--rate", found["eviction_onset_per_s"])
    at_onset = call(*arguments, *onset, "--json").document["fluctuations"]
    assert at_onset["overflow_probability"] == pytest.approx(0.01, rel=0.05)
    assert "rate at which 1.00 % exceed C" in call(*arguments).out


@pytest.mark.parametrize("picture", ["latency", "stages", "phase"])
def test_pictures_of_an_equilibrium(
    call: Call, workload: Path, tmp_path: Path, picture: str
) -> None:
    plot = tmp_path / "picture.svg"
    done = call("equilibrium", workload, "--server", SERVER, "--plot", plot, "--picture", picture)
    assert done.code == 0
    drawn = plot.read_text()
    assert drawn.startswith("<?xml")
    assert {"latency": "TPOT", "stages": "stage", "phase": "KV memory"}[picture] in drawn


def test_a_table_refined_on_the_simulator(call: Call, workload: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    done = call("solve", workload, "--server", SERVER, "--budget-s", 1e-3, "-o", path, "--json")
    assert done.code == 0
    assert done.document["solver"]["status"] == "refined"
    assert done.document["validated"]["policies"]
    assert call("replay", path, "--replications", 2, "--requests", 500).code == 0


def test_equilibrium_at_another_rate(call: Call, workload: Path) -> None:
    base = call("equilibrium", workload, "--server", SERVER, "--json").document
    twice = call("equilibrium", workload, "--server", SERVER, "--rate", 2.6, "--json").document
    assert twice["max_scale"] == pytest.approx(base["max_scale"] / 2)


@pytest.mark.parametrize(("rate", "kept"), [(3.0, True), (4.0, False)])
def test_unstable_equilibrium(call: Call, workload: Path, rate: float, kept: bool) -> None:
    """M* > C keeps ΔT* and M*; ρ ≥ 1 leaves nothing."""
    done = call("equilibrium", workload, "--server", SERVER, "--rate", rate, "--json")
    assert done.code == 3
    assert done.document["stable"] is False
    assert done.document["latency_s"] is None
    assert (done.document["kv_tokens"] is not None) == kept
    told = call("equilibrium", workload, "--server", SERVER, "--rate", rate)
    assert told.code == 3
    assert "UNSTABLE: compute binds; multiply all rates by at most" in told.out


def test_a_tape_that_is_not_there(call: Call, workload: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.json"
    call("solve", workload, "--server", SERVER, "-o", table)
    done = call("replay", table, "--tape", "none.csv")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "none.csv: got 'no such file'" in done.err


def test_solve_replay_and_validate(call: Call, workload: Path, tmp_path: Path) -> None:
    table, checked, plot = (tmp_path / name for name in ("t.json", "v.json", "p.svg"))
    solved = call("solve", workload, "--server", SERVER, "-o", table, "--json")
    assert solved.code == 0
    assert solved.document == json.loads(table.read_text())
    assert solved.document["validated"] is None
    small = ("--replications", 3, "--requests", 400)
    replayed = call("replay", table, *small, "-o", checked, "--plot", plot, "--json")
    assert replayed.code == 0
    own = replayed.document["policies"][0]
    assert own["policy"] == "greedy"
    assert own["params"]["pace"] == solved.document["params"]["pace_per_iteration"]
    for key in ("latency_s", "ttft_s", "tpot_s"):
        assert set(own[key]) == {"mean", "half_width", "p50", "p90", "p99"}
    assert plot.read_text().startswith("<?xml")
    validated = json.loads(checked.read_text())["validated"]
    assert validated["replications"] == 3
    assert validated["policies"][0]["latency_s"]["mean"] == own["latency_s"]["mean"]
    again = call("replay", table, *small, "--json")
    assert again.document == replayed.document
    assert "this table (paced)" in call("replay", table, *small).out


def test_literal_wait_can_be_replayed(call: Call, tmp_path: Path) -> None:
    chat = {"name": "chat", "rate_per_s": 8.0, "prefill_tokens": 64, "decode_tokens": 8}
    load = written(tmp_path, {"name": "chat", "classes": [chat]})
    table = tmp_path / "t.json"
    solved = call("solve", load, "--server", SERVER, "--policy", "wait", "-o", table)
    assert solved.code == 0
    assert "threshold of chat" in solved.out
    done = call("replay", table, "--replications", 4, "--requests", 1000, "--json")
    assert done.document["policies"][0]["policy"] == "wait"


def test_unstable_solve(call: Call, workload: Path) -> None:
    done = call("solve", workload, "--server", SERVER, "--rate", 5)
    assert done.code == 3
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert "binding: compute; multiply all rates by at most 0.548" in done.err
    as_json = call("solve", workload, "--server", SERVER, "--rate", 5, "--json")
    assert as_json.code == 3
    assert as_json.document["error"]["binding"] == "compute"
    assert as_json.document["error"]["max_scale"] == pytest.approx(0.5484, abs=1e-4)


BAD_WORKLOADS: dict[str, tuple[Any, str]] = {
    "unknown field": ({**GOOD, "clases": []}, "clases: got []; allowed: did you mean classes?"),
    "negative rate": ({"rate_per_s": -1.0}, "classes[0].rate_per_s: got -1.0; allowed:"),
    "no output": ({"decode_tokens": 0}, "classes[0].decode_tokens: got 0; allowed:"),
    "wrong unit": ({"rate_per_min": 78.0}, "classes[0].rate_per_min: got 78.0; allowed: did you"),
    "no classes": ({**GOOD, "classes": []}, "classes: got []; allowed: at least 1 entry"),
    "not a number": ({"rate_per_s": float("nan")}, "classes[0].rate_per_s: got nan; allowed:"),
    "too long": ({"decode_tokens": 140_000}, "classes[0] (a): got '140512 KV tokens at its end'"),
}


@pytest.mark.parametrize("kind", BAD_WORKLOADS)
@pytest.mark.parametrize("command", ["equilibrium", "solve"])
def test_bad_workloads(call: Call, tmp_path: Path, kind: str, command: str) -> None:
    change, told = BAD_WORKLOADS[kind]
    if "classes" not in change:
        change = {**GOOD, "classes": [{**GOOD["classes"][0], **change}]}  # type: ignore[dict-item]
    path = written(tmp_path, change)
    done = call(command, path, "--server", SERVER)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert told in done.err
    if kind != "too long":
        assert str(path) in done.err
    as_json = call(command, path, "--server", SERVER, "--json")
    assert (as_json.code, as_json.err) == (2, "")
    assert set(as_json.document["error"]) == {"kind", "file", "field", "value", "allowed"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("equilibrium", "none.yaml", "--server", SERVER), "none.yaml: got 'no such file'"),
        (("solve", "W", "--server", "h100"), "server: got 'h100'; allowed: a server file, or one"),
        (("solve", "W", "--server", SERVER, "--policy", "best"), "policy: got 'best'; allowed: "),
        (("solve", "W", "--server", SERVER, "--rate", "-1"), "--rate: got -1.0"),
        (("solve", "W", "--server", SERVER, "-o", "no/such/t.json"), "no/such/t.json"),
        (("solve", "W", "--server", SERVER, "--scheduler", "fifo"), "scheduler: got 'fifo'"),
        (
            ("solve", "W", "--server", SERVER, "--budget-s", "-1"),
            "--budget-s: got -1.0; allowed: a",
        ),
        (("equilibrium", "W", "--server", SERVER, "--evictions", "2"), "probability: got 2.0"),
        (
            ("equilibrium", "W", "--server", SERVER, "--plot", "p.svg", "--picture", "pie"),
            "--picture: got 'pie'",
        ),
        (("replay", "W"), "schema_version"),
        (("solve", "W"), "server"),
        (("sovle", "W"), "sovle"),
        (("workload", "from-trace", "none.csv"), "none.csv: got 'no such file'"),
    ],
)
def test_bad_arguments(call: Call, workload: Path, arguments: tuple[str, ...], told: str) -> None:
    done = call(*(workload if one == "W" else one for one in arguments))
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert told in done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--replications", 0), "replications: got 0; allowed: at least 1"),
        (("--requests", 0), "requests: got 0; allowed: at least 2"),
        (("--policy", "sjf"), "policy: got 'sjf'"),
        (("--plot", "picture.xyz"), "--plot: got 'picture.xyz'; allowed: a file ending in svg"),
    ],
)
def test_bad_replays(
    call: Call, workload: Path, tmp_path: Path, options: tuple[object, ...], told: str
) -> None:
    table = tmp_path / "t.json"
    call("solve", workload, "--server", SERVER, "-o", table)
    done = call("replay", table, "--requests", 50, "--replications", 2, *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert told in done.err


TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("2023-11-16 18:15:50.99,396", "line 3: got '2023-11-16 18:15:50.99,396'"),
        ("yesterday,396,109", "line 3: TIMESTAMP: got 'yesterday'"),
        ("2023-11-16 18:15:50.99,many,109", "line 3: ContextTokens: got 'many'"),
        ("2023-11-16 18:15:50.99,396,-1", "line 3: GeneratedTokens: got '-1'"),
        ("2023-11-16 17:15:50.99,396,109", "line 3: TIMESTAMP: got '2023-11-16 17"),
    ],
)
def test_broken_traces(call: Call, tmp_path: Path, row: str, told: str) -> None:
    path = written(tmp_path, TRACE + row + "\n", "trace.csv")
    done = call("workload", "from-trace", path, "-o", tmp_path / "w.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert told in done.err
    assert str(path) in done.err
    assert not (tmp_path / "w.yaml").exists()


def test_trace_to_tape_to_replay(call: Call, tmp_path: Path) -> None:
    rows = [
        f"2023-11-16 18:{s // 60:02d}:{s % 60:02d},{100 + 400 * (s % 3)},{5 + s % 2}"
        for s in range(300)
    ]
    trace = written(tmp_path, TRACE.splitlines()[0] + "\n" + "\n".join(rows), "trace.csv")
    load, tape, table = (tmp_path / name for name in ("w.yaml", "tape.csv", "t.json"))
    made = call("workload", "from-trace", trace, "-o", load, "--tape-out", tape, "--json")
    assert made.code == 0
    assert max(made.document["errors"].values()) < 0.02
    assert call("solve", load, "--server", SERVER, "-o", table).code == 0
    done = call("replay", table, "--tape", tape, "--json")
    assert done.code == 0
    own = done.document["policies"][0]
    assert own["replications"] == 1
    assert own["requests"] == 300
    assert own["latency_s"]["half_width"] is None
    too_few = call("workload", "from-trace", trace, "--classes", 1)
    assert too_few.code == 3


def test_servers_are_listed_and_shown(call: Call) -> None:
    names = [one["name"] for one in call("server", "list", "--json").document["servers"]]
    assert {"a100-80gb-llama-2-7b", "engine-long-decode", "llama-3.1-8b-h100-sxm-vllm"} <= {*names}
    assert names == sorted(names)
    assert call("server", "show", names[0]).document["block_tokens"] == 16


def test_demo_shows_collapse_and_cure(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluidwait.commands.demo.REPLICATIONS", 4)
    done = call("demo", "-o", tmp_path / "demo")
    assert done.code == 0
    assert "The table HOLDS; none of the policies beside it is stable" in done.out
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {"long-decode.yaml", "table.json", "validated-table.json", "replay.svg"}


def test_help_is_quick() -> None:
    """Heavy imports are lazy: help loads neither numpy nor anything that needs it."""
    program = (
        "import sys; sys.argv = ['fluidwait', '--help']\n"
        "import fluidwait.main as m\n"
        "try: m.run()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'numpy', 'scipy', 'numba', 'cvxpy', 'sympy', 'matplotlib', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert done.stderr.strip() == "[]", done.stderr
    assert "solve" in done.stdout
    print(f"fluidwait --help in {seconds:.2f} s")


def test_compare_by_rate_with_capacity(call: Call, workload: Path, tmp_path: Path) -> None:
    plot, store = tmp_path / "c.svg", tmp_path / "rows"
    arguments = (
        *("compare", workload, "--server", SERVER, "--rates", "1:3:1"),
        *("--policy", "greedy:watermark=0.01", "--policy", "greedy:pace=0.13"),
        *("--replications", 3, "--requests", 600, "--resume", store),
    )
    done = call(*arguments, "--find-capacity", "--plot", plot, "--json")
    assert done.code == 0
    rows = done.document["policies"]
    assert [(one["policy"], one["rate_per_s"]) for one in rows] == [
        ("greedy", rate) for rate in (1.0, 1.0, 2.0, 2.0, 3.0, 3.0)
    ]
    assert set(done.document["largest_stable_rate_per_s"]) == {
        "greedy:watermark=0.01",
        "greedy:pace=0.13",
    }
    assert plot.read_text().startswith("<?xml")
    table = call(*arguments, "--burst", 10)
    assert table.code == 0
    assert "Fluid limit: 2.742 /s." in table.out
    assert "Recovery from 10 requests at one instant" in table.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--policy", "fifo"), "policy: got 'fifo'; allowed: one of greedy"),
        (("--policy", "greedy:speed=1"), "got 'speed'; allowed: one of watermark, cap, pace"),
        (("--policy", "greedy", "--rates", "3:1:1"), "--rates: got '3:1:1'"),
        (("--policy", "greedy", "--rates", "0"), "--rates: got '0'"),
        (("--policy", "greedy", "--rates", "1:9999999:0.001"), "at most 10000 values"),
        (("--policy", "greedy", "--replications", 0), "replications: got 0"),
        (("--policy", "greedy", "--tape", "x.csv"), "WORKLOAD: got 'both or neither'"),
        (("--policy", "greedy", "--device", "tpu"), "device: got 'tpu'; allowed: cpu, cuda or"),
        (("--policy", "greedy", "--plot", "a.b"), "--plot: got 'a.b'"),
        (("--policy", "greedy", "--burst", 0), "Invalid value for '--burst'"),
    ],
)
def test_bad_comparisons(
    call: Call, workload: Path, options: tuple[object, ...], told: str
) -> None:
    done = call("compare", workload, "--server", SERVER, *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert told in done.err
