"""The part `agree` sees what differs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

pytest.importorskip("numba_cuda")

from tests.gpu import agree
from tests.gpu.agree import Sizes, Trial, agreement, differences, on_cpu, summary
from tests.gpu.result import FAILED
from tests.gpu.settings import Settings
from tests.gpu.traffic import TRAFFIC, random_models
from validation.policies import POLICIES
from validation.simulator.arrivals import KINDS
from validation.simulator.metrics import Replication

SIZES = Sizes(servers=2, replications=3, requests=100, processes=1)
RUNS = SIZES.servers * SIZES.replications * len(TRAFFIC)


def changed(change: Callable[[Replication], Replication], trial: Trial) -> list[Replication]:
    """What the CPU finds, with a mistake in the last replication."""
    *others, last = on_cpu(trial)
    return [*others, change(last)]


def test_the_cpu_agrees_with_itself() -> None:
    found = agreement("greedy", SIZES, there=on_cpu)
    assert (found.cases, found.replications, found.disagreeing) == (RUNS // 3, RUNS, 0)
    assert found.evictions > 0
    done = summary([found])
    assert done.status != FAILED
    assert done.aims[0].met


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("evictions", lambda one: replace(one, evictions=one.evictions + 1)),
        ("iterations", lambda one: replace(one, iterations=one.iterations - 1)),
        ("mean_s", lambda one: replace(one, mean_s=one.mean_s * (1 + 1e-7))),
        ("count", lambda one: replace(one, count=one.count + 1)),
    ],
)
def test_one_wrong_figure_is_seen(field: str, change: Callable[[Replication], Replication]) -> None:
    found = agreement("greedy", SIZES, there=partial(changed, change))
    assert found.disagreeing == RUNS // SIZES.replications
    assert all(f"replication 2: {field} differ" in text for text in found.different)
    failed = summary([found])
    assert (failed.status, failed.aims[0].met) == (FAILED, False)
    assert failed.notes == found.different


def test_another_rule_is_seen() -> None:
    """The device evicts the latest arrival, where the CPU evicts the last admitted."""

    def there(trial: Trial) -> list[Replication]:
        victim = {"last-admitted": "latest-arrival", "latest-arrival": "last-admitted"}
        values = {**trial.values, "victim": victim[str(trial.values["victim"])]}
        return on_cpu(replace(trial, values=values))

    found = agreement("greedy", Sizes(6, 3, 100, 1), there=there)
    assert 0 < found.disagreeing < found.replications


def test_the_last_bits_of_a_time_are_no_difference() -> None:
    trial = next(trial for _, trial in agree.trials("greedy", SIZES))
    one = on_cpu(trial)[0]
    assert differences(one, replace(one, mean_s=one.mean_s * (1 + 1e-12))) == []
    assert differences(one, replace(one, window_s=float("nan"))) == ["window_s"]


def test_no_trial_begins_when_the_time_is_up() -> None:
    found = agreement("greedy", SIZES, stop_at_s=0.0, there=on_cpu)
    assert (found.cases, found.replications) == (0, 0)


def test_a_policy_that_cannot_run_counts_as_a_disagreement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process of its own, as on a real device; here there is none, or it does not matter."""
    monkeypatch.setattr(agree, "POLICIES", {"no-such-policy": None})
    settings = Settings(None, toy=False, stop_at_s=float("inf"))  # type: ignore[arg-type]
    (found,) = agree._agreements(settings, replace(SIZES, processes=2))
    assert found.disagreeing == 1
    assert found.different[0].startswith("no-such-policy: KeyError")


def test_every_kind_of_arrivals_is_among_the_traffic() -> None:
    assert {text.partition(":")[0] for text in TRAFFIC} >= set(KINDS)


@pytest.mark.parametrize("name", POLICIES)
def test_random_models_are_ones_that_the_policy_can_run(name: str) -> None:
    for number in range(20):
        found = list(random_models(name, number, 30))
        assert [traffic for traffic, _, _ in found] == list(TRAFFIC)
        for _, model, policy in found:
            policy.check(model)
        tape = found[-1][1].tape
        assert len(tape) >= 30
        assert (tape["arrived_at_s"][1:] >= tape["arrived_at_s"][:-1]).all()
