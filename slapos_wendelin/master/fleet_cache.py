# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that placement searches, kept between transactions and in step with the database."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, event, func, or_, select
from sqlalchemy.orm import Session

from slapos_wendelin.master.candidates import ELIGIBLE, LOST, Candidate
from slapos_wendelin.master.computer_fields import REMOVED
from slapos_wendelin.master.due import committed_number, number_before
from slapos_wendelin.master.fleet import Fleet
from slapos_wendelin.master.history import HistorySession, effects, number_of
from slapos_wendelin.master.models import Computer, Instance, Partition

#: The key of ``Session.info`` that holds the cache of the process.
_CACHE = "wendelin.fleet_cache"

#: The label that says what every partition of a computer can do, with commas.
CAPABILITY_LABEL = "capability"

#: How often it is worked out anew which computers are lost, in seconds.
_LOST_INTERVAL = 10.0

#: Of more computers than these, all partitions are read at once.
_FEW = 500

_COLUMNS = (
    Computer.id,
    Computer.reference,
    Computer.datacenter,
    Computer.region,
    Computer.provider,
    Computer.network,
    Computer.labels,
    Computer.measured,
    Computer.state,
    Computer.contacted_at,
    Computer.revision,
)

#: Statements are made once: to make one costs as much as to execute it.
_REVISIONS = select(Computer.id, Computer.revision).where(
    or_(
        Computer.revision > bindparam("seen"),
        Computer.id.in_(bindparam("stale", expanding=True)),
    )
)
_ALL = select(*_COLUMNS)
_FEW_COMPUTERS = _ALL.where(Computer.id.in_(bindparam("computers", expanding=True)))
_OFFERED = (
    select(Partition.computer_id, func.count())
    .where(Partition.offered)
    .group_by(Partition.computer_id)
)
_UNUSED = (
    select(Partition.computer_id, Partition.reference)
    .outerjoin(Instance, Instance.partition_id == Partition.id)
    .where(Partition.offered, Instance.id.is_(None))
    .order_by(Partition.id)
)
_OF_FEW = Partition.computer_id.in_(bindparam("computers", expanding=True))
_OFFERED_OF_FEW, _UNUSED_OF_FEW = _OFFERED.where(_OF_FEW), _UNUSED.where(_OF_FEW)


class FleetCache:
    """The fleet of one process.

    Each change of a computer, its partitions or the instances on it gives it a larger revision, so
    only those beyond the last revision seen are read again. Every master process has a cache of its
    own and learns in this way what the others did.

    A writing transaction sees its own changes too. They may never be committed: the computers that
    have them are looked at again by the next transaction, whatever their revision is then. Most
    transactions only fill a partition; the cache follows that, and the computer is not read again
    while it has the revision that it got by it.

    It serves writing transactions and trials, of which a process has one at a time.
    """

    def __init__(
        self,
        is_silent: Callable[[str, float | None], bool] = lambda _reference, _contact: False,
        lost_after: float = _LOST_INTERVAL * 10,
    ) -> None:
        """Start empty.

        :param is_silent: whether a computer has not called for too long, from its reference and
            the last contact that the database has.
        :param lost_after: how long too long is, in seconds.
        """
        #: What is told how long each placement took, in seconds.
        self.observe: Callable[[float], None] = lambda _seconds: None
        self._fleet = Fleet()
        self._is_silent = is_silent
        self._seen = -1
        #: The references of computers by their row.
        self._references: dict[int, str] = {}
        #: The rows that the fleet shows with changes that may not have been committed.
        self._stale: set[int] = set()
        #: The revision of each row as the fleet shows it, where that is sure.
        self._shown: dict[int, int] = {}
        self._lost: dict[str, float | None] = {}
        self._lost_interval = min(_LOST_INTERVAL, lost_after / 10)
        self._lost_at = time.monotonic()

    def fleet(self, session: Session) -> Fleet:
        """Return the fleet as the session's transaction sees the database."""
        committed, before = committed_number(session), number_before(session)
        stale = {"seen": self._seen, "stale": list(self._stale)}
        revisions = {row.id: row.revision for row in session.execute(_REVISIONS, stale)}
        for row in self._stale - revisions.keys():
            self._forget(row)
        changed = [row for row, revision in revisions.items() if self._shown.get(row) != revision]
        self._stale |= {row for row in changed if revisions[row] > committed}
        self._read(session, changed)
        for row in changed:
            # What has a number of this transaction may change under it once more.
            if revisions[row] <= before:
                self._shown[row] = revisions[row]
            else:
                self._shown.pop(row, None)
        self._stale = {row for row, revision in revisions.items() if revision > committed}
        self._seen = committed
        self._follow_contacts(session)
        return self._fleet

    def follow(self, session: Session) -> None:
        """Take over what a session has done, of which everything is flushed, if that is simple."""
        done, number = effects(session), number_of(session)
        for partition in done.filled:
            computer = partition.computer
            known = self._fleet.get(computer.reference)
            if number is None or known is None or computer.id in done.changed:
                continue
            if computer.id in self._shown:
                free = [*known.free]
                if partition.reference in free:
                    free.remove(partition.reference)
                self._fleet.put(replace(known, free=tuple(free)))
                self._shown[computer.id] = number
                self._stale.add(computer.id)

    def _read(self, session: Session, computers: Sequence[int]) -> None:
        """Read computers and put them into the fleet as the session sees them."""
        if not computers:
            return
        wanted = set(computers)
        few = {"computers": list(computers)} if len(wanted) <= _FEW else None
        rows = session.execute(_ALL if few is None else _FEW_COMPUTERS, few).all()
        free, capacity = _partitions(session, computers)
        for row in rows:
            if row.id in wanted:
                self._put(row, free.get(row.id, ()), capacity.get(row.id, 0))

    def _put(self, row: Any, free: Sequence[str], capacity: int) -> None:
        """Put a computer into the fleet as its row says."""
        if self._references.get(row.id, row.reference) != row.reference:
            # The row of a computer that was not committed has become another one's.
            self._forget(row.id)
        if row.state == REMOVED:
            self._forget(row.id)
            return
        self._references[row.id] = row.reference
        self._lost.pop(row.reference, None)
        state = row.state
        if state == ELIGIBLE and self._is_silent(row.reference, row.contacted_at):
            state = LOST
            self._lost[row.reference] = row.contacted_at
        self._fleet.put(_candidate(row, free, capacity, state))

    def _forget(self, row: int) -> None:
        """Take a computer out of the fleet."""
        self._shown.pop(row, None)
        reference = self._references.pop(row, None)
        if reference is not None:
            self._fleet.remove(reference)
            self._lost.pop(reference, None)

    def _follow_contacts(self, session: Session) -> None:
        """Find out which computers were lost meanwhile, and which are back."""
        for reference, contact in list(self._lost.items()):
            if not self._is_silent(reference, contact):
                self._note_contact(reference, contact)
        now = time.monotonic()
        if now - self._lost_at < self._lost_interval:
            return
        self._lost_at = now
        for reference, contact in session.execute(
            select(Computer.reference, Computer.contacted_at).where(Computer.state == ELIGIBLE)
        ):
            self._note_contact(reference, contact)

    def _note_contact(self, reference: str, contact: float | None) -> None:
        """Note whether a computer that is eligible otherwise is lost."""
        state = LOST if self._is_silent(reference, contact) else ELIGIBLE
        if state == LOST:
            self._lost[reference] = contact
        else:
            self._lost.pop(reference, None)
        known = self._fleet.get(reference)
        if known is not None and known.state != state:
            self._fleet.put(replace(known, state=state))


def keep_in(session: Session, cache: FleetCache) -> None:
    """Let the transactions of a session use a cache."""
    session.info[_CACHE] = cache


def fleet_of(session: Session) -> Fleet:
    """Return the fleet as a writing transaction sees it, from the process's cache if it has one."""
    return _cache(session).fleet(session)


@contextmanager
def timing(session: Session) -> Iterator[None]:
    """Tell the process's cache how long a placement, which the block is, takes."""
    began = time.perf_counter()
    try:
        yield
    finally:
        _cache(session).observe(time.perf_counter() - began)


def _follow(session: Session) -> None:
    """Let the cache that a session was given follow what the session keeps."""
    cache = session.info.get(_CACHE)
    if isinstance(cache, FleetCache):
        cache.follow(session)


def _cache(session: Session) -> FleetCache:
    """Return the cache that a session was given, or one of its own."""
    cache = session.info.get(_CACHE)
    if not isinstance(cache, FleetCache):
        cache = FleetCache()
        keep_in(session, cache)
    return cache


@contextmanager
def without(fleet: Fleet, reference: str, reason: str) -> Iterator[None]:
    """Close a computer for as long as the block runs.

    :param reason: what explanations say of it.
    """
    known = fleet.get(reference)
    if known is None:
        yield
        return
    fleet.put(replace(known, state=reason))
    try:
        yield
    finally:
        fleet.put(known)


def _partitions(
    session: Session, computers: Sequence[int]
) -> tuple[dict[int, list[str]], dict[int, int]]:
    """Return the free partitions of computers, and how many they offer in all."""
    free: dict[int, list[str]] = {}
    capacity: dict[int, int] = {}
    few = {"computers": list(computers)} if len(computers) <= _FEW else None
    offered, unused = (_OFFERED, _UNUSED) if few is None else (_OFFERED_OF_FEW, _UNUSED_OF_FEW)
    connection = session.connection()
    capacity = {row[0]: row[1] for row in connection.execute(offered, few)}
    # All at once: a row at a time costs three times as much.
    for computer, reference in connection.execute(unused, few).all():
        free.setdefault(computer, []).append(reference)
    return free, capacity


def _candidate(row: Any, free: Iterable[str], capacity: int, state: str) -> Candidate:
    """Return a computer as placement sees it."""
    measured = row.measured
    own = measured.get("capabilities", {})
    common = re.split(r"[,\s]+", row.labels.get(CAPABILITY_LABEL, ""))
    left = measured.get("left", {})
    return Candidate(
        reference=row.reference,
        datacenter=row.datacenter,
        region=row.region,
        labels=row.labels,
        capacity=capacity,
        # What holds data that this master does not know of is no place for others.
        free=tuple(each for each in free if each not in left),
        provider=row.provider,
        network=row.network,
        capabilities=tuple(filter(None, common)),
        partition_capabilities={name: tuple(each) for name, each in own.items()},
        cores=measured.get("cpu_core"),
        memory=measured.get("memory_size"),
        disk=measured.get("storage_capacity"),
        state=state,
    )


# Whoever commits has flushed everything before.
event.listen(HistorySession, "before_commit", _follow)
