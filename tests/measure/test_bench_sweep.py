"""Calibration from results of a running server, against a server whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from tests.support.command_line import Call, call
from validation.measure.bench_sweep import (
    FACTORS,
    SweepPoint,
    _simulated,
    calibrate_from_bench,
    read_sweep,
    scaled,
)

__all__ = ["call"]

PRIOR = Server(
    name="estimated",
    source="a guess",
    kv_capacity_tokens=160_000,
    block_tokens=16,
    iteration_time=IterationTime.affine(0.008, per_token_s=4e-5, per_kv_token_s=1e-7),
    engine="vllm",
    max_num_batched_tokens=2048,
    max_num_seqs=256,
)
TRUTH = (1.4, 0.8, 1.3)
CASES = ((1, 300, 40), (8, 600, 60), (24, 1500, 60))


def write_sweep(folder: Path, server: Server, cases: tuple[tuple[int, int, int], ...]) -> Path:
    """What ``vllm bench serve`` would have written of a server, drawn anew."""
    folder.mkdir()
    points = [SweepPoint("", *one, 1.0, 1.0, 1.0) for one in cases]
    figures = _simulated(points, server, seed=7)
    for index, (point, (tpot_s, rate, ttft_s)) in enumerate(zip(points, figures, strict=True)):
        document = {
            "max_concurrency": point.clients,
            "completed": 10,
            "total_input_tokens": 10 * point.prompt_tokens,
            "total_output_tokens": 10 * point.output_tokens,
            "mean_tpot_ms": 1e3 * tpot_s,
            "mean_ttft_ms": 1e3 * ttft_s,
            "request_throughput": rate,
        }
        (folder / f"{index}.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_known_factors_are_found_again(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", scaled(PRIOR, TRUTH), CASES)
    found = calibrate_from_bench(folder, PRIOR, name="mine")
    for name, truth in zip(FACTORS, TRUTH, strict=True):
        value, low, high = found.factors[name]
        assert low < truth < high
        if name not in found.unidentified:
            assert value == pytest.approx(truth, rel=0.15)
    assert "overhead" not in found.unidentified
    assert np.abs(found.errors[:, :2]).max() < 0.05
    assert found.server.name == "mine"
    assert "a guess; then fitted by fluidwait calibrate to 3 results" in found.server.source
    assert found.server.max_num_seqs == 256


def test_one_client_does_not_tell_tokens_from_kv(tmp_path: Path) -> None:
    few = ((1, 100, 20), (2, 100, 20))
    folder = write_sweep(tmp_path / "sweep", scaled(PRIOR, TRUTH), few)
    found = calibrate_from_bench(folder, PRIOR)
    assert "per_kv_token" in found.unidentified
    assert "these results say too little" in str(found)


def test_command(call: Call, tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", PRIOR, CASES[:2])
    prior, out = tmp_path / "prior.json", tmp_path / "server.json"
    prior.write_text(json.dumps(PRIOR.document()), encoding="utf-8")
    done = call(
        *("calibrate", folder, "--from", "vllm-bench-sweep", "--prior", prior),
        *("-o", out, "--json"),
    )
    assert done.code == 0
    assert set(done.document["factors"]) == set(FACTORS)
    assert Server.read(out).document() == done.document["server"]
    assert done.document["factors"]["overhead"][0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "prior: got None; allowed: a server of the same model"),
        (("--prior", "paper-lmsys", "--block-tokens", "8"), "nothing with --from vllm-bench-sweep"),
        (("--prior", "no-such"), "one of the built-in servers"),
    ],
)
def test_bad_options(call: Call, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = call("calibrate", tmp_path, "--from", "vllm-bench-sweep", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err


def test_a_prior_without_a_sweep(call: Call, tmp_path: Path) -> None:
    done = call("calibrate", tmp_path / "x.csv", "--prior", "paper-lmsys")
    assert done.code == 2
    assert "--prior: got paper-lmsys; allowed: only with" in done.err.replace("'", "")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_concurrency": None}, "max_concurrency"),
        ({"mean_tpot_ms": 0}, "mean_tpot_ms"),
        ({"completed": "ten"}, "completed"),
    ],
)
def test_results_that_say_too_little(tmp_path: Path, change: dict[str, object], field: str) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    whole = {
        "max_concurrency": 1,
        "completed": 1,
        "total_input_tokens": 1,
        "total_output_tokens": 1,
        "mean_tpot_ms": 1.0,
        "mean_ttft_ms": 1.0,
        "request_throughput": 1.0,
    }
    for name in ("a.json", "b.json"):
        (folder / name).write_text(json.dumps(whole), encoding="utf-8")
    assert len(read_sweep(folder)) == 2
    (folder / "b.json").write_text(json.dumps(whole | change), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_sweep(folder)
    assert (caught.value.field, caught.value.file) == (field, str(folder / "b.json"))
    (folder / "b.json").unlink()
    with pytest.raises(InputError, match="at least 2 results"):
        read_sweep(folder)
    with pytest.raises(InputError, match="a folder of results"):
        read_sweep(folder / "a.json")
