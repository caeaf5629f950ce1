"""The explorer's page on loopback, which asks for every figure as its sliders move."""

from __future__ import annotations

import json
import threading
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from fluid.answering import Answering
from fluid.errors import InputError
from fluid.explorer.page import page
from fluid.explorer.state import Explorer

HOST = "127.0.0.1"


def explorer_server(explorer: Explorer, port: int = 0) -> ThreadingHTTPServer:
    """A server of the page at ``/``, not yet running; its `server_port` says where.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: It is no port, or is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError("port", port, "0 to 65535; 0 is any that is free")
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(explorer))
    except OSError as error:
        raise InputError("port", f"{port} ({error.strerror})", "one that is free") from None
    server.daemon_threads = True
    return server


def _handler(explorer: Explorer) -> type[Answering]:
    text = page(explorer).encode()
    one_at_a_time = threading.Lock()

    class Handler(Answering):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if asked.path == "/":
                self.answer("text/html; charset=utf-8", text)
            elif asked.path == "/answer":
                self.answer("application/json", *self._document(asked.query))
            else:
                self.send_error(404)

        def _document(self, query: str) -> tuple[bytes, int]:
            try:
                question = json.loads(parse_qs(query).get("question", ["null"])[0])
                with one_at_a_time:
                    code, found = 200, explorer.answer(question)
            except (ValueError, TypeError) as error:  # no JSON, or no question: InputError is one
                code, found = 400, {"refusal": str(error)}
            return json.dumps(found, allow_nan=False).encode(), code

    return Handler
