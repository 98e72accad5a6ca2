# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of a computer: runs slapgrid when the master has work, and keeps programs running."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.joining import renew_if_possible
from slapos_wendelin.master.client import Document, MasterClient
from slapos_wendelin.node.configuration import NodeConfiguration
from slapos_wendelin.node.measurement import Reporter
from slapos_wendelin.node.processes import ProcessKeeper

log = logging.getLogger(__name__)

#: Seconds between two passes of slapgrid when the master has no work: promises are checked then.
IDLE_INTERVAL = 60.0
#: Seconds before the next pass while something is red, doubled each time up to the idle interval.
FIRST_RETRY = 2.0
#: Seconds that one question to the master may wait for an answer.
WAIT_TIME = 20.0
#: Seconds between two looks at the programs.
LOOK_INTERVAL = 0.5
#: Seconds between two looks at the end of the computer's certificate.
RENEWAL_INTERVAL = 3600.0
#: Seconds that a running slapgrid gets to stop.
STOP_TIME = 10.0


@dataclass
class Schedule:
    """When the next pass is due; pure bookkeeping, in seconds of a monotonic clock."""

    next_pass: float = 0.0
    retry: float = field(default=FIRST_RETRY)

    def passed(self, now: float, *, well: bool, worked: bool) -> None:
        """Note a pass that ended at *now*: *well* without failure, *worked* on something new.

        Promises that watch over the whole cluster are looked at on the pass after the work.
        """
        if well and not worked:
            self.retry = FIRST_RETRY
            self.next_pass = now + IDLE_INTERVAL
            return
        if worked:
            self.retry = FIRST_RETRY
        self.next_pass = now + self.retry
        self.retry = min(self.retry * 2, IDLE_INTERVAL)


class NodeService:
    """Runs until told to stop; may be killed at any time and started again."""

    def __init__(
        self, configuration: NodeConfiguration, master: MasterClient, reporting: MasterClient
    ) -> None:
        """Make a service.

        :param reporting: another client of the same master, for measurements: they go on while the
            service waits or slapgrid builds.
        """
        self.configuration = configuration
        self.master = master
        self.keeper = ProcessKeeper(configuration.supervisor_socket)
        self.schedule = Schedule()
        self.reporter = Reporter(reporting, configuration.computer, configuration.instance_root)
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()
        self._next_renewal = 0.0

    def run(self) -> None:
        """Work until stop() is called."""
        self._slapos("supervisord")
        watcher = threading.Thread(target=self._watch_programs, daemon=True)
        watcher.start()
        threading.Thread(target=self.reporter.run, args=(self._stop,), daemon=True).start()
        number = 0
        while not self._stop.is_set():
            self._renew_certificate()
            work = self._wait_for_work(number)
            full = number == 0 or time.monotonic() >= self.schedule.next_pass
            if work or full:
                well = self._pass(None if full else _partitions(work))
                self.schedule.passed(time.monotonic(), well=well, worked=bool(work))
                number = work.get("number", number)
        watcher.join()

    def stop(self) -> None:
        """Let run() end soon; a slapgrid under way is stopped, and goes on at the next start."""
        self._stop.set()
        child = self._child
        if child is None or child.poll() is not None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, sign)
                child.wait(timeout=STOP_TIME)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def _wait_for_work(self, number: int) -> Document:
        """Return the master's work newer than *number*, or nothing when the next pass is due."""
        patience = min(max(self.schedule.next_pass - time.monotonic(), 0.0), WAIT_TIME)
        try:
            work = self.master.wait_due(self.configuration.computer, number, patience)
        except WendelinError as error:
            # What runs goes on without the master.
            log.warning("%s", error)
            self._stop.wait(min(max(patience, 1.0), 5.0))
            return {}
        return work if work["number"] != number else {}

    def _pass(self, partitions: list[str] | None) -> bool:
        """Build and remove software, process partitions, empty those of destroyed instances.

        Return whether all went well.

        :param partitions: the partitions to process; None for all, which looks at their promises.
        """
        statuses: list[int] = []
        if self._software_is_due():
            statuses.append(self._slapos("software"))
        if partitions is None:
            statuses.append(self._slapos("instance"))
        elif partitions:
            statuses.append(self._slapos("instance", "--only-cp", ",".join(partitions)))
        if self._removal_is_due():
            # slapgrid empties the partitions of destroyed instances when it reports usage.
            statuses += [self._slapos("report"), self._removal_is_due()]
        return not any(statuses)

    def _software_is_due(self) -> bool:
        """Return whether a release waits to be built or removed; True when the master is away."""
        try:
            computer = self.master.computer(self.configuration.computer)
        except WendelinError:
            return True
        return any(
            software["requested_state"] != software["reported_state"]
            for software in computer["software"]
        )

    def _removal_is_due(self) -> bool:
        """Return whether a destroyed instance still has its partition."""
        try:
            everything = self.master.wait_due(self.configuration.computer, 0, 0.0)
        except WendelinError:
            return False
        return any(instance["state"] == "destroyed" for instance in everything["instances"])

    def _renew_certificate(self) -> None:
        """Renew the computer's certificate when it is near its end; look at it now and then."""
        now = time.monotonic()
        if now < self._next_renewal:
            return
        self._next_renewal = now + RENEWAL_INTERVAL
        renew_if_possible(
            self.configuration.master_url,
            certificate=self.configuration.certificate,
            key=self.configuration.key,
            ca_file=self.configuration.authority,
        )

    def _slapos(self, command: str, *options: str) -> int:
        """Run one command of ``slapos node`` to its end and return its exit status."""
        slapos = Path(sys.executable).with_name("slapos")
        arguments = [str(slapos), "node", command, *options]
        arguments += ["--cfg", str(self.configuration.path)]
        with self._one_at_a_time:
            if self._stop.is_set():
                return 0
            self._child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
            )
            return self._child.wait()

    def _watch_programs(self) -> None:
        """Look at the programs again and again; start their supervisord when it has died."""
        while not self._stop.wait(LOOK_INTERVAL):
            try:
                self.keeper.look()
                if self.keeper.is_alone:
                    self._slapos("supervisord")
            except Exception:
                # The watch must outlive whatever supervisord answers.
                log.exception("looking at the programs failed")


def _partitions(work: Document) -> list[str]:
    """Return the partitions that the master's answer names."""
    return [instance["partition"] for instance in work["instances"]]
