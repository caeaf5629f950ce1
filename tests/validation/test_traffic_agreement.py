"""Engine and slow reference under every kind of traffic, request by request."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.support.traffic_cases import KINDS, RULES, Drawn, random_traffic_case
from validation.reference import REFERENCE_POLICIES, simulate_ahead, simulate_slowly
from validation.simulator import cpu

CASES = 6 * len(KINDS)
REQUESTS = 60


def compare(name: str, number: int) -> Counter[str]:
    """Assert agreement; count what happened."""
    case = random_traffic_case(name, number, ahead=True)
    policy = case.case.policy
    job = cpu.Job(policy, 0, case.case.seed, 1.0 if case.traffic.clients else case.rate_scale)
    if not case.traffic.at_a_rate:
        job = cpu.Job(policy, 0, case.case.seed)
    trace = cpu.run_traced(case.model, job, REQUESTS)
    drawn = Drawn(case)
    requests = drawn.first(trace, REQUESTS)
    ahead = int(policy.values.get("async_scheduling", 0))
    iterations = (simulate_ahead if ahead else simulate_slowly)(
        requests,
        case.case.server,
        REFERENCE_POLICIES[name],
        policy.values,
        policy.thresholds,
        steps=len(trace.series),
        cuts=policy.cuts or cuts_of(case.model),
        audience=drawn.audience(REQUESTS),
    )
    message = f"{policy.label}, case {number}, {case.traffic.label}"
    np.testing.assert_allclose(
        trace.series[:, :2], np.array(iterations).reshape(-1, 2), rtol=1e-9, err_msg=message
    )
    if len(trace.series) <= ahead:
        return Counter()
    # A batch that is formed ahead was decided when the one before it began.
    seen_s = trace.series[-1 - ahead, 0] * (1 - 1e-12)
    requests.sort(key=lambda one: (one.arrived_at_s, one.order))
    came = int((trace.arrived_at_s <= seen_s).sum())
    same = [one for one in requests if one.arrived_at_s <= seen_s]
    assert [one.order for one in same] == trace.draw[:came].tolist(), message
    for field in ("arrived_at_s", "first_token_at_s", "completed_at_s"):
        theirs = [getattr(one, field) for one in same]
        ours = getattr(trace, field)[:came]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg=f"{message}: {field}")
    ours = np.where(trace.left_at_s[:came] <= seen_s, trace.left_at_s[:came], np.nan)
    theirs = [one.left_at_s if one.left_at_s <= seen_s else np.nan for one in same]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg=f"{message}: left_at_s")
    refused = sum(one.left_at_s == one.arrived_at_s and not one.too_long for one in same)
    return Counter(
        evicted=bool(trace.evicted_times.any()),
        refused=refused,
        too_long=sum(one.too_long for one in same),
        gave_up=sum(one.left_at_s > one.arrived_at_s for one in same),
        started=sum(one.left_at_s > one.arrived_at_s and one.stage > 0 for one in same),
    )


def cuts_of(model: cpu.Model) -> list[int]:
    """Distinct output lengths, as the engine knows them."""
    return sorted(set(model.shapes["output_tokens"].tolist()))


@pytest.mark.parametrize("name", RULES)
def test_engine_agrees_with_reference_under_every_kind_of_traffic(name: str) -> None:
    seen: Counter[str] = Counter()
    for number in range(CASES):
        seen += compare(name, number)
    assert min(seen[one] for one in ("refused", "gave_up")) > 0


def test_more_prompts_in_part_than_whole_ones_would_fit() -> None:
    """60 prompts of 7 and 8 tokens arrive at once, and each computes one token per iteration."""
    assert compare("vllm-v1", 1381)["evicted"]


def test_a_client_gives_up_while_its_only_token_is_under_way() -> None:
    """Batches are formed ahead; the request keeps its seat until its results are there."""
    assert compare("vllm-v1", 1611)["gave_up"]
