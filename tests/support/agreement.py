"""One random case in the compiled engine and in the slow reference, request by request."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tests.support.random_cases import Case
from validation.reference import REFERENCE_POLICIES, Request, simulate_ahead, simulate_slowly
from validation.simulator import cpu
from validation.simulator.model import poisson_model

REQUESTS = 60


def reference_requests(
    case: Case, arrived_at_s: Iterable[float], class_index: Iterable[int]
) -> list[Request]:
    """The engine's own arrivals, as objects."""
    classes = case.workload.classes
    return [
        Request(
            number,
            float(at),
            int(kind),
            classes[kind].prefill_tokens,
            classes[kind].context_tokens,
            classes[kind].decode_tokens,
            priority=case.policy.priorities[kind] if case.policy.priorities else 0,
        )
        for number, (at, kind) in enumerate(zip(arrived_at_s, class_index, strict=True))
    ]


def simulate_reference(case: Case, requests: list[Request], steps: int) -> list[tuple[float, int]]:
    """The slow reference on a case, for so many iterations at most; `requests` are changed."""
    ahead = case.policy.values.get("async_scheduling", 0)
    return (simulate_ahead if ahead else simulate_slowly)(
        requests,
        case.server,
        REFERENCE_POLICIES[case.policy.policy.name],
        case.policy.values,
        case.policy.thresholds,
        steps=steps,
        cuts=case.policy.cuts or sorted({one.decode_tokens for one in case.workload.classes}),
    )


def compare(case: Case) -> int:
    """Assert agreement; return the number of evictions."""
    job = cpu.Job(case.policy, replication=0, seed=case.seed)
    model = poisson_model(case.workload, case.server, case.arrivals)
    trace = cpu.run_traced(model, job, REQUESTS)
    # Iterations that are recorded one by one are also made one by one.
    (plain,) = cpu.run_reading(model, [job], REQUESTS, lambda lane: lane.requests.copy())
    np.testing.assert_array_equal(plain["completed_at_s"], trace.completed_at_s)
    requests = reference_requests(case, trace.arrived_at_s, trace.class_index)
    iterations = simulate_reference(case, requests, len(trace.series))
    np.testing.assert_allclose(
        trace.first_token_at_s, [one.first_token_at_s for one in requests], rtol=1e-10
    )
    np.testing.assert_allclose(
        trace.completed_at_s, [one.completed_at_s for one in requests], rtol=1e-10
    )
    # The engine's last decision may evict before it finds that nothing can run any more.
    done = np.isfinite(trace.completed_at_s)
    evictions = np.array([one.evictions for one in requests])
    assert trace.evicted_times[done].tolist() == evictions[done].tolist()
    np.testing.assert_allclose(trace.series[:, :2], np.array(iterations), rtol=1e-10)
    assert (trace.series[:, 1] <= case.server.usable_kv_tokens).all()
    return int(trace.evicted_times.sum())
