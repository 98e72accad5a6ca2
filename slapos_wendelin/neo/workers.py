# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on many blocks by the workers of a dask scheduler.

`Workers.each` keeps a bounded number of tasks under way, so that neither the tasks nor their
results fill the memory, and hands a task out again when its worker or the scheduler was lost.
The tasks must be such that running one twice does no harm.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

import dask
import distributed

from slapos_wendelin.neo import certificates, memory
from slapos_wendelin.neo.errors import WorkersError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

logger = logging.getLogger(__name__)

#: Tasks that are handed out for each thread of the workers, so that none waits for the next.
TASKS_PER_THREAD = 2

#: How often a task may lose its worker before it is held to be the reason.
LOST_WORKERS_PER_TASK = 5

#: Seconds to wait for a scheduler with at least one worker.
TIME_LIMIT = 60.0

#: Settings of workers started here. Their results are small, so moving results to disk frees
#: nothing; and a paused worker would wait for ever for memory that malloc keeps for the next block.
#: dask still starts a worker again that reaches its limit.
UNPAUSED = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}

_LOST = (
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    distributed.KilledWorker,
    OSError,
)


class Workers:
    """The workers of a scheduler; or some of this machine, for as long as the context lasts.

    :param address: `tcp://host:port` or `tls://host:port?certificates=NAME` of a scheduler, as a
        cluster publishes it; None starts workers here.
    :param count: worker processes to start here, with one thread each. 0 means threads of this
        process, for storage that one process at a time can open.
    :param memory_limit: bytes of memory for each worker process started here; one that takes more
        is started again by dask.
    :param time_limit: seconds to wait for a scheduler and a worker, also after they were lost.
    """

    def __init__(
        self,
        address: str | None,
        *,
        count: int = 2,
        memory_limit: int = 0,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        self.address = address
        self.count = count
        self.memory_limit = memory_limit
        self.time_limit = time_limit
        self._resources = contextlib.ExitStack()
        self._client: distributed.Client | None = None

    def __enter__(self) -> Self:
        with self._resources:
            if self.address is None:
                self.address = self._start_here()
            self._connect()
            self._resources = self._resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._disconnect()
        self._resources.close()

    def each(
        self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Any]:
        """Call a function on the workers for each tuple of arguments; yield results as they come.

        :raises WorkersError: when no worker comes back, or a task keeps killing its workers.
        """
        waiting = iter(arguments)
        repeated: list[tuple[tuple[Any, ...], int]] = []
        under_way: dict[distributed.Future, tuple[tuple[Any, ...], int]] = {}
        ended: queue.SimpleQueue[distributed.Future] = queue.SimpleQueue()
        try:
            while True:
                for task in self._fill(waiting, repeated, len(under_way)):
                    future = self.client.submit(function, *task[0], pure=False)
                    future.add_done_callback(ended.put)
                    under_way[future] = task
                if not under_way:
                    return
                for future in self._some_done(under_way, ended):
                    task = under_way.pop(future)
                    try:
                        result = self._result(future)
                    except _LOST as error:
                        if _is_of_the_task(future, error):
                            raise
                        repeated.append(self._again(task, error))
                    else:
                        yield result
        finally:
            self._cancel(list(under_way))

    def on_each_worker(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Call a function once in every worker process; return its results by address."""
        results: Any = self.client.run(function, on_error="ignore")
        return dict(results)

    @property
    def client(self) -> distributed.Client:
        """The connection to the scheduler, made again when it was lost."""
        if self._client is None or self._client.status != "running":
            self._disconnect()
            return self._connect()
        return self._client

    @property
    def thread_count(self) -> int:
        """Threads that all workers have together, at least 1 while workers are lost."""
        try:
            return max(1, sum(self.client.nthreads().values()))
        except _LOST:
            return 1

    def _fill(
        self,
        waiting: Iterator[tuple[Any, ...]],
        repeated: list[tuple[tuple[Any, ...], int]],
        under_way: int,
    ) -> Iterator[tuple[tuple[Any, ...], int]]:
        """Yield the tasks to hand out, those that were lost first."""
        for _ in range(TASKS_PER_THREAD * self.thread_count - under_way):
            if repeated:
                yield repeated.pop(0)
                continue
            try:
                yield next(waiting), 0
            except StopIteration:
                return

    @staticmethod
    def _some_done(
        futures: Iterable[distributed.Future], ended: queue.SimpleQueue[distributed.Future]
    ) -> list[distributed.Future]:
        """Wait until a task has ended in whatever way; return those that have."""
        while not (done := [future for future in futures if future.done()]):
            with contextlib.suppress(queue.Empty):
                ended.get(timeout=5)
        return done

    def _result(self, future: distributed.Future) -> Any:
        """Return the result of a task; a task of an earlier connection has none to ask for."""
        if future.cancelled():
            message = f"{future.key} was cancelled"
            raise asyncio.CancelledError(message)
        return future.result(timeout=self.time_limit)

    def _cancel(self, futures: list[distributed.Future]) -> None:
        """Tell the scheduler to forget tasks, as far as it can be told."""
        if futures and self._client is not None:
            with contextlib.suppress(RuntimeError, *_LOST):
                self._client.cancel(futures)

    def _again(
        self, task: tuple[tuple[Any, ...], int], error: BaseException
    ) -> tuple[tuple[Any, ...], int]:
        """Return the task to hand out again after its worker or the scheduler was lost."""
        arguments, losses = task
        logger.info("task lost: %s: %s", type(error).__name__, error)
        if losses >= LOST_WORKERS_PER_TASK:
            raise WorkersError(
                f"a task lost its worker {losses + 1} times: {type(error).__name__}: {error}",
                "give the workers more memory, and read their logs",
            ) from error
        return arguments, losses + 1

    def _start_here(self) -> str:
        """Start a scheduler and workers that end with this process; return the address."""
        spawn = {f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in _environment().items()}
        self._resources.enter_context(dask.config.set(spawn | UNPAUSED))
        cluster = distributed.LocalCluster(
            n_workers=self.count or 1,
            threads_per_worker=1 if self.count else 2,
            processes=bool(self.count),
            memory_limit=self.memory_limit or None,
            host="127.0.0.1",
            protocol="tcp",
            dashboard_address="127.0.0.1:0",
        )
        return self._resources.enter_context(cluster).scheduler_address

    def _connect(self) -> distributed.Client:
        """Connect to the scheduler and wait for a worker."""
        deadline = time.monotonic() + self.time_limit
        try:
            address, security = security_of(str(self.address))
            client = distributed.Client(
                address, security=security, timeout=self.time_limit, set_as_default=False
            )
            self._client = client
            client.wait_for_workers(1, timeout=max(1.0, deadline - time.monotonic()))
        except (TimeoutError, OSError, ValueError) as error:
            self._disconnect()
            raise WorkersError(
                f"no scheduler with a worker at {self.address} within {self.time_limit:.0f} s:"
                f" {error or type(error).__name__}",
                "give the address of a running scheduler, as the cluster publishes it",
            ) from error
        return client

    def _disconnect(self) -> None:
        """Close the connection to the scheduler, also when it is gone."""
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close(timeout=5)
            self._client = None


def security_of(address: str) -> tuple[str, distributed.Security | None]:
    """Return the address of a scheduler as dask wants it, and the certificate to call it with.

    :raises DatabaseError: when the files of the certificate are missing.
    """
    plain, _, query = address.partition("?")
    name = dict(parse_qsl(query)).get(certificates.OPTION)
    if name is None:
        return address, None
    authority, certificate, key = certificates.files_in(certificates.folder_of(name))
    security = distributed.Security(
        require_encryption=True,
        tls_ca_file=authority,
        tls_client_cert=certificate,
        tls_client_key=key,
    )
    return plain, security


def _environment() -> dict[str, int]:
    """Return the environment of worker processes as dask's configuration wants it."""
    return {name: int(value) for name, value in memory.MALLOC_ENVIRONMENT.items()}


def _is_of_the_task(future: distributed.Future, error: BaseException) -> bool:
    """Tell whether the function itself has raised the error, not the loss of its worker."""
    return future.status == "error" and not isinstance(error, distributed.KilledWorker)
