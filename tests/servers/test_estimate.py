"""``server estimate``: files, refusals, and what measured tables say where the extra is there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

import fluidwait as fw
from fluid.server import Server
from tests.support.command_line import Call, call
from tests.support.model_configs import CONFIGS
from validation.servers.estimate import estimate_server

__all__ = ["call"]

LLAMA = CONFIGS / "llama-3.1-8b"
SHEET = ("--method", "roofline")
needs_tables = pytest.mark.skipif(
    importlib.util.find_spec("aiconfigurator_core") is None,
    reason="measured tables are not installed: pip install 'fluidwait[estimate]'",
)


@pytest.fixture(scope="module")
def sheet() -> fw.EstimatedServer:
    return estimate_server(LLAMA, gpu="h100_sxm", method="roofline", kv_tokens=400_000)


def test_the_file_says_what_it_is(sheet):
    server = sheet.server
    assert (server.engine, server.gpu, server.gpu_memory_gib) == ("vllm", "h100_sxm", 80.0)
    assert (server.max_num_batched_tokens, server.max_num_seqs) == (8192, 1024)
    assert server.max_model_len == 131072
    assert server.kv_capacity_tokens == 400_000
    assert "not measured: NVIDIA H100 SXM data sheet, 2023" in server.source
    assert "KV tokens as given" in server.source
    assert str(CONFIGS) not in server.source
    assert sheet.held_out.mean < 0.03
    assert max(sheet.few_decodes.largest, sheet.many_decodes.mean) < 0.03


def test_a_load_is_solved_on_it(sheet):
    load = fw.Workload.of(chat=fw.Requests(20.0, prompt=512, output=128))
    found = fw.equilibrium(load, sheet.server)
    assert found.stable
    assert found.scheduler == "vllm-v1"
    assert fw.solve(load, sheet.server).server == sheet.server


def test_command_writes_what_the_library_finds(call: Call, tmp_path, sheet):
    out = tmp_path / "server.json"
    done = call(
        *("server", "estimate", LLAMA, "--gpu", "h100_sxm", *SHEET, "--kv-tokens", 400_000),
        *("-o", out),
    )
    assert done.code == 0
    assert Server.read(out) == sheet.server
    assert f"Wrote {out}" in done.out
    as_json = call(
        *("server", "estimate", LLAMA, "--gpu", "h100_sxm", *SHEET, "--kv-tokens", 400_000),
        "--json",
    )
    assert as_json.document["server"] == sheet.server.document()
    assert as_json.document["kv_upper_tokens"] == sheet.kv_upper_tokens


def test_memory_beside_weights_is_an_upper_figure(call: Call):
    """0.9 of 80 GiB less 16 GB of weights, at 128 KiB a token."""
    done = call("server", "estimate", LLAMA, "--gpu", "h100_sxm", *SHEET, "--json")
    upper = done.document["kv_upper_tokens"]
    assert upper == pytest.approx((0.9 * 80 * 2**30 - 16.06e9) / 131072, rel=1e-3)
    assert done.document["server"]["kv_capacity_tokens"] == upper
    assert "upper figure" in done.document["notes"][0]


REFUSED = {
    "unknown GPU": (("--gpu", "h100"), "gpu", "h100_sxm"),
    "tp that cuts heads": (("--tp", 3), "tp", "a divisor of the 32 heads"),
    "tp beyond the node": (("--tp", 16), "tp", "at most 8, the GPUs of a node"),
    "pipeline": (("--pp", 2), "--pp", "runs one at a time"),
    "data-parallel attention": (("--attention-dp", 2), "--attention-dp", "not modelled"),
    "speculation": (("--speculative-tokens", 3), "--speculative-tokens", "a decode gives one"),
    "experts of a dense model": (("--ep", 2), "--ep", "for a model with experts"),
    "unknown engine": (("--engine", "tgi"), "engine", "vllm, sglang, trtllm"),
    "unknown method": (("--method", "guess"), "method", "tables, roofline"),
    "numbers of the weights": (("--weights", "fp6"), "weights", "bf16, fp8, fp4 or int4"),
    "numbers of the cache": (("--kv-dtype", "int8"), "--kv-dtype", "bf16 or fp8"),
    "share of memory": (("--memory", 1.5), "--memory", "at most 1"),
    "more KV than there is": (("--kv-tokens", 10**7), "--kv-tokens", "beside the weights hold"),
    "memory that is known": (("--memory", 0.8, "--kv-tokens", 1000), "--memory", "nothing beside"),
}


@pytest.mark.parametrize("given", REFUSED)
def test_refused_in_one_line(call: Call, given):
    options, field, words = REFUSED[given]
    first = () if "--gpu" in options else ("--gpu", "h100_sxm")
    method = () if "--method" in options else SHEET
    done = call("server", "estimate", LLAMA, *first, *method, *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert field in done.err
    assert words in done.err


def test_weights_that_do_not_fit(call: Call):
    done = call(
        "server", "estimate", CONFIGS / "deepseek-v3", "--gpu", "h100_sxm", "--tp", 8, *SHEET
    )
    assert done.code == 3
    assert "78.3 GiB of weights on each of 8 GPUs" in done.err


def test_hybrid_models_need_the_engines_log(call: Call):
    gpt = CONFIGS / "gpt-oss-120b"
    done = call("server", "estimate", gpt, "--gpu", "h200_sxm", *SHEET)
    assert done.code == 2
    assert "the KV tokens of the engine's log: layers of several kinds" in done.err
    told = call("server", "estimate", gpt, "--gpu", "h200_sxm", *SHEET, "--kv-tokens", 700_000)
    assert told.code == 0


@pytest.mark.parametrize("text", ["{}", '{"model_type": "t5"}'])
def test_a_config_that_is_not_known(call: Call, tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    done = call("server", "estimate", tmp_path, "--gpu", "h100_sxm", *SHEET)
    assert done.code == 2
    assert "config.json: model_type" in done.err


def test_a_folder_without_a_config(call: Call, tmp_path):
    done = call("server", "estimate", tmp_path, "--gpu", "h100_sxm", *SHEET)
    assert (done.code, "a folder with a config.json" in done.err) == (2, True)


def test_a_fit_that_is_too_bad(monkeypatch, call: Call):
    """A staircase of memory instead of tokens is no iteration time of this family."""
    from validation.servers import estimate
    from validation.servers.roofline import Roofline

    plain = Roofline.seconds
    monkeypatch.setattr(
        Roofline, "seconds", lambda self, rows: plain(self, rows) * (1 + (rows[:, 4] % 3))
    )
    done = call("server", "estimate", LLAMA, "--gpu", "h100_sxm", *SHEET)
    assert done.code == 3
    assert "--accept-fit" in done.err
    found = estimate.estimate_server(LLAMA, gpu="h100_sxm", method="roofline", accept_fit=True)
    assert found.held_out.p95 > estimate.MOST_P95


def test_without_the_extra_one_line_says_what_to_install(call: Call, monkeypatch):
    package = "aiconfigurator_core"
    for name in (package, *(one for one in sys.modules if one.startswith(package))):
        monkeypatch.setitem(sys.modules, name, None)
    for model in (LLAMA, "Llama-3.1-8B"):
        done = call("server", "estimate", model, "--gpu", "h100_sxm")
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "pip install 'fluidwait[estimate]'" in done.err


@needs_tables
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Llama-3.1-8B", "--gpu", "a10"), "a GPU with tables for vllm: a100_sxm, b200_sxm"),
        (("llama-2-7b", "--gpu", "h100_sxm"), "a folder with a config.json, or one of"),
        (("gpt-oss-120b", "--gpu", "a100_sxm", "--kv-tokens", 9999), "that the tables of vllm on"),
    ],
)
def test_what_tables_do_not_hold(call: Call, arguments, words):
    done = call("server", "estimate", *arguments)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert words in done.err


@needs_tables
def test_tables_are_followed():
    """Measured times of Llama-3.1-8B, bf16, at batches that the fit has not seen."""
    found = estimate_server("Llama-3.1-8B", gpu="h100_sxm", kv_tokens=380_000)
    assert found.held_out.mean < 0.03
    assert found.few_decodes.mean < 0.03
    assert found.many_decodes.mean < 0.03
    assert found.origins["measured"] > 0.8
    source = found.server.source
    assert "aiconfigurator-core 0.12" in source
    assert "tables of vllm 0." in source
    assert "KV cache in bf16" in source
    assert "Meta-Llama-3.1-8B stands for" in found.notes[0]


@needs_tables
def test_nothing_is_fetched(monkeypatch):
    """Every socket is refused, and the estimate is the same."""
    import socket

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    folder = estimate_server(LLAMA, gpu="h100_sxm", kv_tokens=380_000)
    assert json.loads(json.dumps(folder.document()))["server"]["name"].startswith("llama-3.1-8b")
    assert Path(folder.server.name).name == folder.server.name
