"""The registry of scheduling policies. A new one is a new file and a line here."""

from __future__ import annotations

from fluid.errors import InputError
from thresholds.labels import policy_label
from validation.policies.a_min import A_MIN
from validation.policies.flow_control import FLOW_CONTROL
from validation.policies.greedy import GREEDY
from validation.policies.known_lengths import MC_SF, SVF
from validation.policies.mixed import DAI, SLAI
from validation.policies.nested import NESTED_CAP, NESTED_WAIT
from validation.policies.sarathi import SARATHI
from validation.policies.vllm_v0 import VLLM_V0
from validation.policies.vllm_v1 import VLLM_V1
from validation.policies.wait import WAIT, WAIT_CAP
from validation.simulator.policy import ConfiguredPolicy, Policy

_ALL = (
    GREEDY,
    WAIT,
    WAIT_CAP,
    NESTED_WAIT,
    NESTED_CAP,
    VLLM_V1,
    VLLM_V0,
    SARATHI,
    MC_SF,
    SVF,
    A_MIN,
    FLOW_CONTROL,
    DAI,
    SLAI,
)

POLICIES: dict[str, Policy] = {policy.name: policy for policy in _ALL}


def parse_policy(text: str) -> ConfiguredPolicy:
    """Read ``NAME[:key=value,…]``: ``greedy:watermark=0.05,cap=90``, ``wait:thresholds=3/1``.

    Raises:
        InputError: Unknown policy or parameter, or a value out of range.
    """
    name, _, rest = text.partition(":")
    if name not in POLICIES:
        raise InputError("policy", name, "one of " + ", ".join(POLICIES))
    values: dict[str, float | str] = {}
    tables: dict[str, tuple[int, ...]] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"policy {name}", part, "parameters as key=value")
        if key in ("thresholds", "cuts"):
            tables[key] = _integers(name, key, value)
        else:
            values[key] = value
    return POLICIES[name].configure(values, **tables)


def _integers(policy: str, key: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"policy {policy}: {key}", text, "integers ≥ 1, as 3/1") from None


__all__ = ["POLICIES", "ConfiguredPolicy", "Policy", "parse_policy", "policy_label"]
