# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the programs of a computer's partitions running.

slapgrid starts a program once, when it processes the partition. What dies later is started again
here, with a back-off, through the same supervisord.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

from slapos.grid.svcbackend import getSupervisorRPC

from slapos_wendelin.node.deaths import Deaths

log = logging.getLogger(__name__)

#: Seconds before the first new start of a program that died, doubled each time up to the second.
FIRST_DELAY, LAST_DELAY = 0.5, 60.0
#: A program that ran this many seconds was well: its next death counts as the first.
STEADY_TIME = 60.0
#: Seconds between two looks while nothing is known to have changed, and while something has.
LONGEST_PAUSE, SHORT_PAUSE = 10.0, 0.25
#: Group of the event listener that slapgrid configures beside the partitions.
WATCHDOG_GROUP = "watchdog"


@dataclass
class BackOff:
    """When a program may be started again."""

    deaths: int = 0
    not_before: float = 0.0

    def died(self, now: float, ran_for: float) -> None:
        """Count a death at *now* (seconds) of a program that ran for *ran_for* seconds."""
        self.deaths = 1 if ran_for >= STEADY_TIME else self.deaths + 1
        self.not_before = now + min(FIRST_DELAY * 2 ** (self.deaths - 1), LAST_DELAY)


class ProcessKeeper:
    """Starts what has died, and what a new supervisord has not started yet."""

    def __init__(self, socket: Path, clock: Callable[[], float] = time.time) -> None:
        self.socket = socket
        self.clock = clock
        #: Whether supervisord did not answer at the last look.
        self.is_alone = False
        self._back_off: dict[str, BackOff] = {}
        #: The last death of each program that was counted: how often it was started here, and when
        #: supervisord started it, in whole seconds (too coarse to tell two quick deaths apart).
        self._counted: dict[str, tuple[int, int]] = {}
        self._starts: Counter[str] = Counter()
        self.deaths = Deaths()
        #: The processes that ran at the last look, supervisord among them.
        self._running: set[int] = set()
        self._has_started = False
        self._wake, self._waker = os.pipe()
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)

    def look(self) -> list[str]:
        """Start what should run and may be started; return the names.

        Does nothing while supervisord is away (``is_alone``): whoever calls starts it.
        """
        self.is_alone, self._has_started = False, False
        try:
            with getSupervisorRPC(str(self.socket)) as supervisor:
                programs = supervisor.getAllProcessInfo()
                self._running = {program["pid"] for program in programs if program["pid"]}
                self._running.add(supervisor.getPID())
                due = [name for program in programs if (name := self._due(program))]
                self.deaths.keep({_name(program) for program in programs}, self.clock())
                self._starts.update(due)
                self._has_started = bool(due)
                return [name for name in due if _start(supervisor, name)]
        except Fault:
            return []
        except OSError:
            self.is_alone, self._running = True, set()
            return []

    def wait(self) -> None:
        """Return when the next look is worth it: something died, or may be started, or woke this.

        The system tells of deaths, so a computer where all is well costs nothing.
        """
        now = self.clock()
        times = [each.not_before - now for each in self._back_off.values()]
        pause = min([LONGEST_PAUSE, *(each for each in times if each > 0)])
        with contextlib.ExitStack() as files:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            for pid in self._running:
                try:
                    descriptor = os.pidfd_open(pid)
                except OSError:
                    # It is gone already, or the system cannot tell.
                    pause = min(pause, SHORT_PAUSE)
                    continue
                files.callback(os.close, descriptor)
                poll.register(descriptor, select.POLLIN)
            if self._has_started or not self._running:
                pause = min(pause, SHORT_PAUSE)
            poll.poll(1000 * pause + 1)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)

    def wake(self) -> None:
        """Let wait() return."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"!")

    def _due(self, program: dict[str, Any]) -> str | None:
        """Return the program's full name when it should be started at once."""
        if program["group"] == WATCHDOG_GROUP:
            return None
        name = _name(program)
        if program["statename"] == "STOPPED":
            # Never started: supervisord is new. Stopped after a start: somebody wants it so.
            return None if program["start"] else name
        if program["statename"] not in ("EXITED", "FATAL"):
            return None
        back_off = self._back_off.setdefault(name, BackOff())
        death = (self._starts[name], program["start"])
        if self._counted.get(name) != death:
            self._counted[name] = death
            back_off.died(self.clock(), program["stop"] - program["start"])
            self.deaths.note(name, program["stop"])
        return name if self.clock() >= back_off.not_before else None


def _name(program: dict[str, Any]) -> str:
    """Return the full name of a program."""
    return f"{program['group']}:{program['name']}"


def _start(supervisor: Any, name: str) -> bool:
    """Start one program; slapgrid may have been faster."""
    try:
        supervisor.startProcess(name, False)
    except Fault as fault:
        log.info("%s not started: %s", name, fault.faultString)
        return False
    log.info("started %s", name)
    return True
