"""Plots of the fluid model: every kind is written whole, with units; phases are stability."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.plots.steady import (
    PARAMETERS,
    Axis,
    phase,
    plot_composition,
    plot_latency,
    plot_phase,
    plot_region,
)
from fluid.server import load_server
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload

SERVER = load_server("paper-long-decode")
WORKLOAD = Workload(
    name="pair",
    classes=(
        RequestClass(name="a", rate_per_s=1.0, prefill_tokens=512, decode_tokens=400),
        RequestClass(
            name="b", rate_per_s=1.0, prefill_tokens=0, context_tokens=64, decode_tokens=90
        ),
    ),
)


def test_every_plot_is_vector_output(tmp_path):
    region = StabilityRegion(WORKLOAD, SERVER)
    edge = region.boundary(5)
    plots = {
        "region": lambda path: plot_region(
            region, path, theorem_per_s={"WAIT": 0.8 * edge}, simulated_per_s={"greedy": 0.9 * edge}
        ),
        "latency": lambda path: plot_latency(WORKLOAD, SERVER, path),
        "composition": lambda path: plot_composition(WORKLOAD, SERVER, path),
        "phase": lambda path: plot_phase(
            WORKLOAD,
            SERVER,
            Axis("rate", (1.0, 5.0, 12.0)),
            Axis("kv_tokens", (10_000, 50_000, 137_000)),
            path,
        ),
    }
    for name, draw in plots.items():
        path = tmp_path / f"{name}.svg"
        draw(path)
        assert "</svg>" in path.read_text()
        with pytest.raises(InputError, match="svg, pdf or png"):
            draw(tmp_path / "x.txt")


def test_phase_is_stability_at_every_pair():
    rates, tokens = (1.0, 6.0), (20_000.0, 137_000.0, 500.0)
    margins, shares = phase(WORKLOAD, SERVER, Axis("rate", rates), Axis("kv_tokens", tokens))
    assert margins.shape == shares.shape == (3, 2)
    for row, column in ((0, 0), (1, 1)):
        server = SERVER.model_copy(update={"kv_capacity_tokens": int(tokens[row])})
        found = stability(WORKLOAD.at_rate(rates[column]), server)
        assert margins[row, column] == pytest.approx(found.margin)
        assert shares[row, column] == pytest.approx(found.memory_share)
    assert np.isnan(margins[2]).all()


@pytest.mark.parametrize("name", PARAMETERS)
def test_more_of_any_parameter_but_memory_leaves_less_margin(name):
    today = {"rate": 2.0, "kv_tokens": 137_000, "overhead_s": 0.0106, "per_kv_token_s": 2.6e-7}
    start = today.get(name, 1.0)
    margins, _ = phase(WORKLOAD, SERVER, Axis(name, (start, 2 * start)), Axis("rate", (2.0, 3.0)))
    change = margins[:, 1] - margins[:, 0]
    if name == "rate":
        assert (change == 0).all()  # the second axis sets it again
    else:
        assert ((change > 0) == (name == "kv_tokens")).all()


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match="one of rate, kv_tokens"):
        phase(WORKLOAD, SERVER, Axis("speed", (1, 2)), Axis("rate", (1, 2)))
    with pytest.raises(InputError, match="two values"):
        phase(WORKLOAD, SERVER, Axis("rate", (1,)), Axis("rate", (1, 2)))
    with pytest.raises(InputError, match="stable workload"):
        plot_composition(WORKLOAD.at_rate(1e4), SERVER, tmp_path / "c.svg")
