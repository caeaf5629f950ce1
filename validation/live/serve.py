"""What `watch` knows as a metrics page of its own, and as a page for people."""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import ThreadingHTTPServer
from importlib import resources

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from fluid.answering import Answering
from fluid.errors import InputError
from validation.live.speed import PARTS
from validation.live.step import Step

HISTORY_S = 3600.0
STATUSES = ("waiting", "learning", "unchanged", "written", "would write", "kept", "trouble")


class Shown:
    """The last step as metrics, and those of the last hour as points."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.history: deque[dict[str, float | None]] = deque()

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"fluidwait_{name}", help, labels, registry=registry)

        self._max_scale = gauge("max_scale", "Largest stable multiple of the load, α*")
        self._margin = gauge("margin", "Share of the boundary load that is free, 1 − 1/α*")
        self._binding = gauge("binding", "1 for what binds at the boundary", "cause")
        self._rate = gauge("rate_per_second", "Arrivals per engine, and 95 % interval", "end")
        self._tpot = gauge("tpot_seconds", "Mean time between output tokens", "kind")
        self._ttft = gauge("ttft_seconds", "Mean time to the first token", "kind")
        self._error = gauge("tpot_error", "Predicted ÷ measured time between tokens − 1")
        self._factor = gauge("server_factor", "Learned coefficient ÷ the server file's", "part")
        self._replicas = gauge("replicas", "Servers that carry the load with room to spare")
        self._status = gauge("status", "1 for what the last look at the metrics gave", "status")
        self._seen = gauge("last_window_timestamp_seconds", "When the last window ended")
        self._tables = Counter("fluidwait_tables", "Tables written", registry=registry)

    def show(self, step: Step) -> None:
        """Take over a step."""
        for one in STATUSES:
            self._status.labels(one).set(one == step.status)
        if step.status == "written":
            self._tables.inc()
        if step.seen is None:
            return
        self._seen.set(step.at_s)
        measured_s, predicted_s = step.seen.tpot_s, step.predicted_tpot_s
        _set(self._tpot.labels("measured"), measured_s)
        _set(self._tpot.labels("predicted"), predicted_s)
        _set(self._ttft.labels("measured"), step.seen.ttft_s)
        _set(self._ttft.labels("predicted"), step.prediction.ttft_s if step.prediction else None)
        if measured_s and predicted_s:
            self._error.set(predicted_s / measured_s - 1)
        if step.speed is not None:
            for part, factor in zip(PARTS, step.speed.factors, strict=True):
                self._factor.labels(part).set(factor)
        if step.load is not None:
            rate = step.load.rate_per_s
            for end in ("value", "low", "high"):
                self._rate.labels(end).set(getattr(rate, end))
        margin = None
        if step.answer is not None:
            found = step.answer.stability
            margin = found.margin
            self._max_scale.set(found.max_scale)
            self._margin.set(margin)
            for cause in ("compute", "memory", "max_num_batched_tokens", "max_num_seqs"):
                self._binding.labels(cause).set(cause == found.binding)
            _set(self._replicas, step.replicas)
        self.history.append(
            {
                "at_s": step.at_s,
                "margin": margin,
                "rate_per_s": step.load.rate_per_s.value if step.load else None,
                "measured_tpot_s": measured_s,
                "predicted_tpot_s": predicted_s,
            }
        )
        while step.at_s - (self.history[0]["at_s"] or 0.0) > HISTORY_S:
            self.history.popleft()


def _set(gauge: Gauge, value: float | None) -> None:
    """A figure that does not exist is not a number."""
    gauge.set(float("nan") if value is None else value)


def serve(shown: Shown, listen: str) -> ThreadingHTTPServer:
    """Serve ``/metrics``, ``/history.json`` and ``/`` from a thread until `shutdown`.

    Args:
        listen: ``HOST:PORT``; port 0 for any that is free.

    Raises:
        InputError: It is no address, or is taken.
    """
    host, _, port = listen.rpartition(":")
    allowed = "HOST:PORT, as 127.0.0.1:9464, that is free"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError("listen", listen, allowed)
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), _handler(shown))
    except OSError as error:
        raise InputError("listen", f"{listen} ({error.strerror})", allowed) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _handler(shown: Shown) -> type[Answering]:
    page = resources.files("validation.live").joinpath("page.html").read_bytes()

    class Handler(Answering):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self.answer(CONTENT_TYPE_LATEST, generate_latest(shown.registry))
            elif path == "/history.json":
                text = json.dumps(list(shown.history))
                self.answer("application/json", text.encode())
            elif path == "/":
                self.answer("text/html; charset=utf-8", page)
            else:
                self.send_error(404)

    return Handler
