"""``fluidwait calibrate`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call
from tests.support.synthetic import JUMP, measured, write_csv


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_csv(measured(JUMP, noise=0.01), tmp_path / "my-gpu.csv")


def test_calibrate_writes_a_server_that_works(call: Call, rows: Path, tmp_path: Path) -> None:
    server, plot = tmp_path / "server.json", tmp_path / "residuals.svg"
    done = call("calibrate", rows, "-o", server, "--plot", plot, "--kv-tokens", 50_000, "--json")
    assert (done.code, done.err) == (0, "")
    keys = {"iteration_time", "intervals", "held_out_mean", "held_out_p95", "measured_range"}
    assert keys <= set(done.document)
    written = json.loads(server.read_text())
    for part in ("iteration_time", "measured_range", "kv_capacity_tokens"):
        assert written[part] == done.document[part]
    assert plot.read_text().startswith("<?xml")
    assert "held-out rows" in written["source"]
    load = tmp_path / "w.json"
    prompts = {"name": "a", "rate_per_s": 1.0, "prefill_tokens": 4000, "decode_tokens": 10}
    load.write_text(json.dumps({"name": "w", "classes": [prompts]}))
    told = call("equilibrium", load, "--server", server)
    assert told.code == 0
    assert "4,000 prompt tokens, measured from 16 to 2,048" in told.err


def test_a_server_beside_its_rows_may_be_written_again(call: Call, rows: Path) -> None:
    beside = rows.with_suffix(".json")
    assert call("calibrate", rows, "-o", beside).code == 0
    first = beside.read_text()
    assert call("calibrate", rows, "-o", beside).code == 0
    assert beside.read_text() == first


def test_a_server_does_not_replace_the_record_of_its_rows(call: Call, rows: Path) -> None:
    record = {"device": "a card", "model": "tiny", "command": "measure", "date": "2026-01-01"}
    beside = rows.with_suffix(".json")
    beside.write_text(json.dumps({**record, "versions": {}}))
    done = call("calibrate", rows, "-o", beside)
    assert done.code == 2
    assert "another name: this file is the record of the rows" in done.err
    assert json.loads(beside.read_text())["device"] == "a card"


def test_calibrate_prints_and_carries_to_a_load(call: Call, rows: Path, tmp_path: Path) -> None:
    load = tmp_path / "w.json"
    chat = {"name": "a", "rate_per_s": 2.0, "prefill_tokens": 512, "decode_tokens": 100}
    load.write_text(json.dumps({"name": "w", "classes": [chat]}))
    done = call("calibrate", rows, "--workload", load)
    assert done.code == 0
    for word in ("per_kv_token_s", "Measured kv_tokens: 0 to", "pace_per_iteration", "max_scale"):
        assert word in done.out
    assert "the rows do not say how much KV fits" in done.err
    assert "give kv_tokens" in done.err
    assert "--" not in done.err


def changed(rows: Path, old: str, new: str) -> Path:
    rows.write_text(rows.read_text().replace(old, new))
    return rows


def test_missing_column(call: Call, rows: Path) -> None:
    done = call("calibrate", changed(rows, "decode_batch", "batch"))
    assert done.code == 2
    assert "line 1" in done.err
    assert "decode_batch" in done.err
    assert done.err.count("\n") == 1


def test_seconds_in_the_milliseconds_column(call: Call, tmp_path: Path) -> None:
    done = call("calibrate", write_csv(measured(JUMP), tmp_path / "s.csv", unit=1.0))
    assert done.code == 2
    assert "iteration_ms" in done.err
    assert "looks like seconds" in done.err


def test_fewer_rows_than_coefficients(call: Call, rows: Path) -> None:
    rows.write_text("\n".join(rows.read_text().splitlines()[:6]) + "\n")
    done = call("calibrate", rows)
    assert done.code == 2
    assert "rows: got 5; allowed: at least 10 rows" in done.err
    assert str(rows) in done.err


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("nan,0,0,0,5,1", "prefill_tokens"),
        ("-1,0,1,10,5,1", "prefill_tokens"),
        ("0,0,0,0,5,0", "an empty batch"),
        ("16,0,0,99,5,1", "decode_context_tokens_total"),
        ("16,0,0,0,0,1", "iteration_ms"),
        ("16,0,0,0,5", "6 fields"),
    ],
)
def test_bad_rows_are_named_by_line(call: Call, rows: Path, line: str, word: str) -> None:
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines[:3], line, *lines[3:]]) + "\n")
    done = call("calibrate", rows)
    assert done.code == 2
    assert f"{rows}: line 4" in done.err
    assert word in done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--from", "excel"), "one of csv, vllm-bench"),
        (("--plot", "x.wrong"), "svg"),
        (("-o", "/no/such/folder/s.json"), "existing folder"),
        (("--kv-tokens", "10"), "--kv-tokens: got 10; allowed: at least one block, 16 tokens"),
        (("--block-tokens", "32"), "--block-tokens: got 32; allowed: only with --out or"),
        (("--block-tokens", "32", "--plot", "x.svg"), "only with --out or --workload"),
    ],
)
def test_bad_options(call: Call, rows: Path, arguments: tuple[str, ...], word: str) -> None:
    done = call("calibrate", rows, *arguments)
    assert done.code == 2
    assert word in done.err
