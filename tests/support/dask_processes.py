"""A Dask scheduler and its workers as processes of their own, to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from distributed import Client

ROOT = Path(__file__).resolve().parents[2]

PATIENCE_S = 60.0


class DaskProcesses:
    """``dask scheduler`` and ``dask worker`` on loopback; a context manager that ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._about = folder / "scheduler.json"
        self._background = ThreadPoolExecutor(1)
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_for(lambda: self._about.exists() and self._about.read_text().endswith("}"))
        self.address: str = json.loads(self._about.read_text())["address"]
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._background.shutdown()
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
        for process in (*self.workers.values(), self.scheduler):
            process.wait()

    def start_worker(self, name: str, *options: str) -> None:
        """Start a worker with one thread, without the nanny that would start it anew."""
        self.workers[name] = self._start(
            *("worker", "--name", name, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"),
            *options,
        )

    def start_workers(self, *names: str, options: Sequence[str] = ()) -> Self:
        """Start workers and wait until all have joined."""
        for name in names:
            self.start_worker(name, *options)
        with self.client() as client:
            client.wait_for_workers(len(self.workers), timeout=PATIENCE_S)
        return self

    def client(self) -> Client:
        """A second client, to look at the scheduler while a sweep runs."""
        return Client(self.address, timeout=PATIENCE_S, set_as_default=False)

    def kill_worker(self, name: str) -> None:
        """Kill a worker."""
        process = self.workers.pop(name)
        process.kill()
        process.wait()

    def kill_busy_worker(self, name: str) -> Future[int]:
        """Stop a worker now, kill it once it holds tasks that it cannot finish any more.

        Returns at once, as the tasks may be yet to come; the result is their number.
        """
        self.workers[name].send_signal(signal.SIGSTOP)
        return self._background.submit(self._kill_when_busy, name)

    def _kill_when_busy(self, name: str) -> int:
        with self.client() as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            address = next(key for key, one in workers.items() if one["name"] == name)
            wait_for(lambda: bool(client.processing()[address]))
            held = len(client.processing()[address])
            self.kill_worker(name)
        return held

    def kill_scheduler(self) -> None:
        """Kill the scheduler."""
        self.scheduler.kill()
        self.scheduler.wait()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self._folder / "dask.log").open("ab")
        with log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "dask", *command),
                    *("--scheduler-file", str(self._about), "--no-dashboard"),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self.environment,
            )


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fails after a minute."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
