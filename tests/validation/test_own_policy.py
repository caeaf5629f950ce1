"""A policy written outside the package, as in a notebook: nothing to register, nothing stale."""

from __future__ import annotations

import numpy as np

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from validation.policies import POLICIES, Policy
from validation.policies.greedy import queue_of
from validation.simulator.compiling import kernel
from validation.simulator.cpu import Job, SamplePath, run_traced
from validation.simulator.engine import admit, advance
from validation.simulator.model import poisson_model

# mypy: disable-error-code="no-untyped-def"

CHAT = RequestClass(name="chat", rate_per_s=2.0, prefill_tokens=64, decode_tokens=30)
MODEL = poisson_model(Workload(name="w", classes=(CHAT,)), load_server("paper-long-decode"))


@kernel
def one_at_a_time(model, lane, params, thresholds):
    """Serve a single request to its end before the next one."""
    scalars = lane.scalars[0]
    for slot in range(scalars.residents):
        advance(model, lane.residents[slot])
    if scalars.residents == 0 and scalars.waiting > 0:
        admit(model, lane, 0)


@kernel
def everybody(model, lane, params, thresholds):
    """Admit whoever waits; memory is large enough here."""
    scalars = lane.scalars[0]
    for slot in range(scalars.residents):
        advance(model, lane.residents[slot])
    while scalars.waiting > 0:
        admit(model, lane, 0)


def ran(policy: Policy) -> SamplePath:
    return run_traced(MODEL, Job(policy.configure(), 0), 200)


def completed_at_s(policy: Policy) -> np.ndarray:
    return ran(policy).completed_at_s


def own(rule) -> Policy:
    return Policy(name="own", summary="", parameters=(), form_batch=rule, queue_of=queue_of)


def test_an_own_rule_runs_and_equals_the_same_rule_of_the_package() -> None:
    found, greedy = ran(own(everybody)), ran(POLICIES["greedy"])
    # The last requests arrive after the end of the measured window and may never complete.
    assert np.isfinite(found.completed_at_s[:160]).all()
    np.testing.assert_array_equal(found.completed_at_s, greedy.completed_at_s)
    np.testing.assert_array_equal(found.series, greedy.series)
    # The work still owed to those whom greedy does not touch is a sum.
    np.testing.assert_allclose(found.backlog, greedy.backlog, rtol=1e-12)


def test_a_rewritten_rule_of_the_same_name_is_the_one_that_runs() -> None:
    assert not np.array_equal(
        completed_at_s(own(one_at_a_time)), completed_at_s(own(everybody)), equal_nan=True
    )


def test_only_kernels_of_the_package_are_cached_on_disk() -> None:
    assert POLICIES["greedy"].run_lane.stats.cache_path is not None
    assert own(everybody).run_lane.stats.cache_path is None
    assert everybody.stats.cache_path is None
