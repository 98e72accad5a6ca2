# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When each computer last called, from where, and which are lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from sqlalchemy import bindparam, update
from sqlalchemy.exc import OperationalError

from slapos_wendelin.master.computer_fields import REMOVED
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import ConflictError
from slapos_wendelin.master.logs import Event
from slapos_wendelin.master.models import Computer

#: How long a computer may be silent before it counts as lost, in seconds.
LOST_AFTER = 300.0

#: How long contacts stay in memory only, in seconds, so that polls seldom write.
_CONTACT_INTERVAL = 30.0

#: How long other workers are not told again of a computer that goes on calling, in seconds.
_TELL_INTERVAL = 1.0

_log = logging.getLogger(__name__)


class Presence:
    """When each computer last called; other masters learn it from the database.

    Other workers of the same master are told at once, and tell this one.
    """

    def __init__(self, database: Database, lost_after: float = LOST_AFTER) -> None:
        """Start with what the database says.

        :param lost_after: how long a computer may be silent before it counts as lost, in seconds.
        """
        self.lost_after = lost_after
        #: Tells other workers a computer's reference, from where it calls, and when.
        self.tell: Callable[[str, str, float], None] = _tell_nobody
        self._database = database
        self._interval = min(_CONTACT_INTERVAL, lost_after / 4)
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}
        #: From which addresses the calls of a computer came, and when the last one of each.
        self._callers: dict[str, dict[str, float]] = {}
        #: When others were last told of a computer and an address.
        self._told: dict[tuple[str, str], float] = {}
        #: The contacts that are not in the database yet, by the computer's row.
        self._pending: dict[int, float] = {}
        self._flushed_at = 0.0

    def seen(self, host: Computer, address: str = "") -> None:
        """Note that a computer calls now.

        :param host: the computer as it was just read.
        :param address: where the call comes from.
        """
        now = self._note(host, address)
        with self._lock:
            self._pending[host.id] = now
            is_back = now - (host.contacted_at or 0.0) > self.lost_after
            if is_back or now - self._flushed_at > self._interval:
                self._flushed_at = now
                pending, self._pending = self._pending, {}
            else:
                pending = {}
        if pending:
            self._write(pending)

    def hear(self, reference: str, address: str, at: float) -> None:
        """Note in memory when and from where a computer has called, here or another worker."""
        with self._lock:
            self._seen[reference] = max(at, self._seen.get(reference, 0.0))
            if address:
                callers = self._callers.setdefault(reference, {})
                callers[address] = max(at, callers.get(address, 0.0))

    def seen_in_transaction(self, host: Computer, address: str = "") -> None:
        """Note that a computer calls now, in the transaction that changes it."""
        host.contacted_at = self._note(host, address)

    def read(self, host: Computer, address: str = "") -> None:
        """Note that a computer has been told all its changes up to its number."""
        if host.fetched_number < host.number:
            self._write({host.id: time.time()}, told=host.number)
        self.seen(host, address)

    def last(self, host: Computer) -> float | None:
        """Return when the computer last called, in seconds since the epoch, or None."""
        return self.latest(host.reference, host.contacted_at)

    def latest(self, reference: str, stored: float | None) -> float | None:
        """Return the later of the stored contact and the one in memory."""
        with self._lock:
            seen = self._seen.get(reference)
        return max((each for each in (seen, stored) if each is not None), default=None)

    def is_lost(self, host: Computer) -> bool:
        """Return whether a computer that has called before has been silent for too long."""
        return host.state != REMOVED and self.is_silent(host.reference, host.contacted_at)

    def is_silent(self, reference: str, stored: float | None) -> bool:
        """Return whether the last contact is too long ago; a computer that never called is new."""
        last = self.latest(reference, stored)
        return last is not None and time.time() - last > self.lost_after

    def callers(self, reference: str) -> list[str]:
        """Return the addresses from which a computer has called lately."""
        with self._lock:
            known: Mapping[str, float] = dict(self._callers.get(reference, {}))
        since = time.time() - self.lost_after
        return sorted(address for address, at in known.items() if at > since)

    def check_machine(self, host: Computer | None, address: str, caller: str) -> None:
        """Refuse a machine that formats under the name of another one that is alive.

        All that the slap protocol tells of a machine is the address in its configuration, and where
        its calls come from. A computer that gives another address than before may have got a new
        one; it is another machine as long as the name is also called from elsewhere. From a
        loopback address, where all machines look alike, the configuration alone counts.

        :param host: the computer of that name, if there is one.
        :param address: what the configuration names.
        :param caller: where the request comes from.
        :raises ConflictError: when it is another machine.
        """
        if host is None or not host.address or address in {"", host.address}:
            return
        last = self.last(host)
        if last is None or time.time() - last > self.lost_after:
            _log.warning(
                Event(
                    "computer-replaced", computer=host.reference, address=address, was=host.address
                )
            )
            return
        others = [each for each in self.callers(host.reference) if each != caller]
        known = self.callers(host.reference)
        if known and not others and not _is_loopback(caller):
            return
        reference = host.reference
        raise ConflictError(
            f"computer {reference!r} is another machine, with address {host.address}, that called"
            f" {time.time() - last:.0f} s ago; this one has address {address}",
            "give this one a name of its own (computer_id in slapos.cfg); if it is the same"
            f" machine, say so with `slapos computer set {reference} --address {address}`",
        )

    def _note(self, host: Computer, address: str) -> float:
        """Note in memory that a computer calls, and return the time."""
        now = time.time()
        reference = host.reference
        self.hear(reference, address, now)
        with self._lock:
            is_news = abs(now - self._told.get((reference, address), 0.0)) >= _TELL_INTERVAL
            if is_news:
                self._told[reference, address] = now
        if is_news:
            self.tell(reference, address, now)
        return now

    def _write(self, contacts: Mapping[int, float], told: int | None = None) -> None:
        """Keep contacts, and what a computer was told."""
        try:
            with self._database.writing() as session:
                # Past the session: of contacts there is no history, and nobody waits for them.
                session.connection().execute(
                    update(Computer)
                    .where(Computer.id == bindparam("row"))
                    .values(contacted_at=bindparam("at")),
                    [{"row": row, "at": at} for row, at in contacts.items()],
                )
                if told is not None:
                    session.connection().execute(
                        update(Computer)
                        .where(Computer.id.in_(contacts), Computer.fetched_number < told)
                        .values(fetched_number=told)
                    )
        except OperationalError as error:
            # A full disk must not keep computers from reading what they shall run.
            _log.warning(Event("contacts-not-kept", computers=len(contacts), error=error.orig))


def _tell_nobody(_reference: str, _address: str, _at: float) -> None:
    """Tell of no contact, where there is only one worker."""


def _is_loopback(address: str) -> bool:
    """Return whether an address is a loopback one, or none."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True
