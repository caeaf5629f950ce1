"""The parts around an engine: a real Prometheus, ``fluidwait watch``, and who reads the table."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RULES = Path(__file__).parents[2] / "docs" / "live" / "alerts.yml"


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def fetched(url: str) -> str:
    """What lies there; nothing where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children at once, as a machine that fails does."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(what: str, true: Callable[[], Any], within_s: float) -> Any:
    """Wait until something is true; returns it.

    Raises:
        AssertionError: It was not in time.
    """
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s:g} s: {what}")


@dataclass
class Prometheus:
    """A Prometheus that scrapes engine and ``watch`` once a second, with the repository's rules."""

    folder: Path
    engine_port: int
    watch_port: int
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for name, port in (("vllm", self.engine_port), ("fluidwait", self.watch_port))
        ]
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": jobs,
        }
        # JSON is YAML.
        (self.folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> subprocess.Popen[bytes]:
        """A new process on the data of the one before."""
        with (self.folder / "prometheus.log").open("ab") as log:
            return subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def series(self, query: str) -> list[dict[str, Any]]:
        """The series of a name or selector now."""
        text = fetched(f"{self.url}/api/v1/query?query={urllib.request.quote(query)}")
        return list(json.loads(text)["data"]["result"]) if text else []

    def rules(self) -> dict[str, str]:
        """Health of every rule."""
        groups = json.loads(fetched(f"{self.url}/api/v1/rules") or "{}")
        found = groups.get("data", {}).get("groups", [])
        return {rule["name"]: rule["health"] for group in found for rule in group["rules"]}


@dataclass
class Watch:
    """``fluidwait watch`` on a Prometheus."""

    folder: Path
    prometheus: Prometheus
    interval_s: float

    def start(self) -> subprocess.Popen[bytes]:
        """A new process."""
        # On two cores a new table would take the engine's, and be measured as the engine's own.
        told = ["nice", "-n", "19", sys.executable, "-u", "-m", "fluidwait", "watch"]
        told += ["--prometheus", self.prometheus.url, "--selector", '{job="vllm"}']
        told += ["--server", str(self.folder / "server.json"), "-o", str(self.table)]
        told += ["--interval-s", str(self.interval_s)]
        told += ["--listen", f"127.0.0.1:{self.prometheus.watch_port}"]
        with self.log.open("ab") as log:
            return subprocess.Popen(told, stdout=log, stderr=log, process_group=0)

    @property
    def table(self) -> Path:
        """That it keeps right."""
        return self.folder / "table.json"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / "watch.log"

    def page(self) -> dict[str, float]:
        """Its metrics, as ``name{label="value"}``."""
        text = fetched(f"http://127.0.0.1:{self.prometheus.watch_port}/metrics")
        found = re.findall(r"^(fluidwait_.+) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def status(self) -> str:
        """What its last look gave."""
        page = self.page()
        names = re.compile(r'fluidwait_status\{status="(.+)"\}')
        return next((m[1] for key in page if (m := names.fullmatch(key)) and page[key] == 1), "")

    def factors(self) -> dict[str, float]:
        """Learned coefficients ÷ the server file's."""
        part = re.compile(r'fluidwait_server_factor\{part="(.+)"\}')
        return {m[1]: one for key, one in self.page().items() if (m := part.fullmatch(key))}

    def windows(self) -> list[dict[str, Any]]:
        """What its page at ``/`` draws."""
        address = f"http://127.0.0.1:{self.prometheus.watch_port}/history.json"
        return list(json.loads(fetched(address) or "[]"))


class TableReader:
    """A thread that reads a table file a hundred times a second and keeps every text it finds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: list[tuple[float, str]] = []
        self.broken: list[str] = []
        self.reads = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            try:
                text = self.path.read_text(encoding="utf-8")
                if not self.texts or text != self.texts[-1][1]:
                    json.loads(text)
                    self.texts.append((time.monotonic(), text))
            except (OSError, ValueError) as error:
                self.broken.append(str(error))
            self.reads += 1
