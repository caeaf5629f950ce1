"""``fluidwait measure`` with the tiny model on the CPU."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Call

torch = pytest.importorskip("torch")

from validation.measure import device, timed_batches  # noqa: E402
from validation.measure.importers import read_measurements  # noqa: E402

TINY = ("--model", "tiny", "--dtype", "float32", "--device", "cpu")
SMALL = ("--most-decodes", 8, "--longest-context", 256, "--longest-prompt", 64)
QUICK = ("--warm-up", 1, "--repeats", 2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_sweep_calibrate_and_closed_loop(call: Call, tmp_path: Path) -> None:
    """The whole way: measure the tiny model, calibrate, serve arrivals, compare."""
    rows, server, table = (tmp_path / name for name in ("cpu.csv", "cpu-server.json", "t.json"))
    done = call("measure", *TINY, *SMALL, *QUICK, "-o", rows, "--json")
    assert done.code == 0
    assert done.document["rows"] == len(read_measurements(rows)) > 20
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert record["model"] == "tiny, float32, random weights"
    assert record["command"].startswith("fluidwait measure")
    assert record["versions"]["torch"] == torch.__version__
    assert call("calibrate", rows, "-o", server, "--kv-tokens", 2000).code == 0
    assert record["device"] in json.loads(server.read_text())["source"]
    load = tmp_path / "w.json"
    short = {"name": "a", "rate_per_s": 20.0, "prefill_tokens": 16, "decode_tokens": 5}
    load.write_text(json.dumps({"name": "w", "classes": [short]}))
    assert call("solve", load, "--server", server, "-o", table).code == 0
    loop = ("measure", "closed-loop", "--server", server, "--table", table, *TINY)
    sizes = ("--prompt-tokens", 16, "--output-tokens", 5, "--requests", 30)
    done = call(*loop, *sizes, "--rates", "60,90", "--json")
    assert done.code == 0
    runs = done.document["runs"]
    assert [(one["name"], one["offered_per_s"]) for one in runs] == [
        ("table", 60.0),
        ("greedy", 60.0),
        ("table", 90.0),
        ("greedy", 90.0),
    ]
    for one in runs:
        for side in ("measured", "simulated"):
            assert 0 < one[side]["ttft_s"] < one[side]["latency_s"]
    told = call(*loop, *sizes, "--rates", "80")
    assert told.code == 0
    assert "simulated with cpu" in told.out


def test_the_papers_design(call: Call) -> None:
    done = call("measure", "paper", *TINY, *QUICK, "--largest", 16, "--json")
    assert done.code == 0
    found = done.document
    assert (found["prompt_tokens"], found["output_tokens"]) == (256, 20)
    assert found["batches"] == [1, 2, 4, 8, 16]
    assert found["published"] == {
        "mape": 0.0193,
        "r_squared": 0.9943,
        "extrapolation_error": 0.0493,
    }
    for part in ("whole_runs", "decode_iterations"):
        assert found[part]["r_squared"] <= 1
        assert found[part]["extrapolation_error"] >= 0
    told = call("measure", "paper", *TINY, *QUICK, "--largest", 8)
    assert "1.93 %" in told.out


def test_interrupted_sweep_keeps_its_rows(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = timed_batches.measure_batch, []

    def third_is_interrupted(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(timed_batches, "measure_batch", third_is_interrupted)
    rows = tmp_path / "rows.csv"
    done = call("measure", *TINY, *SMALL, *QUICK, "-o", rows)
    assert done.code == 130
    assert len(read_measurements(rows)) == 2
    assert "2 of" in done.out


def test_a_batch_without_memory_is_left_out_and_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = timed_batches.measure_batch

    def large_ones_fail(decoder: Any, batch: Any, *rest: Any) -> Any:
        if batch.decodes >= 8:
            raise torch.OutOfMemoryError
        return real(decoder, batch, *rest)

    monkeypatch.setattr(timed_batches, "measure_batch", large_ones_fail)
    rows = tmp_path / "rows.csv"
    done = call("measure", *TINY, *SMALL, *QUICK, "-o", rows)
    assert done.code == 0
    assert "did not fit into memory: Composition(decodes=8" in done.err
    assert read_measurements(rows).measured_range.decode_requests[1] < 8
    assert json.loads((tmp_path / "rows.json").read_text())["skipped"]


def test_a_device_without_memory_for_the_model(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "free_bytes", lambda _: 8 * 2**30)
    done = call("measure", "--device", "cpu", "-o", tmp_path / "r.csv")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "llama-2-7b: 12.6 GiB" in done.err
    assert "8.0 GiB that are free on cpu" in done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("measure", "--model", "gpt-9", "--device", "cpu"), "llama-2-7b"),
        (("measure", *TINY[:2], "--dtype", "int3", "--device", "cpu"), "float16"),
        (("measure", *TINY[:4], "--device", "tpu"), "auto, cpu or cuda"),
        (("measure", *TINY, "--cuda-graphs"), "only with device cuda"),
        (("measure", *TINY, "-o", "/no/such/folder/r.csv"), "existing folder"),
        (("measure", *TINY, "--checkpoint", "/no/such/folder"), "safetensors"),
        (("measure", "paper", *TINY, "--largest", 2), "at least 8"),
        (("measure", "closed-loop", "-s", "paper-lmsys", "--rates", "x", *TINY), "commas"),
        (("measure", "closed-loop", "-s", "paper-lmsys", "--rates", "5", *TINY), "prefill"),
        (("measure", "floor", "-s", "paper-lmsys"), "a100-80gb"),
    ],
)
def test_bad_options(
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[Any, ...],
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.code == 2
    assert word in done.err
    assert done.err.count("\n") == 1


CLOSED_LOOP = ("measure", "closed-loop", "-s", "a100-80gb-llama-2-7b", *TINY)
A100 = ("measure", "floor", "-s", "a100-80gb-llama-2-7b")
BEHIND = "behind its name"


@pytest.mark.parametrize(
    ("arguments", "option", "word"),
    [
        # Options in front of a further command belong to the measurement of batches alone.
        *(
            (("measure", *given, *rest), given[0], BEHIND)
            for given in (
                ("--out", "r.csv"),
                ("--model", "tiny"),
                ("--dtype", "float32"),
                ("--device", "cpu"),
                ("--checkpoint", "folder"),
                ("--most-decodes", 8),
                ("--longest-context", 64),
                ("--longest-prompt", 16),
                ("--warm-up", 1),
                ("--repeats", 1),
                ("--cuda-graphs",),
                ("--json",),
            )
            for rest in (("paper",), ("closed-loop", "-s", "x", "--rates", 1), A100[1:])
        ),
        # A device has its own bandwidth and peak; another one needs both.
        ((*A100, "--on", "h200", "--tflops", 312), "--tflops", "without on h200"),
        ((*A100, "--on", "l4", "--bandwidth-gb-per-s", 5), "--bandwidth-gb-per-s", "without on l4"),
        (
            (*A100, "--on", "l4", "--bandwidth-gb-per-s", 5, "--tflops", 312),
            "--bandwidth-gb-per-s",
            "without on l4",
        ),
        ((*A100, "--tflops", 312), "--tflops", "both of them"),
        ((*A100, "--bandwidth-gb-per-s", 5), "--bandwidth-gb-per-s", "both of them"),
        ((*A100, "--on", "abacus"), "--on", "one of a100-80gb"),
        # The design of the paper and the closed loop time random weights.
        (("measure", "paper", "--checkpoint", "folder"), "--checkpoint", "No such option"),
        (
            ("measure", "closed-loop", "-s", "x", "--rates", 1, "--checkpoint", "folder"),
            "--checkpoint",
            "No such option",
        ),
        (("measure", "paper", *TINY, "--largest", 7), "--largest", "at least 8"),
        (
            (*CLOSED_LOOP, "--rates", "1,-2"),
            "rates",
            "requests per second > 0",
        ),
        (
            (*CLOSED_LOOP, "--rates", "1", "--cuda-graphs"),
            "--cuda-graphs",
            "only with device cuda",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    call: Call, arguments: tuple[Any, ...], option: str, word: str
) -> None:
    done = call(*arguments)
    assert done.code == 2
    told = done.out if "--json" in arguments else done.err
    assert option in told
    assert word in told
    assert done.err.count("\n") <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(call: Call, tmp_path: Path) -> None:
    done = call("measure", *TINY[:4], "--device", "cuda", "-o", tmp_path / "r.csv")
    assert done.code == 2
    assert "no CUDA device" in done.err


def test_without_torch_the_extra_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def no_device(name: str, *rest: Any) -> Any:
        if name == "validation.measure.device":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_device)
    done = call("measure", *TINY, "-o", tmp_path / "r.csv")
    assert done.code == 2
    assert "fluidwait[torch]" in done.err


def test_floor(call: Call) -> None:
    """Bytes over bandwidth, by hand: 0.5 MiB per token at 2.039 TB/s."""
    arguments = ("measure", "floor", "-s", "a100-80gb-llama-2-7b")
    done = call(*arguments, "--on", "a100-80gb", "--json")
    assert done.code == 0
    lines = {one["name"]: one for one in done.document["floor"]}
    assert lines["per_kv_token_s"]["floor_s"] == pytest.approx(2**19 / 2.039e12)
    assert 1 <= lines["per_kv_token_s"]["ratio"] < 1.3
    assert all(one["ratio"] > 1 for one in lines.values())
    own = call(*arguments, "--bandwidth-gb-per-s", 2039, "--tflops", 312, "--json").document
    assert own == done.document
    assert "ratio" in call(*arguments, "--on", "h200").out
