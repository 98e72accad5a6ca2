# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the worker processes of a master running, which all answer on one socket.

It imports little, so that it takes little memory; `handing_over` starts it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import logs, readiness
from slapos_wendelin.master.errors import WorkerError
from slapos_wendelin.master.logs import Event

#: What a worker says on its line when it answers; one that cannot start says why, as JSON.
READY = b"ready\n"

#: Names the folder in which the workers count what `/metrics` tells; prometheus_client reads it.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

#: A worker that has answered for so long was well, in seconds.
_STEADY = 5.0

#: After how long a worker that has ended is started again, in seconds; twice that for each time in
#: a row that it was not well before, and how often that may be.
_DELAY = 0.1
_TRIES = 5

#: How long workers may take to end when they are told to, in seconds.
_PATIENCE = 20.0

#: What a worker ends with that was told to.
_TOLD = (0, -signal.SIGTERM, -signal.SIGINT)

_log = logging.getLogger("slapos_wendelin.master")


class Worker:
    """A worker: the process that is it now, and what stays when that is replaced."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: The pipe through which the others tell it something.
        self.inbox, self.outbox = os.pipe()
        # Who tells something does not wait for a worker that does not listen.
        os.set_blocking(self.outbox, False)
        self.process: subprocess.Popen[bytes] | None = None
        #: The line to the process. Each side sees by its end that the other one has ended.
        self.line: socket.socket | None = None
        self.said = b""
        #: Since when it answers, and when it is to be started again, on the monotonic clock.
        self.ready_at: float | None = None
        self.due_at: float | None = None
        #: How often in a row it was not well.
        self.failures = 0


class Supervisor:
    """Starts workers, and starts those again that end."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Take over the socket.

        :param options: those of `main`.
        """
        self._options = options
        self._listening = socket.socket(fileno=options.socket)
        self._listening.set_inheritable(False)
        self._folder = tempfile.mkdtemp(prefix="slapos-master-")
        self._workers = [Worker(number + 1) for number in range(options.processes)]
        self._selector = selectors.DefaultSelector()
        self._has_started = False
        self._is_stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status.

        :raises WorkerError: when a worker cannot start, or ends again and again.
        """
        self._listen_to_signals()
        try:
            for worker in self._workers:
                self._start(worker)
            while not self._is_stopping:
                for key, _ in self._selector.select(self._time_left()):
                    key.data()
                self._start_due()
        finally:
            self._end()
        return 0

    def _listen_to_signals(self) -> None:
        """Let signals that end the master wake it up."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno())
        self._wakers = reading, writing
        self._selector.register(reading, selectors.EVENT_READ, partial(reading.recv, 64))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        """Note that the master shall end."""
        self._is_stopping = True

    def _start(self, worker: Worker) -> None:
        """Start the process of a worker."""
        line, its_end = socket.socketpair()
        outboxes = [each.outbox for each in self._workers if each is not worker]
        descriptors = {"--socket": self._listening.fileno(), "--line": its_end.fileno()}
        descriptors["--inbox"] = worker.inbox
        command = [sys.executable, "-P", "-m", "slapos_wendelin.master.worker"]
        command += ["--worker", str(worker.number)]
        for name, descriptor in descriptors.items():
            command += [name, str(descriptor)]
        for outbox in outboxes:
            command += ["--outbox", str(outbox)]
        environment = {**os.environ, METRICS_VARIABLE: self._folder}
        # The master is ready when all workers are.
        environment.pop("NOTIFY_SOCKET", None)
        worker.said, worker.ready_at, worker.due_at = b"", None, None
        with its_end:
            try:
                worker.process = subprocess.Popen(
                    [*command, *self._options.options],
                    pass_fds=[*descriptors.values(), *outboxes],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:
                line.close()
                return self._failed(worker, f"cannot be started: {error.strerror}")
        worker.line = line
        self._selector.register(line, selectors.EVENT_READ, partial(self._hear, worker, line))
        return None

    def _hear(self, worker: Worker, line: socket.socket) -> None:
        """Take note of what a worker says, or that it has ended."""
        said = line.recv(65536)
        worker.said += said
        if not said:
            self._selector.unregister(line)
            line.close()
            self._ended(worker)
        elif worker.said == READY:
            worker.ready_at = time.monotonic()
            self._tell_ready(worker)

    def _tell_ready(self, worker: Worker) -> None:
        """Tell that a worker answers, and when all do for the first time, that the master does."""
        _log.info(Event("worker-started", worker=worker.number, pid=_pid(worker)))
        if not self._has_started and all(each.ready_at is not None for each in self._workers):
            self._has_started = True
            _log.info(
                Event(
                    "started",
                    url=self._options.url,
                    database=self._options.database_name,
                    processes=len(self._workers),
                )
            )
            readiness.tell(readiness.READY)

    def _ended(self, worker: Worker) -> None:
        """See why a worker has ended."""
        process = worker.process
        if process is None:
            return
        status = _wait(process, _PATIENCE)
        worker.process = None
        if self._is_stopping:
            return
        if status in _TOLD:
            worker.failures = 0
            self._schedule(worker, "was told to end")
        else:
            self._failed(worker, _reason(status, worker.said))

    def _failed(self, worker: Worker, reason: str) -> None:
        """Count a failure of a worker, and start it again soon.

        :raises WorkerError: when that would be in vain.
        """
        was_well = worker.ready_at is not None and time.monotonic() - worker.ready_at >= _STEADY
        worker.failures = 1 if was_well else worker.failures + 1
        if not self._has_started:
            raise WorkerError(f"worker {worker.number} {reason}", _remedy(worker.said))
        if worker.failures > _TRIES:
            raise WorkerError(
                f"worker {worker.number} {reason}, {worker.failures} times in a row",
                _remedy(worker.said),
            )
        self._schedule(worker, reason)

    def _schedule(self, worker: Worker, reason: str) -> None:
        """Start a worker again, the later the more often it has failed."""
        delay = _DELAY * 2 ** max(0, worker.failures - 1)
        worker.due_at = time.monotonic() + delay
        _log.warning(
            Event("worker-ended", worker=worker.number, reason=reason, starts_again_in=delay)
        )

    def _time_left(self) -> float | None:
        """Return for how long nothing is to be done, in seconds."""
        dues = [each.due_at for each in self._workers if each.due_at is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _start_due(self) -> None:
        """Start the workers whose time has come."""
        for worker in self._workers:
            is_due = worker.due_at is not None and worker.due_at <= time.monotonic()
            if is_due and not self._is_stopping:
                self._start(worker)

    def _end(self) -> None:
        """End all workers, each after the requests that it works on."""
        self._is_stopping = True
        readiness.tell(readiness.STOPPING)
        self._listening.close()
        processes = [each.process for each in self._workers if each.process is not None]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in processes:
            _wait(process, max(0.0, deadline - time.monotonic()))
        shutil.rmtree(self._folder, ignore_errors=True)
        _log.info("stopped")


def _wait(process: subprocess.Popen[bytes], patience: float) -> int:
    """Return the status of a process that is about to end; kill it when it does not in time."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        _log.error(Event("worker-killed", pid=process.pid, reason="it does not end"))
        process.kill()
        return process.wait()


def _pid(worker: Worker) -> int | None:
    """Return the number of a worker's process."""
    return None if worker.process is None else worker.process.pid


def _refusal(said: bytes) -> dict[str, Any]:
    """Return what kept a worker from starting, if it has said so."""
    with contextlib.suppress(ValueError):
        document = json.loads(said)
        if isinstance(document, dict):
            return document
    return {}


def _reason(status: int, said: bytes) -> str:
    """Return why a worker has ended."""
    refusal = _refusal(said)
    if refusal:
        return f"cannot start: {refusal['message']}"
    if status < 0:
        number = -status
        known = {each.value: each.name for each in signal.Signals}
        return f"was ended by {known.get(number, f'signal {number}')}"
    return f"ended with status {status}"


def _remedy(said: bytes) -> str:
    """Return what to do about a worker that does not run."""
    return _refusal(said).get("remedy") or "the lines of the log before this one say more"


def main(arguments: Sequence[str] | None = None) -> int:
    """Supervise workers; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m slapos_wendelin.master.supervisor",
        description="Part of a master, which starts it with a socket; not for use alone.",
    )
    parser.add_argument("--socket", type=int, required=True, metavar="DESCRIPTOR")
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--database-name", required=True)
    logs.add_options(parser)
    parser.add_argument("options", nargs="*", help="those of each worker")
    options = parser.parse_args(arguments)
    logs.configure(options.log_level, options.log_format)
    try:
        return Supervisor(options).run()
    except WendelinError as error:
        print(f"slapos master: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
