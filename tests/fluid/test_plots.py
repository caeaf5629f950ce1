"""Plots of the fluid model: every kind is written whole, with units; phases are stability."""

from __future__ import annotations

import doctest
import io

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from fluid.errors import InputError
from fluid.plots.style import PAPER, WIDTHS_IN, save, style
from fluid.server import load_server
from fluid.steady.equilibrium import PICTURES, equilibrium
from fluid.steady.phase import PARAMETERS, phase
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


def drawings():
    """By name, functions that draw on axes or on a new figure."""
    region = StabilityRegion(WORKLOAD, SERVER)
    balance = equilibrium(WORKLOAD, SERVER)
    margins = phase(WORKLOAD, SERVER, rate=[1, 5, 12], kv_tokens=[10_000, 50_000, 137_000])
    return {
        "region": region.plot,
        "latency": balance.plot,
        "stages": lambda ax=None: balance.plot(ax, picture="stages"),
        "phase": margins.plot,
    }


@pytest.mark.parametrize("name", ["region", "latency", "stages", "phase"])
def test_every_plot_is_vector_output_or_drawn_on_the_axes_given(tmp_path, name):
    draw = drawings()[name]
    save(draw, tmp_path / "plot.svg")
    assert "</svg>" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(InputError, match="svg, pdf or png"):
        save(draw, tmp_path / "x.txt")
    axes = Figure().subplots()
    assert draw(axes) is axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert plt.get_fignums() == []


def test_phase_is_stability_at_every_pair():
    rates, tokens = (1.0, 6.0), (20_000.0, 137_000.0, 500.0)
    found = phase(WORKLOAD, SERVER, rate=rates, kv_tokens=tokens)
    assert found.margins.shape == found.memory_shares.shape == (3, 2)
    for row, column in ((0, 0), (1, 1)):
        server = SERVER.model_copy(update={"kv_capacity_tokens": int(tokens[row])})
        here = stability(WORKLOAD.at_rate(rates[column]), server)
        assert found.margins[row, column] == pytest.approx(here.margin)
        assert found.memory_shares[row, column] == pytest.approx(here.memory_share)
        place = row * len(rates) + column
        assert {name: values[place] for name, values in found.frame().items()} == {
            "rate": rates[column],
            "kv_tokens": tokens[row],
            "margin": found.margins[row, column],
            "memory_share": found.memory_shares[row, column],
        }
    assert np.isnan(found.margins[2]).all()


@pytest.mark.parametrize("name", PARAMETERS)
def test_more_of_any_parameter_but_memory_leaves_less_margin(name):
    today = {"rate": 2.0, "kv_tokens": 137_000, "overhead_s": 0.0106, "per_kv_token_s": 2.6e-7}
    start = today.get(name, 1.0)
    other = "output_factor" if name == "rate" else "rate"
    values = {name: (start, 2 * start), other: (1.0, 1.5)}
    margins = phase(WORKLOAD, SERVER, **values).margins
    change = margins[:, 1] - margins[:, 0]
    assert ((change > 0) == (name == "kv_tokens")).all()


def test_what_cannot_be_drawn():
    with pytest.raises(InputError, match="one of rate, kv_tokens"):
        phase(WORKLOAD, SERVER, speed=(1, 2), rate=(1, 2))
    with pytest.raises(InputError, match="two values"):
        phase(WORKLOAD, SERVER, rate=1, kv_tokens=(1, 2))
    with pytest.raises(InputError, match="two of rate, kv_tokens"):
        phase(WORKLOAD, SERVER, rate=(1, 2))
    with pytest.raises(InputError, match="stable workload"):
        equilibrium(WORKLOAD.at_rate(1e4), SERVER).plot(picture="stages")
    with pytest.raises(InputError, match="one of " + ", ".join(PICTURES)):
        equilibrium(WORKLOAD, SERVER).plot(picture="best")


def test_on_paper_a_picture_is_as_wide_as_its_column_and_has_no_title():
    margins = phase(WORKLOAD, SERVER, rate=[1, 5], kv_tokens=[10_000, 137_000])
    assert margins.plot().get_title()
    before = dict(plt.rcParams)
    with style("paper", columns=1):
        axes = margins.plot()
        assert axes.figure.get_figwidth() == WIDTHS_IN[1]
        assert axes.get_title() == ""
        assert axes.xaxis.label.get_fontsize() == PAPER["font.size"]
        written = io.BytesIO()
        axes.figure.savefig(written)
    assert written.getvalue().startswith(b"%PDF")
    assert dict(plt.rcParams) == before
    assert margins.plot().get_title()
    for asked in ({"name": "poster"}, {"columns": 3}):
        with pytest.raises(InputError), style(**asked):
            pass


def test_the_style_has_an_example_that_is_true():
    (found,) = doctest.DocTestFinder(recurse=False).find(style, "style", globs={})
    assert found.examples
    assert doctest.DocTestRunner().run(found).failed == 0
