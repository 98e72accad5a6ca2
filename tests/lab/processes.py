# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, each of which may end while it is looked at."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
from patience import wait_for

#: The states of a process that starts nothing more. One that is starting a program is in disk sleep
#: until that has begun, and stops then.
_STILL = (
    *(psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_DISK_SLEEP),
    *(psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD),
)


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process, nothing when it is gone or another user's."""
    try:
        return process.cmdline() if process.uids().real == os.getuid() else []
    except psutil.Error:
        return []


def works_below(process: psutil.Process, folder: Path) -> bool:
    """Return whether the working folder of a process is below *folder*."""
    try:
        return process.uids().real == os.getuid() and Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def stop_all(find: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Suspend processes, and what they have started until they were; return them all.

    :param find: returns those that are there at a moment.
    """
    stopped: list[psutil.Process] = []
    while new := [process for process in find() if process not in stopped]:
        for process in new:
            send(process, signal.SIGSTOP)
        for process in new:
            wait_for(lambda each=process: not _is_awake(each), f"{process} stops")
        stopped += new
    return stopped


def _is_awake(process: psutil.Process) -> bool:
    """Return whether a process may start others."""
    try:
        return process.is_running() and process.status() not in _STILL
    except psutil.NoSuchProcess:
        return False
