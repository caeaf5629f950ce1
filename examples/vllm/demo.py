"""A real vLLM server that follows a threshold table, on this machine's CPU: ``make demo-vllm``.

Makes a tiny Llama without weights and a tokenizer, solves a table for it, starts vLLM's OpenAI
server on loopback with the plug-in, sends requests with the `openai` client, and shows from vLLM's
own metrics and the plug-in's log that no more were in service than the table allows.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI

from examples.vllm.tiny_engine import (
    BLOCK,
    BLOCKS,
    prompt,
    start_engine,
    wait_until_ready,
    write_model,
)
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from thresholds.solvers.paced.solver import Paced

PROMPT, OUTPUTS = 64, 128
REQUESTS = 40


def write_demo_table(path: Path) -> None:
    """Thresholds for this server under requests of one kind."""
    server = Server(
        name="demo-cpu",
        source="demonstration: an iteration time of this order on a CPU, not measured",
        kv_capacity_tokens=BLOCKS * BLOCK,
        block_tokens=BLOCK,
        iteration_time=IterationTime.affine(5e-3, 1e-4, 1e-6),
    )
    kind = RequestClass(name="demo", rate_per_s=1.0, prefill_tokens=PROMPT, decode_tokens=OUTPUTS)
    Paced().solve(Workload(name="demo", classes=(kind,)), server).write(path)


def running_now(port: int) -> float:
    """Requests in service, from vLLM's own metrics."""
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return sum(float(x) for x in re.findall(r"^vllm:num_requests_running{.*} (\S+)$", page, re.M))


def send(port: int) -> list[float]:
    """All requests at once; returns how many ran, twenty times a second."""
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    text = prompt(PROMPT)

    def one(_: int) -> Any:
        body = {"ignore_eos": True}
        return client.completions.create(
            model="tiny", prompt=text, max_tokens=OUTPUTS, extra_body=body
        )

    seen = []
    with ThreadPoolExecutor(REQUESTS) as pool:
        coming = [pool.submit(one, number) for number in range(REQUESTS)]
        while not all(each.done() for each in coming):
            seen.append(running_now(port))
            time.sleep(0.05)
        tokens = [each.result().usage.completion_tokens for each in coming]
    if tokens != [OUTPUTS] * REQUESTS:
        raise SystemExit(f"outputs of {sorted(set(tokens))} tokens, expected {OUTPUTS}")
    return seen


def main() -> None:
    folder = Path("demo-vllm").resolve()
    folder.mkdir(exist_ok=True)
    write_model(folder)
    write_demo_table(folder / "table.json")
    params = json.loads((folder / "table.json").read_text())["params"]
    print(f"table: {params}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    log.unlink(missing_ok=True)
    started_s = time.monotonic()
    server = start_engine(sys.executable, folder, port, log)
    try:
        wait_until_ready(server, port, log)
        print(f"server ready after {time.monotonic() - started_s:.0f} s")
        seen = send(port)
    finally:
        server.terminate()
        server.wait(timeout=60)
    print(f"{REQUESTS} requests at once: at most {max(seen):.0f} in service")
    require_followed(log, params, max(seen))


def require_followed(log: Path, params: dict[str, float], most_running: float) -> None:
    """Print the plug-in's counters, and stop if pace or cap was exceeded."""
    lines = [one for one in log.read_text().splitlines() if re.search("fluidwait(:| follows)", one)]
    print("\n".join(one[one.index("fluidwait") :] for one in lines))
    pace = params.get("pace_per_iteration", float("inf"))
    counts = re.findall(r"iterations=(\d+), admitted=(\d+)", "\n".join(lines))
    if not counts:
        raise SystemExit("the plug-in has logged no counters")
    for iterations, admitted in counts:
        # The credit starts at one; one more is allowed whenever nothing runs, as at the start.
        if int(admitted) > 2 + pace * int(iterations):
            raise SystemExit(f"{admitted} admitted in {iterations} iterations at a pace of {pace}")
    if most_running > params.get("cap_requests", float("inf")):
        raise SystemExit(f"more in service than the table's {params['cap_requests']}")
    print("Admission followed the table.")


if __name__ == "__main__":
    main()
