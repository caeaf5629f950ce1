"""What the pages that this project serves on a machine of the user's have in common."""

from __future__ import annotations

from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any


class Answering(BaseHTTPRequestHandler):
    """Answers whole documents, and leaves the terminal alone."""

    def answer(self, kind: str, body: bytes, code: int = 200) -> None:
        """Send a document of this content type."""
        with suppress(ConnectionError):  # who asked may be gone
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for what the command has to say."""
