"""What is learned from windows between scrapes, and what a watcher makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.stability import stability
from fluid.traces.prometheus import Histogram
from fluid.traces.scrapes import CountersFellError
from fluid.workload import Requests, Workload
from tests.benchmarks.live_metrics import run
from tests.support.live_pages import Engine
from thresholds.table import ThresholdTable
from validation.live.load import LoadLearner, _rate
from validation.live.loop import HOUR_S, Loop, Sayings
from validation.live.scrape import Scrape
from validation.live.seen import Seen, seen_between
from validation.live.speed import BOUNDS, SpeedLearner, _Batch, scaled
from validation.live.step import Answer, Step
from validation.live.watcher import Watcher

SERVER = Server.named("engine-long-decode")
TIME = SERVER.iteration_time


def lengths(count: float, tokens: int) -> Histogram:
    """So many requests of one length."""
    found = Histogram(count=count, total_tokens=count * tokens)
    found.cumulative.update({end: count * (tokens <= end) for end in (100.0, 200.0, 500.0, np.inf)})
    return found


def window(at_s: float, arrived: float, seconds: float = 15.0, **changes: Any) -> Seen:
    given = {
        "engines": 1,
        "prompts": lengths(arrived, 512),
        "outputs": lengths(arrived, 120),
        "computed_prompt_tokens": 512.0 * arrived,
        "gap_sum_s": 0.015 * 119 * arrived,
        "gap_count": 119.0 * arrived,
        "ttft_sum_s": 0.0,
        "ttft_count": 0.0,
        "preempted": 0.0,
        "queued": 0.0,
        "kv_share": None,
    }
    return Seen(at_s=at_s, seconds=seconds, arrived=arrived, **given | changes)


def test_a_window_is_the_difference_of_two_pages() -> None:
    engine = Engine(running=3)
    engine.finish(10)
    first = engine.scrape(0.0)
    engine.finish(4, prompt=100, output=50)
    engine.running, engine.preempted = 5, 1
    found = seen_between(first, engine.scrape(20.0))
    assert (found.seconds, found.engines, found.finished, found.preempted) == (20.0, 1, 4, 1)
    assert found.arrived == 4 + 5 - 3
    assert (found.prompts.total_tokens, found.outputs.total_tokens) == (400, 200)
    assert found.gap_count == 4 * 49
    assert found.tpot_s == pytest.approx(0.015)
    assert found.ttft_s == pytest.approx(0.1)
    assert found.kv_share == 0.16


def test_a_restart_is_told_from_traffic() -> None:
    engine = Engine()
    engine.finish(10)
    first = engine.scrape(0.0)
    engine.restart()
    with pytest.raises(CountersFellError):
        seen_between(first, engine.scrape(15.0))
    with pytest.raises(InputError, match="no newer scrape"):
        seen_between(first, first)


@pytest.mark.parametrize(
    "rate", [lambda t: 2.0, lambda t: 2.0 + t / 300, lambda t: 4.0 - t / 300], ids=["0", "+", "-"]
)
def test_the_rate_of_now_lies_in_its_interval(rate: Callable[[float], float]) -> None:
    """In 300 draws of 40 windows: at least 93 of 100, also while it rises or falls."""
    rng, ends = np.random.default_rng(1), 15.0 * np.arange(1, 41)
    weights = 0.5 ** ((ends[-1] - ends) / 900.0)
    inside = 0
    for _ in range(300):
        drawn = [window(end, float(rng.poisson(15.0 * rate(end - 7.5)))) for end in ends]
        found = _rate(drawn, weights)
        inside += found.low <= rate(ends[-1]) <= found.high
        assert found.low <= found.value <= found.high
    assert inside >= 0.93 * 300


def test_a_step_is_found_and_what_was_before_is_forgotten() -> None:
    rng, learner = np.random.default_rng(2), LoadLearner()
    for k in range(20):
        assert learner.add(window(15.0 * k, float(rng.poisson(30)))) is None
    told = [learner.add(window(15.0 * k, float(rng.poisson(60)))) for k in range(20, 23)]
    assert any(one and one.startswith("the rate went from") for one in told)
    found = learner.load()
    assert found is not None
    assert found.rate_per_s.low <= 4.0 <= found.rate_per_s.high
    assert len(learner.windows) <= 3


def test_longer_outputs_are_found() -> None:
    learner = LoadLearner()
    for k in range(6):
        learner.add(window(15.0 * k, 40.0))
    told = learner.add(window(90.0, 40.0, outputs=lengths(40, 400)))
    assert told == "the mean of outputs went from 120 to 400 tokens"
    found = learner.load()
    assert found is not None
    assert found.output_tokens.value == 400


def test_no_traffic_is_no_load() -> None:
    learner = LoadLearner()
    learner.add(window(15.0, 0.0))
    assert learner.load() is None
    assert _rate(list(learner.windows), np.ones(1)).high == pytest.approx(3.689 / 15.0, rel=1e-3)


def measured(
    learner: SpeedLearner, factors: tuple[float, float, float], rates: list[float]
) -> None:
    """Windows whose time between tokens is what the equation says at these factors."""
    for k, rate in enumerate(rates):
        one = window(15.0 * k, 15.0 * rate)
        batch = _Batch(learner.server, one, 512, 600)
        tpot_s, _ = batch.balance_s(np.array(factors))
        learner.add(window(15.0 * k, 15.0 * rate, gap_sum_s=tpot_s * one.gap_count), 512, 600)


def test_factors_are_found_where_traffic_tells_them() -> None:
    learner, factors = SpeedLearner(SERVER), (1.3, 0.8, 1.0)
    measured(learner, factors, np.linspace(0.5, 9.0, 60).tolist())
    found = learner.speed()
    assert found.factors[0] == pytest.approx(1.3, rel=0.02)
    assert "overhead" not in found.unexcited
    assert "per token" not in found.unexcited
    for rate in (1.0, 4.0, 8.0):
        one = window(0.0, 15.0 * rate)
        truth_s, _ = _Batch(SERVER, one, 512, 600).balance_s(np.array(factors))
        assert learner.predicted_tpot_s(one, 512, 600) == pytest.approx(truth_s, rel=0.02)


def test_a_direction_without_traffic_stays_at_the_file_and_is_named() -> None:
    learner = SpeedLearner(SERVER)
    assert learner.speed().factors == (1.0, 1.0, 1.0)
    assert learner.speed().unexcited == ("overhead", "per token", "per KV token")
    measured(learner, (1.25, 1.25, 1.25), [2.0] * 40)
    found = learner.speed()
    assert found.unexcited == ("per token", "per KV token")
    assert found.factors[2] < 1.15
    one = window(0.0, 30.0)
    truth_s, _ = _Batch(SERVER, one, 512, 600).balance_s(np.full(3, 1.25))
    assert learner.predicted_tpot_s(one, 512, 600) == pytest.approx(truth_s, rel=0.02)


def test_factors_are_bounded_and_evictions_teach_nothing() -> None:
    learner = SpeedLearner(SERVER)
    learner.add(window(0.0, 30.0, gap_sum_s=1e3, preempted=9.0), 512, 600)
    assert learner.speed().factors == (1.0, 1.0, 1.0)
    measured(learner, (20.0, 20.0, 20.0), [0.5] * 40)
    found = learner.speed()
    assert max(found.factors) <= BOUNDS[1]
    assert "overhead" in found.at_bound


def test_first_windows_weigh_no_more_than_later_ones() -> None:
    """Two odd ones at the start: what the others say is learned all the same."""
    learner = SpeedLearner(SERVER)
    measured(learner, (0.5, 0.5, 0.5), [2.0] * 2)
    measured(learner, (1.2, 1.2, 1.2), [2.0] * 40)
    one = window(0.0, 30.0)
    truth_s, _ = _Batch(SERVER, one, 512, 600).balance_s(np.full(3, 1.2))
    assert learner.predicted_tpot_s(one, 512, 600) == pytest.approx(truth_s, rel=0.2)


def test_a_scaled_server_is_each_part_times_its_factor() -> None:
    time = IterationTime(
        tokens_knots=(0.0, 64.0, 64.0, 512.0),
        seconds_knots=(0.01, 0.012, 0.013, 0.03),
        per_kv_token_s=1e-7,
        per_decode_request_s=1e-5,
    )
    found = scaled(time, (2.0, 3.0, 5.0))
    batch = {"kv_tokens": 5000.0, "decode_requests": 20.0}
    work = float(time(300.0, decode_requests=20.0)) - 0.01
    assert float(found(300.0, **batch)) == pytest.approx(0.02 + 3 * work + 5 * 5e-4)


def fed(watcher: Watcher, engine: Engine, rates: list[int], start: int = 0) -> list[Step]:
    """A scrape every 15 s, so many requests between two, as fast as the file says."""
    steps = []
    for k, count in enumerate(rates, start):
        engine.tpot_s, _ = _Batch(SERVER, window(0.0, count), 512, 570).balance_s(np.ones(3))
        engine.finish(count)
        steps.append(watcher.step(engine.scrape(15.0 * k)))
    return steps


def test_a_table_is_written_followed_and_says_why(tmp_path: Path) -> None:
    path, engine = tmp_path / "table.json", Engine()
    watcher = Watcher(SERVER, path)
    statuses = [one.status for one in fed(watcher, engine, [30] * 8)]
    assert statuses[0] == "waiting"
    assert statuses.count("written") == 1
    assert statuses[-1] == "unchanged"
    first = ThresholdTable.read(path)
    assert first.workload.rate_per_s == pytest.approx(2.0, rel=0.01)
    steps = fed(watcher, engine, [60] * 3, 8)
    assert "written" in [one.status for one in steps]
    second = ThresholdTable.read(path)
    assert second.workload.rate_per_s == pytest.approx(4.0, rel=0.01)
    assert any(one.startswith("watched 2027-") for one in second.notes)
    assert any("written because α* went from" in one for one in second.notes)
    assert list(tmp_path.iterdir()) == [path]
    again = Watcher(SERVER, path)
    assert again.table == second
    assert {one.status for one in fed(again, engine, [60] * 8, 20)} <= {
        "waiting",
        "learning",
        "unchanged",
    }


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    watcher = Watcher(SERVER, tmp_path / "table.json", dry_run=True)
    assert "would write" in [one.status for one in fed(watcher, Engine(), [30] * 8)]
    assert list(tmp_path.iterdir()) == []


def test_restart_and_silence_lose_nothing(tmp_path: Path) -> None:
    engine, watcher = Engine(), Watcher(SERVER, tmp_path / "table.json")
    fed(watcher, engine, [30] * 8)
    text = (tmp_path / "table.json").read_text()
    engine.restart()
    (step,) = fed(watcher, engine, [2], 8)
    assert step.status == "trouble"
    assert "started again" in step.told
    assert [one.status for one in fed(watcher, engine, [30] * 3, 9)] == ["unchanged"] * 3
    assert watcher.step(engine.scrape(15.0 * 11)).status == "waiting"
    silent = fed(watcher, engine, [0] * 6, 12)
    assert {one.status for one in silent} <= {"unchanged", "learning"}
    assert (tmp_path / "table.json").read_text() == text


def test_a_load_beyond_the_server_keeps_the_table_and_asks_for_replicas(tmp_path: Path) -> None:
    engine, watcher = Engine(), Watcher(SERVER, tmp_path / "table.json")
    fed(watcher, engine, [30] * 8)
    text = (tmp_path / "table.json").read_text()
    steps = fed(watcher, engine, [900] * 3, 8)
    assert steps[-1].status == "kept"
    assert steps[-1].answer is not None
    assert steps[-1].answer.stability.max_scale < 1
    assert steps[-1].replicas is not None
    assert steps[-1].replicas >= 2
    assert (tmp_path / "table.json").read_text() == text


def test_a_table_that_is_worse_in_simulation_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, watcher = Engine(), Watcher(SERVER, tmp_path / "table.json")
    fed(watcher, engine, [30] * 8)
    text = (tmp_path / "table.json").read_text()
    monkeypatch.setattr(Watcher, "_worse", lambda self, table: "it is worse")
    steps = fed(watcher, engine, [60] * 3, 8)
    assert [one.status for one in steps][-1] == "kept"
    assert (tmp_path / "table.json").read_text() == text


def test_the_simulation_knows_which_of_two_tables_is_worse(tmp_path: Path) -> None:
    watcher = Watcher(SERVER, tmp_path / "table.json")
    fed(watcher, Engine(), [30] * 8)
    table = watcher.table
    assert table is not None
    capped = table.model_copy(update={"params": {"cap_requests": 1}})
    told = watcher._worse(capped)
    assert told is not None
    assert "in simulation" in told
    watcher.table = capped
    assert watcher._worse(table) is None
    assert watcher._worse(capped) is None


def test_what_cannot_be_written_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, watcher = Engine(), Watcher(SERVER, tmp_path / "table.json")

    def refuse(self: ThresholdTable, path: Path) -> None:
        raise InputError("", "the folder is not writable", "a writable file", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(ThresholdTable, "write", refuse)
        steps = fed(watcher, engine, [30] * 8)
    assert steps[-1].status == "trouble"
    assert "not writable" in steps[-1].told
    assert fed(watcher, engine, [30], 8)[0].status == "written"


def test_another_table_in_the_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    fed(Watcher(SERVER, path), Engine(), [30] * 8)
    other = SERVER.model_copy(update={"kv_capacity_tokens": 1000})
    with pytest.raises(InputError, match=r"server\.kv_capacity_tokens"):
        Watcher(other, path)
    with pytest.raises(InputError, match="change"):
        Watcher(SERVER, path, change=0.0)


def test_a_public_case_scales_on_the_rate() -> None:
    """1,000 and 250 tokens: compute binds while the cache is nearly empty."""
    server = SERVER.model_copy(update={"kv_capacity_tokens": 960_000})
    load = Workload.of(chat=Requests(6.0, prompt=1000, output=250))
    answer = Answer(stability(load, server), 0.02)
    one = Step(
        0.0, "unchanged", "so", window(0.0, 90.0), answer=answer, workload=load, server=server
    )
    assert one.scaling is not None
    assert "compute binds" in one.scaling
    assert "scale on the rate of requests, not on KV in use" in one.scaling
    share = float(one.scaling.split(", which is ")[1].split(" %")[0])
    assert share < 30
    document = json.loads(json.dumps(one.document(), allow_nan=False))
    assert document["scaling"] == one.scaling


class Pages:
    """A source that gives what it is told, or fails."""

    def __init__(self, *scrapes: Scrape | InputError) -> None:
        self.scrapes = list(scrapes)

    def read(self) -> Scrape:
        one = self.scrapes.pop(0)
        if isinstance(one, InputError):
            raise one
        return one


def looped(pages: Pages, path: Path, **settings: Any) -> list[Step]:
    """Steps on a clock that only sleep moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    loop = Loop(pages, Watcher(SERVER, path), clock=lambda: now[0], sleep=sleep, **settings)
    return list(loop.steps())


GONE = InputError("", "Connection refused", "an address that answers with a metrics page", "page")


def test_the_loop_survives_what_it_cannot_reach(tmp_path: Path) -> None:
    engine = Engine()
    engine.finish(1)
    pages = Pages(engine.scrape(0.0), GONE, engine.scrape(30.0), GONE)
    steps = looped(pages, tmp_path / "table.json", duration_s=45.0)
    assert [one.status for one in steps] == ["waiting", "trouble", "learning", "trouble"]
    with pytest.raises(InputError, match="refused"):
        looped(Pages(GONE), tmp_path / "table.json")
    with pytest.raises(InputError, match="refused"):
        looped(Pages(engine.scrape(0.0), GONE), tmp_path / "table.json", once=True)
    once = looped(Pages(engine.scrape(0.0), engine.scrape(15.0)), tmp_path / "t.json", once=True)
    assert [one.status for one in once] == ["waiting", "learning"]
    still = Pages(*[engine.scrape(0.0)] * 30)
    with pytest.raises(InputError, match="written again within 300 s"):
        looped(still, tmp_path / "t.json", once=True)


@pytest.mark.parametrize("wrong", [{"interval_s": 0.0}, {"duration_s": -1.0}])
def test_the_loop_refuses_times_that_are_none(wrong: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        looped(Pages(), tmp_path / "table.json", **wrong)


def test_trouble_is_told_once_an_hour() -> None:
    sayings, trouble = Sayings(), Step(0.0, "trouble", "unreachable")
    told = [sayings.worth_saying(trouble, at_s) for at_s in np.arange(0, 3 * HOUR_S, 15.0)]
    assert sum(told) == 3
    assert sayings.worth_saying(Step(0.0, "written", "why"), 0.0)
    assert sayings.worth_saying(Step(0.0, "unchanged", "so"), 0.0)
    assert not sayings.worth_saying(Step(0.0, "unchanged", "so"), 15.0)


def test_nothing_is_learned_from_a_page_of_another_program(tmp_path: Path) -> None:
    from fluid.traces.scrapes import samples_of

    watcher = Watcher(SERVER, tmp_path / "table.json")
    other = Scrape(samples_of("node_load1 0.2\n", "page"), 0.0, "page")
    with pytest.raises(InputError, match="node_exporter"):
        watcher.step(other)


def test_metrics_of_a_simulated_step() -> None:
    """A small part of `tests.benchmarks.live_metrics`: a rate that doubles, another server."""
    found = run("step", seed=0)
    assert found.inside
    assert max(map(abs, found.errors)) <= 0.05
    assert found.factors != (1.0, 1.0, 1.0)
