"""Every result is frozen and says the same as text, in a notebook, as data and as a picture."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.text import Text
from pydantic import BaseModel, ValidationError

from fluid.errors import InputError
from fluid.result import Result, Table, as_text, print_table
from tests.support.results_fluid import FLUID_RESULTS
from tests.support.results_measure import MEASURE_RESULTS
from tests.support.results_thresholds import THRESHOLD_RESULTS
from tests.support.results_validation import VALIDATION_RESULTS

NARROW = 80
KEPT = ("policy", "verdict", "latency")
"""Words in the headings of columns that are never given up."""


FACTORIES: dict[str, Callable[[], Result]] = (
    FLUID_RESULTS | THRESHOLD_RESULTS | VALIDATION_RESULTS | MEASURE_RESULTS
)
"""What makes a result of each kind, by name."""


@cache
def made(name: str) -> Result:
    return FACTORIES[name]()


@pytest.fixture(params=FACTORIES)
def result(request: pytest.FixtureRequest) -> Result:
    return made(request.param)


def tables_of(result: Result) -> list[Table]:
    return [one for one in result.blocks() if isinstance(one, Table)]


def test_it_is_a_result_and_frozen(result: Result) -> None:
    assert isinstance(result, Result)
    if isinstance(result, BaseModel):
        names = list(type(result).model_fields)
    else:
        assert is_dataclass(result)
        names = [one.name for one in fields(result)]
    for name in names:
        with pytest.raises((AttributeError, ValidationError)):
            setattr(result, name, None)


def test_text_is_that_of_its_blocks(result: Result) -> None:
    assert str(result) == repr(result) == as_text(result.blocks())
    assert str(result).strip()


def test_html_holds_every_cell_escaped(result: Result) -> None:
    page = result._repr_html_()
    for table in tables_of(result):
        assert f"<caption>{html.escape(table.title)}</caption>" in page
        for cell in (*table.columns, *(cell for row in table.rows for cell in row)):
            assert f">{html.escape(cell)}</t" in page
    for block in result.blocks():
        if not isinstance(block, Table):
            assert html.escape(str(block)) in page


def test_the_document_is_json(result: Result) -> None:
    document = result.document()
    assert document
    assert json.loads(json.dumps(document, allow_nan=False)) is not None


def test_a_picture_is_axes(result: Result) -> None:
    if not hasattr(result, "plot"):
        pytest.skip("no picture")
    try:
        drawn = result.plot()
    except InputError as error:
        # The picture of a table is that of its validation.
        if error.field != "validated":
            raise
        pytest.skip(str(error))
    axes = np.ravel(drawn)
    assert axes.size
    assert all(isinstance(one, Axes) for one in axes)
    assert not read_as_mathematics(axes)
    figure, given = plt.subplots(axes.size)
    size, letters = figure.get_size_inches().tolist(), plt.rcParams["font.size"]
    again = result.plot(given)
    assert figure.get_size_inches().tolist() == size
    assert not any(one.get_title() for one in np.ravel(given))
    assert {one.xaxis.label.get_fontsize() for one in np.ravel(given)} == {letters}
    assert np.ravel(again).tolist() == np.ravel(given).tolist()
    for one, other in zip(axes, np.ravel(given), strict=True):
        assert [len(line.get_xdata()) for line in one.lines] == [
            len(line.get_xdata()) for line in other.lines
        ]


def read_as_mathematics(axes: Sequence[Axes]) -> list[str]:
    """Words of a finished picture in which a dollar, of a name in a file, would not be one."""
    axes[0].get_figure(root=True).draw_without_rendering()
    words = [
        word for one in axes for word in one.findobj(Text) if re.search("[a-df-z]", word.get_text())
    ]
    figures = re.compile(r"\$\\mathdefault\{.*\}\$")  # of a logarithmic axis
    return [
        word.get_text()
        for word in words
        if word.get_parse_math() and not figures.fullmatch(word.get_text())
    ]


def test_a_frame_has_columns_of_one_length(result: Result) -> None:
    if not hasattr(result, "frame"):
        pytest.skip("no rows")
    columns: dict[str, Any] = result.frame()
    assert all(isinstance(name, str) for name in columns)
    assert len({len(column) for column in columns.values()}) == 1


def words(blocks: list[Any]) -> set[str]:
    """Every word that blocks hold, but for columns that may be left out."""
    found: set[str] = set()
    for block in blocks:
        texts = [str(block)]
        if isinstance(block, Table):
            kept = [k for k, one in enumerate(block.columns) if one not in block.spare]
            lines = (block.columns, *block.rows)
            texts = [block.title, *(line[k] for line in lines for k in kept)]
        found |= {word.rstrip(":") for text in texts for word in text.split()}
    return found


def test_text_fits_a_narrow_screen_and_breaks_no_word(result: Result) -> None:
    blocks = list(result.blocks())
    lines = as_text(blocks, NARROW).splitlines()
    assert max(map(len, lines)) <= NARROW
    # In a record, a heading stands before a colon.
    said = {word.rstrip(":") for line in lines for word in line.split()}
    assert words(blocks) <= said


def test_columns_that_matter_stay_to_the_last(result: Result) -> None:
    for table in tables_of(result):
        for heading in table.spare:
            assert not any(one in heading.lower() for one in KEPT)


def test_colours_are_left_out_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> str:
        stream = io.StringIO()
        print_table(Table("t", ("a", "verdict"), (("x", "stable"),)), stream, 80, colours=True)
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in written()
