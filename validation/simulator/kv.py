"""KV memory in whole blocks."""

from __future__ import annotations

from validation.simulator.compiling import inlined

# mypy: disable-error-code="no-untyped-def"


@inlined
def block_rounded(model, tokens):
    """KV tokens occupied by a request that holds `tokens`."""
    block = model.constants[0].block_tokens
    if block == 1:
        return tokens
    return (tokens + block - 1) // block * block
