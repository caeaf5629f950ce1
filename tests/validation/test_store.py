"""The folder of Parquet files: exact, whole, and refused where it is something else."""

from __future__ import annotations

import math
import os
import time
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pyarrow.dataset import dataset

from fluid.errors import InputError
from validation.experiments import store as stores
from validation.experiments.simulate import PolicyResult, Spread
from validation.experiments.slo.levels import Level
from validation.experiments.store import STALE_S, Store, opened, result_of_row, row_of_result

FLOATS = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
LISTS = st.lists(FLOATS, max_size=3).map(tuple)
SPREADS = st.none() | st.builds(
    Spread, mean=FLOATS, half_width=st.none() | FLOATS, p50=FLOATS, p90=FLOATS, p99=FLOATS
)
LEVELS = st.builds(
    Level,
    name=st.text(max_size=5),
    limit=st.sampled_from(["ttft_s", "all"]),
    limit_s=st.none() | FLOATS,
    quantile=st.none() | FLOATS,
    mean_s=st.none() | FLOATS,
    mean_low_s=st.none() | FLOATS,
    mean_high_s=st.none() | FLOATS,
    p99_s=st.none() | FLOATS,
    share=st.none() | FLOATS,
    share_low=st.none() | FLOATS,
    share_high=st.none() | FLOATS,
    verdict=st.sampled_from(["kept", "broken", "undecided"]),
)
PARAMS = st.dictionaries(
    st.text(max_size=5),
    st.text(max_size=5)
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.lists(st.integers(1, 10**6), max_size=3),
    max_size=3,
)
RESULTS = st.builds(
    PolicyResult,
    policy=st.text(max_size=8),
    params=PARAMS,
    traffic=st.text(max_size=8),
    rate_per_s=st.none() | FLOATS,
    verdict=st.sampled_from(["stable", "unstable", "undecided"]),
    verdict_reason=st.text(max_size=8),
    growth_per_arrival=st.none() | FLOATS,
    growth_low=st.none() | FLOATS,
    growth_high=st.none() | FLOATS,
    more_requests=st.none() | st.integers(1, 2**40),
    replications=st.integers(1, 10**6),
    requests=st.integers(1, 2**40),
    completed_per_s=FLOATS,
    completed_share=FLOATS,
    completed_share_half_width=st.none() | FLOATS,
    carried_share=st.none() | FLOATS,
    saturated_per_s=st.none() | FLOATS,
    lost_work_share=FLOATS,
    collapsed_share=FLOATS,
    makespan_s=st.none() | FLOATS,
    refused_share=FLOATS,
    too_long_share=FLOATS,
    gave_up_share=FLOATS,
    completed_shares=LISTS,
    completed_each_per_s=LISTS,
    latency_means_s=LISTS,
    latency_s=SPREADS,
    ttft_s=SPREADS,
    tpot_s=SPREADS,
    token_gap_s=SPREADS,
    token_gap_max_s=FLOATS,
    latency_note=st.text(max_size=8),
    met_limits_share=st.none() | FLOATS,
    levels=st.lists(LEVELS, max_size=2).map(tuple),
    evictions_per_request=FLOATS,
    wasted_token_share=FLOATS,
    recomputed_token_share=FLOATS,
    given_up_token_share=FLOATS,
    kv_mean_tokens=FLOATS,
    kv_max_tokens=st.integers(0, 2**40),
    unfinished_requests=FLOATS,
    device=st.sampled_from(["cpu", "cuda"]),
)


def bits(result: PolicyResult) -> str:
    """Every bit of every figure, the sign of a zero included; all NaN are one."""
    return repr(result)


PLAIN = PolicyResult(
    policy="greedy",
    params={"watermark": 0.1 + 0.2, "thresholds": [3, 1]},
    traffic="",
    rate_per_s=1 / 3,
    verdict="stable",
    verdict_reason="",
    growth_per_arrival=None,
    growth_low=None,
    growth_high=None,
    more_requests=None,
    replications=2,
    requests=100,
    completed_per_s=0.1,
    completed_share=0.2,
    completed_share_half_width=None,
    carried_share=1.0,
    saturated_per_s=None,
    lost_work_share=0.0,
    collapsed_share=0.0,
    makespan_s=None,
    refused_share=0.0,
    too_long_share=0.0,
    gave_up_share=0.0,
    completed_shares=(0.1, 0.3),
    completed_each_per_s=(0.1,),
    latency_means_s=(),
    latency_s=Spread(1e-300, None, math.nan, 2.0, 3.0),
    ttft_s=None,
    tpot_s=None,
    token_gap_s=None,
    token_gap_max_s=0.0,
    latency_note="",
    met_limits_share=None,
    levels=(),
    evictions_per_request=0.0,
    wasted_token_share=0.0,
    recomputed_token_share=0.0,
    given_up_token_share=0.0,
    prefix_hit_share=None,
    prefix_saved_tokens=None,
    prefix_evicted_tokens_per_s=None,
    kv_mean_tokens=1.0,
    kv_max_tokens=7,
    unfinished_requests=0.0,
    device="cpu",
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(results=st.lists(RESULTS, min_size=1, max_size=3))
def test_rows_come_back_to_the_last_bit(
    results: list[PolicyResult], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sweep") / "rows"
    with Store(folder) as store:
        for index, one in enumerate(results):
            store.add(str(index), one, model="m", seed=index)
    again = Store(folder)
    assert len(again) == len(results)
    for index, one in enumerate(results):
        found = again.find(str(index))
        assert found is not None
        assert bits(found) == bits(one)


def test_a_row_is_flat_and_names_its_units() -> None:
    row = row_of_result(PLAIN, key="k", model="m", seed=5)
    assert row["seed"] == 5
    assert row["label"] == "greedy:watermark=0.3,thresholds=3/1"
    assert row["params"] == '{"watermark": 0.30000000000000004, "thresholds": [3, 1]}'
    assert row["latency_mean_s"] == 1e-300
    assert row["latency_half_width_s"] is None
    assert row["ttft_p99_s"] is None
    assert bits(result_of_row(row)) == bits(PLAIN)
    assert {one.name for one in fields(PolicyResult)} - set(row) == {
        "latency_s",
        "ttft_s",
        "tpot_s",
        "token_gap_s",
    }


def test_any_reader_of_parquet_reads_the_folder(tmp_path: Path) -> None:
    for seed in range(2):
        with Store(tmp_path / "rows") as store:
            assert len(store) == seed
            store.add(f"key {seed}", PLAIN, model="m", seed=seed)
    table = dataset(tmp_path / "rows").to_table()
    assert sorted(table.column("seed").to_pylist()) == [0, 1]
    assert table.column("completed_shares").to_pylist() == [[0.1, 0.3]] * 2


def test_rows_wait_to_be_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(stores.time, "monotonic", lambda: now[0])
    store = Store(tmp_path / "rows", flush_s=5.0)

    def files_after(seconds: float) -> int:
        now[0] += seconds
        store.add(str(now[0]), PLAIN, model="m", seed=0)
        return len(list((tmp_path / "rows").iterdir()))

    assert [files_after(2.0) for _ in range(6)] == [0, 0, 1, 1, 1, 2]
    now[0] += 10_000.0
    assert files_after(0.0) == 3
    assert [files_after(60.0) for _ in range(2)] == [3, 4]  # a hundredth of 10,012 s
    store.flush()
    store.flush()
    assert len(list((tmp_path / "rows").iterdir())) == 4


def test_rows_are_kept_when_a_sweep_is_interrupted(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Store(tmp_path / "rows") as store:
            store.add("key", PLAIN, model="m", seed=0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(Store(tmp_path / "rows")) == 1


def test_half_a_file_of_a_killed_run_is_ignored_and_removed_in_time(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add("key", PLAIN, model="m", seed=0)
    fresh, stale = tmp_path / ".part-1.parquet", tmp_path / ".part-2.parquet"
    for one in (fresh, stale):
        one.write_bytes(b"PAR1 half")
    old = time.time() - 2 * STALE_S
    os.utime(stale, (old, old))
    assert len(Store(tmp_path)) == 1
    assert dataset(tmp_path).count_rows() == 1
    assert fresh.exists()
    assert not stale.exists()


def test_a_store_is_given_open_or_as_a_folder_or_not_at_all(tmp_path: Path) -> None:
    with opened(tmp_path / "rows") as store:
        assert store is not None
        store.add("key", PLAIN, model="m", seed=0)
    assert len(Store(tmp_path / "rows")) == 1
    with Store(tmp_path / "rows") as outer:
        with opened(outer) as same:
            assert same is outer
        outer.add("other", PLAIN, model="m", seed=0)
    assert len(Store(tmp_path / "rows")) == 2
    with opened(None) as none:
        assert none is None


def test_what_is_no_folder_of_rows_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "rows") as store:
        store.add("key", PLAIN, model="m", seed=0)
    good = next((tmp_path / "rows").iterdir())

    def refused(told: str, path: Path) -> None:
        with pytest.raises(InputError, match=told) as error:
            Store(path)
        assert len(str(error.value).splitlines()) == 1

    refused("no such folder", tmp_path / "absent" / "rows")
    refused("File exists", good)
    refused("got 'rows'; allowed: a new folder", tmp_path)

    half, other, older = tmp_path / "half", tmp_path / "other", tmp_path / "older"
    for folder in (half, other, older):
        folder.mkdir()
    (half / "part-1.parquet").write_bytes(good.read_bytes()[:-200])
    refused("part-1.parquet: got .*allowed: a whole Parquet file", half)
    parquet.write_table(pa.table({"a": [1]}), other / "a.parquet")
    refused("allowed: rows of fluidwait, schema version 5", other)
    table = parquet.read_table(good).replace_schema_metadata({"fluidwait_rows": "0"})
    parquet.write_table(table, older / "part-1.parquet")
    refused("allowed: rows of fluidwait, schema version 5", older)


def test_a_folder_that_cannot_be_written_to_is_an_input_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "rows")
    store.add("key", PLAIN, model="m", seed=0)
    (tmp_path / "rows").rmdir()
    with pytest.raises(InputError, match="a folder to write rows into"):
        store.flush()
    store.path.mkdir()
    store.flush()
    found = Store(store.path).find("key")
    assert found is not None
    assert bits(found) == bits(PLAIN)


def _rewritten(folder: Path, **values: object) -> None:
    """The only file of a folder with other values in its first row."""
    (part,) = folder.glob("*.parquet")
    table = parquet.ParquetFile(part).read()
    first, *others = table.to_pylist()
    parquet.write_table(pa.Table.from_pylist([first | values, *others], table.schema), part)


@pytest.mark.parametrize(
    "values", [{"rate_per_s": 9.0}, {"params": "{"}, {"key": None}, {"row_sha256": None}]
)
def test_a_changed_row_is_named_and_the_others_kept(
    values: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(tmp_path / "rows") as store:
        store.add("a", PLAIN, model="m", seed=0)
        store.add("b", PLAIN, model="m", seed=1)
    _rewritten(tmp_path / "rows", **values)
    kept = Store(tmp_path / "rows")
    assert (kept.find("a"), bits(kept.find("b"))) == (None, bits(PLAIN))
    assert "row 1 does not match its checksum" in caplog.text


def test_what_others_do_in_the_folder_is_no_error(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add("a", PLAIN, model="m", seed=0)
    (tmp_path / ".part-folder").mkdir()
    (tmp_path / ".part-gone").symlink_to(tmp_path / "nowhere")
    os.utime(tmp_path / ".part-folder", (1, 1))
    assert len(Store(tmp_path)) == 1
