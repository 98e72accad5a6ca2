# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs and make sockets where the processes of a control group live."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from slapos_wendelin.errors import CommandError
from slapos_wendelin.lab.cgroups import ControlGroup
from slapos_wendelin.lab.errors import LabError

#: Seconds that a command may take, where the caller says nothing.
COMMAND_TIME = 300.0
_NETWORK_NAMESPACE = 0x40000000


class Place:
    """The namespaces of a control group's init: a host, or the lab itself.

    :param name: what users call it.
    :param group: the control group.
    :param options: what ``nsenter`` is to enter.
    :param environment: the variables of commands, None for those of this process.
    :param folder: says where commands start.
    """

    def __init__(
        self,
        name: str,
        group: ControlGroup,
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
        folder: Callable[[], str] = lambda: "/",
    ) -> None:
        self.name = name
        self.group = group
        self.options = options
        self.environment = environment
        self.folder = folder

    @property
    def init(self) -> int:
        """The id of the first process here. Raises LabError when nothing runs."""
        init = self.group.init()
        if init is None:
            raise LabError(f"{self.name} does not run", "power it on")
        return init

    @property
    def runs(self) -> bool:
        """Whether anything runs here."""
        return self.group.init() is not None

    def path(self, path: Path | str) -> Path:
        """Return the path by which this process reaches a file that is *path* there."""
        return Path(f"/proc/{self.init}/root") / str(path).lstrip("/")

    def copy(self, source: Path, place: Path) -> None:
        """Copy a folder of this process to a place there, unless that exists."""
        target = self.path(place)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target, symlinks=True)

    def popen(
        self,
        command: Sequence[str],
        *,
        cwd: str | Path | None = None,
        group: ControlGroup | None = None,
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a command; it is killed with the process that is returned.

        :param cwd: a folder there; without it, the place's own.
        :param group: the control group that it belongs to; without it, the place's own.
        :param options: go to :class:`subprocess.Popen`.
        """
        options = {"env": self.environment} | options
        return subprocess.Popen(self.command(command, cwd=cwd, group=group), **options)

    def command(
        self,
        command: Sequence[str],
        *,
        cwd: str | Path | None = None,
        group: ControlGroup | None = None,
    ) -> list[str]:
        """Return the command that runs *command* here, as :meth:`popen` does."""
        entering = ["nsenter", f"--target={self.init}", *self.options, "--"]
        dying = ["setpriv", "--pdeathsig", "KILL", "--"]
        moving = ["env", f"--chdir={cwd or self.folder()}"]
        return (group or self.group).command([*entering, *dying, *moving, *command])

    def run(
        self,
        *command: str,
        input: str | None = None,  # noqa: A002 (as subprocess calls it)
        timeout: float = COMMAND_TIME,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; the answer has what it printed, errors apart.

        :raises CommandError: when it fails and *check* is not False, or takes too long.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        pipe = subprocess.PIPE
        with self.popen(
            command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, **options
        ) as process:
            try:
                output, errors = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise CommandError(
                    f"{command[0]} did not end on {self.name} in {timeout:.0f} s"
                ) from None
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            raise CommandError(
                f"{' '.join(command)!r} failed on {self.name} (status {process.returncode}): "
                f"{(errors or output).strip()}"
            )
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def start(
        self, command: Sequence[str], log: Path, group: ControlGroup | None = None
    ) -> IO[bytes]:
        """Start a command that goes on when this process ends; return the writing end of its stdin.

        :param log: gets what the command prints.
        :param group: the control group that it belongs to; without it, the place's own.
        """
        # The command's shell ends at once, and the lab's init inherits the command.
        script = 'exec 3<&0; setsid -- "$@" <&3 3<&- &'
        with log.open("ab") as output:
            process = self.popen(
                ["/bin/sh", "-c", script, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                group=group,
            )
        stdin = process.stdin
        if process.wait() or stdin is None:
            raise CommandError(f"{command[0]} cannot be started on {self.name}: see {log}")
        return stdin

    def connect(self, address: tuple[str, int], timeout: float | None = 10.0) -> socket.socket:
        """Return a TCP connection to *address* that begins here."""
        return self._in_network(lambda: socket.create_connection(address, timeout))

    def listen(self, address: tuple[str, int]) -> socket.socket:
        """Return a TCP socket that listens at *address* here."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        return self._in_network(lambda: socket.create_server(address, family=family))

    def _in_network(self, make: Any) -> socket.socket:
        """Make a socket in a thread that is in this network: a socket stays where it was made."""
        namespace = os.open(f"/proc/{self.init}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(_enter_and_make, namespace, make).result()
        finally:
            os.close(namespace)


def _enter_and_make(namespace: int, make: Any) -> socket.socket:
    """Put the calling thread into a network namespace, then make a socket."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, _NETWORK_NAMESPACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    made: socket.socket = make()
    return made
