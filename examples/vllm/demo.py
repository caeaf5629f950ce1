"""A real vLLM server that follows a threshold table, on this machine's CPU: ``make demo-vllm``.

Makes a tiny Llama without weights and a tokenizer, solves a table for it, starts vLLM's OpenAI
server on loopback with the plug-in, sends requests with the `openai` client, and shows from vLLM's
own metrics and the plug-in's log that no more were in service than the table allows.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from thresholds.solvers.paced.solver import Paced

BLOCKS, BLOCK = 64, 32
PROMPT, OUTPUTS = 64, 128
REQUESTS = 40
READY_S = 300
WORDS = 256


def write_model(folder: Path) -> None:
    """A Llama of one layer, head size 64, and a tokenizer of one token per word."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": WORDS,
        "max_position_embeddings": 1024,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    words = {"<s>": 0, "</s>": 1, "<unk>": 2} | {f"w{k}": k for k in range(3, WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    kind |= {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    (folder / "config.json").write_text(json.dumps(config))


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


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    settings = {"fluidwait": {"table": str(folder / "table.json"), "log_every_s": 1.0}}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--served-model-name", "tiny", "--load-format", "dummy"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "512", "--block-size", str(BLOCK), "--enforce-eager"]
    command += ["--num-gpu-blocks-override", str(BLOCKS), "--no-enable-prefix-caching"]
    command += ["--scheduler-cls", "thresholds.export.vllm_scheduler.AsyncTableScheduler"]
    command += ["--additional-config", json.dumps(settings)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    log = (folder / "server.log").open("wb")
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if server.poll() is not None:
            raise SystemExit(f"the server stopped; see {log}:\n{log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
        except OSError:
            time.sleep(1)
        else:
            return
    raise SystemExit(f"the server was not ready after {READY_S} s; see {log}")


def running_now(port: int) -> float:
    """Requests in service, from vLLM's own metrics."""
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return sum(float(x) for x in re.findall(r"^vllm:num_requests_running{.*} (\S+)$", page, re.M))


def send(port: int) -> list[float]:
    """All requests at once; returns how many ran, twenty times a second."""
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    prompt = " ".join(f"w{3 + k}" for k in range(PROMPT))

    def one(_: int) -> Any:
        body = {"ignore_eos": True}
        return client.completions.create(
            model="tiny", prompt=prompt, max_tokens=OUTPUTS, extra_body=body
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
    started_s = time.monotonic()
    server = start_server(folder, port)
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
