# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the processes of a computer, and end them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds that programs get to stop by themselves.
_STOP_TIME = 60.0
#: Seconds between two looks.
_INTERVAL = 0.05


def end_all(*marks: str) -> None:
    """End the processes that are started with, or work in, one of some folders: kindly at first.

    :param marks: paths; a process is meant when one of its arguments or its folder begins so.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_TIME
        signalled: set[int] = set()
        while time.monotonic() < deadline:
            left = set(_marked(marks))
            if not left:
                return
            for pid in left - signalled:
                _send(pid, sign)
            signalled |= left
            time.sleep(_INTERVAL)


def is_in_use(folder: str) -> bool:
    """Say whether a process was started with something of a folder, or works in it."""
    return any(_marked((folder,)))


def end_users(numbers: set[int]) -> None:
    """End all that some users run: they are to be removed."""
    deadline = time.monotonic() + _STOP_TIME
    while time.monotonic() < deadline:
        running = [entry for entry in _entries() if _owner(entry) in numbers and _lives(entry)]
        if not running:
            return
        for entry in running:
            _send(int(entry.name), signal.SIGKILL)
        time.sleep(_INTERVAL)


def is_any_called(*names: str) -> bool:
    """Say whether a program of one of these names runs."""
    return any(_read(entry / "comm").strip() in names for entry in _entries())


def _marked(marks: tuple[str, ...]) -> Iterator[int]:
    """Yield the processes that are meant, but for this one and those it was started by."""
    own = set(_ancestors())
    for entry in _entries():
        pid = int(entry.name)
        if pid in own or not _lives(entry):
            continue
        words = _read(entry / "cmdline").split("\0")
        with contextlib.suppress(OSError):
            words.append(str((entry / "cwd").readlink()))
        if any(word == mark or word.startswith(f"{mark}/") for word in words for mark in marks):
            yield pid


def _owner(entry: Path) -> int:
    """Return the number of the user that a process runs as, -1 when it is gone."""
    try:
        return entry.stat().st_uid
    except OSError:
        return -1


def _ancestors() -> Iterator[int]:
    """Yield this process, and those by which it was started."""
    pid = os.getpid()
    while pid > 1:
        yield pid
        stat = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        pid = int(stat[1]) if len(stat) > 1 else 0


def _entries() -> Iterator[Path]:
    """Yield what the kernel shows of each process."""
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _read(path: Path) -> str:
    """Return what the kernel shows, nothing when the process is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _lives(entry: Path) -> bool:
    """Say whether a process runs and is not just remembered."""
    stat = _read(entry / "stat").rpartition(")")[2].split()
    return bool(stat) and stat[0] != "Z"


def _send(pid: int, sign: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
