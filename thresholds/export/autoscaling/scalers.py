"""Registry of autoscalers that tables are exported to, and the YAML of each.

Field names are those of KEDA 2's ScaledObject (keda.sh/v1alpha1, scaler `prometheus`), Kubernetes'
HorizontalPodAutoscaler (autoscaling/v2) and Prometheus' rule files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from fluid.errors import InputError
from fluid.result import Block, Result, printable
from thresholds.export.autoscaling.triggers import GROWTH_PER_MIN, Load, Trigger, triggers
from thresholds.table import ThresholdTable

TOLERANCE = 0.1
"""Kubernetes adds a replica once a metric is so far above its threshold, KEDA through it."""

DOWN_S = 300
"""A replica is not taken away before the load was low for so long, or for a cold start."""

_PLACE = "MODEL-SERVER"
"""The Deployment; who applies it writes its name here."""


@dataclass(frozen=True, repr=False)
class ScalingRules(Result):
    """Thresholds in the words of one autoscaler; printed, it is the YAML that it reads.

    Attributes:
        triggers: With the thresholds that the autoscaler is told.
        not_expressible: Thresholds that were left out, and why.
        form: How it reads them.
    """

    scaler: str
    load: Load
    triggers: tuple[Trigger, ...]
    not_expressible: tuple[str, ...]
    form: Callable[[ScalingRules], dict[str, Any]] = field(compare=False)

    @property
    def text(self) -> str:
        """The file, with where each number comes from as comments."""
        reasons = [f"{one.name}: {one.reason}" for one in self.triggers]
        lost = [f"NOT expressible here: {one}" for one in self.not_expressible]
        said = [self.load.words, *reasons, *lost]
        lines = ["# " + printable(" ".join(one.split())) for one in said]
        body = yaml.safe_dump(self.form(self), sort_keys=False, width=1000, allow_unicode=True)
        return "\n".join(lines) + "\n" + body

    def blocks(self) -> Iterator[Block]:
        """The file as it is."""
        yield self.text.rstrip("\n")

    def document(self) -> dict[str, Any]:
        """Thresholds with their reasons, what is left out, and the YAML as data."""
        return {
            "scaler": self.scaler,
            "slo_rate_per_s": self.load.slo_rate_per_s,
            "target_per_s": self.load.target_per_s,
            "cold_start_s": self.load.cold_start_s,
            "growth_per_min": self.load.growth_per_min,
            "triggers": [asdict(one) for one in self.triggers],
            "not_expressible": list(self.not_expressible),
            "rules": self.form(self),
        }

    def frame(self) -> dict[str, list[Any]]:
        """One row per threshold."""
        names = ("name", "per_replica", "expression", "reason")
        return {name: [getattr(one, name) for one in self.triggers] for name in names}


def _keda(rules: ScalingRules) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "fluidwait"},
        "spec": {
            "scaleTargetRef": {"name": _PLACE},
            "minReplicaCount": 1,
            "pollingInterval": 15,
            "cooldownPeriod": _down_s(rules),
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(rules)}},
            "triggers": [
                {
                    "type": "prometheus",
                    "name": one.name.replace("_", "-"),
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": "http://prometheus:9090",
                        "query": one.expression,
                        "threshold": _decimal(_told(one)),
                    },
                }
                for one in rules.triggers
            ],
        },
    }


def _hpa(rules: ScalingRules) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "fluidwait"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": _PLACE},
            "minReplicas": 1,
            "maxReplicas": 10,
            "behavior": _behavior(rules),
            "metrics": [
                {
                    "type": "External",
                    "external": {
                        "metric": {"name": one.name},
                        "target": {"type": "AverageValue", "averageValue": _quantity(_told(one))},
                    },
                }
                for one in rules.triggers
            ],
        },
    }


def _prometheus(rules: ScalingRules) -> dict[str, Any]:
    recorded = [{"record": one.name, "expr": one.expression} for one in rules.triggers]
    alerts = [
        {
            "alert": "FluidwaitScaleOut",
            "expr": f"{one.name} / count(up{{job={_quoted(_PLACE)}}} == 1) "
            f"> {_decimal(one.per_replica)}",
            "for": "30s",
            "labels": {"severity": "warning", "metric": one.name},
            "annotations": {
                "summary": f"{one.name} is above {_decimal(one.per_replica)} a replica: add one",
                "description": one.reason,
            },
        }
        for one in rules.triggers
    ]
    return {"groups": [{"name": "fluidwait", "interval": "15s", "rules": [*recorded, *alerts]}]}


def _behavior(rules: ScalingRules) -> dict[str, Any]:
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0},
        "scaleDown": {
            "stabilizationWindowSeconds": _down_s(rules),
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _down_s(rules: ScalingRules) -> int:
    return min(max(DOWN_S, math.ceil(rules.load.cold_start_s)), 3600)


def _told(one: Trigger) -> float:
    """Below the threshold by the tolerance with which Kubernetes compares."""
    return one.per_replica / (1 + TOLERANCE)


def _decimal(value: float) -> str:
    """A number without an exponent, four digits or all whole ones."""
    digits = max(3 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"{value:.{digits}f}"


def _quantity(value: float) -> str:
    """A Kubernetes quantity, in thousandths where it is not whole; at least one of them."""
    thousandths = max(round(1000 * float(_decimal(value))), 1)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def _quoted(text: str) -> str:
    return f'"{text}"'


@dataclass(frozen=True)
class Scaler:
    """An autoscaler that tables are exported to."""

    name: str
    form: Callable[[ScalingRules], dict[str, Any]]

    def rules(
        self,
        table: ThresholdTable,
        cold_start_s: float,
        growth_per_min: float = GROWTH_PER_MIN,
        *,
        on: Sequence[str] = (),
        metrics_of: str = "vllm",
        slo_rate_per_s: float | None = None,
    ) -> ScalingRules:
        """Thresholds from which on another replica is started.

        Args:
            cold_start_s: From the decision until a new replica serves.
            growth_per_min: Share of the load by which it may grow in a minute.
            on: What thresholds are on (`thresholds.export.autoscaling.triggers.KINDS`).
            metrics_of: "vllm" or "sglang".
            slo_rate_per_s: In place of the table's.

        Raises:
            InputError: A table without an slo-rate, a value out of range, or a threshold that makes
                no sense: on KV usage where compute binds.
        """
        rate_per_s = table.predicted.slo_rate_per_s if slo_rate_per_s is None else slo_rate_per_s
        if rate_per_s is None:
            allowed = (
                "a table of `fluidwait plan`, or the rate that `capacity --query slo-rate` says"
            )
            raise InputError("predicted.slo_rate_per_s", None, allowed)
        load = Load(table, rate_per_s, cold_start_s, growth_per_min)
        return ScalingRules(self.name, load, *triggers(load, on, metrics_of), self.form)


SCALERS = {
    one.name: one
    for one in (
        Scaler("keda", _keda),
        Scaler("hpa", _hpa),
        Scaler("prometheus-rules", _prometheus),
    )
}
