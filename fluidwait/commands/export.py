"""``fluidwait export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluidwait import names
from fluidwait.console import note, show
from fluidwait.options import AsJson, TableFile, new_app, require_use

if TYPE_CHECKING:
    from thresholds.export.autoscaling.scalers import ScalingRules
    from thresholds.export.config import EngineConfig

app = new_app()

_SCALING = ["cold_start_s", "growth_per_min", "slo_rate_per_s", "on", "metrics_of"]
"""Options of autoscalers."""


@app.command()
def command(
    context: typer.Context,
    table: TableFile,
    to: Annotated[
        str,
        typer.Option(
            help="vllm, sglang, trtllm or env; as thresholds of an autoscaler: keda, hpa or "
            "prometheus-rules.",
            autocompletion=names.engines,
        ),
    ],
    flags_only: Annotated[
        bool,
        typer.Option("--flags-only", help="vllm: for an engine without our scheduler class."),
    ] = False,
    expired: Annotated[
        bool, typer.Option("--expired", help="Also where the table says that its time is over.")
    ] = False,
    cold_start_s: Annotated[
        float | None,
        typer.Option(help="Autoscalers: seconds until a new replica serves; needed."),
    ] = None,
    growth_per_min: Annotated[
        float, typer.Option(help="Autoscalers: share by which the load grows in a minute at most.")
    ] = 0.05,
    slo_rate_per_s: Annotated[
        float | None,
        typer.Option(help="Autoscalers: what a replica carries, in place of the table's slo-rate."),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="Autoscalers: requests, waiting-tokens, token-rate or kv-usage; repeat for more. "
            "All that make sense if none."
        ),
    ] = None,
    metrics_of: Annotated[
        str, typer.Option(help="Autoscalers: whose metrics are read, vllm or sglang.")
    ] = "vllm",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", writable=True, help="Write it here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A table as settings of an engine or autoscaler, with reasons."""
    from datetime import date

    from fluid.errors import InputError, not_a_name
    from fluid.files import write_text
    from thresholds.export.autoscaling.scalers import SCALERS
    from thresholds.export.engines import ENGINES
    from thresholds.integrity import expiry
    from thresholds.table import ThresholdTable

    if to not in ENGINES and to not in SCALERS:
        raise not_a_name("to", to, (*ENGINES, *SCALERS))
    read = ThresholdTable.read(table)
    why = expiry(read, date.today())
    if expired and why is None:
        raise InputError("expired", True, "only for a table whose time is over")
    if why is not None and not expired:
        raise InputError("valid_for.until", why, "a later date, or --expired", str(table))
    config: EngineConfig | ScalingRules
    if to in ENGINES:
        require_use(context, _SCALING, "only with --to " + ", ".join(SCALERS))
        config = ENGINES[to].configure(read, str(table.resolve()), flags_only=flags_only)
    else:
        require_use(context, ["flags_only"], "only for an engine")
        if cold_start_s is None:
            raise InputError("--cold-start-s", None, "seconds until a new replica serves")
        config = SCALERS[to].rules(
            read,
            cold_start_s,
            growth_per_min,
            on=on or (),
            metrics_of=metrics_of,
            slo_rate_per_s=slo_rate_per_s,
        )
    if out:
        write_text(out, config.text)
    if as_json or not out:
        show(config, as_json)
    else:
        note(f"Wrote {out}.")
