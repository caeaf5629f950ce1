"""The slow, obvious fluid loop: a list of cohorts and a list of parcels, everything summed anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fluid.server import Server
from fluid.stages import class_stages
from fluid.transient.admission import Admission
from fluid.transient.inflow import Burst, RateProfile
from fluid.workload import Workload


class Cohort:
    """What one iteration admitted: mass per class, and the stage that it passes next."""

    def __init__(self, mass: np.ndarray) -> None:
        self.mass, self.age = mass, 0


def slow_path(
    workload: Workload,
    server: Server,
    profile: RateProfile,
    bursts: Sequence[Burst],
    rule: Admission,
    iterations: int,
) -> list[tuple[float, float, float, float, float, float]]:
    """Time, waiting, residents, KV, completed, evicted at the start of each iteration."""
    stages = [class_stages(one, server) for one in workload.classes]
    tau, capacity = server.iteration_time, server.usable_kv_tokens
    cohorts: list[Cohort] = []  # oldest first
    queue: list[np.ndarray] = []
    clock, seen, credit, completed, evicted = 0.0, -1.0, 1.0, 0.0, 0.0
    rows = []

    def per_stage(cohort: Cohort, values: str) -> np.ndarray:
        return np.array([getattr(s, values)[min(cohort.age, s.count - 1)] for s in stages])

    def held() -> float:
        return sum(float(one.mass @ per_stage(one, "held_kv_tokens")) for one in cohorts)

    def resident() -> float:
        return sum(float(one.mass.sum()) for one in cohorts)

    for _ in range(iterations):
        events = sorted(
            [(one.time_s, 0, one.masses(workload)) for one in bursts if seen < one.time_s <= clock]
            + [(s, 1, np.zeros(len(stages))) for s in [*profile.starts_s, clock] if seen < s],
            key=lambda event: event[:2],
        )
        for at_s, _kind, mass in events:
            if at_s > clock:
                break
            queue += [profile.arrived(at_s) - profile.arrived(max(seen, 0.0)), mass]
            seen = at_s
        queue = [one for one in queue if one.sum() > 1e-13]
        while held() > capacity:
            last = cohorts[-1]
            weight = float(last.mass @ per_stage(last, "held_kv_tokens"))
            share = min(1.0, (held() - capacity) / weight)
            queue.insert(0, last.mass * share)
            evicted += last.mass.sum() * share
            last.mass = last.mass * (1 - share)
            if share == 1.0:
                cohorts.pop()
            else:
                break
        alone = not cohorts
        if queue or cohorts:
            credit = min(credit + rule.pace, 1 + rule.pace)
        cohorts.append(Cohort(np.zeros(len(stages))))
        new = cohorts[-1]
        while queue:
            head = queue[0]
            weight = head @ per_stage(new, "held_kv_tokens") / head.sum()
            room = (capacity * (1 - rule.watermark) - held()) / weight
            take = min(rule.cap - resident(), credit, room)
            if alone:
                take = max(take, 1 - new.mass.sum())
            take = min(take, head.sum())
            if take <= 1e-13:
                break
            new.mass = new.mass + head * take / head.sum()
            credit = max(credit - take, 0.0)
            queue[0] = head * (1 - take / head.sum())
            if queue[0].sum() <= 1e-13:
                queue.pop(0)
        rows.append(
            (clock, sum(float(q.sum()) for q in queue), resident(), held(), completed, evicted)
        )
        prompts = np.array([s.prefill_tokens for s in stages])
        decodes = kv = 0.0
        for one in cohorts:
            decoding = np.array([one.age > 0 or s.prefill_tokens == 0 for s in stages])
            decodes += float(one.mass @ decoding)
            kv += float(one.mass @ (decoding * per_stage(one, "kv_tokens")))
        prefill = float(new.mass @ prompts)
        composition = {
            "kv_tokens": kv,
            "prefill_tokens": prefill,
            "decode_requests": decodes,
            "prefill_tokens_sq": float(new.mass @ prompts**2),
        }
        idle = resident() <= 1e-13
        clock += tau.overhead_s if idle else float(tau(prefill + decodes, **composition))
        for one in cohorts:
            one.age += 1
            ends = np.array([one.age == s.count for s in stages])
            completed += float(one.mass @ ends)
            one.mass = one.mass * ~ends
        cohorts = [one for one in cohorts if one.mass.sum() > 0]
    return rows
