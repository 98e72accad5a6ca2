# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell the master what changed in the promises of a partition, until it knows."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import Any

import slapos.slap
from slapos.slap.slap import ComputerPartition, NotFoundError

from slapos_wendelin.node.configuration import NodeConfiguration
from slapos_wendelin.node.work import Report

log = logging.getLogger(__name__)

#: Seconds before what could not be told is told again.
RETRY = 5.0
#: Seconds between two errors of a partition: messages may hold numbers that change all the time.
ERROR_INTERVAL = 30.0


class Reporting:
    """Keeps the newest report of each partition and tells it."""

    def __init__(self, configuration: NodeConfiguration) -> None:
        self._configuration = configuration
        self._changed = threading.Condition()
        self._reports: dict[str, Report] = {}
        self._not_before: dict[str, float] = {}
        self._is_stopping = False

    def add(self, report: Report) -> None:
        """Tell this soon, in place of what was not told yet of the partition."""
        with self._changed:
            self._reports[report.partition] = report
            self._changed.notify()

    def forget(self, partition: str) -> None:
        """Tell nothing of a partition whose processing will tell."""
        with self._changed:
            self._reports.pop(partition, None)

    def stop(self) -> None:
        """Let run() end soon."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Tell reports until stopped."""
        helper: Any = None
        while (report := self._next()) is not None:
            try:
                helper = helper or self._connect()
                self._tell(helper, report)
            except NotFoundError:
                log.info("the master does not know %s any more", report.partition)
            except Exception as error:
                log.warning("%s: not reported: %s", report.partition, error)
                self._again(report)

    def _next(self) -> Report | None:
        """Wait for the next report that may be told; None when stopped."""
        with self._changed:
            while not self._is_stopping:
                now = time.monotonic()
                times = {
                    name: self._not_before.get(name, 0.0) if report.error else 0.0
                    for name, report in self._reports.items()
                }
                name = min(times, key=lambda each: times[each], default=None)
                if name is not None and times[name] <= now:
                    report = self._reports.pop(name)
                    if report.error:
                        self._not_before[name] = now + ERROR_INTERVAL
                    return report
                self._changed.wait(None if name is None else times[name] - now)
        return None

    def _again(self, report: Report) -> None:
        """Tell a report later, unless there is a newer one."""
        with self._changed:
            self._not_before[report.partition] = 0.0
            self._reports.setdefault(report.partition, report)
            if not self._is_stopping:
                self._changed.wait(RETRY)

    def _connect(self) -> Any:
        """Return the connection of the slap library."""
        library = slapos.slap.slap()
        library.initializeConnection(
            self._configuration.master_url,
            key_file=_text(self._configuration.key),
            cert_file=_text(self._configuration.certificate),
            master_ca_file=_text(self._configuration.authority),
        )
        return library._connection_helper  # noqa: SLF001 (as its classes are made)

    def _tell(self, helper: Any, report: Report) -> None:
        """Send one report; raises what goes wrong."""
        computer = self._configuration.computer
        partition = ComputerPartition(computer, report.partition, connection_helper=helper)
        if not report.error:
            partition.started()
            return
        faults = _Faults()
        partition.error(
            report.error, logger=faults
        )  # keeps its error to itself, but for the logger
        if faults.error is not None:
            raise faults.error


class _Faults:
    """Takes the error that the slap library only logs."""

    error: BaseException | None = None

    def exception(self, *_: object) -> None:
        """Keep the error that is being handled."""
        self.error = sys.exc_info()[1]


def _text(path: object) -> str | None:
    """Return a path as text."""
    return None if path is None else str(path)
