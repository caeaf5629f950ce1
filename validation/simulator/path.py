"""Samples of the backlog as requests arrive, from which `validation.simulator.backlog` judges."""

from __future__ import annotations

from validation.simulator.compiling import kernel
from validation.simulator.decoders import active_slot, parked_done_work_s

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@kernel
def sample(model, lane):
    """Append to the path; when it is full, keep every other sample and double the stride."""
    scalars = lane.scalars[0]
    constants = model.constants[0]
    owed_work_s = scalars.arrived_work_s - scalars.done_work_s
    if scalars.aggregated:
        owed_work_s -= parked_done_work_s(model, scalars)
    for number in range(scalars.active if scalars.aggregated else scalars.residents):
        resident = lane.residents[active_slot(lane, number) if scalars.aggregated else number]
        if resident.left == 0:
            continue
        uncomputed, left = resident.known - resident.computed, resident.left
        whole_s = model.shapes[lane.requests[resident.request].shape].work_s
        owed_work_s -= whole_s - (
            uncomputed * constants.prefill_work_s
            + left * (constants.output_work_s + constants.kv_work_s * (resident.known + 0.5 * left))
        )
    row = lane.path[scalars.path_rows]
    row[0] = scalars.next_arrival
    row[1] = scalars.clock_s
    row[2] = scalars.residents + scalars.waiting
    row[3] = scalars.waiting
    row[4] = owed_work_s
    row[5] = scalars.arrived_work_s
    row[6] = scalars.lost_work_s
    row[7] = scalars.idle_s
    row[8] = scalars.spare_s
    row[9] = scalars.room_s
    row[10] = scalars.held_s
    scalars.path_rows += 1
    if scalars.path_rows == lane.path.shape[0]:
        scalars.path_rows //= 2
        scalars.path_stride *= 2
        for kept in range(scalars.path_rows):
            for column in range(lane.path.shape[1]):
                lane.path[kept, column] = lane.path[2 * kept + 1, column]
    scalars.path_next = scalars.next_arrival + scalars.path_stride
