# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of a computer: does what the master wants as soon as it wants it, and watches over it.

This process decides. Three others work for it: one processes partitions and builds software with
slapos.core, one runs buildouts, one runs promises. All of them end with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import threading
import time
from typing import Any, TextIO

from slapos_wendelin.build_progress import Progress
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.joining import renew_if_possible
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.node import channel, exclusion, state
from slapos_wendelin.node.build_reporter import BuildReporter
from slapos_wendelin.node.configuration import NodeConfiguration
from slapos_wendelin.node.helpers import Helper
from slapos_wendelin.node.measurement import Reporter
from slapos_wendelin.node.processes import ProcessKeeper
from slapos_wendelin.node.work import Partition, Work

log = logging.getLogger(__name__)

#: Seconds between two complete looks at what the master wants when it says nothing is new.
FETCH_INTERVAL = 300.0
#: Seconds before the next try to reach a master that is away.
AWAY_INTERVAL = 5.0
#: Seconds that one question to the master may wait for an answer.
WAIT_TIME = 50.0
#: Seconds between two looks at the end of the computer's certificate.
RENEWAL_INTERVAL = 3600.0
#: Seconds between two tries while ``slapos node`` works on the computer.
HELD_INTERVAL = 0.2
#: Seconds between two writings of the state.
STATE_INTERVAL = 0.5
#: Seconds that a new supervisord gets to be there.
ALONE_TIME = 60.0
#: How many partitions are processed at once, and how many in all with those that wait for promises.
AT_ONCE = max(2, os.cpu_count() or 1)
MOST_AT_ONCE = 16 * AT_ONCE

Event = dict[str, Any]


class NodeService:
    """Runs until told to stop; may be killed at any time and started again."""

    def __init__(
        self,
        configuration: NodeConfiguration,
        master: MasterClient,
        reporting: MasterClient,
        build_reporting: MasterClient,
    ) -> None:
        """Make a service.

        :param reporting: another client of the same master, for measurements.
        :param build_reporting: one more, for the progress of builds.
        """
        self.configuration = configuration
        self.master = master
        self.work = Work()
        self.keeper = ProcessKeeper(configuration.supervisor_socket)
        self.reporter = Reporter(
            reporting, configuration.computer, configuration.instance_root, self._report_deaths
        )
        self.keeper.deaths.changed = self.reporter.wake
        self.build_reporter = BuildReporter(build_reporting, configuration.computer)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._stopped = threading.Event()
        self._lock: TextIO | None = None
        self._is_fetching = False
        self._must_fetch_again = False
        self._next_fetch = math.inf
        self._next_state = 0.0
        self._is_changed = True
        #: The process of ``slapos node`` that keeps this one from processing partitions.
        self._holder: int | None = None
        self._claimed: set[str] = set()
        self._watched: dict[str, str] = {}
        #: The master as seen last: what it said when it was away, empty when it answered.
        self._master_error = "not asked yet"
        #: What is in partitions that the master does not know to be there, by their names.
        self._left: dict[str, dict[str, str]] = {}
        self._started_at = time.time()
        self._prepared = threading.Event()
        self._helpers: dict[str, Helper] = {}

    def run(self) -> None:
        """Work until stop() is called."""
        root = self.configuration.instance_root
        try:
            self._lock = exclusion.lock(state.folder_of(root))
            if ended := exclusion.end_leftovers(root):
                log.info("ended what an earlier agent has left: %s", ended)
            self._remember()
            self._start_helpers()
            for work in (self._wait_for_work, self._watch_programs):
                threading.Thread(target=work, daemon=True).start()
            for reporter in (self.reporter, self.build_reporter):
                threading.Thread(target=reporter.run, args=(self._stop,), daemon=True).start()
            while not self._stop.is_set():
                self._step()
        finally:
            for helper in self._helpers.values():
                helper.stop()
            for kind in list(self._claimed):
                self._release(kind)
            self._stopped.set()

    def stop(self) -> None:
        """Let run() end; what is under way is ended, and goes on at the next start."""
        self._stop.set()
        self._events.put({"event": "stop"})
        self.keeper.wake()
        self.reporter.wake()
        self.build_reporter.wake()
        self._stopped.wait()

    def look_again(self) -> None:
        """Ask the master for everything once more, and look at what is here."""
        self._events.put({"event": "due"})

    def _start_helpers(self) -> None:
        """Start the processes that work for this one."""
        environment = os.environ | {exclusion.MARK: str(self.configuration.instance_root)}
        asking_buildouts, buildouts = channel.make_channel()
        asking_promises, promises = channel.make_channel()
        package = __package__ or "slapos_wendelin.node"
        # The ends stay open here: whoever is started again finds what was asked meanwhile.
        self._channels = (asking_buildouts, buildouts, asking_promises, promises)
        plans: dict[str, tuple[list[str], list[int]]] = {
            "buildout_server": ([str(buildouts.fileno())], [buildouts.fileno()]),
            "promise_runner": (
                [str(promises.fileno()), json.dumps(self.configuration.promise_settings)],
                [promises.fileno()],
            ),
            "processor": (
                [
                    str(self.configuration.path),
                    str(asking_buildouts.fileno()),
                    str(asking_promises.fileno()),
                ],
                [asking_buildouts.fileno(), asking_promises.fileno()],
            ),
        }
        for name, (arguments, descriptors) in plans.items():
            self._helpers[name] = Helper(
                f"{package}.{name}", arguments, descriptors, environment, self._events.put
            )
        for helper in self._helpers.values():
            helper.start()

    def _step(self) -> None:
        """Wait for what happens or is due next, and do what follows from it."""
        now = time.monotonic()
        has_place = self.work.places(AT_ONCE, MOST_AT_ONCE) > 0
        next_time = min(self.work.next_time(now, has_place=has_place), self._next_fetch)
        if self._holder is not None:
            next_time = max(next_time, now + HELD_INTERVAL)
        if self._is_changed:
            next_time = min(next_time, self._next_state)
        with contextlib.suppress(queue.Empty):
            self._handle(self._events.get(timeout=_bounded(next_time - now)))
            while True:
                self._handle(self._events.get_nowait())
        if not self._stop.is_set():
            self._do_what_is_due(time.monotonic())
            self._write_state(time.monotonic())

    def _handle(self, event: Event) -> None:
        """Note what a helper or a thread tells."""
        self._is_changed = True
        handle = getattr(self, f"_on_{event['event']}", None)
        if handle is not None:
            handle(event, time.monotonic())

    def _on_started(self, event: Event, now: float) -> None:
        """Tell a process that was started what it has to know."""
        if event["helper"] == "promise_runner":
            self._helpers["promise_runner"].send({"watch": self._watched})
        if event["helper"] != "processor":
            return
        # What an earlier one had under way has ended with it.
        for partition in self.work.partitions.values():
            if partition.is_busy:
                self.work.processed(partition.name, "unknown", "", now)
        if self.work.is_building:
            self.work.built(now, well=False)
        self._helpers["processor"].send({"do": "prepare"})
        self._is_fetching = False
        self._fetch()

    def _on_due(self, _: Event, now: float) -> None:
        """Ask the master what is new."""
        self._master_error = ""
        self._next_fetch = now
        self._must_fetch_again = self._is_fetching

    def _on_answered(self, event: Event, _: float) -> None:
        """Note whether the master answers."""
        self._master_error = event["error"]

    def _on_fetched(self, event: Event, now: float) -> None:
        """Take over what the master wants."""
        self._is_fetching, self._master_error = False, ""
        self._next_fetch = now if self._must_fetch_again else now + FETCH_INTERVAL
        self._must_fetch_again = False
        self.work.learn(event["partitions"], event["software"], now)
        if event["left"] != self._left:
            for name in self._left.keys() - event["left"].keys():
                self.work.hurry(name, now)
            self._left = event["left"]
            self.reporter.tell_left(self._left)

    def _on_away(self, event: Event, now: float) -> None:
        """Try again later; what runs goes on."""
        self._is_fetching, self._master_error = False, event["error"]
        self._next_fetch = now + AWAY_INTERVAL

    def _on_prepared(self, event: Event, _: float) -> None:
        """Note that supervisord runs, or does not."""
        if event["outcome"] != "well":
            log.warning("supervisord was not started: %s", event["error"])
        self._prepared.set()

    def _on_installed(self, event: Event, _: float) -> None:
        """Note that a partition waits only for its promises."""
        self.work.installed(event["partition"])
        # There are programs to be watched.
        self.keeper.wake()

    def _on_processed(self, event: Event, now: float) -> None:
        """Note how the processing of a partition ended."""
        name, outcome = event["partition"], event["outcome"]
        log.info("%s: %s%s", name, outcome, f": {event['error']}" if event.get("error") else "")
        self.work.processed(name, outcome, event.get("error", ""), now)
        self.keeper.wake()
        partition = self.work.partitions.get(name)
        if partition is not None and partition.state == "destroyed" and outcome == "well":
            self._next_fetch = now

    def _on_built(self, event: Event, now: float) -> None:
        """Look what is there after releases were built and removed."""
        self.work.built(now, well=event["outcome"] == "well")
        self._release("software")
        self._next_fetch = now

    def _on_building(self, event: Event, _: float) -> None:
        """Note where the build of a release is."""
        progress = Progress(event["stage"], event["percent"])
        self.work.builds(event["url"], progress)
        if progress.stage:
            self.build_reporter.tell(event["url"], progress)

    def _on_unbuilt(self, event: Event, _: float) -> None:
        """Note why a release was not built or removed."""
        software = self.work.software.get(event["url"])
        if software is not None:
            software.error, software.progress = event["error"], None

    def _on_promises(self, event: Event, now: float) -> None:
        """Note what the promises of a partition say."""
        self.work.said(event["partition"], event["results"], event["waits"], now)

    def _on_foreign(self, event: Event, _: float) -> None:
        """Note that only slapgrid can run a partition's promises."""
        partition = self.work.partitions.get(event["partition"])
        if partition is not None:
            partition.is_foreign = True

    def _on_looked(self, event: Event, _: float) -> None:
        """Note what slapgrid has seen of promises."""
        self.work.looked(event["partition"], event["outcome"], event.get("error", ""))

    def _on_unreported(self, event: Event, now: float) -> None:
        """Note that the master could not be told of promises."""
        log.warning("%s: not reported: %s", event["partition"], event["error"])
        self.work.unreported(event["partition"], now)

    def _on_alone(self, _: Event, __: float) -> None:
        """Start the supervisord that has died."""
        self._helpers["processor"].send({"do": "prepare"})

    def _do_what_is_due(self, now: float) -> None:
        """Begin what is to be done now."""
        if now >= self._next_fetch:
            self._fetch()
        self._holder = self._other_holder("instance")
        if self._holder is None:
            self._process(now)
        if self._other_holder("software") is None and self.work.build(now):
            self._claim("software")
            self._helpers["processor"].send({"do": "build"})
        while (partition := self.work.look(now)) is not None:
            self._helpers["processor"].send({"do": "look", "partition": partition.name})
        while (report := self.work.report(now)) is not None:
            log.info("%s: %s", report.partition, report.error or "its promises are green")
            self._helpers["processor"].send(
                {"do": "report", "partition": report.partition, "error": report.error}
            )
        self._watch_promises()

    def _fetch(self) -> None:
        """Ask the master for everything, unless that is under way."""
        self._next_fetch = math.inf
        if not self._is_fetching:
            self._is_fetching = True
            self._helpers["processor"].send({"do": "fetch"})

    def _process(self, now: float) -> None:
        """Begin to process partitions, as many as there are processors for."""
        places = self.work.places(AT_ONCE, MOST_AT_ONCE)
        while places > 0 and (partition := self.work.next_partition(now)) is not None:
            places -= 1
            self._claim("instance")
            self._helpers["processor"].send({"do": "process", "partition": partition.name})
        if not any(each.is_busy for each in self.work.partitions.values()):
            self._release("instance")

    def _watch_promises(self) -> None:
        """Tell the runner of promises which partitions to watch, when these are others."""
        watched = {
            each.name: each.software for each in self.work.partitions.values() if each.is_watched
        }
        if watched != self._watched:
            self._watched = watched
            self._helpers["promise_runner"].send({"watch": watched})

    def _other_holder(self, kind: str) -> int | None:
        """Return the process of ``slapos node`` that works on this computer, None for none."""
        holder = exclusion.holder_of(self.configuration.pid_file(kind))
        return None if holder in (self._helpers["processor"].pid, os.getpid()) else holder

    def _claim(self, kind: str) -> None:
        """Keep ``slapos node`` from working on this computer."""
        if kind not in self._claimed:
            self._claimed.add(kind)
            pid = self._helpers["processor"].pid or os.getpid()
            try:
                self.configuration.pid_file(kind).write_text(str(pid))
            except OSError as error:
                log.warning("`slapos node %s` is not kept from working too: %s", kind, error)

    def _release(self, kind: str) -> None:
        """Let ``slapos node`` work on this computer."""
        if kind in self._claimed:
            self._claimed.discard(kind)
            with contextlib.suppress(OSError):
                self.configuration.pid_file(kind).unlink(missing_ok=True)

    def _remember(self) -> None:
        """Know the partitions of the last agent until the master tells which there are."""
        earlier = state.read_state(self.configuration.instance_root) or {}
        self.keeper.deaths.remember(earlier.get("deaths", {}))
        # An agent of another version may have told it otherwise.
        with contextlib.suppress(KeyError, TypeError):
            for each in earlier["partitions"]:
                if each["is_installed"] and each["wanted"] == "started":
                    self.work.partitions[each["name"]] = Partition(
                        each["name"],
                        instance=each["instance"],
                        state=each["wanted"],
                        release=each["release"],
                        software=each["software"],
                        is_installed=True,
                    )

    def _write_state(self, now: float) -> None:
        """Tell how everything is, when that is new and was not told just before."""
        if not self._is_changed or now < self._next_state:
            return
        self._is_changed = False
        self._next_state = now + STATE_INTERVAL
        held = f"`slapos node` (process {self._holder}) to end" if self._holder else ""
        document = {
            "computer": self.configuration.computer,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "written_at": time.time(),
            "master": {"url": self.configuration.master_url, "error": self._master_error},
            "deaths": self.keeper.deaths.told(),
            "left": self._left,
            **state.describe(self.work, now, held),
        }
        try:
            state.write_state(self.configuration.instance_root, document)
        except OSError as error:
            # A full disk is no reason to stop.
            log.warning("the state is not told: %s", error)
            self._is_changed, self._next_state = True, now + AWAY_INTERVAL

    def _report_deaths(self) -> list[Event]:
        """Return what the master is told of programs that have died."""
        return self.keeper.deaths.report(list(self.work.partitions))

    def _wait_for_work(self) -> None:
        """Ask the master for work again and again, and tell when there is some."""
        number, next_renewal, error = 0, 0.0, ""
        while not self._stop.is_set():
            begin = time.monotonic()
            if begin >= next_renewal:
                next_renewal = begin + RENEWAL_INTERVAL
                self._renew_certificate()
            try:
                found = self.master.wait_due(self.configuration.computer, number, WAIT_TIME)
            except (WendelinError, OSError) as problem:
                # What runs goes on without the master.
                if str(problem) != error:
                    log.warning("%s", problem)
                error = str(problem)
                self._events.put({"event": "answered", "error": error})
                self._stop.wait(AWAY_INTERVAL)
                continue
            if found["number"] != number or error:
                number, error = found["number"], ""
                self._events.put({"event": "due"})
            elif time.monotonic() - begin < AWAY_INTERVAL:
                # A master whose places to wait are all taken answers at once.
                self._stop.wait(AWAY_INTERVAL)

    def _renew_certificate(self) -> None:
        """Renew the computer's certificate when it is near its end."""
        renew_if_possible(
            self.configuration.master_url,
            certificate=self.configuration.certificate,
            key=self.configuration.key,
            ca_file=self.configuration.authority,
        )

    def _watch_programs(self) -> None:
        """Start programs that have died; have their supervisord started when it has."""
        self._prepared.wait()
        while not self._stop.is_set():
            try:
                if self.keeper.look():
                    self._events.put({"event": "restarted"})
                if self.keeper.is_alone:
                    self._prepared.clear()
                    self._events.put({"event": "alone"})
                    self._prepared.wait(ALONE_TIME)
                self.keeper.wait()
            except Exception:
                # The watch must outlive whatever supervisord answers.
                log.exception("looking at the programs failed")
                self._stop.wait(1.0)


def _bounded(seconds: float) -> float:
    """Return a time to wait that the system can wait for."""
    return min(max(seconds, 0.0), 3600.0)
