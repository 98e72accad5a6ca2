# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the forked processes of a node agent have in common."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import psutil
from slapos.grid.utils import dropPrivileges

log = logging.getLogger(__name__)

#: Options of the system call prctl.
_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE = 1, 4

_libc = ctypes.CDLL(None, use_errno=True)


def settle() -> None:
    """Keep the collector from touching what is in memory now, which forks are to share."""
    gc.collect()
    gc.freeze()


def begin_child(keep: Iterable[int] = ()) -> None:
    """Make a forked process independent of its parent, but for dying with it.

    :param keep: the descriptors that stay open, beside the three standard ones.
    """
    parent = os.getppid()
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    close_others(keep)
    die_with_parent(parent)


def close_others(keep: Iterable[int]) -> None:
    """Close all descriptors but the three standard ones and those to keep."""
    begin = 3
    for descriptor in sorted({each for each in keep if each >= begin}):
        os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, _most_descriptors())


def _most_descriptors() -> int:
    """Return a number above all open descriptors."""
    return max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 1


def die_with_parent(parent: int) -> None:
    """Let the system kill this process when its parent ends.

    :param parent: the parent's process id, taken at the fork.
    """
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become(uid: int, gid: int) -> None:
    """Become the user of a partition; an ordinary user stays who it is.

    Raises OSError for root's own, whom no partition may belong to.
    """
    parent = os.getppid()
    dropPrivileges(uid, gid, logger=log)
    # The change of user has reset both: as after the start of a program, the process may look at
    # itself below /proc, and it ends with its parent.
    _libc.prctl(_SET_DUMPABLE, 1, 0, 0, 0)
    die_with_parent(parent)


def end_child(work: Callable[[], int | None]) -> NoReturn:
    """Run the work of a forked process and end it with the work's exit status."""
    status = 1
    try:
        status = work() or 0
    except SystemExit as end:
        status = exit_status(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # noqa: SLF001 (as at the end of any program)
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def exit_status(code: object) -> int:
    """Return the status that Python ends with for the argument of SystemExit."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def kill_tree(pid: int) -> None:
    """Kill a process that leads a group, the group, and all that descends from it."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    kill_group(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill what is left of the group that a process leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
