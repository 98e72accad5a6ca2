# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masters of several processes, each of which can be found and killed."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
from master_process import MasterProcess

#: Enough where many tests run at once, in seconds.
_PATIENCE = 240


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the first result that is true."""
    deadline = time.monotonic() + _PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"in vain waited for {what}"
        time.sleep(0.02)
    return result


class Workers(MasterProcess):
    """A master of several processes that runs in the block, and its log."""

    def __init__(self, folder: Path, *options: str, authority: Path | None = None) -> None:
        self.database = folder / "master.sqlite"
        super().__init__(
            self.database,
            options=[
                *("--processes", "2", "--log-format", "json", "--log-level", "info"),
                *options,
            ],
        )
        if authority is not None:
            self._arguments.remove("--plain")
            self._arguments += ["--authority", str(authority)]
            self.url = self.url.replace("http:", "https:")
        self.log = folder / "log"
        #: Where it keeps what is of no use after it.
        self.temporary = folder / "temporary"

    def start(self) -> None:
        """Start it and wait until all its workers answer."""
        count = self.count("started")
        self.launch()
        try:
            wait_for(lambda: self.count("started") > count, "the start of the master")
        except BaseException:
            self.kill()
            raise

    def launch(self, **environment: str) -> None:
        """Start it without waiting."""
        self.temporary.mkdir(exist_ok=True)
        super().launch(TMPDIR=str(self.temporary), **environment)

    def lines(self) -> list[dict[str, Any]]:
        """Return what it has logged, as far as the lines are whole."""
        text = self.log.read_text() if self.log.exists() else ""
        whole = text.rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if line.startswith("{")]

    def count(self, event: str) -> int:
        """Return how often the first process has logged an event."""
        return sum(each["event"] == event for each in self.lines())

    def pids(self) -> dict[int, int]:
        """Return the process that each worker is now."""
        return {
            each["worker"]: each["pid"]
            for each in self.lines()
            if each["event"] == "worker-started"
        }

    def children(self) -> list[psutil.Process]:
        """Return the processes of workers, also those that do not answer yet."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    def worker_of(self, connection: Connection) -> int:
        """Return which worker has got a connection."""
        path = f"/v1/nobody-has-this/{uuid.uuid4()}"
        assert connection.ask("GET", path)[0] == HTTPStatus.NOT_FOUND

        def found() -> int | None:
            for line in self.lines():
                if line["event"] == "request" and line["path"] == path:
                    return line["worker"]
            return None

        return wait_for(found, f"the log line of {path}")

    @contextmanager
    def connections(
        self, context: ssl.SSLContext | None = None
    ) -> Iterator[tuple[Connection, Connection]]:
        """Give a connection to each of two workers."""
        found: dict[int, Connection] = {}
        with ExitStack() as opened:

            def connect() -> bool:
                connection = opened.enter_context(closing(Connection(self.port, context)))
                found.setdefault(self.worker_of(connection), connection)
                return len(found) == 2

            wait_for(connect, "connections to two workers")
            yield found[1], found[2]


class Connection:
    """A connection that stays open, so that one worker answers all that is asked through it."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.port = port
        if context is None:
            self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        else:
            self.http = http.client.HTTPSConnection("127.0.0.1", port, timeout=90, context=context)

    def close(self) -> None:
        """Close it."""
        self.http.close()

    def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        """Send a request, and return status and text of the answer."""
        self.send(method, path, form)
        return self.answer()

    def send(self, method: str, path: str, form: dict[str, str] | None = None) -> None:
        """Send a request, and return when the server has begun to work on it or has answered."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        body = None if form is None else urlencode(form)
        self.http.request(method, path, body, {} if form is None else kind)
        wait_for(lambda: not self.unread(), "the server to read the request")

    def answer(self) -> tuple[int, str]:
        """Return status and text of the answer."""
        answer = self.http.getresponse()
        return answer.status, answer.read().decode()

    def unread(self) -> int:
        """Return how many bytes the server has not read yet, or got at all."""
        assert self.http.sock is not None
        server, client = f":{self.port:04X}", f":{self.http.sock.getsockname()[1]:04X}"
        unread = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            sent, _, received = queues.partition(":")
            if local.endswith(server) and remote.endswith(client):
                unread += int(received, 16)
            if local.endswith(client) and remote.endswith(server):
                unread += int(sent, 16)
        return unread


def is_running(pid: int) -> bool:
    """Say whether a process is there and not only waits to be buried."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
