"""Requests to a running engine: Poisson arrivals whose rate and lengths change on the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from examples.vllm.tiny_engine import prompt

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Load:
    """What is sent: requests per second, and least and most tokens of outputs, all alike likely."""

    rate_per_s: float
    outputs: tuple[int, int]
    prompts: tuple[int, int] = (32, 96)

    @property
    def output_tokens(self) -> float:
        """Their mean."""
        return sum(self.outputs) / 2


@dataclass(frozen=True)
class Ended:
    """A request that ended; `wrong` says how, where it did not end with all of its tokens."""

    sent_s: float
    ended_s: float
    wrong: str | None


@dataclass
class Traffic:
    """A thread that sends requests, one after another and never waiting for an answer.

    Attributes:
        load: What is sent now; None for nothing.
        sent: How many were sent.
        ended: Those that were answered, or failed.
    """

    port: int
    load: Load | None = None
    seed: int = 0
    sent: int = 0
    ended: list[Ended] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Sent and not ended."""
        return self.sent - len(self.ended)

    def stop(self) -> None:
        """Send no more, and wait for those that are open."""
        self._stop.set()
        self._thread.join(2 * TIMEOUT_S)

    async def _run(self) -> None:
        rng = np.random.default_rng(self.seed)
        due_s = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            load = self.load
            if load is None:
                await asyncio.sleep(0.01)
                due_s = time.monotonic()
                continue
            due_s += rng.exponential(1 / load.rate_per_s)
            await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
            lengths = (
                int(rng.integers(*ends, endpoint=True)) for ends in (load.prompts, load.outputs)
            )
            self.sent += 1
            task = asyncio.create_task(self._one(*lengths))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _one(self, prompt_tokens: int, output_tokens: int) -> None:
        sent_s = time.monotonic()
        try:
            given = complete(self.port, prompt_tokens, output_tokens)
            tokens = await asyncio.wait_for(given, TIMEOUT_S)
            wrong = None if tokens == output_tokens else f"{tokens} tokens of {output_tokens}"
        except (OSError, EOFError, ValueError, LookupError) as error:
            wrong = f"{type(error).__name__}: {error}"
        self.ended.append(Ended(sent_s, time.monotonic(), wrong))


async def complete(port: int, prompt_tokens: int, output_tokens: int) -> int:
    """One completion; returns how many tokens came.

    Raises:
        ValueError: Another answer than that of a completion.
    """
    asked = {
        "model": "tiny",
        "prompt": prompt(prompt_tokens),
        "max_tokens": output_tokens,
        "ignore_eos": True,
    }
    body = json.dumps(asked).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    status, _, rest = answer.partition(b"\r\n")
    if b" 200 " not in status + b" ":
        raise ValueError(f"the engine said {status!r}")
    tokens: int = json.loads(rest.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"]
    return tokens
