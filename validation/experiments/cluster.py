"""Configurations of a sweep on Dask workers: on this machine or behind a running scheduler.

A task is one configuration, or as many short ones as fill half a second: the scheduler needs some
milliseconds for each task (`tests/benchmarks/cluster_sweep.py`). Dask gives the tasks of a lost
worker to another one. Results are a function of the configuration alone, so that it does not matter
which worker ran it, or how often, as long as all run the same code; each task checks that.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fluid.errors import ClusterError, FluidwaitError, InputError
from validation.experiments.rows import Configuration, run_one
from validation.experiments.simulate import PolicyResult
from validation.policies import POLICIES
from validation.simulator.compiling import source_digest
from validation.simulator.model import Model
from validation.simulator.runs import Runs

if TYPE_CHECKING:
    from distributed import Client, Future, Security

CONNECT_S = 4.0
"""Time that a scheduler has to answer."""

LOOPBACK = "127.0.0.1"
"""Where processes of this machine listen: nobody else's machine reaches them."""

TASK_S = 0.5
"""Short configurations are sent together until a task takes so long: what a lost worker costs."""

RETRIES = 3
"""Of a task that failed for another reason than bad input, on whichever worker."""

_MOST_TOGETHER = 200

_NO_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Ctrl-C reaches every process of a terminal; this one ends its workers in order."""


@dataclass(frozen=True)
class Order:
    """A configuration as it travels: the policy by name, its kernels are on the worker."""

    policy: str
    values: Mapping[str, float | str]
    thresholds: tuple[int, ...]
    cuts: tuple[int, ...]
    priorities: tuple[int, ...]
    rate_per_s: float
    runs: Runs

    def configuration(self) -> Configuration:
        """What was ordered."""
        policy = POLICIES[self.policy].configure(
            self.values, self.thresholds, self.cuts, self.priorities
        )
        return Configuration(policy, self.rate_per_s, self.runs)


@dataclass(frozen=True)
class Done:
    """What a task brings back: a result per order, and how long it took."""

    results: list[PolicyResult]
    took_s: float


@contextmanager
def cluster(address: str | None = None, workers: int | None = None) -> Iterator[Cluster]:
    """Connect to the scheduler at `address`, or start `workers` processes on this machine.

    Processes of this machine listen on loopback and talk TLS, with a key that is made for them and
    kept in memory: nobody else who finds the port is let in. At an address, the certificates of
    Dask's own configuration are used, if there are any.

    Raises:
        InputError: Dask is not installed, both or neither are given, or nobody answers.
    """
    needed = {"distributed": "Dask"} | ({} if address else {"cryptography": "cryptography"})
    for module, name in needed.items():
        if find_spec(module) is None:
            missing = f"{name}, which is not installed: pip install fluidwait[dask]"
            raise InputError("cluster" if address else "workers", address or workers, missing)
    if (address is None) == (workers is None):
        raise InputError("workers", workers, "a number, where no cluster is given")
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        from distributed import LocalCluster, Security

        security = Security()
        if address is None:
            security = Security.temporary()
            stack.enter_context(_without_pages())
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host=f"tls://{LOOPBACK}",
                security=security,
                # None takes the default port, which may not be free.
                dashboard_address=f"{LOOPBACK}:0",
                worker_dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.CRITICAL,
                preload=[_NO_INTERRUPTS],
            )
            address = str(stack.enter_context(local).scheduler_address)
        yield Cluster(stack.enter_context(_client(address, security)), address)


class Cluster:
    """Runs configurations on the workers of a scheduler: a `Runner`.

    Attributes:
        address: Of the scheduler.
    """

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self.address = address

    def threads(self) -> int:
        """Threads of all workers: tasks that run at the same time.

        Raises:
            ClusterError: The scheduler is gone.
        """
        try:
            return sum(self._client.nthreads().values())
        except OSError:
            raise self._lost() from None

    def __call__(
        self, model: Model, configurations: Sequence[Configuration]
    ) -> Iterator[tuple[int, PolicyResult]]:
        """Results as they come, with their positions.

        Raises:
            InputError: The same as `run_one`, a policy that is not in the registry, or workers with
                other software.
            ClusterError: The scheduler is gone, or a task took its workers down with it.
        """
        from distributed import as_completed

        orders = [_order(one) for one in configurations]
        held, task = self._hold(model), _task()
        finished = as_completed(loop=self._client.loop)
        positions: dict[Any, range] = {}
        together, sent = 1, 0

        def send() -> None:
            """Keep two tasks per thread under way; workers may come and go."""
            nonlocal sent
            while sent < len(orders) and len(positions) < 2 * max(1, self.threads()):
                batch = range(sent, min(sent + together, len(orders)))
                sent = batch.stop
                pickled = pickle.dumps(orders[batch.start : batch.stop])
                future = self._client.submit(
                    task, held, pickled, software(), pure=False, retries=RETRIES
                )
                positions[future.key] = batch
                finished.add(future)

        send()
        for future in finished:
            done = self._result(future)
            together = _number_together(done)
            yield from zip(positions.pop(future.key), done.results, strict=True)
            send()

    def _hold(self, model: Model) -> Future[bytes]:
        """The model on the workers, once.

        It is the result of a task, which Dask runs again where the workers that hold it are lost;
        data that a client scatters would be gone.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # a long tape, sent once
            return self._client.submit(_identity(), pickle.dumps(model), pure=False)

    def _result(self, future: Future[Any]) -> Done:
        from distributed import CancelledError, KilledWorker

        try:
            outcome = future.result()
        except CancelledError:
            raise self._lost() from None
        except KilledWorker as error:
            raise ClusterError(
                f"{error.allowed_failures + 1} workers died while they ran or awaited the same "
                "configuration: is there enough memory for it?"
            ) from None
        except ImportError as error:
            allowed = f"workers with the same fluidwait as here ({error})"
            raise InputError("cluster", self.address, allowed) from None
        if isinstance(outcome, FluidwaitError):
            raise outcome
        assert isinstance(outcome, Done)
        return outcome

    def _lost(self) -> ClusterError:
        return ClusterError(f"lost the scheduler at {self.address}")


def run_orders(model: bytes, orders: bytes, expected: Mapping[str, str]) -> Done | FluidwaitError:
    """Run configurations on a worker.

    An error that every worker would raise is returned, so that Dask does not try again.

    Args:
        model: A pickled `Model`.
        orders: A pickled list of `Order`.
        expected: The `software` that the results rely on.
    """
    start_s = time.perf_counter()
    try:
        _require_software(expected)
        results = [
            run_one(_unpickled(model), order.configuration(), 1) for order in pickle.loads(orders)
        ]
    except FluidwaitError as error:
        return error
    return Done(results, time.perf_counter() - start_s)


_unpickled = lru_cache(maxsize=2)(pickle.loads)


def _task() -> Callable[..., Any]:
    """`run_orders` as a function that travels by value: an inner one, of plain arguments.

    A worker that cannot import what arrives closes its connection; here it reports the failed
    import as an error of the task. The scheduler, which unpickles tasks too, needs no fluidwait.
    """

    def run(*arguments: Any) -> Any:
        from validation.experiments.cluster import run_orders

        return run_orders(*arguments)

    return run


def _identity() -> Callable[[bytes], bytes]:
    """A function that travels by value, as in `_task`."""

    def model(pickled: bytes) -> bytes:
        return pickled

    return model


@cache
def software() -> dict[str, str]:
    """What must be equal for results to be equal to the last bit, by name."""
    packages = {name: version(name) for name in ("fluidwait", "numba", "numpy", "scipy")}
    return {**packages, "simulator sources": source_digest()}


def _require_software(expected: Mapping[str, str]) -> None:
    for name, needed in expected.items():
        if (here := software()[name]) != needed:
            field = f"worker on {socket.gethostname()}: {name}"
            raise InputError(field, here, f"{needed}, as where the sweep was started")


def _order(configuration: Configuration) -> Order:
    """
    Raises:
        InputError: A policy that is not in the registry.
    """
    policy = configuration.policy
    if POLICIES.get(policy.policy.name) is not policy.policy:
        raise InputError("policy", policy.policy.name, "policies of the registry on a cluster")
    return Order(
        policy.policy.name,
        dict(policy.values),
        policy.thresholds,
        policy.cuts,
        policy.priorities,
        configuration.rate_per_s,
        configuration.runs,
    )


def _number_together(done: Done) -> int:
    """Configurations that fill a task, judged by the last one that came back."""
    each_s = done.took_s / len(done.results)
    return max(1, min(_MOST_TOGETHER, int(TASK_S / each_s)))


@contextmanager
def _without_pages() -> Iterator[None]:
    """No pages about tasks for browsers, which ask nobody who they are."""
    import dask

    routes: dict[str, list[str]] = {
        f"distributed.{kind}.http.routes": [] for kind in ("scheduler", "worker")
    }
    with dask.config.set(routes):
        yield


@contextmanager
def _client(address: str, security: Security) -> Iterator[Client]:
    from distributed import Client

    try:
        # Asked first: a client that has found nobody takes another ten seconds to give up.
        with ThreadPoolExecutor(1) as pool:  # a notebook's thread has a loop of its own
            pool.submit(asyncio.run, _answer(address, security)).result()
        client = Client(address, timeout=CONNECT_S, security=security, set_as_default=False)
    except Exception:  # a wrong address, or what listens there and is no scheduler: anything
        allowed = "the address of a running Dask scheduler, as tcp://HOST:8786"
        raise InputError("cluster", address, allowed) from None
    with client:
        yield client


async def _answer(address: str, security: Security) -> None:
    """Wait until a scheduler says who it is."""
    from distributed.core import rpc

    with_key = security.get_connection_args("client")

    async def identity() -> None:
        async with rpc(address, timeout=CONNECT_S, connection_args=with_key) as scheduler:
            await scheduler.identity()

    await asyncio.wait_for(identity(), CONNECT_S)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask logs a lost connection with its traceback; here it ends in one line."""
    import distributed  # sets the levels, when it is imported first

    loggers = [logging.getLogger(name) for name in (distributed.__name__, "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
