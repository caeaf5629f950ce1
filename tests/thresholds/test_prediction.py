"""A table's predicted times: whose they are, what they leave out, and that they are the laws'."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluid.server import Server
from fluid.steady.latency.predict import latency
from fluid.steady.latency.rule import BatchRule
from fluid.workload import Requests, Workload
from thresholds.prediction import predicted_latency, with_prediction
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.wait.solver import Wait
from thresholds.table import ThresholdTable

A100, PAPER = Server.named("a100-80gb-llama-2-7b"), Server.named("paper-long-decode")
PAIR = Workload.of(
    chat=Requests(7.0, prompt=512, output=120), code=Requests(1.0, prompt=2048, output=250)
)
LONG = Workload.of(long=Requests(2.6, prompt=512, output=1000))
EARLIER = Path(__file__).parents[1] / "data" / "threshold-table-1.2.json"


def with_params(table: ThresholdTable, **params: float) -> ThresholdTable:
    return with_prediction(table.model_copy(update={"params": params}))


def test_a_pace_is_left_out_and_said_to_be() -> None:
    table = Paced().solve(PAIR, A100)
    law, known = table.predicted.law, latency(PAIR, A100, BatchRule.greedy(watermark=0.01))
    assert law is not None
    assert known.pooled is not None
    assert (law.scheduler, law.follows_table) == ("greedy:watermark=0.01", False)
    assert law.ttft_s is not None
    assert law.ttft_s.p99 == known.pooled.ttft_s.p99
    assert table.predicted.latency_s == known.pooled.latency_s.mean
    assert table.predicted.policy_latency_s is None
    text = str(table)
    assert "Predicted for work-conserving service (greedy:watermark=0.01), seconds" in text
    assert "What this table holds back is left out there" in text


def test_a_watermark_alone_is_all_that_the_table_sets() -> None:
    table = with_params(Paced().solve(PAIR, A100), watermark_fraction=0.05)
    law = table.predicted.law
    assert law is not None
    assert law.follows_table
    assert table.predicted.policy_latency_s == table.predicted.latency_s
    assert "Predicted under this table (greedy:watermark=0.05), seconds" in str(table)
    assert "holds back" not in str(table)


def test_a_cap_is_a_number_of_seats() -> None:
    table = Paced().solve(PAIR, A100)
    wide = with_params(table, cap_requests=1000).predicted.law
    tight = with_params(table, cap_requests=50)
    assert wide is not None
    assert (wide.scheduler, wide.follows_table) == ("greedy:cap=1000", True)
    law = tight.predicted.law
    assert law is not None
    assert "more requests than seats" in str(law.refusal)
    assert law.latency_s is tight.predicted.latency_s is tight.predicted.policy_latency_s is None
    assert "No latencies predicted for greedy:cap=50: more requests than seats" in str(tight)
    beside_a_pace = with_params(table, cap_requests=50, pace_per_iteration=1.0).predicted.law
    assert beside_a_pace is not None
    assert (beside_a_pace.scheduler, beside_a_pace.follows_table) == ("greedy", False)


def test_vllms_own_seats_are_lifted_as_in_a_replay() -> None:
    law = Paced(scheduler="vllm-v1").solve(PAIR, A100).predicted.law
    assert law is not None
    assert law.scheduler == "vllm-v1:watermark=0.01,max_num_seqs=1000000"
    assert law.budget_share == pytest.approx(0.77, abs=0.02)


def test_where_memory_is_full_the_table_says_so() -> None:
    table = Paced().solve(LONG, PAPER)
    assert table.predicted.latency_s is None
    assert "No latencies predicted for greedy:watermark=0.01: memory is full" in str(table)
    assert "replay measures those under this table" in str(table)


def test_another_rate_of_the_same_mix() -> None:
    table = Paced().solve(LONG, PAPER)
    law = predicted_latency(table, 1.0)
    assert law.refusal is None
    assert law.latency_s is not None
    assert law.latency_s.mean < law.latency_s.p99


def test_literal_wait_keeps_its_own_formula() -> None:
    load = Workload.of(chat=Requests(4.0, prompt=64, output=20))
    table = Wait().solve(load, Server.named("paper-lmsys"))
    law = table.predicted.law
    assert law is not None
    assert (law.scheduler, law.follows_table) == ("greedy", False)
    assert table.predicted.latency_s is not None
    assert table.predicted.policy_latency_s is not None
    assert table.predicted.policy_latency_s > table.predicted.latency_s
    assert "Predicted under this table: mean latency" in str(table)


def test_an_earlier_table_is_said_to_be_of_first_order() -> None:
    table = ThresholdTable.read(EARLIER)
    assert table.predicted.law is None
    assert "to first order and often low: mean latency" in str(table)
