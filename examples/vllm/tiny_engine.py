"""A small real vLLM engine for a CPU: a Llama of one layer without weights, behind the OpenAI API.

For `demo.py` and ``make test-live``. Needs the standard library only: the Python that runs vLLM is
an argument.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

BLOCKS, BLOCK = 64, 32
WORDS = 256
READY_S = 300
LONGEST = 512


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
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    kind |= {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))


def prompt(tokens: int) -> str:
    """A prompt of so many tokens."""
    return " ".join(f"w{3 + k % (WORDS - 3)}" for k in range(tokens))


def start_engine(
    python: str, folder: Path, port: int, log: Path, blocks: int = BLOCKS
) -> subprocess.Popen[bytes]:
    """The server of the model in `folder`, which follows ``table.json`` there.

    It leads a process group of its own.

    Args:
        python: Of an environment with vLLM for CPUs and fluidwait.
        log: What it prints is appended here.
    """
    settings = {"fluidwait": {"table": str(folder / "table.json"), "log_every_s": 1.0}}
    command = [python, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--served-model-name", "tiny", "--load-format", "dummy"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", str(LONGEST), "--block-size", str(BLOCK), "--enforce-eager"]
    command += ["--num-gpu-blocks-override", str(blocks), "--no-enable-prefix-caching"]
    command += ["--scheduler-cls", "thresholds.export.vllm_scheduler.AsyncTableScheduler"]
    command += ["--additional-config", json.dumps(settings)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            command, stdout=stream, stderr=stream, env=environment, process_group=0
        )


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it answers.

    Raises:
        SystemExit: It stopped, or has not answered after `READY_S`.
    """
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if server.poll() is not None:
            raise SystemExit(f"the server stopped; see {log}:\n{log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"the server was not ready after {READY_S} s; see {log}")
