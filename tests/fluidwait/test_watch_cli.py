"""``fluidwait watch``: what it refuses, pages in files, a Prometheus, and its own page."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fluid.traces.scrapes import samples_of
from fluidwait.live_view import _table
from tests.support.command_line import Call
from tests.support.live_pages import Engine
from tests.support.metrics_page import START_S
from validation.live.scrape import Prometheus
from validation.live.serve import Shown, serve
from validation.live.step import Step
from validation.live.watcher import Watcher

DATA = Path(__file__).parents[1] / "data" / "traces"
SERVER = ("--server", "engine-long-decode")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--metrics: got 'both or neither'"),
        (("--metrics", "a", "--prometheus", "http://b"), "--metrics: got 'both or neither'"),
        (("--prometheus", "http://b"), "--selector: got 'nothing'"),
        (("--metrics", "a", "--selector", "{}"), "--selector: got '{}'; allowed: only with"),
        (("--prometheus", "http://b", "--selector", "job"), "--selector: got 'job'"),
        (("--metrics", "ftp://b"), "--metrics: got 'ftp://b'"),
        (("--metrics", "a", "--once", "--duration-s", 5), "--duration-s: got 5.0; allowed: noth"),
        (("--metrics", "a", "--interval-s", 0), "--interval-s: got 0.0"),
        (("--metrics", "a", "--change", 0), "--change: got 0.0"),
        (("--metrics", "a", "--listen", "here"), "--listen: got 'here'"),
        (("--metrics", "nowhere.prom"), "no such file"),
        (("--metrics", str(DATA / "metrics-node.prom")), "a page of node_exporter"),
        (("--metrics", str(DATA / "azure-2023.csv")), "Prometheus text"),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[object, ...], told: str, call: Call, tmp_path: Path
) -> None:
    found = call("watch", *SERVER, "-o", tmp_path / "table.json", *options)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert told in found.err
    assert list(tmp_path.iterdir()) == []


def test_a_document_is_of_one_look(call: Call, tmp_path: Path) -> None:
    found = call("watch", *SERVER, "-o", tmp_path / "table.json", "--metrics", "a", "--json")
    assert (found.code, found.document["error"]["field"]) == (2, "--json")


def test_nobody_at_the_address(call: Call, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}/metrics"
    found = call("watch", *SERVER, "-o", tmp_path / "table.json", "--metrics", address)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "refused" in found.err


def test_a_folder_without_permission(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system says it to whoever is not root."""
    out = tmp_path / "table.json"
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and may(path, mode))
    found = call("watch", *SERVER, "-o", out, "--metrics", DATA / "metrics.prom")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "the folder is not writable" in found.err


def test_a_missing_folder(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "missing" / "table.json"
    found = call("watch", *SERVER, "-o", out, "--metrics", DATA / "metrics.prom")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "no such folder" in found.err


class Answers:
    """What a Prometheus of one engine answers; the query that it was asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.now_s, self.query = engine, START_S, ""

    def document(self, path: str) -> tuple[int, dict[str, Any]]:
        self.query = urllib.parse.unquote_plus(path)
        if "broken" in path:
            return 400, {"status": "error", "error": "parse error: unexpected end"}
        self.engine.finish(30)
        self.now_s += 15.0
        series = [
            {
                "metric": {"__name__": one.name, "instance": "a", **dict(one.labels)},
                "values": [[self.now_s - 15, "0"], [self.now_s, repr(one.value)]],
            }
            for one in samples_of(self.engine.page, "page")
        ]
        found = [] if "nobody" in path else series
        return 200, {"status": "success", "data": {"resultType": "matrix", "result": found}}


@pytest.fixture
def prometheus() -> Iterator[tuple[str, Answers]]:
    answers = Answers(Engine())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, document = answers.document(self.path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ('{job="nobody"}', "--selector: got '{job=\"nobody\"}'; allowed: one that matches"),
        ('{job="broken"}', "parse error: unexpected end"),
    ],
)
def test_a_selector_that_matches_nothing(
    selector: str, told: str, call: Call, tmp_path: Path, prometheus: tuple[str, Answers]
) -> None:
    out = tmp_path / "table.json"
    given = ("--prometheus", prometheus[0], "--selector", selector)
    found = call("watch", *SERVER, "-o", out, *given)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert told in found.err


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/page", "Prometheus text"),
        ("/broken", "HTTP 400"),
    ],
)
def test_an_address_without_a_metrics_page(
    path: str, told: str, call: Call, tmp_path: Path, prometheus: tuple[str, Answers]
) -> None:
    found = call("watch", *SERVER, "-o", tmp_path / "t.json", "--metrics", prometheus[0] + path)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert told in found.err
    assert list(tmp_path.iterdir()) == []


def test_the_address_of_no_prometheus(call: Call, tmp_path: Path) -> None:
    """It answers, but with a page of its own."""
    server = serve(Shown(), "127.0.0.1:0")
    address = f"http://127.0.0.1:{server.server_port}/?"
    given = ("--prometheus", address, "--selector", "{}")
    try:
        found = call("watch", *SERVER, "-o", tmp_path / "t.json", *given)
    finally:
        server.shutdown()
        server.server_close()
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "the address of a Prometheus" in found.err


def test_the_series_of_a_prometheus(
    call: Call, tmp_path: Path, prometheus: tuple[str, Answers]
) -> None:
    out = tmp_path / "table.json"
    given = ("--prometheus", prometheus[0], "--selector", '{job="vllm"}')
    found = call("watch", *SERVER, "-o", out, *given, "--interval-s", 0.1, "--once", "--json")
    assert (found.code, found.err) == (0, "")
    assert found.document["status"] == "learning"
    assert found.document["rate_per_s"]["value"] == pytest.approx(2.0)
    assert 'query={job="vllm",__name__=~"' in prometheus[1].query
    assert Prometheus(prometheus[0], "{}").read().at_s == prometheus[1].now_s


def test_a_page_in_a_file_is_watched_for_a_while(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "metrics.prom"
    page.write_text(Engine().page)
    given = ("--metrics", page, "--interval-s", 0.1, "--duration-s", 0.35, "--dry-run")
    found = call("watch", *SERVER, "-o", tmp_path / "table.json", *given)
    assert found.code == 0
    assert found.out.splitlines()[0].endswith(
        "waiting: one scrape so far, the next one is subtracted"
    )
    assert len(found.out.splitlines()) == 1
    assert not (tmp_path / "table.json").exists()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    from fluid.server import Server

    out = tmp_path_factory.mktemp("watch") / "table.json"
    watcher, engine = Watcher(Server.named("engine-long-decode"), out), Engine()
    found = []
    for k in range(8):
        engine.finish(30)
        found.append(watcher.step(engine.scrape(15.0 * k)))
    return found


def test_its_own_pages(steps: list[Step]) -> None:
    shown = Shown()
    for one in steps:
        shown.show(one)
    server = serve(shown, "127.0.0.1:0")
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        text = urllib.request.urlopen(f"{address}/metrics").read().decode()
        page = urllib.request.urlopen(f"{address}/").read().decode()
        history = json.loads(urllib.request.urlopen(f"{address}/history.json").read())
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address}/else")
    finally:
        server.shutdown()
        server.server_close()
    samples = {
        (one.name, *sorted(one.labels.values())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    last = steps[-1]
    assert last.answer is not None
    assert samples["fluidwait_margin",] == pytest.approx(last.answer.stability.margin)
    assert samples["fluidwait_tpot_seconds", "measured"] == pytest.approx(0.015)
    assert samples["fluidwait_tables_total",] == 1
    assert samples["fluidwait_replicas",] == 1
    assert samples["fluidwait_status", "unchanged"] == 1
    assert "<title>fluidwait watch</title>" in page
    assert "https://" not in page
    assert len(history) == 7
    assert history[-1]["margin"] == pytest.approx(last.answer.stability.margin)


def test_the_view_of_a_terminal(steps: list[Step]) -> None:
    from rich.console import Console

    past: dict[str, Any] = {}
    for one in steps:
        table = _table(one, past)
    console = Console(width=78, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "compute binds" in text
    assert "arrivals /s" in text
    assert all(len(line.rstrip()) <= 78 for line in text.splitlines())
