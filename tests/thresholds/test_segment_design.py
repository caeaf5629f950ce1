"""Cuts by dynamic programming: against enumeration, and where the requirement is least."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fluid.plots.style import save
from fluid.server import load_server
from tests.support.builders import workload
from tests.support.nested_cases import random_instance
from thresholds.solvers.nested.design import (
    DesignRule,
    best_designs,
)
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import nested_memory
from thresholds.solvers.nested.segments import Lengths, distinct_lengths

LOG = 18.0
CHAT = workload(*((4.5 * 0.9**k, 60, 25 * (k + 1)) for k in range(24)))


def segment_sum(lengths: Lengths, rule: DesignRule, ends: tuple[int, ...]) -> float:
    """What is minimised, from the definition: n_k by the rule, θ_k itself."""
    shares = lengths.rates_per_s / lengths.rates_per_s[0]
    first = [0, *(end + 1 for end in ends[:-1])]
    n = rule.first_threshold * shares[first] ** (1 - rule.margin)
    if n[-1] < 1 or (n[:-1] - n[1:] < 1).any():
        return math.inf
    return float(nested_memory(n, lengths.segments(ends), LOG).total)


@pytest.mark.parametrize("prompts", ["worst", "weighted"])
@pytest.mark.parametrize("count", [1, 2, 5, 9, 12])
def test_every_best_sum_equals_enumeration(count: int, prompts: str) -> None:
    load, server = random_instance(count, count)
    lengths = distinct_lengths(load, server, prompts)
    rng = np.random.default_rng(count)
    for _ in range(3):
        rule = DesignRule(float(rng.uniform(3, 60)), float(rng.uniform(0.05, 0.95)))
        designs = {len(one.ends): one for one in best_designs(lengths, LOG, rule, count)}
        for segments in range(1, count + 1):
            inner = itertools.combinations(range(count - 1), segments - 1)
            best = min(segment_sum(lengths, rule, (*one, count - 1)) for one in inner)
            if math.isinf(best):
                assert segments not in designs
                continue
            found = designs[segments]
            assert found.requirement_tokens == pytest.approx(best, rel=1e-7)
            assert segment_sum(lengths, rule, tuple(found.ends)) == pytest.approx(best, rel=1e-7)
            assert found.memory.total == pytest.approx(best, rel=1e-7)


def test_base_memory_falls_and_buffers_grow_with_segments() -> None:
    server = load_server("paper-lmsys")
    study = NestedWait().buffers(CHAT, server)
    base, total = np.array(study.base_tokens), np.array(study.total_tokens)
    buffer = total - base
    assert study.segments == tuple(range(1, len(base) + 1))
    assert len(base) >= 5
    assert (np.diff(base) < 0).all()
    assert (np.diff(buffer) > 0).all()
    assert 0 < total.argmin() < len(total) - 1


def test_buffers_are_drawn(tmp_path: Path) -> None:
    study = NestedWait().buffers(CHAT, load_server("paper-lmsys"))
    path = tmp_path / "buffers.svg"
    save(study.plot, path)
    assert "KV (tokens)" in path.read_text(encoding="utf-8")
    heights = [one.get_height() for one in study.plot(Figure().subplots()).patches]
    parts = (study.base_tokens, study.deterministic_buffer_tokens, study.stochastic_buffer_tokens)
    assert heights == pytest.approx([one for part in parts for one in part])


def test_thousands_of_lengths_with_few_segments_give_a_table() -> None:
    load = workload(*((0.0015 * 0.999**k, 60, k + 1) for k in range(2000)))
    server = load_server("paper-lmsys").model_copy(update={"kv_capacity_tokens": 20_000_000})
    table = NestedWait(objective="memory", segments=3, time_limit_s=2).solve(load, server)
    assert len(table.thresholds) == 3
    assert table.thresholds[-1].up_to_tokens == 2000
    assert all(one.holds for one in table.certificate)


def test_merged_lengths_are_the_same_requests() -> None:
    load, server = random_instance(3, 8)
    lengths = distinct_lengths(load, server)
    kept = [1, 4, 5, 7]
    merged = lengths.merged(kept).segments([0, 3])
    direct = lengths.segments([1, 7])
    for name in ("cuts", "rates_per_s", "mean_stages", "kv_tokens", "memory_tokens"):
        assert getattr(merged, name) == pytest.approx(getattr(direct, name)), name
