"""Slow, obvious oracles: one rule per policy of `validation.policies`, by the same name."""

from __future__ import annotations

from validation.reference.ahead import simulate_ahead
from validation.reference.authors import nested_authors, wait_authors
from validation.reference.core import Audience, Rule, simulate_slowly
from validation.reference.flow_control import flow_control
from validation.reference.greedy import greedy
from validation.reference.mixed import dai, slai
from validation.reference.nested import nested_cap, nested_wait
from validation.reference.predictive import a_min, mc_sf, svf
from validation.reference.request import Request
from validation.reference.sarathi import sarathi
from validation.reference.sglang import sglang
from validation.reference.trtllm import trtllm_max_utilization, trtllm_no_evict
from validation.reference.vllm_v0 import vllm_v0
from validation.reference.vllm_v1 import vllm_v1
from validation.reference.wait import wait, wait_cap

REFERENCE_POLICIES: dict[str, Rule] = {
    "greedy": greedy,
    "wait": wait,
    "vllm-v1": vllm_v1,
    "vllm-v0": vllm_v0,
    "sarathi": sarathi,
    "sglang": sglang,
    "trtllm-no-evict": trtllm_no_evict,
    "trtllm-max-utilization": trtllm_max_utilization,
    "wait-cap": wait_cap,
    "nested-wait": nested_wait,
    "nested-cap": nested_cap,
    "wait-authors": wait_authors,
    "nested-authors": nested_authors,
    "mc-sf": mc_sf,
    "svf": svf,
    "a-min": a_min,
    "flow-control": flow_control,
    "dai": dai,
    "slai": slai,
}

__all__ = ["REFERENCE_POLICIES", "Audience", "Request", "simulate_ahead", "simulate_slowly"]
