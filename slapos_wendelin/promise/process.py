# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: a program of the partition runs."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil

from slapos_wendelin.promise.base import BrokenPromiseError, Promise


class RunPromise(Promise):
    """Green while the process in ``pid-file`` lives in the partition's ``folder``.

    With ``address`` (host:port, where the program listens) it says when another program has that.
    Process ids are used again by the system: a process that works in another folder is not ours.
    """

    def check(self) -> str:
        """Look for the process; tell the last line of its log when it is gone."""
        name = self.getConfig("program")
        pid_file = Path(self.getConfig("pid-file"))
        folder = Path(self.getConfig("folder"))
        try:
            pid = int(pid_file.read_text())
        except (OSError, ValueError):
            raise BrokenPromiseError(f"{name} was never started{last_line(folder, name)}") from None
        if not _works_in(pid, folder):
            raise BrokenPromiseError(
                f"{name} (process {pid}) does not run{_taken(self.getConfig('address'))}"
                f"{last_line(folder, name)}"
            )
        return f"{name} runs as process {pid}"


def _works_in(pid: int, folder: Path) -> bool:
    """Return whether a living process *pid* has *folder* as its working folder."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder.resolve()
    except psutil.Error:
        return False


def _taken(address: str | None) -> str:
    """Tell that *address* is taken, if it is."""
    if not address:
        return ""
    host, port = address.rsplit(":", 1)
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            return f"; it cannot listen at {address}: {error.strerror}"
    return ""


def last_line(folder: Path, name: str) -> str:
    """Return the last line that the program said, for the reader of the promise."""
    logs = sorted(folder.glob(f".*_{name}-[0-9a-f]*.log"), key=lambda path: path.stat().st_mtime)
    if not logs:
        return ""
    lines = [line for line in logs[-1].read_text(errors="replace").splitlines() if line.strip()]
    return f"; it said: {lines[-1].strip()[:500]}" if lines else ""
