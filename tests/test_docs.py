"""README and documentation: every block of commands or code runs, and prints what it says.

In a page's own temporary folder, in the order of the page:

- blocks of `sh` run with bash, blocks of `python` with Python;
- blocks with a `title="FILE"` are written to that file;
- a block of `text` right after one that ran: each of its lines occurs in the output, in order,
  whatever the spaces between the words;
- ``<!-- not run: REASON -->`` above a block leaves it out.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.command_server import started
from validation.paper import EXPERIMENTS
from validation.paper.page import figure_name

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN = ("sh", "python")

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]*?) -->\n)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` says why it is not run."""

    line: int
    language: str
    body: str
    title: str | None
    reason: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            line=text.count("\n", 0, one.start("language")) + 1,
            language=one["language"],
            body=one["body"],
            title=one["title"],
            reason=one["reason"],
        )
        for one in _BLOCK.finditer(text)
    ]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=pytest.mark.slow if page.parent != ROOT else ())
        for page in PAGES
    ],
)
def test_blocks_run(page: Path, tmp_path: Path, programs: Path) -> None:
    found = blocks(page)
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(found), "a fence without a language, or one left open"
    _furnish(tmp_path)
    output: str | None = None
    for block in found:
        if block.title:
            (tmp_path / block.title).write_text(block.body, encoding="utf-8")
        elif block.language == "text":
            if output is not None:
                _require_printed(block, output)
        elif block.language in RUN:
            output = None if block.reason else _run(block, tmp_path, programs)


def _furnish(folder: Path) -> None:
    """What a clone holds once ``make demo`` has run, as far as the pages use it."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "demo").mkdir()
    shutil.copy(ROOT / "fluidwait" / "demo.yaml", folder / "demo" / "long-decode.yaml")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the programs that the pages call."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with started(tmp_path_factory.mktemp("programs"), environment) as folder:
        yield folder


def _run(block: Block, folder: Path, programs: Path) -> str:
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else ["python", "-c"]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*program, block.body],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"line {block.line}: {done.stderr}\n{done.stdout}"
    return done.stdout + done.stderr


def _require_printed(block: Block, output: str) -> None:
    printed = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in filter(None, (" ".join(one.split()) for one in block.body.splitlines())):
        assert line in printed, f"line {block.line}: {line!r} was not printed:\n{output}"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("fluidwait equilibrium nowhere.yaml", "nowhere.yaml"),
        ("fluidwait version | cat; python -c 'raise SystemExit(3)'", ""),
        ("python -c 'import nothing_of_this_name'", "ModuleNotFoundError"),
    ],
)
def test_a_block_that_fails_is_seen(body: str, said: str, tmp_path: Path, programs: Path) -> None:
    with pytest.raises(AssertionError, match=f"(?s)line 7: .*{said}"):
        _run(Block(7, "sh", body, None, None), tmp_path, programs)


UNRUN = [
    pytest.param(block.reason, id=f"{name(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.reason is not None
]


@pytest.mark.parametrize("reason", UNRUN)
def test_blocks_that_are_not_run_say_why(reason: str) -> None:
    assert len(reason.split()) >= 2
    pytest.skip(reason)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as it is published."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_without_warnings(site: Path) -> None:
    theory = (site / "theory" / "index.html").read_text(encoding="utf-8")
    assert theory.count("<math") > 50
    assert "arithmatex" not in theory
    assert 'href="../dark.css"' in theory
    assert (site / "dark.css").exists()
    reference = (site / "reference" / "fluid" / "index.html").read_text("utf-8")
    assert "fluid.steady.equilibrium.equilibrium" in reference


QUESTIONS = {
    "how do I set max_num_seqs": "questions/#how-do-i-set-max_num_seqs",
    "why does my server preempt": "questions/#why-does-my-server-preempt",
    "what p99 TTFT will I get at 12 requests per second": "questions/#what-p99-ttft-will-i-get",
    "chunked prefill": "questions/#how-do-i-set-max_num_batched_tokens-and-chunked-prefill",
    "how long may the queue be": "questions/#how-long-may-the-queue-be",
}
"""What an operator types into the search, and what must come first."""


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_the_search_finds_what_operators_ask(site: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for asked, expected in QUESTIONS.items():
            browser.get(f"http://127.0.0.1:{server.server_port}/?q={quote(asked)}")
            links = WebDriverWait(browser, 120).until(
                lambda page: page.find_elements(By.CSS_SELECTOR, "a.md-search-result__link")
            )
            first = [str(one.get_attribute("href")) for one in links[:2]]
            assert any(expected in one for one in first), (asked, first)
            assert "/questions/" in first[0], (asked, first)
        server.shutdown()


def test_every_equation_that_code_cites_is_on_the_theory_page() -> None:
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    known = {f"{a}.{b}" for a, b in re.findall(r"\{ #eq-(\d+)-(\d+) \}", text)}
    known |= set(re.findall(r"^## (\d+) ", text, re.MULTILINE))
    headings = re.findall(r"^### ([\d.]+) .*\{ #eq-([\d-]+) \}$", text, re.MULTILINE)
    assert all(number == anchor.replace("-", ".") for number, anchor in headings)
    for layer in ("fluid", "thresholds", "validation", "fluidwait", "tests"):
        for module in (ROOT / layer).rglob("*.py"):
            for cited in re.findall(r"THEORY (\d+(?:\.\d+)?)", module.read_text("utf-8")):
                assert cited in known, f"{module.relative_to(ROOT)} cites THEORY {cited}"


@pytest.mark.parametrize("picture", ["region.svg", "stages.svg", "latency.svg"])
def test_pictures_can_be_drawn_again(picture: str, tmp_path: Path) -> None:
    """Those that take no simulation."""
    figures = runpy.run_path(str(DOCS / "figures.py"))["FIGURES"]
    figures[picture](tmp_path / picture)
    assert (tmp_path / picture).read_text(encoding="utf-8").startswith("<?xml")


def test_every_picture_is_made_by_a_command() -> None:
    sources = [DOCS / "figures.py", *(ROOT / "tests" / "benchmarks").glob("*.py")]
    made = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    made |= {figure_name(name) for name in EXPERIMENTS}
    shown = set()
    for page in PAGES:
        shown |= set(re.findall(r"images/([\w-]+\.svg)", page.read_text(encoding="utf-8")))
    kept = {path.name for path in (DOCS / "images").iterdir()}
    assert shown == kept
    assert kept <= {value for value in made if isinstance(value, str)}
