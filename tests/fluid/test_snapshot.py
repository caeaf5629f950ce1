"""Histograms of lengths: what is read, and the limits they leave, against linear programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from fluid.errors import InputError
from fluid.traces import ReadOptions, Snapshot, summary_errors, workload_of_digest
from fluid.traces.digest import FIGURES
from fluid.traces.marginals import Marginal, independent_memory_sum, memory_sum
from fluid.traces.prometheus import PROMETHEUS
from fluid.workload import Workload

METRICS = Path(__file__).resolve().parents[1] / "data" / "traces" / "metrics.prom"
Floats = NDArray[np.float64]


def marginal(rng: np.random.Generator, buckets: int, largest: int) -> Marginal:
    """Random buckets of whole tokens, with the mean of some distribution inside them."""
    ends = np.sort(rng.choice(np.arange(1, largest), buckets, replace=False)).astype(float)
    low = np.concatenate([[1.0], ends[:-1] + 1])
    shares = rng.dirichlet(np.ones(buckets))
    mean = float(shares @ (low + rng.random(buckets) ** 2 * (ends - low)))
    return Marginal(shares, low, ends, mean)


def inside(one: Marginal, rng: np.random.Generator, points: int = 6) -> tuple[Floats, Floats]:
    """A random distribution in the buckets with the mean: (shares, lengths)."""
    lengths = one.low + rng.random((points, len(one.low))) * (one.high - one.low)
    shares = one.shares * rng.dirichlet(np.ones(points), len(one.low)).T
    # Moved towards the ends of the buckets until the mean is right.
    missing = one.mean - (shares * lengths).sum()
    ends = np.broadcast_to(one.high if missing > 0 else one.low, lengths.shape)
    room = (shares * (ends - lengths)).sum()
    moved = lengths + (missing / room if room else 0.0) * (ends - lengths)
    return shares.ravel(), moved.ravel()


def random_memory_sum(
    prompt: tuple[Floats, Floats], output: tuple[Floats, Floats], rng: np.random.Generator
) -> float:
    """Under a random coupling: a mix of independence and both extreme orders."""
    weights = rng.dirichlet(np.full(3, 0.3))
    order = [np.argsort(lengths) for _, lengths in (prompt, output)]
    (p, prompts), (q, outputs) = (
        (shares[o], lengths[o])
        for (shares, lengths), o in zip((prompt, output), order, strict=True)
    )
    joint = weights[0] * np.outer(p, q) + weights[1] * _rising(p, q)
    joint += weights[2] * _rising(p[::-1], q)[::-1]
    return float(np.sum(joint * outputs * (prompts[:, None] + (outputs - 1) / 2)))


def _rising(p: Floats, q: Floats) -> Floats:
    """Joint shares of the comonotone coupling."""
    above, across = np.cumsum(p), np.cumsum(q)
    overlap = np.minimum(above[:, None], across) - np.maximum((above - p)[:, None], across - q)
    return np.maximum(overlap, 0)


@given(seed=st.integers(0, 10_000), buckets=st.integers(1, 6))
@settings(max_examples=60)
def test_no_distribution_in_the_buckets_leaves_the_limits(seed: int, buckets: int) -> None:
    rng = np.random.default_rng(seed)
    prompt, output = marginal(rng, buckets, 3000), marginal(rng, 4, 500)
    low, high = memory_sum(prompt, output)
    independent_low, independent_high = independent_memory_sum(prompt, output)
    slack = 1e-9 * high
    assert low - slack <= independent_low <= independent_high <= high + slack
    for _ in range(20):
        (p, prompts), (q, outputs) = inside(prompt, rng), inside(output, rng)
        square = float(p @ prompts**2)
        least, most = prompt.second_moment()
        assert least * (1 - 1e-9) <= square <= most * (1 + 1e-9)
        together = random_memory_sum((p, prompts), (q, outputs), rng)
        assert low - slack <= together <= high + slack
        apart = prompt.mean * output.mean + float(q @ outputs**2) / 2 - output.mean / 2
        assert independent_low - slack <= apart <= independent_high + slack


def linear_program(prompt: Marginal, output: Marginal, sign: float) -> float:
    """Extreme memory sum over all joint distributions on all whole lengths."""
    lengths = [
        np.concatenate([np.arange(a, b + 1) for a, b in zip(one.low, one.high, strict=True)])
        for one in (prompt, output)
    ]
    prompts, outputs = np.meshgrid(*lengths, indexing="ij")
    rows, right = [], []
    for one, grid in ((prompt, prompts), (output, outputs)):
        for share, a, b in zip(one.shares, one.low, one.high, strict=True):
            rows.append(((grid >= a) & (grid <= b)).ravel().astype(float))
            right.append(share)
        rows.append(grid.ravel())
        right.append(one.mean)
    memory = (outputs * (prompts + (outputs - 1) / 2)).ravel()
    found = linprog(sign * memory, A_eq=np.array(rows), b_eq=np.array(right), method="highs")
    assert found.status == 0
    return float(sign * found.fun)


@pytest.mark.parametrize("seed", range(12))
def test_the_limits_are_those_of_a_linear_program(seed: int) -> None:
    """The upper one exactly; the lower one up to lengths being whole there, which raises it."""
    rng = np.random.default_rng(seed)
    prompt, output = marginal(rng, 3, 60), marginal(rng, 3, 60)
    low, high = memory_sum(prompt, output)
    assert linear_program(prompt, output, -1) == pytest.approx(high, rel=1e-7)
    least = linear_program(prompt, output, 1)
    # E[g²] of whole lengths around a real one exceeds its square by at most 1/4.
    assert low - 1e-6 <= least <= low + 1 / 8 + 1e-6


def test_one_bucket_of_one_length_leaves_nothing_open() -> None:
    fixed = Marginal(np.ones(1), np.array([512.0]), np.array([512.0]), 512.0)
    spread = Marginal(np.ones(1), np.array([1.0]), np.array([40.0]), 20.0)
    assert fixed.second_moment() == pytest.approx((512**2, 512**2))
    low, high = memory_sum(fixed, spread)
    assert (low, high) == pytest.approx(independent_memory_sum(fixed, spread))
    assert low == pytest.approx(20 * (512 + 19 / 2))


def snapshot(text: str, folder: Path, part: str | None = None) -> Snapshot:
    path = folder / "metrics.prom"
    path.write_text(text)
    read = PROMETHEUS.open(path, ReadOptions(part=part))
    assert isinstance(read, Snapshot)
    return read


def refused(text: str, folder: Path, part: str | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        snapshot(text, folder, part)
    return caught.value


def test_engines_are_summed_and_means_are_exact(tmp_path: Path) -> None:
    read = snapshot(METRICS.read_text(), tmp_path)
    assert read.requests == 100
    totals = [
        sum(
            float(line.split()[-1])
            for line in METRICS.read_text().splitlines()
            if line.startswith(f"vllm:request_{kind}_tokens_sum")
        )
        for kind in ("prompt", "generation")
    ]
    assert [read.prompt.mean * 100, read.output.mean * 100] == pytest.approx(totals)
    found = read.digest()
    assert found.means[1:3] == pytest.approx([read.prompt.mean, read.output.mean], rel=1e-9)


def test_the_workload_lies_inside_its_limits(tmp_path: Path) -> None:
    read = snapshot(METRICS.read_text(), tmp_path)
    figures = dict(zip(FIGURES, read.digest().means.tolist(), strict=True))
    for figure, (low, high) in read.intervals().items():
        assert low * (1 - 1e-9) <= figures[figure] <= high * (1 + 1e-9)
    low, high = read.independent_memory_sum()
    assert low < figures["memory sum"] < high
    extremes = [read.digest(case).means for case in ("lightest", "heaviest")]
    assert [means[3] for means in extremes] == pytest.approx(read.intervals()["memory sum"])
    for means in extremes:
        assert means[1:3] == pytest.approx([read.prompt.mean, read.output.mean], rel=1e-9)


@pytest.mark.parametrize("mean", [501.0, 512.0, 999.5, 1000.0])
def test_lengths_next_to_the_end_of_a_bucket_keep_their_mean(mean: float) -> None:
    one = Marginal(np.ones(1), np.array([501.0]), np.array([1000.0]), mean)
    found = Snapshot(one, one, 10, 1.0, ()).digest()
    assert found.means[1:3] == pytest.approx([mean, mean], rel=1e-6)
    workload = workload_of_digest(found, "fixed")
    assert isinstance(workload, Workload)
    assert max(summary_errors(workload, found).values()) <= 0.02


def test_several_models_are_named_and_one_is_chosen(tmp_path: Path) -> None:
    text = METRICS.read_text()
    both = text + text.replace("made-up", "other")
    assert refused(both, tmp_path).allowed == "one of the models made-up, other"
    assert snapshot(both, tmp_path, "other").requests == 100
    assert refused(text, tmp_path, "other").field == "part"


def test_requests_above_the_last_bucket_are_bounded_by_the_mean(tmp_path: Path) -> None:
    text = "".join(
        f'vllm:request_{kind}_tokens_bucket{{le="{end}",model_name="m"}} {count}\n'
        for kind in ("prompt", "generation")
        for end, count in (("10.0", 2), ("+Inf", 3))
    ) + "".join(
        f'vllm:request_{kind}_tokens_{what}{{model_name="m"}} {value}\n'
        for kind in ("prompt", "generation")
        for what, value in (("count", 3), ("sum", 60))
    )
    read = snapshot(text, tmp_path)
    assert read.prompt.high.tolist() == [10, 58]
    assert sum("above the last bucket of 10 tokens" in caveat for caveat in read.caveats) == 2
    assert read.digest().means[1] == pytest.approx(20)


def test_an_open_bucket_does_not_bend_the_others() -> None:
    """1 % of a million requests above 2,000 tokens, the rest evenly in 1 to 1,000."""
    low, mean = np.array([1.0, 2001.0]), 0.99 * 500 + 0.01 * 3000
    high = np.array([1000.0, 2001 + 1e6 * (mean - 0.99 - 20.01)])
    one = Marginal(np.array([0.99, 0.01]), low, high, mean, open_above=True)
    even = Marginal(np.ones(1), low[:1], high[:1], 500.0)
    mixed, alone = (Snapshot(each, even, 10, 1.0, ()).digest().means for each in (one, even))
    assert mixed[1] == pytest.approx(mean, rel=1e-9)
    assert mixed[4] == pytest.approx(0.99 * alone[4] + 0.01 * 3000**2, rel=0.1)


def test_the_rate_is_known_where_samples_carry_the_time_of_the_scrape(tmp_path: Path) -> None:
    assert snapshot(METRICS.read_text(), tmp_path).rate_per_s is None
    lines = METRICS.read_text().splitlines()
    stamped = [line if line.startswith("#") else f"{line} 1795100050000" for line in lines]
    read = snapshot("\n".join(stamped) + "\n", tmp_path)
    assert read.rate_per_s == pytest.approx(2.0)
    assert any("mean since the server started" in caveat for caveat in read.caveats)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("prompt_tokens_sum", "prompt_tokens_total", "vllm:request_prompt_tokens_sum"),
        ("generation_tokens_count", "generation", "vllm:request_generation_tokens"),
        ('le="+Inf"', 'le="4000"', "vllm:request_prompt_tokens_bucket"),
        ("made-up", 'made"up', ""),
        ('le="1.0"', 'le="one"', "vllm:request_prompt_tokens_bucket"),
        ('le="1.0",', "", "vllm:request_prompt_tokens_bucket"),
    ],
)
def test_broken_snapshots_are_refused(old: str, new: str, field: str, tmp_path: Path) -> None:
    text = METRICS.read_text()
    assert old in text
    assert refused(text.replace(old, new), tmp_path).field == field


# Pages of other programs, and two scrapes


@pytest.mark.parametrize("name", ["dynamo", "renamed", "sglang", "tgi"])
def test_pages_of_all_programs_are_read(name: str) -> None:
    read = PROMETHEUS.open(METRICS.with_name(f"metrics-{name}.prom"), ReadOptions())
    assert isinstance(read, Snapshot)
    assert read.requests == 100
    assert (read.prompt.mean, read.output.mean) == (415, 152)


def test_a_page_of_another_program_is_named(tmp_path: Path) -> None:
    text = METRICS.with_name("metrics-node.prom").read_text()
    assert refused(text, tmp_path).value == "a page of node_exporter"
    assert refused(text.replace("node_", "shop_"), tmp_path).value == "a page with 2 metrics shop_…"
    assert refused("# HELP go_info Go.\ngo_info 1\n", tmp_path).value.startswith("a page without")


def test_counters_that_contradict_the_histograms_are_told(tmp_path: Path) -> None:
    text = METRICS.with_name("metrics-renamed.prom").read_text()
    (told,) = [one for one in snapshot(text, tmp_path).caveats if "_total" in one]
    assert "vllm:prompt_tokens_total is 83,000" in told
    assert "holds 41,500 tokens" in told
    assert "of which the page counts 12" in told
    fewer = snapshot(text.replace(" 83000", " 20000"), tmp_path)
    assert any("leaves out" in one for one in fewer.caveats)
    near = snapshot(text.replace(" 83000", " 42000"), tmp_path)
    assert not any("_total" in one for one in near.caveats)


def scrapes(folder: Path, later: str, seconds: float) -> tuple[Path, Path]:
    """An earlier scrape, the sample page, and a later one, so many seconds apart by their files."""
    paths = folder / "earlier.prom", folder / "later.prom"
    for path, text, time in zip(paths, (METRICS.read_text(), later), (0, seconds), strict=True):
        path.write_text(text)
        os.utime(path, (1e9 + time, 1e9 + time))
    return paths


def grown(text: str, times: float) -> str:
    """The page with every counter and bucket so many times as large."""
    return "".join(
        f"{line.rpartition(' ')[0]} {float(line.rpartition(' ')[2]) * times}\n"
        if line.startswith("vllm:")
        else f"{line}\n"
        for line in text.splitlines()
    )


def test_two_scrapes_give_the_rate_of_the_window(tmp_path: Path) -> None:
    earlier, later = scrapes(tmp_path, grown(METRICS.read_text(), 4), 60)
    read = PROMETHEUS.open(later, ReadOptions(since=str(earlier)))
    assert isinstance(read, Snapshot)
    alone = snapshot(METRICS.read_text(), tmp_path)
    assert (read.requests, read.rate_per_s) == (300, pytest.approx(5.0))
    assert read.prompt.mean == pytest.approx(alone.prompt.mean)
    assert any("60 s between two scrapes, by the times of mod" in told for told in read.caveats)


def test_the_scrapes_own_times_go_before_those_of_the_files(tmp_path: Path) -> None:
    earlier, later = scrapes(tmp_path, grown(METRICS.read_text(), 2), 60)
    for path, stamp in ((earlier, 5000), (later, 45000)):
        lines = path.read_text().splitlines()
        path.write_text(
            "".join(f"{one}\n" if one[0] == "#" else f"{one} {stamp}\n" for one in lines)
        )
    read = PROMETHEUS.open(later, ReadOptions(since=earlier))
    assert read.rate_per_s == pytest.approx(100 / 40)
    assert not any("modification" in told for told in read.caveats)


@pytest.mark.parametrize(
    ("later", "seconds", "field", "told"),
    [
        (lambda text: grown(text, 0.5), 60, "vllm:request_prompt_tokens_bucket", "started again"),
        (lambda text: text.replace('engine="1"', 'engine="2"'), 60, "bucket", "and nothing now"),
        (lambda text: text.replace("1.7951e+09", "1.7952e+09"), 60, "process_start", "started aga"),
        (lambda text: grown(text, 2), -60, "since", "scraped, and written, earlier"),
        (lambda text: text, 60, "vllm:request_prompt_tokens", "at least one request"),
    ],
)
def test_scrapes_that_do_not_follow_each_other_are_refused(
    later: Callable[[str], str], seconds: float, field: str, told: str, tmp_path: Path
) -> None:
    first, second = scrapes(tmp_path, later(METRICS.read_text()), seconds)
    with pytest.raises(InputError, match=told) as caught:
        PROMETHEUS.open(second, ReadOptions(since=first))
    assert field in caught.value.field


def test_a_scrape_of_another_program_is_no_earlier_one(tmp_path: Path) -> None:
    other = METRICS.with_name("metrics-sglang.prom")
    with pytest.raises(InputError, match="an earlier scrape of the same server"):
        PROMETHEUS.open(METRICS, ReadOptions(since=other))


def test_a_file_that_is_no_text_is_called_that_and_not_bad_prometheus(tmp_path: Path) -> None:
    path = tmp_path / "metrics.prom"
    path.write_bytes(b"# HELP \xff\n")
    with pytest.raises(InputError) as caught:
        PROMETHEUS.open(path, ReadOptions())
    assert (caught.value.value, caught.value.allowed) == ("not UTF-8 text", "a UTF-8 text file")
