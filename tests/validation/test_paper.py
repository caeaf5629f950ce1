"""The reproduction on tiny runs: every experiment, the page, and the rules behind its verdicts."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from fluid.server import load_server
from thresholds.solvers.nested.cuts import even_cuts
from thresholds.solvers.nested.segments import distinct_lengths
from validation.paper import EXPERIMENTS
from validation.paper.__main__ import main
from validation.paper.buffers import least_thresholds
from validation.paper.differences import CAPS
from validation.paper.experiment import (
    MET,
    NOT_MET,
    OPEN,
    QUICK,
    Claim,
    ExperimentResult,
    Lab,
    Run,
    at_least,
    faster,
    named,
)
from validation.paper.page import Cost, figure_name, render, write_page
from validation.paper.published import KV_BYTES_PER_TOKEN, TWENTY_RUNS
from validation.paper.rates import same_latency_rate
from validation.paper.settings import (
    CLIPPED_RATE,
    DECODE_ONLY,
    SINGLE,
    TWO,
    a100,
    authors_rules,
    chat,
    nested_cap,
    per_stage,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results() -> dict[str, ExperimentResult]:
    return {name: one.run(Lab(QUICK, threads=1)) for name, one in EXPERIMENTS.items()}


def make_run(*latency_s: float, name: str = "greedy", rate_per_s: float = 1.0) -> Run:
    return Run(name, rate_per_s, 100, "stable", latency_s, 1.0, 0.0)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_gives_finite_figures(
    name: str, results: dict[str, ExperimentResult]
) -> None:
    found = results[name]
    assert found.tables
    for table in found.tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        cells = [cell for row in table.rows for cell in row]
        assert not [cell for cell in cells if re.search(r"\b(nan|inf)\b", cell)]
    for run in found.runs:
        assert len(run.latency_s) >= QUICK.replications
        assert np.isfinite(run.latency_s).all()
        assert min(run.latency_s) > 0
        assert math.isfinite(run.completed_share)


def test_the_command_writes_the_page_and_every_figure_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: dict[str, ExperimentResult]
) -> None:
    monkeypatch.setattr("validation.paper.__main__.run_all", lambda sizes, threads: results)
    main(["--out", str(tmp_path), "--quick", "--threads", "1"])
    page = (tmp_path / "reproduction.md").read_text("utf-8")
    shown = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert len(shown) == len(EXPERIMENTS)
    for path in shown:
        assert (tmp_path / path).read_text("utf-8").lstrip().startswith("<?xml")
    for name, one in EXPERIMENTS.items():
        assert f"{{ #{name} }}" in page
        assert one.shows in page
    links, anchors = (
        set(re.findall(r"\(#([\w-]+)\)", page)),
        set(re.findall(r"{ #([\w-]+) }", page)),
    )
    assert links <= anchors
    assert "{{" not in page
    assert "{%" not in page


def test_the_same_results_make_the_same_files(
    tmp_path: Path, results: dict[str, ExperimentResult]
) -> None:
    found = {"horizon": results["horizon"]}
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        write_page(folder, found, {"horizon": EXPERIMENTS["horizon"].draw(found["horizon"])}, "")
        written.append((folder / "images" / figure_name("horizon")).read_bytes())
    assert written[0] == written[1]


def test_the_page_says_what_the_claims_say(results: dict[str, ExperimentResult]) -> None:
    def page_with(verdict: str) -> str:
        claims = (Claim("one thing before another", verdict, "1 against 2"),)
        changed = results | {
            "twenty-runs": ExperimentResult(facts=results["twenty-runs"].facts, claims=claims)
        }
        return render(changed, QUICK, Cost(1.0, 1.0, 1))

    assert "one thing before another | met | 1 against 2" in page_with(MET)
    assert "one thing before another | **not met** | 1 against 2" in page_with(NOT_MET)
    assert "one thing before another | undecided | 1 against 2" in page_with(OPEN)


def test_published_figures_are_on_the_page(results: dict[str, ExperimentResult]) -> None:
    page = render(results, QUICK, Cost(1.0, 1.0, 1))
    for by_policy in TWENTY_RUNS.values():
        for latency in by_policy.values():
            assert str(latency) in page


def test_faster_is_judged_by_the_paired_difference() -> None:
    # Each run has its own level, far apart: only the pairing shows the difference.
    slow = make_run(10.0, 20.0, 30.0, 40.0)
    fast = make_run(9.0, 19.1, 28.9, 39.0)
    assert faster("", fast, slow).verdict == MET
    assert faster("", slow, fast).verdict == NOT_MET
    assert faster("", make_run(9.0, 21.0, 29.0, 41.0), slow).verdict == OPEN
    assert faster("", slow, slow).verdict == OPEN


def test_order_of_rates_is_open_within_the_tolerance() -> None:
    assert at_least("", 23.0, 22.0, 0.005, "").verdict == MET
    assert at_least("", 22.0, 23.0, 0.005, "").verdict == NOT_MET
    assert at_least("", 22.05, 22.0, 0.005, "").verdict == OPEN
    assert at_least("", math.nan, 22.0, 0.005, "").verdict == OPEN


def test_clipping_raises_the_rate_as_stated() -> None:
    """E min(gap, 3) = 1 − e⁻³ for exponential gaps of mean 1."""
    gaps = np.random.default_rng(1).exponential(size=200_000)
    means = np.minimum(gaps, 3.0).reshape(200, -1).mean(axis=1)
    half_width = 3.0 * means.std(ddof=1) / math.sqrt(len(means))
    assert abs(means.mean() - 1 / CLIPPED_RATE) < half_width


def test_lab_pairs_policies_on_the_same_arrivals() -> None:
    lab = Lab(QUICK, threads=1)
    first, again = named(["greedy"]), named(["greedy", "vllm-v1"])
    alone = lab.simulate(SINGLE, a100(), first, [10.0])[0]
    beside = lab.simulate(SINGLE, a100(), again, [10.0])[0]
    assert alone == beside
    other = lab.simulate(SINGLE, a100(), first, [10.0], seed=9)[0]
    assert other.latency_s != alone.latency_s


def test_published_two_class_caps() -> None:
    """THEORY 5.3: η = 0, n_2/n_1 = 0.3 and tl = 30 give caps 21 and 9."""
    assert nested_cap(TWO, a100(), 30, 2, 0.0) == "nested-cap:thresholds=21/9,cuts=20/50"
    assert nested_cap(chat(), a100(), 20, 20, 0.05) is None


def test_the_authors_limits_fill_the_cap() -> None:
    """Per stage 30/20; and 30 = n·(20 + 0.3·30), in whole numbers n = 1 or 2 and 1."""
    assert authors_rules(SINGLE, 30) == tuple(f"wait-authors:thresholds={n},cap=30" for n in (1, 2))
    assert authors_rules(TWO, 30)[1:] == tuple(
        f"nested-authors:thresholds={n}/1,cap=30" for n in (1, 2)
    )


def test_literal_thresholds_are_whole() -> None:
    assert [per_stage(total, 20) for total in (10, 20, 39, 40, 200)] == [1, 1, 1, 2, 10]


def test_least_thresholds_sit_on_the_drift_condition() -> None:
    lengths = distinct_lengths(chat().at_rate(50.0), load_server("paper-lmsys"))
    segments = lengths.segments(even_cuts(lengths, 7))
    n = least_thresholds(segments)
    assert n is not None
    assert float(segments.load(n)) == pytest.approx(1.0)
    assert least_thresholds(lengths.segments(even_cuts(lengths, 1))) is None


def test_same_latency_rate_between_and_outside() -> None:
    runs = [make_run(2.0**rate, rate_per_s=rate) for rate in (1.0, 2.0, 3.0)]
    found = same_latency_rate(runs, "greedy", 2.0**2.5)
    assert found == pytest.approx(2.5)
    assert same_latency_rate(runs, "greedy", 100.0) is None


def test_long_decodes_read_more_than_an_a100_can(results: dict[str, ExperimentResult]) -> None:
    """The first token comes from the prompt's own iteration; decode s reads prompt + s tokens."""
    facts = results["restarts"].facts
    reads = sum(512 + s for s in range(1, 1000))
    assert facts["read_bytes_per_s"] == pytest.approx(4.0 * reads * KV_BYTES_PER_TOKEN)
    assert facts["read_bytes_per_s"] > facts["bandwidth_per_s"]


def test_default_seats_are_among_those_tried() -> None:
    default = next(p for p in named(["vllm-v0"])["vllm-v0"].policy.parameters if p.name == "cap")
    assert default.default in CAPS


def test_decode_only_requests_bring_their_prompt_along() -> None:
    (one,) = DECODE_ONLY.classes
    assert (one.prefill_tokens, one.context_tokens, one.decode_tokens) == (0, 630, 20)
