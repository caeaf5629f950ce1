"""vLLM's queue by priority, from which a request can be taken wherever it stands.

The table may let in a request that is not the first, or hold back the first. In vLLM's own heap
that one has to be looked for among all that wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from vllm.v1.core.sched.request_queue import PriorityRequestQueue
from vllm.v1.request import Request

# vLLM's classes carry no types here.
# mypy: disable-error-code="misc, no-any-return"


class IndexedPriorityQueue(PriorityRequestQueue):
    """The same order; removals stay in the heap until they come to its front."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: set[Request] = set()
        self._removed: set[Request] = set()

    def add_request(self, request: Request) -> None:
        """Into its place; one that was removed and still is in the heap has kept it."""
        if request in self._removed:
            self._removed.remove(request)
        else:
            super().add_request(request)
        self._waiting.add(request)

    def pop_request(self) -> Request:
        """The first of them.

        Raises:
            IndexError: There is none.
        """
        request = super().pop_request()
        self._waiting.remove(request)
        self._bring_forward()
        return request

    def remove_request(self, request: Request) -> None:
        """Take out one, wherever it stands."""
        self.remove_requests((request,))

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Take out those of them that wait here."""
        leaving = self._waiting.intersection(requests)
        self._waiting -= leaving
        self._removed |= leaving
        self._bring_forward()
        if len(self._removed) > len(self._waiting):
            self._heap = list(self._waiting)
            heapq.heapify(self._heap)
            self._removed.clear()

    def _bring_forward(self) -> None:
        """Let the first in the heap be one that waits."""
        while self._heap and self._heap[0] in self._removed:
            self._removed.remove(heapq.heappop(self._heap))

    def __contains__(self, request: object) -> bool:
        return request in self._waiting

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return iter(sorted(self._waiting))
