"""``equilibrium --clients``, and what `equilibrium` and `solve` say of the loss of full memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import Call
from thresholds.table import ThresholdTable

LONG = {"name": "a", "rate_per_s": 2.0, "prefill_tokens": 512, "decode_tokens": 300}
SERVER = ("--server", "engine-long-decode")


@pytest.fixture
def load(tmp_path: Path) -> Path:
    path = tmp_path / "load.yaml"
    path.write_text(yaml.safe_dump({"name": "long", "classes": [LONG]}))
    return path


def test_a_closed_loop_as_text_data_and_picture(call: Call, load: Path, tmp_path: Path) -> None:
    plot = tmp_path / "clients.svg"
    line = ("equilibrium", load, *SERVER, "--clients", 20, "--think-s", 3)
    done = call(*line, "--plot", plot)
    assert done.code == 0
    assert "20 clients of long on engine-long-decode" in done.out
    assert "More clients would complete more." in done.out
    assert plot.stat().st_size > 1000
    found = json.loads(call(*line, "--json").out)
    assert (found["clients"], found["think_s"], found["limited_by"]) == (20, 3.0, "clients")
    assert found["completed_per_s"] == pytest.approx(20 / (3 + found["latency_s"]))


@pytest.mark.parametrize(
    ("clients", "told"),
    [
        ("0", "--clients: got 0; allowed: a whole number, at least 1"),
        ("-2", "--clients: got -2; allowed: a whole number, at least 1"),
        ("2.5", "Invalid value for '--clients'"),
        ("many", "Invalid value for '--clients'"),
    ],
)
def test_a_bad_number_of_clients_is_one_line(
    call: Call, load: Path, clients: str, told: str
) -> None:
    done = call("equilibrium", load, *SERVER, "--clients", clients)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_bad_think_time_is_one_line(call: Call, load: Path) -> None:
    done = call("equilibrium", load, *SERVER, "--clients", 4, "--think-s", -1)
    assert done.code == 2
    assert "--think-s: got -1.0; allowed: finite seconds, 0 or more" in done.err


def test_equilibrium_says_what_is_lost_where_memory_can_bind(call: Call, load: Path) -> None:
    words = "Once memory has filled, greedy admission without a table loses about"
    assert words in call("equilibrium", load, *SERVER).out
    found = json.loads(call("equilibrium", load, *SERVER, "--json").out)["predicted_loss"]
    plain, marked = found["rules"]
    assert plain["completed_per_s"] == pytest.approx(
        (1 - plain["lost_share"]) * found["limit_per_s"]
    )
    assert marked["watermark_fraction"] == 0.05
    assert found["recovers"] == (plain["completed_per_s"] >= 2.0)
    load.write_text(yaml.safe_dump({"name": "prompts", "classes": [LONG | {"decode_tokens": 2}]}))
    done = call("equilibrium", load, *SERVER)
    assert done.code == 0
    assert words not in done.out
    assert "predicted_loss" not in json.loads(call("equilibrium", load, *SERVER, "--json").out)


def test_a_table_says_what_it_is_worth(call: Call, load: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    done = call("solve", load, *SERVER, "-o", out)
    assert "Predicted once memory has filled" in done.out
    assert "with this table" in done.out
    loss = ThresholdTable.read(out).loss
    assert loss is not None
    assert loss.table_share is not None
    assert loss.table_share < 0.02 < loss.watermark_share
    other = call("solve", load, *SERVER, "--policy", "nested-cap", "--json")
    assert other.code == 0
    assert other.document["loss"] == loss.model_dump() | {"table_share": None}
