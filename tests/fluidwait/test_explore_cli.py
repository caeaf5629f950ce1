"""``fluidwait explore``: what it refuses, the file that it writes, and where it serves."""

from __future__ import annotations

import json
import socket
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.command_line import Call

SERVER = ("--server", "engine-long-decode")


def load_of(folder: Path, classes: int) -> Path:
    path = folder / "load.json"
    rows = [
        {"name": f"c{k}", "rate_per_s": 1.0, "prefill_tokens": 64, "decode_tokens": 20}
        for k in range(classes)
    ]
    path.write_text(json.dumps({"name": "load", "classes": rows}))
    return path


@pytest.mark.parametrize(
    ("classes", "options", "told"),
    [
        (0, (), "classes: got []"),
        (13, (), "classes: got 13; allowed: at most 12"),
        (1, ("-o", "page.html", "--port", 8000), "--port: got 8000; allowed: nothing beside --out"),
        (1, ("--port", 70_000), "--port: got 70000; allowed: 0 to 65535"),
        (1, ("-o", "no/page.html"), "no such folder"),
    ],
)
def test_what_is_refused(
    call: Call, tmp_path: Path, classes: int, options: tuple[object, ...], told: str
) -> None:
    done = call("explore", load_of(tmp_path, classes), *SERVER, *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err


def test_a_port_that_is_taken(call: Call, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call("explore", load_of(tmp_path, 1), *SERVER, "--port", port)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "in use" in done.err


def test_it_serves_on_loopback_until_it_is_interrupted(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[str] = []

    def interrupted(self: ThreadingHTTPServer) -> None:
        served.append(str(self.server_address[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    done = call("explore", load_of(tmp_path, 2), *SERVER)
    assert (done.code, done.err, served) == (130, "", ["127.0.0.1"])
    assert done.out.startswith("http://127.0.0.1:")


def test_one_file_with_all_answers(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluid.explorer.grid.FACTOR_LEVELS", (1.0, 2.0))
    out = tmp_path / "page.html"
    done = call("explore", load_of(tmp_path, 1), *SERVER, "-o", out)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Wrote {out}, {out.stat().st_size / 1000:,.0f} kB: " + (
        "answers on a grid of settings.\n"
    )
    text = out.read_text(encoding="utf-8")
    known = json.loads(text.split('id="known">')[1].split("</script>")[0])
    assert len(known["grid"]["combinations"]) == 16
