# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a computer and tell its master, which also learns in this way that it is there.

The master is told of programs that have died by the same message.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterClient

log = logging.getLogger(__name__)

#: Seconds between two measurements: several fit into the time after which a computer counts as
#: lost, however long slapgrid builds without a word.
INTERVAL = 100.0
#: Seconds before the next try when the master did not answer.
RETRY = 10.0
#: Seconds between two messages when programs die all the time.
NEWS_INTERVAL = 30.0


def measure(instance_root: Path) -> dict[str, Any]:
    """Return how large this computer is and what is in use, in bytes but for cores and load.

    :param instance_root: the folder of the partitions, whose disk is measured.
    """
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(instance_root))
    return {
        "cpu_core": psutil.cpu_count() or 1,
        "memory_size": memory.total,
        "memory_used": memory.total - memory.available,
        "storage_capacity": disk.total,
        "storage_used": disk.used,
        "load": [round(each, 2) for each in psutil.getloadavg()],
    }


class Reporter:
    """Measures at once and then again and again, until told to stop."""

    def __init__(
        self,
        master: MasterClient,
        computer: str,
        instance_root: Path,
        deaths: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """Make a reporter; nothing is sent yet.

        :param master: a client that nobody else uses meanwhile.
        :param deaths: returns what is known of programs that have died.
        """
        self._master = master
        self._computer = computer
        self._instance_root = instance_root
        self._deaths = deaths
        self._left: Mapping[str, Mapping[str, str]] = {}
        self._news = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Report until the event is set; whoever sets it calls wake() then."""
        next_news = 0.0
        while not stop.is_set():
            if self._news.wait(INTERVAL if self.report() else RETRY):
                stop.wait(max(next_news - time.monotonic(), 0.0))
                next_news = time.monotonic() + NEWS_INTERVAL
                self._news.clear()

    def wake(self) -> None:
        """Report at once, or when the last news is not so new any more, or end."""
        self._news.set()

    def tell_left(self, left: Mapping[str, Mapping[str, str]]) -> None:
        """Report what is in partitions that the master does not know to be there."""
        self._left = left
        self.wake()

    def report(self) -> bool:
        """Report once; return whether the master has it."""
        try:
            left = {"left": self._left} if self._left else {}
            measured = measure(self._instance_root) | {"deaths": self._deaths()} | left
            self._master.put_measurement(self._computer, measured)
        except (WendelinError, OSError) as error:
            log.warning("not reported: %s", error)
            return False
        return True
