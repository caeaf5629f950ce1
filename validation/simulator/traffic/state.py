"""What is kept of the clients behind the requests, where they react to the server."""

from __future__ import annotations

import numpy as np

CLIENT = np.dtype(
    [
        ("draw", "i8"),  # number under which its random numbers are drawn
        ("queue", "i8"),  # in which the request waits; -1: in none
        ("admitted", "i8"),  # number of its last admission
        ("prompt_tokens", "i8"),  # to be computed
        ("gives_up_at_s", "f8"),  # unless its first token has come; inf: never
        ("left_at_s", "f8"),  # when it was refused or gave up; NaN: neither
        ("start_s", "f8"),  # row i: when the i-th conversation begins, and as which shape
        ("start_shape", "i8"),
        ("leaver", "i8"),  # row i: the request at position i of the heap of those that may give up
    ]
)
"""The client of a request, in the order of the requests."""

TRAFFIC = (
    ("clients", "i8"),  # of a closed loop; 0: arrivals do not depend on the server
    ("think_s", "f8"),  # mean time between an answer and the client's next request
    ("think_random", "i8"),  # 1: exponential
    ("queue_requests", "i8"),  # a request that finds so many waiting is refused
    ("queue_tokens", "i8"),  # the same in prompt tokens
    ("patience_s", "f8"),  # mean time for the first token to come; 0: clients never give up
    ("patience_cv", "f8"),  # 0: always the same
    ("at_a_rate", "i8"),  # 0: clients, or a job that comes at once
    ("listed", "i8"),  # 1: the lengths of the requests are recorded, in order of arrival
    ("whole_run", "i8"),  # 1: a finite job, measured from its first arrival to its last end
    ("output_law", "i8"),  # told, not read: the shapes have it; position in OUTPUT_LAWS, from 1
    ("output_variation", "f8"),
    ("reacts", "i8"),  # 1: `Lane.clients` has a row for each request
)
"""Fields of `model.CONSTANTS`: what the kernels read of a `Traffic`."""

UNLIMITED = np.iinfo(np.int64).max
"""Bound of a queue that is none."""
