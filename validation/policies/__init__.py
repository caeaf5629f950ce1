"""The registry of scheduling policies. A new one is a new file and a line here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fluid.errors import InputError, not_a_name
from thresholds.labels import policy_label
from validation.policies.a_min import A_MIN
from validation.policies.authors import NESTED_AUTHORS, WAIT_AUTHORS
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
    WAIT_AUTHORS,
    NESTED_AUTHORS,
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

POLICIES: dict[str, Policy] = {one.name: one for one in _ALL}
"""Every scheduling rule of the simulator, by name.

>>> import fluidwait as fw
>>> sorted(fw.POLICIES)[:3]
['a-min', 'dai', 'flow-control']
>>> fw.POLICIES["greedy"].summary
'admit in order while the prompt fits; cap, pace and watermark restrain it'
"""

PolicyLike = ConfiguredPolicy | str
"""A policy with its parameters, or text that `parse_policy` reads."""


def policy(
    name: str,
    /,
    *,
    thresholds: Sequence[int] = (),
    cuts: Sequence[int] = (),
    **values: float | str,
) -> ConfiguredPolicy:
    """A scheduling rule with its parameters; those not named keep their defaults.

    Args:
        name: A name in `POLICIES`.
        thresholds: Requests, one per class or segment, where the rule needs them.
        cuts: Output length in tokens at which each segment ends, ascending.
        values: Parameters by name: numbers, or words where the parameter has choices.

    Raises:
        InputError: Unknown policy or parameter (lists what exists), or a value out of range.

    >>> import fluidwait as fw
    >>> fw.policy("greedy", watermark=0.01, cap=90).label
    'greedy:watermark=0.01,cap=90'
    """
    return _rule(name).configure(values, tuple(thresholds), tuple(cuts))


def parse_policy(text: str) -> ConfiguredPolicy:
    """Read ``NAME[:key=value,…]``: ``greedy:watermark=0.05,cap=90``, ``wait:thresholds=3/1``.

    Raises:
        InputError: Unknown policy or parameter, or a value out of range.

    >>> import fluidwait as fw
    >>> fw.parse_policy("greedy:watermark=0.050").params
    {'watermark': 0.05}
    """
    name, _, rest = text.partition(":")
    rule = _rule(name)
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
    return rule.configure(values, **tables)


def configured(
    policies: PolicyLike | Iterable[PolicyLike], least: int = 1
) -> list[ConfiguredPolicy]:
    """Policies as users give them, one or several, text among them.

    Raises:
        InputError: As `parse_policy`, or fewer than `least`.
    """
    given = [policies] if isinstance(policies, str | ConfiguredPolicy) else policies
    found = [parse_policy(one) if isinstance(one, str) else one for one in given]
    if len(found) < least:
        raise InputError("policies", len(found), f"at least {least}")
    return found


def _rule(name: str) -> Policy:
    if name not in POLICIES:
        raise not_a_name("policy", name, POLICIES)
    return POLICIES[name]


def _integers(name: str, key: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split("/"))
    except ValueError:
        raise InputError(f"policy {name}: {key}", text, "integers ≥ 1, as 3/1") from None


__all__ = ["POLICIES", "ConfiguredPolicy", "Policy", "PolicyLike"]
__all__ += ["configured", "parse_policy", "policy", "policy_label"]
