# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""No report of a state that is not wanted any more.

The master takes what is reported after it was asked for everything as said in knowledge of that. So
a process that works on a partition must not report it when its parent has asked meanwhile and
learnt of a newer change, which is processed next.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from slapos_wendelin.errors import WendelinError


class OutdatedError(WendelinError):
    """The master wants something newer of the partition."""


class Newest:
    """Whether what one process works on is still the newest; shared with its parent."""

    def __init__(self) -> None:
        """Make it before the fork."""
        self._memory = mmap.mmap(-1, 1)

    def end(self) -> None:
        """Note in the parent that there is something newer."""
        self._memory[0] = 1

    def check(self) -> None:
        """Raise OutdatedError when there is something newer."""
        if self._memory[0]:
            raise OutdatedError("the master wants something newer")


class Moments:
    """Keeps the asking for everything and the reports apart."""

    def __init__(self) -> None:
        """Make it before the forks."""
        self._file = os.memfd_create("moments")

    @contextmanager
    def alone(self, mode: int) -> Iterator[None]:
        """Hold the lock, LOCK_SH for reports and LOCK_EX to ask."""
        # Each opening has a lock of its own; what a fork inherits has not.
        descriptor = os.open(f"/proc/self/fd/{self._file}", os.O_RDWR)
        try:
            fcntl.flock(descriptor, mode)
            yield
        finally:
            os.close(descriptor)

    def guard(self, report: Callable[[], None], newest: Newest) -> Callable[[], None]:
        """Return a report that raises OutdatedError when there is something newer."""

        def guarded(*arguments: Any) -> None:
            with self.alone(fcntl.LOCK_SH):
                newest.check()
                report(*arguments)

        return guarded

    def fileno(self) -> int:
        """Return the descriptor that forks have to keep."""
        return self._file
