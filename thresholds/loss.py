"""What a table is worth before any simulation: the loss without it and with it (THEORY 11)."""

from __future__ import annotations

from fluid.cache.served import served
from fluid.transient.admission import Admission
from thresholds.fields import Loss
from thresholds.solvers.paced.rule import PacedRule
from thresholds.table import ThresholdTable

_OWN = "this table"


def with_loss(table: ThresholdTable) -> ThresholdTable:
    """The table with the predicted loss of its load; as it is where memory hardly binds.

    Its own loss is told of tables that restrain greedy admission, not of batching rules.
    """
    from fluid.transient.saturated import WATERMARK, predicted_loss  # numba is slow to import

    limits = table.limits
    restrains = table.policy == PacedRule.policy
    own = Admission(limits.watermark_fraction, limits.cap, limits.pace)
    found = predicted_loss(
        served(table.workload, table.server), table.server, {_OWN: own} if restrains else None
    )
    if found is None:
        return table
    shares = {one.name: one.lost_share for one in found.rules}
    plain, marked, *_ = found.rules
    loss = Loss(
        unrestrained_share=plain.lost_share,
        watermark_share=marked.lost_share,
        watermark_fraction=WATERMARK,
        table_share=shares.get(_OWN),
    )
    return table.model_copy(update={"loss": loss})
