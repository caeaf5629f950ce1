"""The published schemas of autoscalers' files, shortened to what is written, and closed.

From the CustomResourceDefinition of KEDA 2.17 (`scaledobjects.keda.sh`, v1alpha1), the OpenAPI of
Kubernetes 1.33 (`io.k8s.api.autoscaling.v2`) and Prometheus 3's documentation of rule files. The
metadata of a KEDA trigger are strings there, whatever they mean.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string", "minLength": 1}
DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
METRIC_NAME = {"type": "string", "pattern": r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"}
QUANTITY = {
    "type": "string",
    "pattern": r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


def whole(least: int, most: int = 2**31 - 1) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


_BEHAVIOR = closed(
    {},
    scaleUp=closed({}, stabilizationWindowSeconds=whole(0, 3600)),
    scaleDown=closed(
        {},
        stabilizationWindowSeconds=whole(0, 3600),
        policies=listed(
            closed(
                {
                    "type": {"enum": ["Pods", "Percent"]},
                    "value": whole(1),
                    "periodSeconds": whole(1, 1800),
                }
            )
        ),
    ),
)

_KEDA = closed(
    {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": closed({"name": NAME}),
        "spec": closed(
            {
                "scaleTargetRef": closed({"name": TEXT}),
                "triggers": listed(
                    closed(
                        {
                            "type": {"const": "prometheus"},
                            "metadata": closed(
                                {"serverAddress": TEXT, "query": TEXT, "threshold": QUANTITY}
                            ),
                        },
                        name=TEXT,
                        metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                    )
                ),
            },
            minReplicaCount=whole(0),
            maxReplicaCount=whole(1),
            pollingInterval=whole(1),
            cooldownPeriod=whole(0),
            advanced=closed({}, horizontalPodAutoscalerConfig=closed({}, behavior=_BEHAVIOR)),
        ),
    }
)

_HPA = closed(
    {
        "apiVersion": {"const": "autoscaling/v2"},
        "kind": {"const": "HorizontalPodAutoscaler"},
        "metadata": closed({"name": NAME}),
        "spec": closed(
            {
                "scaleTargetRef": closed({"kind": TEXT, "name": TEXT}, apiVersion=TEXT),
                "maxReplicas": whole(1),
            },
            minReplicas=whole(1),
            behavior=_BEHAVIOR,
            metrics=listed(
                closed(
                    {
                        "type": {"const": "External"},
                        "external": closed(
                            {
                                "metric": closed({"name": TEXT}),
                                "target": closed(
                                    {"type": {"const": "AverageValue"}, "averageValue": QUANTITY}
                                ),
                            }
                        ),
                    }
                )
            ),
        ),
    }
)

_RULES = closed(
    {
        "groups": listed(
            closed(
                {
                    "name": TEXT,
                    "rules": listed(
                        {
                            "oneOf": [
                                closed({"record": METRIC_NAME, "expr": TEXT}),
                                closed(
                                    {"alert": TEXT, "expr": TEXT},
                                    **{"for": DURATION},
                                    labels={
                                        "type": "object",
                                        "additionalProperties": {"type": "string"},
                                    },
                                    annotations={
                                        "type": "object",
                                        "additionalProperties": {"type": "string"},
                                    },
                                ),
                            ]
                        }
                    ),
                },
                interval=DURATION,
            )
        )
    }
)

SCALER_SCHEMAS = {"keda": _KEDA, "hpa": _HPA, "prometheus-rules": _RULES}
"""By the name that `export --to` takes."""
