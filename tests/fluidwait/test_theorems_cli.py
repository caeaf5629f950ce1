"""``fluidwait report --theorems``: what is printed and written, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import Call
from validation.theorems import bench
from validation.theorems.estimates import at_most, exact, mean, points
from validation.theorems.statement import Effort, Finding, Plot, Policies, Statement


def experiment(effort: Effort, policies: Policies) -> Finding:
    """Holds at seed 0 alone."""
    found = mean([0.9 + effort.seed, 1.1 + effort.seed, 1.0 + effort.seed])
    return Finding(
        (at_most("seed", exact(effort.seed), 0.0),),
        Plot("x <b>", "y", (points("measured", np.ones(1), [found]),), log_x=True),
    )


@pytest.fixture(autouse=True)
def one_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench of one statement that needs no simulation."""
    one = Statement("small", "3.3", "seed <b> is 0", "nothing", experiment)
    monkeypatch.setattr(bench, "STATEMENTS", {"small": one})


def test_verdicts_are_printed_and_written(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = call("report", "--theorems", "--quick", "-o", page)
    assert done.code == 0
    assert "All 1 statements hold." in done.out
    assert re.search(r"small +3\.3 +seed +0 +at most 0 +holds", done.out)
    assert "3.3 small: holds" in done.err
    text = page.read_text("utf-8")
    assert "seed &lt;b&gt; is 0" in text
    assert "<svg" in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert text.count('id="small"') == 1


def test_a_verdict_that_fails_gives_exit_code_1(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = call("report", "--theorems", "--seed", 3, "-o", page)
    assert done.code == 1
    assert "1 of 1 statements fail: small." in done.out
    assert "1 of 1 statements fail: small." in page.read_text("utf-8")


def test_json_is_one_document_and_writes_no_page(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = call("report", "--theorems", "--json").document
    assert document["holds"] is True
    assert document["effort"] == "full"
    assert document["confidence_level"] == 0.9999
    (statement,) = document["statements"]
    assert (statement["key"], statement["theory"], statement["verdict"]) == (
        "small",
        "3.3",
        "holds",
    )
    expected = {"name": "seed", "expected": "at most 0", "holds": True, "would_see": None}
    assert statement["measures"] == [{**expected, "value": 0.0, "low": 0.0, "high": 0.0}]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "a TABLE or --theorems, one of them"),
        (("table.json", "--theorems"), "a TABLE or --theorems, one of them"),
        (("table.json", "--quick"), "only with --theorems"),
        (("table.json", "--json"), "only with --theorems"),
        (("--theorems", "-o", "missing/page.html"), "missing"),
    ],
)
def test_what_is_refused(call: Call, arguments: tuple[str, ...], told: str) -> None:
    done = call("report", *arguments)
    assert done.code == 2
    told_in = done.out if "--json" in arguments else done.err
    assert told in told_in
    assert done.err.count("\n") <= 1
