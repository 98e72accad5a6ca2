# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run our modules on a host with its own Python, without leaving a file there."""

from __future__ import annotations

import json
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import paramiko

from slapos_wendelin.onhost import frames
from slapos_wendelin.onhost.session import BEAT, SILENCE
from slapos_wendelin.remote.errors import HostError
from slapos_wendelin.remote.ssh import Connection, lost

_PACKAGE = "slapos_wendelin"
_SHARED = ("__init__.py", "build_settings.py", "computer_files.py", "errors.py", "files.py")
#: Bytes of one piece of data.
_PIECE = 1 << 16
#: Reads the modules from the first frame and imports the one that does the work.
_BOOTSTRAP = """
import importlib.abc, importlib.util, json, os, struct, sys
read = sys.stdin.buffer.read
order = json.loads(read(struct.unpack('>cI', read(5))[1]))
modules = order.pop('modules')
class Loader(importlib.abc.InspectLoader):
    def find_spec(self, name, path=None, target=None):
        if name in modules:
            return importlib.util.spec_from_loader(name, self, is_package=self.is_package(name))
    def is_package(self, name):
        return any(each.startswith(name + '.') for each in modules)
    def get_source(self, name):
        return modules[name]
sys.meta_path.insert(0, Loader())
from slapos_wendelin.onhost.main import main
# A thread still reads what comes, which would keep Python from ending.
os._exit(main(order))
"""


class Answer(NamedTuple):
    """What a host gets that needs something."""

    message: dict[str, Any]
    #: What follows the message, where something does.
    data: Iterator[bytes] | None = None


class HostProgram:
    """One run of our modules on a host."""

    def __init__(
        self,
        connection: Connection,
        *,
        become: str,
        python: str,
        tell: Callable[[str, dict[str, Any]], None],
        answer: Callable[[str], Answer],
    ) -> None:
        """Say how; nothing is started yet.

        :param become: the words by which one becomes root there.
        :param python: the host's Python.
        :param tell: is called with each event: ``begin``, ``done``, ``kept``, ``say``.
        :param answer: returns what the host needs.
        """
        self._connection = connection
        # -I: what the host's user has set up for Python is not asked. -B: no byte code is left.
        self._command = f"{become} {shlex.quote(python)} -IB -c {shlex.quote(_BOOTSTRAP)}".strip()
        self._tell = tell
        self._answer = answer
        self._sending = threading.Lock()
        self._heard = 0.0

    def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what is ordered and return what came of it.

        :raises HostError: when it fails on the host.
        :raises UnreachableHostError: when the connection is lost.
        """
        channel = self._connection.open_channel(self._command)
        channel.settimeout(SILENCE)
        over = threading.Event()
        self._heard = time.monotonic()
        try:
            threading.Thread(target=self._watch, args=(over,), daemon=True).start()
            self._send(channel, frames.pack_message({**order, "modules": sent_modules()}))
            threading.Thread(target=self._beat, args=(channel, over), daemon=True).start()
            return self._follow(channel)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise lost(self._connection.address) from error
        finally:
            over.set()
            channel.close()

    def _follow(self, channel: paramiko.Channel) -> dict[str, Any]:
        """Act on what the host says until it is done."""
        noise: list[str] = []
        for line in channel.makefile("r"):
            self._heard = time.monotonic()
            if not line.startswith(frames.EVENT_MARK):
                noise.append(line.strip())
                continue
            event = json.loads(line[len(frames.EVENT_MARK) :])
            kind = event.pop("event")
            if kind == "result":
                return event
            if kind == "failed":
                raise HostError(event["message"], event["remedy"])
            if kind == "need":
                # It may take a while, in which nobody listens to the host.
                self._heard = math.inf
                answer = self._answer(event["what"])
                self._heard = time.monotonic()
                self._give(channel, answer)
            elif kind != "beat":
                self._tell(kind, event)
        if not self._connection.transport.is_active() or not channel.exit_status_ready():
            raise lost(self._connection.address)
        said = b"".join(iter(lambda: channel.recv_stderr(65536), b"")).decode(errors="replace")
        lines = [each for each in (*noise, *said.splitlines()) if each.strip()]
        raise HostError(
            f"the program on the host ended: {' | '.join(lines[-3:]) or 'it said nothing'}",
            "repeat the command: it goes on where it stopped",
        )

    def _give(self, channel: paramiko.Channel, answer: Answer) -> None:
        """Send what the host needs."""
        self._send(channel, frames.pack_message(answer.message))
        if answer.data is None:
            return
        for piece in answer.data:
            self._send(channel, frames.pack(frames.DATA, piece))
            self._heard = time.monotonic()
        self._send(channel, frames.pack(frames.DATA, b""))

    def _send(self, channel: paramiko.Channel, content: bytes) -> None:
        """Send one piece whole."""
        with self._sending:
            channel.sendall(content)

    def _watch(self, over: threading.Event) -> None:
        """Drop the connection when the host is silent: what is sent to one that is off may wait.

        Running hosts give signs of life; while data are sent, that they are taken is one.
        """
        while not over.wait(BEAT):
            if time.monotonic() - self._heard > SILENCE:
                self._connection.drop()

    def _beat(self, channel: paramiko.Channel, over: threading.Event) -> None:
        """Give signs of life until all is done."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            while not over.wait(BEAT):
                self._send(channel, frames.pack_message({"beat": True}))


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield the contents of a file in pieces."""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


def sent_modules() -> dict[str, str]:
    """Return our modules that run on hosts, with their sources."""
    package = resources.files(_PACKAGE)
    found = {}
    for name in _SHARED:
        module = _PACKAGE if name == "__init__.py" else f"{_PACKAGE}.{name.removesuffix('.py')}"
        found[module] = (package / name).read_text()
    for each in (package / "onhost").iterdir():
        if each.name.endswith(".py"):
            name = each.name.removesuffix(".py")
            module = f"{_PACKAGE}.onhost" + ("" if name == "__init__" else f".{name}")
            found[module] = each.read_text()
    return found
