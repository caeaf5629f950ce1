"""vLLM's queue of waiting requests as one step sees it: only what the table lets in.

Nothing is moved: the queue stays as it is, and each time the scheduler looks at its front, the gate
says which request it finds there, if any. A step costs what it admits, however many wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request, RequestStatus

# vLLM's classes carry no types here.
# mypy: disable-error-code="misc, no-any-return"


def is_new(request: Request) -> bool:
    """Whether a waiting request would be admitted for the first time if the scheduler took it.

    One that still waits for its grammar, for KV from elsewhere or for more input would be passed
    over; as soon as the grammar is there, it is a new request like others.
    """
    if request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
        wanted = request.structured_output_request
        grammar = wanted.grammar if wanted else None
        return grammar is not None and not isinstance(grammar, Exception)
    return request.status == RequestStatus.WAITING


class GatedQueue(RequestQueue):
    """A queue in which the scheduler finds what `choose` names, in place of the queue's head.

    It is empty to the scheduler where `choose` names nobody, or one who waits in another queue; its
    length is that of the whole queue.
    `on_taken` hears of every request that the scheduler takes out, and whether it was new.
    """

    def __init__(
        self,
        queue: RequestQueue,
        choose: Callable[[RequestQueue], Request | None],
        on_taken: Callable[[Request, bool], None],
    ) -> None:
        self._queue = queue
        self._choose = choose
        self._on_taken = on_taken
        self._next: Request | None = None
        self._next_is_new = False

    def __bool__(self) -> bool:
        self._next = self._choose(self._queue) if self._queue else None
        if self._next is None or self._next not in self._queue:
            self._next = None
            return False
        self._next_is_new = is_new(self._next)
        return True

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._queue)

    def peek_request(self) -> Request:
        """The request that the gate lets in.

        Raises:
            IndexError: There is none.
        """
        if self._next is None and not self:
            raise IndexError("peek from a closed queue")
        return self._next

    def pop_request(self) -> Request:
        """Take it out of the queue, wherever it stands.

        Raises:
            IndexError: There is none.
        """
        request, self._next = self.peek_request(), None
        if request is self._queue.peek_request():
            self._queue.pop_request()
        else:
            self._queue.remove_request(request)
        self._on_taken(request, self._next_is_new)
        return request

    def add_request(self, request: Request) -> None:
        """As in the whole queue."""
        self._queue.add_request(request)

    def prepend_request(self, request: Request) -> None:
        """As in the whole queue."""
        self._queue.prepend_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """As in the whole queue."""
        self._queue.prepend_requests(requests)

    def remove_request(self, request: Request) -> None:
        """As in the whole queue."""
        self._queue.remove_request(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """As in the whole queue."""
        self._queue.remove_requests(requests)
