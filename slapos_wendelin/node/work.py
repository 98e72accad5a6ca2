# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node agent has to do, and when: pure bookkeeping, in seconds of a monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from slapos_wendelin.build_progress import Progress

Document = dict[str, Any]

#: Seconds before work that failed is tried again, doubled each time up to the second.
FIRST_RETRY, LAST_RETRY = 2.0, 60.0
#: Seconds before a partition with red promises is processed again, doubled up to the second. Its
#: promises are looked at meanwhile; once they are green it is processed at once.
FIRST_RED_RETRY, LAST_RED_RETRY = 30.0, 600.0
#: Seconds before what the master could not be told is tried again.
AWAY_RETRY = 5.0
#: Seconds before a partition that is still not empty is emptied again.
REMOVAL_RETRY = 60.0
#: Seconds between two errors of a partition: messages may hold numbers that change all the time.
ERROR_INTERVAL = 30.0
#: Seconds between two looks at promises that only slapgrid can run.
LOOK_INTERVAL = 60.0


class Phase(StrEnum):
    """Where a partition is in its processing."""

    QUEUED = "queued"
    PROCESSING = "processing"
    CHECKING = "checking promises"
    SETTLED = "settled"
    RED = "promises are red"
    FAILED = "failed"


@dataclass
class Partition:
    """A partition with an instance."""

    name: str
    instance: str = ""
    state: str = ""
    release: str = ""
    #: The folder of its release.
    software: str = ""
    timestamp: str = ""
    phase: Phase = Phase.SETTLED
    error: str = ""
    not_before: float = 0.0
    retry: float = FIRST_RETRY
    red_retry: float = FIRST_RED_RETRY
    #: Whether it is to be processed once more when its processing ends.
    is_due_again: bool = False
    #: Whether it was processed to the end, or its promises tested, since it got its instance.
    is_installed: bool = False
    #: What its promises said, by their names.
    promises: dict[str, Document] = field(default_factory=dict)
    #: How many promises have not said anything yet; None when that is not known.
    silent: int | None = None
    #: Whether only slapgrid can run its promises, and when it does so next.
    is_foreign: bool = False
    next_look: float = 0.0
    #: What the master knows of its promises: the error, empty when all is well, None for nothing.
    reported: str | None = None
    report_at: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a process works on it."""
        return self.phase in (Phase.PROCESSING, Phase.CHECKING)

    @property
    def is_watched(self) -> bool:
        """Whether its promises are to be run again and again."""
        return self.state == "started" and self.is_installed

    @property
    def is_unreported(self) -> bool:
        """Whether its promises say what the master does not know."""
        if self.phase not in (Phase.SETTLED, Phase.RED) or not self.is_watched or self.silent != 0:
            return False
        # A partition with red promises is processed again before it counts as well.
        return self.reported != self.red and (bool(self.red) or self.phase is Phase.SETTLED)

    @property
    def red(self) -> str:
        """What the first red promise says, as slapgrid tells it; empty when none is red."""
        for name, promise in sorted(self.promises.items()):
            if promise["red"]:
                return f"Promise {name!r} failed with output: {promise['message']}"
        return ""


@dataclass
class Software:
    """A release that is not as it should be."""

    url: str
    state: str
    tries: int = 0
    #: Why the last try has failed; empty when it has not.
    error: str = ""
    #: Where its build is; None while it is not being built.
    progress: Progress | None = None


@dataclass(frozen=True)
class Report:
    """What the master is to be told of a partition's promises; no error when all are green."""

    partition: str
    error: str


class Work:
    """The partitions and releases of a computer."""

    def __init__(self) -> None:
        self.partitions: dict[str, Partition] = {}
        self.software: dict[str, Software] = {}
        self.is_building = False
        self.build_not_before = 0.0
        self._build_retry = FIRST_RETRY

    def learn(self, told: Iterable[Document], software: Iterable[Document], now: float) -> None:
        """Take over what the master wants."""
        told = list(told)
        names = {each["name"] for each in told}
        for name in list(self.partitions):
            if name not in names and not self.partitions[name].is_busy:
                del self.partitions[name]
        for each in told:
            self._learn(each, now)
        due = {each["url"]: each for each in software if each["is_due"]}
        self.software = {
            url: self.software.get(url, Software(url, each["state"])) for url, each in due.items()
        }
        for url, each in due.items():
            if self.software[url].state != each["state"]:
                self.software[url] = Software(url, each["state"])
        if any(not each.tries for each in self.software.values()):
            self.build_not_before = min(self.build_not_before, now)

    def _learn(self, told: Document, now: float) -> None:
        """Take over what the master wants of one partition."""
        partition = self.partitions.setdefault(told["name"], Partition(told["name"]))
        is_new = told["timestamp"] != partition.timestamp or told["state"] != partition.state
        for name in ("instance", "state", "release", "software", "timestamp"):
            setattr(partition, name, told[name])
        partition.reported = _reported(told["has_error"], partition.reported)
        if not told["is_due"]:
            if not partition.is_busy:
                partition.phase, partition.error = Phase.SETTLED, ""
                partition.is_installed = True
            return
        if partition.is_busy:
            partition.is_due_again = partition.is_due_again or is_new
        elif is_new or partition.phase is Phase.SETTLED:
            if is_new:
                partition.retry, partition.red_retry = FIRST_RETRY, FIRST_RED_RETRY
                partition.not_before = now
            partition.phase = Phase.QUEUED

    def next_partition(self, now: float) -> Partition | None:
        """Return the partition to be processed now, and note that it is under way."""
        waiting = [
            each
            for each in self.partitions.values()
            if each.phase in (Phase.QUEUED, Phase.RED, Phase.FAILED)
            and each.not_before <= now
            and not self.is_awaited(each.release)
        ]
        if not waiting:
            return None
        chosen = min(waiting, key=lambda each: each.not_before)
        chosen.phase = Phase.PROCESSING
        return chosen

    def is_awaited(self, release: str) -> bool:
        """Return whether a release is about to be built for the first time since it is wanted."""
        software = self.software.get(release)
        return software is not None and software.state == "available" and not software.tries

    def installed(self, name: str) -> None:
        """Note that a partition waits only for its promises."""
        partition = self.partitions.get(name)
        if partition is not None and partition.is_busy:
            partition.phase = Phase.CHECKING

    def processed(self, name: str, outcome: str, error: str, now: float) -> None:
        """Note that a partition's processing has ended.

        :param outcome: ``well``, ``red`` (promises), ``failed``, ``away`` (the master) or
            ``unknown`` (it must be learnt again).
        """
        partition = self.partitions.get(name)
        if partition is None:
            return
        partition.error = error
        if outcome == "well":
            partition.phase = Phase.SETTLED
            partition.reported, partition.is_installed = "", True
            partition.retry, partition.red_retry = FIRST_RETRY, FIRST_RED_RETRY
            if partition.state == "destroyed":
                partition.not_before = now + REMOVAL_RETRY
        elif outcome == "red":
            partition.phase = Phase.RED
            partition.reported, partition.is_installed = error, True
            partition.not_before = now + partition.red_retry
            partition.red_retry = min(2 * partition.red_retry, LAST_RED_RETRY)
        elif outcome == "failed":
            partition.phase, partition.reported = Phase.FAILED, error
            partition.not_before = now + partition.retry
            partition.retry = min(2 * partition.retry, LAST_RETRY)
        else:
            partition.phase = Phase.FAILED
            partition.not_before = now + AWAY_RETRY
        if partition.is_due_again:
            partition.is_due_again = False
            partition.phase, partition.not_before = Phase.QUEUED, now

    def hurry(self, name: str, now: float) -> None:
        """Try a partition again at once whose processing has failed."""
        partition = self.partitions.get(name)
        if partition is not None and partition.phase is Phase.FAILED:
            partition.not_before = now

    def build(self, now: float) -> bool:
        """Return whether releases are to be built or removed now, and note that it is under way."""
        if self.is_building or not self.software or now < self.build_not_before:
            return False
        self.is_building = True
        return True

    def builds(self, url: str, progress: Progress) -> None:
        """Note where the build of a release is; no other one is being built."""
        for software in self.software.values():
            software.progress = progress if software.url == url else None

    def built(self, now: float, *, well: bool) -> None:
        """Note that the building has ended; the releases are looked at anew after it."""
        self.is_building = False
        for software in self.software.values():
            software.tries += 1
            software.progress = None
        if well:
            self._build_retry = FIRST_RETRY
        self.build_not_before = now + self._build_retry
        if not well:
            self._build_retry = min(2 * self._build_retry, LAST_RETRY)

    def look(self, now: float) -> Partition | None:
        """Return a partition whose promises slapgrid is to look at, and note that it does."""
        for partition in self.partitions.values():
            is_idle = partition.phase is Phase.SETTLED and partition.is_watched
            if partition.is_foreign and is_idle and partition.next_look <= now:
                partition.next_look = now + LOOK_INTERVAL
                return partition
        return None

    def looked(self, name: str, outcome: str, error: str) -> None:
        """Note what slapgrid saw of a partition's promises."""
        partition = self.partitions.get(name)
        if partition is None or outcome == "unknown":
            return
        message = error if outcome != "well" else ""
        partition.promises = {
            "slapgrid": {
                "red": bool(message),
                "message": message,
                "date": "",
                "period": LOOK_INTERVAL,
            }
        }
        partition.silent = 0

    def said(self, name: str, promises: dict[str, Document], silent: int, now: float) -> None:
        """Note what a partition's promises say.

        :param silent: how many of them have not said anything yet.
        """
        partition = self.partitions.get(name)
        if partition is None or partition.is_foreign:
            return
        partition.promises, partition.silent = promises, silent
        if partition.phase is Phase.RED and not partition.red and not silent:
            partition.not_before = now

    def report(self, now: float) -> Report | None:
        """Return what the master is to be told now, and note that it is."""
        for partition in self.partitions.values():
            if partition.is_unreported and partition.report_at <= now:
                was_red = bool(partition.reported)
                partition.reported = partition.error = partition.red
                if partition.red:
                    partition.report_at = now + (ERROR_INTERVAL if was_red else 0.0)
                return Report(partition.name, partition.red)
        return None

    def unreported(self, name: str, now: float) -> None:
        """Note that the master could not be told."""
        partition = self.partitions.get(name)
        if partition is not None:
            partition.reported, partition.report_at = None, now + AWAY_RETRY

    def places(self, at_once: int, in_all: int) -> int:
        """Return how many more partitions may be processed.

        :param at_once: how many at once, without those that wait for their promises.
        :param in_all: how many with them.
        """
        busy = [each for each in self.partitions.values() if each.is_busy]
        processing = sum(each.phase is Phase.PROCESSING for each in busy)
        return min(at_once - processing, in_all - len(busy))

    def next_time(self, now: float, *, has_place: bool) -> float:
        """Return when the next thing is due.

        :param has_place: whether a partition may be processed before another one ends.
        """
        times = [math.inf]
        for partition in self.partitions.values():
            if partition.is_unreported:
                times.append(partition.report_at)
            if partition.phase in (Phase.QUEUED, Phase.RED, Phase.FAILED):
                if has_place and not self.is_awaited(partition.release):
                    times.append(partition.not_before)
            elif partition.is_foreign and partition.is_watched and not partition.is_busy:
                times.append(partition.next_look)
        if self.software and not self.is_building:
            times.append(self.build_not_before)
        return max(min(times), now)


def _reported(has_error: bool | None, known: str | None) -> str | None:
    """Return what the master knows of promises.

    :param has_error: what it has; None when it tells only that all is not well, or nothing at all.
    :param known: what it was told by this agent.
    """
    if has_error is None:
        return known or None
    if not has_error:
        return ""
    return known or "an error that an earlier agent has reported"
