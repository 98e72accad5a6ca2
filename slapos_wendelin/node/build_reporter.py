# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the master how far a build is: when that has changed, and not more often than is read."""

from __future__ import annotations

import logging
import threading

from slapos_wendelin.build_progress import Progress
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterClient

log = logging.getLogger(__name__)

#: Seconds between two reports.
INTERVAL = 5.0


class BuildReporter:
    """Tells the newest of what it is given; what is overtaken before it was told is left out."""

    def __init__(self, master: MasterClient, computer: str, *, interval: float = INTERVAL) -> None:
        """Make a reporter; nothing is sent yet.

        :param master: a client that nobody else uses meanwhile.
        """
        self._master = master
        self._computer = computer
        self._interval = interval
        self._newest: tuple[str, Progress] | None = None
        self._news = threading.Event()

    def tell(self, url: str, progress: Progress) -> None:
        """Let the master know where the build of a release is."""
        self._newest = (url, progress)
        self._news.set()

    def wake(self) -> None:
        """Let run() see that it is to end."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Report until the event is set; whoever sets it calls wake() then."""
        error = ""
        while not stop.is_set():
            self._news.wait()
            self._news.clear()
            newest = self._newest
            if newest is None or stop.is_set():
                continue
            url, progress = newest
            try:
                self._master.put_build(self._computer, url, progress.stage, progress.percent)
                error = ""
            except (WendelinError, OSError) as problem:
                # The next one is as good; the build itself does not depend on it.
                if str(problem) != error:
                    log.warning("the progress of a build is not reported: %s", problem)
                error = str(problem)
            stop.wait(self._interval)
