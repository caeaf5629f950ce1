"""Servers: built-in ones, files, and whether a workload fits at all."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import (
    Server,
    ServerList,
    builtin_servers,
    load_server,
    peak_kv_tokens,
    require_fits,
)
from fluid.stages import class_stages
from tests.support.builders import one_class
from tests.support.builders import server as server_of

TAU = IterationTime.affine(0.01, 5e-5)


@pytest.mark.parametrize("name", builtin_servers())
def test_every_builtin_server_loads_and_says_where_it_comes_from(name):
    server = load_server(name)
    assert server.name == name
    assert len(server.source) > 20
    assert server.usable_kv_tokens == server.kv_capacity_tokens


def test_promised_servers_are_there():
    promised = {"a100-80gb-llama-2-7b", "paper-lmsys", "paper-long-decode", "engine-long-decode"}
    assert promised <= set(builtin_servers())


def test_server_file_by_path(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(load_server("paper-lmsys").document()))
    assert load_server(str(path)) == load_server("paper-lmsys")


def test_unknown_server_lists_the_builtin_ones():
    with pytest.raises(InputError) as caught:
        load_server("h100")
    assert (caught.value.field, caught.value.value) == ("server", "h100")
    assert "llama-3.1-8b-h100-sxm-vllm" in caught.value.allowed
    with pytest.raises(InputError, match="paper-lmsys"):
        load_server("paper-lmsy")


def test_servers_by_model_and_gpu():
    chosen = [one.name for one in ServerList.builtin("Llama-3.3-70B", "h100_sxm").servers]
    assert "llama-3.3-70b-h100-sxm-tp4-vllm" in chosen
    assert all("llama-3.3-70b" in one and "h100-sxm" in one for one in chosen)
    for field, asked in (("model", ("gpt-5", None)), ("gpu", ("llama", "tpu"))):
        with pytest.raises(InputError) as caught:
            ServerList.builtin(*asked)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kv_capacity_tokens": 0}, "kv_capacity_tokens"),
        ({"block_tokens": 0}, "block_tokens"),
        ({"first_token": "second"}, "first_token"),
        ({"iteration_time": {"tokens_knots": [1], "seconds_knots": [1]}}, "iteration_time"),
        (
            {"iteration_time": {"tokens_knot": [0], "seconds_knots": [1]}},
            "iteration_time.tokens_knot",
        ),
        ({"blocks": 16}, "blocks"),
    ],
)
def test_bad_server_file(tmp_path, change, field):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(load_server("paper-lmsys").document() | change))
    with pytest.raises(InputError) as caught:
        load_server(str(path))
    assert caught.value.file == str(path)
    assert caught.value.field == field
    assert f"{path}: {field}: got " in str(caught.value)


def test_partial_blocks_are_not_usable():
    server = server_of(TAU, kv_capacity_tokens=100, block_tokens=16)
    assert server.usable_kv_tokens == 96
    assert [server.block_rounded(tokens) for tokens in (1, 16, 17)] == [16, 16, 32]


@pytest.mark.parametrize(
    ("first_token", "prefill", "context", "peak"),
    # The last output token's KV is never written where prefill emits the first token.
    [("prefill", 50, 0, 59), ("decode", 50, 0, 60), ("prefill", 0, 50, 60), ("decode", 0, 50, 60)],
)
def test_largest_request_that_fits(first_token, prefill, context, peak):
    workload = one_class(1.0, prefill, 10, context)
    require_fits(workload, server_of(TAU, first_token, kv_capacity_tokens=peak))
    with pytest.raises(InputError) as caught:
        require_fits(workload, server_of(TAU, first_token, kv_capacity_tokens=peak - 1))
    assert caught.value.field == "classes[0] (only)"
    assert caught.value.value == f"{peak} KV tokens at its end"
    assert f"{peak - 1} tokens" in caught.value.allowed


def test_fit_is_counted_in_blocks():
    workload = one_class(1.0, 50, 10)
    require_fits(workload, server_of(TAU, kv_capacity_tokens=64, block_tokens=16))
    with pytest.raises(InputError):
        require_fits(workload, server_of(TAU, kv_capacity_tokens=63, block_tokens=16))


def test_a_server_by_name_is_a_builtin_one():
    assert Server.named("paper-lmsys") == load_server("paper-lmsys")
    with pytest.raises(InputError, match=r"server: got 'x\.json'; allowed: one of the built-in"):
        Server.named("x.json")
    assert ServerList.builtin().frame()["name"] == builtin_servers()


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
@pytest.mark.parametrize("block_tokens", [1, 16])
def test_the_peak_is_what_the_last_stage_holds(first_token, block_tokens):
    server = server_of(TAU, first_token, block_tokens=block_tokens)
    requests = [(512, 20, 0), (1, 1, 0), (0, 7, 90), (17, 15, 0)]
    found = peak_kv_tokens(
        *np.array(requests).T, first_token=first_token, block_tokens=block_tokens
    )
    for (prompt, output, context), peak in zip(requests, found, strict=True):
        one = one_class(1.0, prompt or context, output).classes[0]
        changes = {"prefill_tokens": prompt, "context_tokens": context}
        stages = class_stages(one.model_copy(update=changes), server)
        assert peak == stages.held_kv_tokens.max()
