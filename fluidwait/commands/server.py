"""``fluidwait server``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluid.errors import InputError
from fluidwait.console import print_json, say, show
from fluidwait.options import AsJson, new_app, require_use

app = new_app(help="Look at server descriptions, or estimate one.")


@app.callback(invoke_without_command=True)
def help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def server_list(
    model: Annotated[str | None, typer.Option(help="Part of a name, as llama.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Part of a name, as h100.")] = None,
    as_json: AsJson = False,
) -> None:
    """The built-in servers."""
    from fluid.server import ServerList

    show(ServerList.builtin(model, gpu), as_json)


@app.command("show")
def server_show(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="Name or file.")],
) -> None:
    """A server description as JSON, to copy and change."""
    from fluid.server import load_server

    print_json(load_server(server).document())


@app.command("estimate")
def server_estimate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL|FOLDER", help="Bundled model, or folder of config.json.")
    ],
    gpu: Annotated[str, typer.Option(help="Such as h100_sxm.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write the server here.")
    ] = None,
    engine: Annotated[str, typer.Option(help="vllm, sglang or trtllm.")] = "vllm",
    tp: Annotated[int, typer.Option(min=1, help="GPUs that share each layer.")] = 1,
    pp: Annotated[int, typer.Option(min=1, help="Stages of a pipeline; only 1.")] = 1,
    ep: Annotated[
        int, typer.Option(min=1, help="GPUs among which whole experts are dealt out.")
    ] = 1,
    attention_dp: Annotated[
        int, typer.Option("--attention-dp", min=1, help="Data-parallel attention; only 1.")
    ] = 1,
    speculative_tokens: Annotated[int, typer.Option(min=0, help="Drafted tokens; only 0.")] = 0,
    weights: Annotated[
        str | None, typer.Option(help="bf16, fp8, fp4 or int4, in place of the checkpoint's.")
    ] = None,
    kv_dtype: Annotated[str, typer.Option(help="Numbers of the KV cache: bf16 or fp8.")] = "bf16",
    memory: Annotated[
        float, typer.Option(help="Share of the memory that the engine may take.")
    ] = 0.9,
    kv_tokens: Annotated[
        int | None, typer.Option(min=1, help="KV tokens of the engine's log.")
    ] = None,
    batched_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens per iteration; else the engine's default.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(min=1, help="Requests at once; else the engine's default.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one request; else the model's.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="tables (measured) or roofline (data sheet).")
    ] = "tables",
    accept_fit: Annotated[
        bool, typer.Option("--accept-fit", help="Take a fit with p95 above 15 %.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the server.")] = None,
    as_json: AsJson = False,
) -> None:
    """Server file from a model's config, by measured tables or a data sheet."""
    from validation.servers.estimate import estimate_server

    _require_one_batch(pp, attention_dp, speculative_tokens)
    if kv_tokens:
        require_use(context, ["memory"], "nothing beside --kv-tokens: they are known")
    found = estimate_server(
        model,
        gpu=gpu,
        engine=engine,
        tp=tp,
        ep=ep,
        weights=weights,
        kv_dtype=kv_dtype,
        memory=memory,
        kv_tokens=kv_tokens,
        max_num_batched_tokens=batched_tokens,
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        method=method,
        accept_fit=accept_fit,
        name=name,
    )
    if out:
        found.write(out)
    show(found, as_json)
    if out and not as_json:
        say(f"Wrote {out}. Next: fluidwait equilibrium WORKLOAD --server {out}")


def _require_one_batch(pp: int, attention_dp: int, speculative_tokens: int) -> None:
    """Refuse what a server that runs one batch at a time, a token per decode, is not."""
    if pp > 1:
        allowed = "1: the batches of a pipeline overlap, a server here runs one at a time"
        raise InputError("--pp", pp, allowed)
    if attention_dp > 1:
        allowed = "1: its replicas batch apart and wait for each other, which is not modelled"
        raise InputError("--attention-dp", attention_dp, allowed)
    if speculative_tokens > 0:
        allowed = "0: a decode gives one token here, drafts would give several"
        raise InputError("--speculative-tokens", speculative_tokens, allowed)
