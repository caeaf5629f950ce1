"""``fluidwait report``: the page says what the table says, stands alone, and can be repeated."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from selenium.webdriver import Chrome

from fluid.result import number
from tests.support.command_line import Call, Outcome
from thresholds.limits import PARAMETER_MEANINGS
from thresholds.table import ThresholdTable

SERVER = "paper-long-decode"
SMALL = ("--replications", 2, "--requests", 400)
SECTIONS = ["verdict", "load", "table", "certificate", "figures"]
SECTIONS += ["plots", "recovery", "range", "reproduce"]
TWO = [
    {"name": "long", "rate_per_s": 0.5, "prefill_tokens": 512, "decode_tokens": 300},
    {"name": "<b>short</b>", "rate_per_s": 0.5, "prefill_tokens": 256, "decode_tokens": 260},
]


class Page(HTMLParser):
    """Sections, attributes and table cells of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.cells: dict[str, list[str]] = {}
        self.code = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "section":
            self.sections.append(dict(attrs)["id"] or "")
            self.cells[self.sections[-1]] = []
        if tag == "td":
            self.cells[self.sections[-1]].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.cells[self.sections[-1]][-1] += data
        if self.sections and self.sections[-1] == "reproduce":
            self.code += data

    def row(self, section: str, first: str) -> list[str]:
        """The cells after the one that reads `first`."""
        cells = [cell.strip() for cell in self.cells[section]]
        return cells[cells.index(first) + 1 :]


@pytest.fixture
def table(call: Call, tmp_path: Path) -> Path:
    """A table of two classes, not validated."""
    load, path = tmp_path / "w.json", tmp_path / "a table.json"
    load.write_text(json.dumps({"name": "pair & co", "classes": TWO}))
    assert call("solve", load, "--server", SERVER, "-o", path).code == 0
    return path


def reported(call: Call, table: Path, *options: object) -> tuple[Page, str, Outcome]:
    out = table.parent / "report.html"
    done = call("report", table, "-o", out, *SMALL, *options)
    assert done.code == 0, done.err
    text = out.read_text(encoding="utf-8")
    return Page(text), text, done


def test_the_page_stands_alone_and_is_complete(call: Call, table: Path) -> None:
    page, text, done = reported(call, table)
    assert page.sections == SECTIONS
    assert page.tags.count("svg") == 5
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("href", "xlink:href", "src"):
            assert value.startswith("#")
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert "&lt;b&gt;short&lt;/b&gt;" in text
    assert "<b>" not in text
    assert done.out.splitlines()[0] in text


def test_figures_are_those_of_the_table(call: Call, table: Path) -> None:
    checked = table.parent / "checked.json"
    policies = (
        "--policy",
        "greedy:cap=3,victim=latest-arrival",
        "--policy",
        "wait-cap:thresholds=1/2",
    )
    assert call("replay", table, *SMALL, *policies, "-o", checked).code == 0
    page, text, _ = reported(call, checked)
    known = ThresholdTable.read(checked)
    assert known.validated is not None
    own, capped, caps = known.validated.policies
    assert own.latency_s is not None
    interval = f"{number(own.latency_s.mean)} ± {number(own.latency_s.half_width, 2)}"
    assert page.row("figures", "this table (paced)")[:3][-1] == interval
    assert page.row("figures", "greedy:cap=3,victim=latest-arrival")[0] == capped.verdict
    assert page.row("figures", "wait-cap:thresholds=1/2")[0] == caps.verdict
    for name, value in known.params.items():
        assert page.row("table", name)[:2] == [number(float(value)), PARAMETER_MEANINGS[name]]
    assert "The simulation is the one kept in the table." in text
    assert number(known.valid_for.max_rate_per_s) in text


def test_predicted_and_simulated_times_stand_side_by_side(call: Call, table: Path) -> None:
    checked = table.parent / "checked.json"
    many = ("--replications", 4, "--requests", 1500, "--policy", "greedy:watermark=0.01")
    assert call("replay", table, *many, "-o", checked).code == 0
    page, text, done = reported(call, checked)
    law, validated = (
        ThresholdTable.read(checked).predicted.law,
        ThresholdTable.read(checked).validated,
    )
    assert law is not None
    assert law.ttft_s is not None
    assert law.scheduler == "greedy:watermark=0.01"
    assert validated is not None
    own, beside = validated.policies
    row = page.row("figures", "mean TTFT")
    assert row[0] == number(law.ttft_s.mean)
    for found, simulated, difference in ((own, *row[1:3]), (beside, *row[3:5])):
        assert found.ttft_s is not None
        assert simulated.startswith(f"{number(found.ttft_s.mean)} ± ")
        assert difference == f"{100 * (found.ttft_s.mean / law.ttft_s.mean - 1):+.1f} %"
        assert abs(float(difference.split()[0])) < 10
    assert page.row("figures", "p99 latency")[1] == number(own.latency_p99_s)
    assert f"Times are predicted for {law.scheduler} under Poisson arrivals." in text
    assert "mean TTFT" in done.out


def test_where_no_law_holds_the_page_says_so(call: Call, table: Path) -> None:
    full = table.parent / "full.json"
    load = table.parent / "w.json"
    assert call("solve", load, "--server", SERVER, "--rate", 14.2, "-o", full).code == 0
    page, text, _ = reported(call, full)
    assert "No times are predicted for greedy:watermark=0.01: memory is full" in text
    assert page.row("figures", "mean TTFT")[0] == "–"


def test_the_commands_give_the_figures_again(
    call: Call, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page says to run is run, but for the last line, which makes the page itself."""
    monkeypatch.chdir(table.parent)
    checked = Path("checked.json")
    at = ("--rate", 0.7, "--arrivals", "gamma:cv=1.5", "--seed", 5)
    assert call("replay", table, *SMALL, *at, "-o", checked).code == 0
    page, _, _ = reported(call, checked.absolute())
    extract, equilibrium, solve, replay, report, *_ = page.code.strip().splitlines()[1:]
    subprocess.run([sys.executable, *shlex.split(extract)[1:]], check=True)
    assert call(*shlex.split(equilibrium)[1:]).code == 0
    assert call(*shlex.split(solve)[1:]).code == 0
    again, before = json.loads(Path("solved.json").read_text()), json.loads(table.read_text())
    assert again == before
    rows = call(*shlex.split(replay)[1:], "--json").document["policies"]
    known = ThresholdTable.read(checked).validated
    assert known is not None
    assert [one["evictions_per_request"] for one in rows] == [
        one.evictions_per_request for one in known.policies
    ]
    assert rows[0]["latency_s"]["mean"] == pytest.approx(known.policies[0].latency_s.mean)  # type: ignore[union-attr]
    assert shlex.split(report)[:3] == ["fluidwait", "report", str(checked.absolute())]


def test_a_table_validated_on_a_recording(call: Call, table: Path) -> None:
    rows = "\n".join(f"{2 * k},{400 + k % 7},{200 + 5 * (k % 11)}" for k in range(60))
    tape, checked = table.parent / "tape.csv", table.parent / "checked.json"
    tape.write_text(f"arrived_at,num_prefill_tokens,num_decode_tokens\n{rows}\n")
    assert call("replay", table, "--tape", tape, "-o", checked).code == 0
    page, text, _ = reported(call, checked)
    assert "arrivals: tape" in text
    assert "--tape tape.csv" in page.code


def test_a_refined_table_shows_its_search(call: Call, table: Path) -> None:
    refined = table.parent / "refined.json"
    assert call("replay", table, *SMALL, "-o", refined).code == 0
    known = ThresholdTable.read(refined)
    assert known.validated is not None
    rows = known.validated.policies
    saturated = rows[0].model_copy(update={"rate_per_s": 1.05 * known.valid_for.max_rate_per_s})
    validated = known.validated.model_copy(update={"policies": (*rows, saturated)})
    solver = known.solver.model_copy(update={"status": "refined"})
    known.model_copy(update={"validated": validated, "solver": solver}).write(refined)
    page, text, _ = reported(call, refined)
    assert "beyond what the server carries" in text
    assert "--budget-s" in page.code


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("none.json",), "none.json: got 'no such file'"),
        (("W",), "schema_version"),
        (("T", "-o", "no/such/page.html"), "no/such/page.html"),
        (("T", "--replications", 0), "replications: got 0; allowed: at least 1"),
        (("T", "--requests", 0), "requests: got 0; allowed: at least 2"),
    ],
)
def test_bad_reports(call: Call, table: Path, arguments: tuple[Any, ...], told: str) -> None:
    names = {"W": table.parent / "w.json", "T": table}
    done = call("report", *(names.get(one, one) for one in arguments))
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert told in done.err


def test_a_reader_sees_the_page(call: Call, table: Path, browser: Chrome) -> None:
    """On a laptop, on a phone and on paper: ink everywhere, nothing cut off at the side."""
    reported(call, table)
    for width, medium in ((1280, "screen"), (500, "screen"), (720, "print")):
        _look(browser, table.parent / "report.html", width, medium)


def _look(browser: Chrome, page: Path, width: int, medium: str) -> None:
    browser.set_window_size(width, 900)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium})
    browser.get(page.as_uri())
    extent = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    needed, there = browser.execute_script(extent)
    assert needed <= there
    right = "return Math.max(...[...document.querySelectorAll('svg, pre, h1')].map(RIGHT))"
    edge = browser.execute_script(right.replace("RIGHT", "e => e.getBoundingClientRect().right"))
    assert edge <= there
    for section in SECTIONS:
        browser.execute_script(f"document.getElementById('{section}').scrollIntoView()")
        shown = imread(io.BytesIO(browser.get_screenshot_as_png()))[::2, ::2]
        dark = (shown[..., :3].mean(axis=2) < 0.5).mean()
        assert dark > 0.002, section
        assert len(np.unique(shown[..., :3].mean(axis=2))) > 10, section
