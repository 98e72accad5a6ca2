# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One agent on a computer, and nothing at work of one that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil

from slapos_wendelin.errors import CommandError, MissingRequirementError

#: The variable in the environment of all processes of an agent but the agent itself.
MARK = "SLAPOS_WENDELIN_AGENT"
#: Seconds that killed processes get to be gone.
_END_TIME = 30.0
#: Seconds by which the start of a process is told too late.
_CLOCK_TOLERANCE = 1.0


def lock(folder: Path) -> TextIO:
    """Take the lock of an agent, which the system releases when the process dies.

    Returns the open file, which keeps it. Raises MissingRequirementError when another agent has
    it, or there is no place for it.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        stream = (folder / "lock").open("a+")
    except OSError as error:
        raise MissingRequirementError(
            f"the agent cannot work in {folder.parent}: {error.strerror}",
            "format the computer: slapos node format --now",
        ) from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        pid = stream.read().strip() or "unknown"
        stream.close()
        raise MissingRequirementError(
            f"another agent (process {pid}) works in {folder.parent}", "stop that one first"
        ) from None
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream


def is_locked(folder: Path) -> bool:
    """Return whether an agent lives that has the lock."""
    try:
        with (folder / "lock").open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def end_leftovers(instance_root: Path) -> list[int]:
    """Kill what an earlier agent of a computer has left; return the process ids.

    Raises CommandError when something does not end. Programs of partitions are not among it: they
    belong to their supervisord.
    """
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    ended: list[int] = []
    deadline = time.monotonic() + _END_TIME
    while found := [each for each in _marked(instance_root) if each.pid not in ours]:
        if time.monotonic() > deadline:
            raise CommandError(
                f"processes of an earlier agent do not end: {[each.pid for each in found]}",
                "kill them, then start the agent again",
            )
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=1)
        ended += [each.pid for each in found]
    return sorted(set(ended))


def _marked(instance_root: Path) -> Iterator[psutil.Process]:
    """Yield the processes that an agent of this computer has started."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            if is_alive and process.environ().get(MARK) == str(instance_root):
                yield process


def holder_of(pid_file: Path) -> int | None:
    """Return the process that holds a pid file of slapgrid, None when nobody does."""
    try:
        pid = int(pid_file.read_text())
        if not psutil.pid_exists(pid):
            # It may be the number of a thread, of which psutil knows a process too.
            return None
        process = psutil.Process(pid)
        is_slapgrid = "slapos" in str(process.cmdline())
        # Whoever has got the number after the holder, as after a loss of power, has not written it.
        is_later = process.create_time() > pid_file.stat().st_mtime + _CLOCK_TOLERANCE
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if is_slapgrid and not is_later else None
