"""The shipped estimates: complete, sourced, and good enough to be asked."""

from __future__ import annotations

import re

import pytest

import fluidwait as fw
from fluid.server import builtin_servers
from validation.servers.catalogue import ENTRIES
from validation.servers.estimate import MOST_P95

SERVERS = [one for one in map(fw.Server.named, builtin_servers()) if one.engine is not None]
ERRORS = re.compile(r"relative error ([\d.]+) % in the mean and ([\d.]+) % at the 95th percentile")
ACCEPTED = {
    *("deepseek-v3-b200-sxm-tp8-vllm", "deepseek-v3-h200-sxm-tp8-vllm"),
    "deepseek-v3-h200-sxm-tp8-sglang",
}
"""Tables that are followed less well than is asked, and say so."""


def test_every_entry_is_there():
    assert len(SERVERS) == len(ENTRIES) >= 25
    named = {(one.gpu.split()[-1], one.engine) for one in SERVERS}
    assert named == {(one.gpu, one.engine) for one in ENTRIES}
    for model in ("llama-3.1-8b", "llama-3.3-70b", "qwen3-32b", "qwen3-30b-a3b", "gpt-oss-120b"):
        assert sum(one.name.startswith(model) for one in SERVERS) >= 4
    large = [one for one in SERVERS if one.name.startswith("deepseek-v3")]
    assert {one.gpu for one in large} == {"8 x h200_sxm", "8 x b200_sxm"}


@pytest.mark.parametrize("server", SERVERS, ids=lambda one: one.name)
def test_its_source_says_from_what_and_how_well(server):
    found = ERRORS.search(server.source)
    assert found is not None
    mean, p95 = (float(one) / 100 for one in found.groups())
    assert mean < p95
    assert server.name in ACCEPTED or p95 <= MOST_P95
    for words in (f"tables of {server.engine} ", "of the time ", "KV cache in bf16", "KV tokens: "):
        assert words in server.source
    assert server.max_num_batched_tokens in (2048, 8192, 16384, 4096)
    assert server.max_model_len <= server.kv_capacity_tokens


@pytest.mark.parametrize("server", SERVERS, ids=lambda one: one.name)
def test_a_chat_load_is_in_balance_on_it(server):
    load = fw.Workload.of(chat=fw.Requests(0.5, prompt=512, output=128))
    found = fw.equilibrium(load, server)
    assert found.stable
    # From a large model on cards without fast links to a small one on the fastest.
    assert 1.2 < found.max_scale < 400
    assert 0.001 < found.iteration_time_s < 0.5


def test_more_expensive_cards_carry_more():
    load = fw.Workload.of(chat=fw.Requests(1.0, prompt=512, output=128))
    cards = ("l40s", "a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm")
    servers = [fw.Server.named(f"llama-3.1-8b-{card}-vllm") for card in cards]
    scales = [fw.stability(load, one).max_scale for one in servers]
    assert scales == sorted(scales)
