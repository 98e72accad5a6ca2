# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who calls: made from the certificate that the caller has shown, and from nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from cryptography import x509
from flask import g, request
from sqlalchemy import event
from sqlalchemy.orm import Session, UOWTransaction

from slapos_wendelin.certificates import serial_of
from slapos_wendelin.master.context import (
    ANONYMOUS,
    COMPUTER,
    OPERATOR,
    PARTITION,
    Caller,
    context,
)
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import ForbiddenError
from slapos_wendelin.master.history import HistorySession
from slapos_wendelin.master.models import GUID_PREFIX, Certificate, Computer, Instance, User
from slapos_wendelin.master.tls import CERTIFICATE

#: How long what the database says of a certificate is believed, in seconds: so late at most does a
#: revocation by another master process take effect here.
_MEMORY = 1.0

#: How many certificates are remembered.
_MEMORY_SIZE = 10_000

#: The key in ``Session.info`` that notes changes of users and certificates.
_CHANGED = "wendelin.callers_changed"

_REMEDY = "ask an operator for a token and join again"


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said of a certificate."""

    kind: str
    name: str
    #: Why it is not good; empty when it is.
    fault: str
    not_after: float
    #: When it was asked, on the monotonic clock, and the number of changes that this process had
    #: made by then.
    asked_at: float
    changes: int


class Callers:
    """Knows whose certificates are good; a change by this process counts at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.followers.append(_count_changes)
        self._known: dict[str, _Known] = {}

    def find(self, certificate: x509.Certificate, address: str) -> Caller:
        """Return who has a certificate that the authority has signed.

        :raises ForbiddenError: when it was revoked, has ended, or was not recorded.
        """
        serial = serial_of(certificate)
        known = self._known.get(serial)
        if known is None or _is_old(known):
            known = self._ask(serial)
            if len(self._known) >= _MEMORY_SIZE:
                self._known.clear()
            self._known[serial] = known
        fault = known.fault
        if not fault and known.not_after <= time.time():
            fault = "has ended"
        if fault:
            raise ForbiddenError(f"the certificate {serial} {fault}", _REMEDY)
        return Caller(known.kind, known.name, address, serial)

    def _ask(self, serial: str) -> _Known:
        """Ask the database for a certificate."""
        asked_at, changes = time.monotonic(), _changes.number
        with self._database.reading() as session:
            found = session.get(Certificate, serial)
            if found is None:
                return _Known("", "", "is not known to this master", 0, asked_at, changes)
            kind, fault = _standing(session, found)
            return _Known(kind, found.name, fault, found.not_after, asked_at, changes)


class _Changes:
    """Counts the transactions of this process that changed whose certificates are good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.number = 0
        #: What tells other workers of the same master of each one.
        self.tell: Callable[[], None] = lambda: None

    def count(self) -> None:
        """Count one more."""
        with self._lock:
            self.number += 1


_changes = _Changes()


def tell_changes(tell: Callable[[], None]) -> None:
    """Say what is to be called when this process has changed whose certificates are good."""
    _changes.tell = tell


def forget() -> None:
    """Ask the database again for each certificate: another worker has changed some."""
    _changes.count()


def _is_old(known: _Known) -> bool:
    """Say whether what is remembered may have changed."""
    return known.changes != _changes.number or time.monotonic() - known.asked_at >= _MEMORY


def _standing(session: Session, certificate: Certificate) -> tuple[str, str]:
    """Return the kind of caller that has a certificate, and why it is not good, if so."""
    if certificate.revoked_at is not None:
        reason = f": {certificate.reason}" if certificate.reason else ""
        return certificate.kind, f"was revoked{reason}"
    if certificate.kind == "user":
        user = session.get(User, certificate.name)
        if user is None or user.removed_at is not None:
            return "user", "is that of a user who was removed"
        return user.role, ""
    if certificate.kind == COMPUTER:
        host = session.query(Computer).filter_by(reference=certificate.name).one_or_none()
        is_in = host is not None and host.state != "removed"
        return COMPUTER, "" if is_in else "is that of a computer that was removed"
    number = certificate.name.removeprefix(GUID_PREFIX)
    instance = session.get(Instance, int(number)) if number.isdecimal() else None
    is_there = instance is not None and instance.destroyed_at is None
    return PARTITION, "" if is_there else "is that of an instance that is gone"


def _note_changes(session: Session, _context: UOWTransaction) -> None:
    """Note that a flush changed users or certificates.

    Of a computer or an instance that goes the certificates are revoked with it.
    """
    rows = (*session.new, *session.dirty, *session.deleted)
    if any(isinstance(row, Certificate | User) for row in rows):
        session.info[_CHANGED] = True


def _count_changes(session: Session) -> None:
    """Count a transaction that changed users or certificates, when others can read that."""
    if session.info.pop(_CHANGED, False):
        _changes.count()
        _changes.tell()


event.listen(HistorySession, "after_flush", _note_changes)


def identify() -> None:
    """Set ``flask.g.caller``.

    :raises ForbiddenError: for a certificate that is not good, and for a request that a web page
        sent: a browser is a program that runs what strangers wrote. Its cross-site posts carry an
        Origin, and on loopback its rebound names are not those of loopback.
    """
    if "Origin" in request.headers:
        raise _web_page()
    address = request.remote_addr or ""
    certificate = request.environ.get(CERTIFICATE)
    if context().is_plain:
        if not _is_address(urlsplit(f"//{request.host}").hostname or ""):
            raise _web_page()
        g.caller = Caller(OPERATOR, "loopback", address)
    elif certificate is None:
        g.caller = Caller(ANONYMOUS, "", address)
    else:
        g.caller = context().callers.find(certificate, address)


def _web_page() -> ForbiddenError:
    """Return the refusal of a request from a web page."""
    return ForbiddenError(
        f"requests from web pages are refused (Host: {request.host})",
        "call by IP address or localhost, and not from a browser",
    )


def _is_address(host: str) -> bool:
    """Say whether a host is an IP address or localhost."""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
