"""The page of public measurements says what the toolkit says, and claims no more than its rows."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.benchmarks.public_measurements import (
    PAGE,
    REPORTS,
    Report,
    Row,
    rows_of,
    table_of,
)

ROWS = {report.name: report for report in REPORTS}


def named(name: str, words: str) -> list[Row]:
    return [row for row in rows_of(ROWS[name]) if words in row.quantity]


def said_to_measured(row: Row) -> float:
    assert row.said is not None
    assert row.measured is not None
    return row.said / row.measured


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.name)
def test_the_page_has_what_the_command_prints(report: Report) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert report.where in page
    assert table_of(report) in page


def test_evictions_under_a_watermark_are_right_and_rates_a_tenth_low() -> None:
    evictions, rates = (named("watermarks", words) for words in ("evictions", "requests/s"))
    assert all(said_to_measured(row) == pytest.approx(1, abs=0.15) for row in evictions)
    assert all(0.87 < said_to_measured(row) < 0.93 for row in rates)
    said = [row.said or 0 for row in rates]
    assert max(said) == said[2]
    assert all(later < earlier for earlier, later in pairwise(said[2:]))


def test_saturation_is_low_where_requests_are_evicted() -> None:
    with_evictions = named("mixes", "evictions per request")
    without = named("mixes", "avoids evictions")
    assert all(0.83 < said_to_measured(row) < 1.0 for row in with_evictions)
    assert all(said_to_measured(row) == pytest.approx(1, abs=0.065) for row in without)


def test_decoding_between_chunks_is_right() -> None:
    rows = named("long-prompts", "decoded tokens/s")
    assert len(rows) == 5
    assert all(said_to_measured(row) == pytest.approx(1, abs=0.07) for row in rows)
