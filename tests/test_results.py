"""What every result promises: text that fits, HTML, a document, columns, and pictures of itself."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from fluid.result import WIDE, Note, Result, Table, as_text
from tests.support.results_fluid import FLUID_PICTURES, FLUID_RESULTS

RESULTS = {**FLUID_RESULTS}
PICTURES = {**FLUID_PICTURES}


@cache
def made(name: str) -> Result:
    return RESULTS[name]()


def words(blocks: list[Any]) -> set[str]:
    """Every word that blocks hold, those of columns that may be left out apart."""
    found: set[str] = set()
    for block in blocks:
        texts = [str(block)]
        if isinstance(block, Table):
            kept = [k for k, one in enumerate(block.columns) if one not in block.spare]
            lines = (block.columns, *block.rows)
            texts = [block.title, *(line[k] for line in lines for k in kept)]
        found |= {word for text in texts for word in text.split()}
    return found


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_says_the_same_everywhere(name: str) -> None:
    result = made(name)
    blocks = list(result.blocks())
    assert blocks
    assert all(isinstance(one, Table | Note | str) for one in blocks)
    assert str(result) == repr(result) == as_text(blocks)
    html = result._repr_html_()
    assert html.count("<table>") == sum(isinstance(one, Table) for one in blocks)
    assert "<script" not in html


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_fits_into_80_columns_and_cuts_no_word(name: str) -> None:
    blocks = list(made(name).blocks())
    lines = as_text(blocks, 80).split("\n")
    assert max(map(len, lines)) <= 80
    # In a record, a heading stands before a colon.
    said = {word.rstrip(":") for word in " ".join(lines).split()}
    assert {word.rstrip(":") for word in words(blocks)} <= said
    assert max(len(line) for line in as_text(blocks, WIDE).split("\n")) <= 2 * WIDE


@pytest.mark.parametrize("name", RESULTS)
def test_a_document_is_plain_data(name: str) -> None:
    document = made(name).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in document)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_cannot_be_changed(name: str) -> None:
    result = made(name)
    field = next(iter(getattr(result, "__dataclass_fields__", {}) or type(result).model_fields))
    with pytest.raises((dataclasses.FrozenInstanceError, ValueError, TypeError)):
        setattr(result, field, None)


FRAMED = [name for name in RESULTS if hasattr(made(name), "frame")]


@pytest.mark.parametrize("name", FRAMED)
def test_columns_of_a_frame_are_of_one_length(name: str) -> None:
    columns = made(name).frame()
    assert columns
    assert all(isinstance(one, list | np.ndarray) and np.ndim(one) == 1 for one in columns.values())
    assert len({len(one) for one in columns.values()}) == 1


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_on_new_axes_or_on_those_given(name: str) -> None:
    result: Any = made(name)
    for options in PICTURES[name]:
        drawn = result.plot(**options)
        panels: list[Axes] = np.ravel(drawn).tolist()
        assert all(isinstance(one, Axes) and one.has_data() for one in panels)
        figure, given = plt.subplots(len(panels), squeeze=False)
        again = np.ravel(result.plot(given.ravel() if len(panels) > 1 else given[0, 0], **options))
        assert again.tolist() == given.ravel().tolist()
        assert figure.get_axes()[0].get_ylabel()
        plt.close("all")
