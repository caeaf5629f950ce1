"""Iteration times from measured tables of single operations (aiconfigurator-core, Apache-2.0).

The package sums the measured times of the operations of a forward pass. Only its documented facade
is used, `RustForwardPassPerfModel.from_native`, beside the per-operation lists of its engine for
where the times come from. What it does silently is refused or told here: unknown names go to a
hub, keys that it does not know are ignored, FP8 checkpoints get an FP8 cache, GPUs beyond a node
get numbers, and where attention is one operation with its projections a mixed batch leaves out
what the decodes read (`_Composed`).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import FluidwaitError, InputError, not_a_name
from validation.measure.composition import Floats
from validation.servers.gpus import ENGINES

PACKAGE = "aiconfigurator-core"
_INSTALL = "measured tables need: pip install 'fluidwait[estimate]'"

_ALIASES = {
    "meta-llama/Llama-3.1-8B": "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-70B-Instruct": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.3-70B-Instruct": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-405B-Instruct": "meta-llama/Meta-Llama-3.1-405B",
    "deepseek-ai/DeepSeek-V3-0324": "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.1": "deepseek-ai/DeepSeek-V3",
}
"""Models of the same shape as one whose config is bundled."""

_DTYPES = {"bf16": "bfloat16", "fp8": "fp8", "fp4": "nvfp4", "int4": "int4"}

_ORIGINS = {
    "silicon": "measured",
    "empirical": "estimated",
    "estimated": "estimated",
    "sol": "estimated",
    "mixed": "measured in part",
}
"""What the package says of an operation's time; anything else it borrows from elsewhere."""


@dataclass(frozen=True)
class Config:
    """A model's ``config.json``, and what the tables call the model.

    Attributes:
        name: As it was asked for.
        known_as: A bundled name or a folder.
        path: Of the config.
    """

    name: str
    known_as: str
    path: Path

    @property
    def note(self) -> str | None:
        """That another model's config stands in, where one does."""
        if self.name == self.known_as or Path(self.known_as).is_dir():
            return None
        return f"the config of {self.known_as} stands for {self.name}"


@dataclass(frozen=True)
class Deployment:
    """One engine on one tensor-parallel group.

    Attributes:
        weights: Numbers of the weights; None for the checkpoint's own.
        kv_dtype: Numbers of the cache.
        expert_parallel: GPUs among which whole experts are dealt out; the others share each one.
    """

    gpu: str
    engine: str
    tp: int
    weights: str | None
    kv_dtype: str
    expert_parallel: int = 1


def find_config(model: str) -> Config:
    """The config of a folder, of a bundled model by its name, or of one of the same shape.

    A name may leave out the owner, and case does not matter. Nothing is fetched.

    Raises:
        InputError: Neither, with the bundled names that are nearest.
        FluidwaitError: A name without the extra.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError("model", model, "a folder with a config.json")
        # Named by the folder's own name, so that no path of this machine gets into a file.
        return Config(folder.resolve().name, str(folder.resolve()), folder / "config.json")
    bundled = _bundled()
    known = {one.lower(): one for one in (*bundled, *_ALIASES)}
    known |= {one.split("/")[1].lower(): one for one in (*_ALIASES, *bundled)}
    found = known.get(model.lower())
    if found is None:
        near = difflib.get_close_matches(model.lower(), known, n=3, cutoff=0.4)
        names = ", ".join(sorted({known[one] for one in near})) or "none is near"
        allowed = f"a folder with a config.json, or one of {len(bundled)} bundled models: {names}"
        raise InputError("model", model, allowed)
    known_as = _ALIASES.get(found, found)
    return Config(found, known_as, bundled[known_as])


def _bundled() -> dict[str, Path]:
    """Configs inside the package, by name."""
    files = (_root() / "model_configs").glob("*_config.json")
    names = {one: one.name.removesuffix("_config.json") for one in files}
    return {
        name.replace("--", "/", 1): path
        for path, name in names.items()
        if not name.endswith("_hf_quant")
    }


def versions_of(gpu: str, engine: str) -> str | None:
    """The engine's version whose tables exist for a GPU; None without any."""
    slots = _module("aiconfigurator_core.sdk.perf_database").get_version_slots(gpu, engine)
    return None if slots is None else str(slots["current"])


def require_tables(gpu: str, engine: str) -> str:
    """The engine's version whose tables are used.

    Raises:
        InputError: An unknown engine, or a GPU without tables (names those that have some).
        FluidwaitError: The extra is not installed.
    """
    if engine not in ENGINES:
        raise not_a_name("engine", engine, ENGINES)
    found = versions_of(gpu, engine)
    if found is None:
        known = sorted(one.name for one in (_root() / "systems" / "data").iterdir())
        having = [one for one in known if versions_of(one, engine)]
        allowed = f"a GPU with tables for {engine}: {', '.join(having)}; or --method roofline"
        raise InputError("gpu", gpu, allowed)
    return found


class Tables:
    """The package's model of one deployment.

    Attributes:
        version: Of the engine whose tables these are.
        package_version: Of the package.
        warnings: What it said while loading that concerns this model.
        composed: Whether mixed batches had to be put together here, see `_composed`.
    """

    def __init__(self, config: Config, on: Deployment, uses: tuple[str, ...] = ()) -> None:
        self.version = require_tables(on.gpu, on.engine)
        self.package_version = importlib.metadata.version(PACKAGE)
        self._on, self._config = on, config
        fields = {
            "schema_version": 1,
            "model_name": config.known_as,
            "system_name": on.gpu,
            "backend": on.engine,
            "backend_version": self.version,
            "tp_size": on.tp,
            "pp_size": 1,
            "attention_dp_size": 1,
            "moe_tp_size": on.tp // on.expert_parallel,
            "moe_ep_size": on.expert_parallel,
            "kv_cache_dtype": _DTYPES[on.kv_dtype],
        }
        if on.kv_dtype == "bf16":
            # Otherwise attention of an FP8 checkpoint is asked for in FP8, on a cache that is not.
            fields |= {"activation_dtype": "bfloat16"}
        if on.weights is not None:
            fields |= {"weight_dtype": _DTYPES[on.weights], "moe_dtype": _DTYPES[on.weights]}
        facade = _module("aiconfigurator_core.sdk.rust_engine_step").RustForwardPassPerfModel
        with _collected() as said, _as_input_error(config, on):
            self._model = facade.from_native(fields)
            self._seconds(0, 0, 0, 1, 64), self._seconds(1, 64, 0, 0, 0)
        self.warnings = _relevant(said, uses)
        self.composed = self._mixed_leaves_out_decodes()

    def seconds(self, rows: Floats) -> Floats:
        """Times of batches, shape (N,).

        Args:
            rows: Prompts, their tokens, cached tokens of each, decodes, KV read; shape (N, 5).
        """
        with _as_input_error(self._config, self._on):
            found = np.array([self._seconds(*row) for row in rows.astype(int).tolist()])
            if not self.composed:
                return found
            prompts, _, _, decodes, kv_tokens = rows.T
            mixed = (prompts > 0) & (decodes > 0)
            for index in np.flatnonzero(mixed):
                count, kv = int(decodes[index]), int(kv_tokens[index])
                read_s = self._seconds(0, 0, 0, count, kv) - self._seconds(0, 0, 0, count, count)
                found[index] += max(read_s, 0.0)
        return found

    def _seconds(self, prompts: int, tokens: int, cached: int, decodes: int, kv: int) -> float:
        scheduled = {
            "num_prefill_requests": prompts,
            "sum_prefill_tokens": tokens,
            "sum_prefill_kv_tokens": prompts * cached,
            "num_decode_requests": decodes,
            "sum_decode_kv_tokens": kv,
        }
        found = self._model.estimate_forward_pass_time_ms({"scheduled_requests": scheduled})
        return float(found) / 1e3

    def _mixed_leaves_out_decodes(self) -> bool:
        """Whether what decodes read costs nothing as soon as there is a prompt."""
        short, long = (self._seconds(1, 256, 0, 32, 32 * one) for one in (64, 8192))
        alone = self._seconds(0, 0, 0, 32, 32 * 8192) - self._seconds(0, 0, 0, 32, 32 * 64)
        return long - short < 0.1 * alone

    def origins(self) -> dict[str, float]:
        """Shares of the time of a decode of 32 requests and a prompt of 2,048 tokens, by origin."""
        engine = _module("aiconfigurator_core.sdk.engine")
        on = self._on
        with _collected(), _as_input_error(self._config, on):
            handle = engine.EngineHandle(
                engine.compile_engine(
                    self._config.known_as,
                    on.gpu,
                    on.engine,
                    self.version,
                    tp_size=on.tp,
                    moe_tp_size=on.tp // on.expert_parallel,
                    moe_ep_size=on.expert_parallel,
                    kvcache_quant_mode=_DTYPES[on.kv_dtype],
                    fmha_quant_mode="bfloat16" if on.kv_dtype == "bf16" else None,
                    gemm_quant_mode=_modes(on.weights),
                    moe_quant_mode=_modes(on.weights),
                )
            )
            decode = handle.decode_step_per_op(32, 1024, 2)
            prompt, _ = handle.run_static_per_op(batch_size=1, isl=2048, osl=2, mode="static_ctx")
        found: Counter[str] = Counter()
        for phase in (decode, prompt):
            total = sum(one[1] for one in phase)
            for _, milliseconds, _, origin in phase:
                found[_ORIGINS.get(origin, "borrowed")] += milliseconds / total / 2
        return {name: share for name, share in found.most_common() if share >= 0.0005}

    @property
    def source(self) -> str:
        """Package, engine version and numbers, in words."""
        on = self._on
        weights = on.weights or "the checkpoint's own numbers"
        return (
            f"{PACKAGE} {self.package_version} (Apache-2.0), tables of {on.engine} "
            f"{self.version} on {on.gpu}, weights in {weights}, KV cache in {on.kv_dtype}"
        )


def _modes(weights: str | None) -> str | None:
    if weights is None:
        return None
    return {"int4": "int4_wo"}.get(weights, _DTYPES[weights])


def _relevant(said: list[str], uses: tuple[str, ...]) -> tuple[str, ...]:
    """Messages about tables of operations that the model has."""
    kinds = ("mla", "dsa", "moe", "msa", "gdn", "kda", "mamba", "mhc", "dsv4", "wideep")
    others = [one for one in kinds if one not in uses]
    found = []
    for message in said:
        table = message.partition("rows for ")[2].partition("_perf")[0]
        if table and not any(table.startswith(one) for one in others):
            found.append(f"fallback rows for {table}")
    return tuple(dict.fromkeys(found))


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _collected() -> Iterator[list[str]]:
    """Warnings of the package, kept from the terminal."""
    logger, handler = logging.getLogger("aiconfigurator_core"), _Collector()
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


@contextmanager
def _as_input_error(config: Config, on: Deployment) -> Iterator[None]:
    """The package's own refusals as one line of input error."""
    try:
        yield
    except (ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split("/")[0].split())[:160].rstrip(" ,.:;")
        allowed = (
            f"a combination that the tables of {on.engine} on {on.gpu} hold ({reason}); "
            "or --method roofline"
        )
        raise InputError("model", config.name, allowed) from None


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise FluidwaitError(_INSTALL) from None


def _root() -> Path:
    """Folder of the package."""
    return Path(str(_module("aiconfigurator_core").__file__)).parent
