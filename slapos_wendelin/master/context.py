# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every request handler needs: the database, the callers, the computers seen."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import current_app, g
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from slapos_wendelin.master.database import Database
from slapos_wendelin.master.models import Computer

if TYPE_CHECKING:
    from slapos_wendelin.master.authority import Authority
    from slapos_wendelin.master.callers import Callers

#: The kinds of callers.
OPERATOR = "operator"
VIEWER = "viewer"
COMPUTER = "computer"
PARTITION = "partition"
ANONYMOUS = "anonymous"

_log = logging.getLogger(__name__)

#: The key of the context among the extensions of the Flask application.
EXTENSION = "wendelin-master"

#: How long a contact stays in memory only, in seconds, so that a poll seldom writes.
_CONTACT_INTERVAL = 30.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the request."""

    #: operator, viewer, computer, partition or anonymous.
    kind: str
    #: The user, the computer's reference or the guid of the instance in the partition.
    name: str
    #: The address that it comes from.
    address: str
    #: The serial number of its certificate; empty when it has shown none.
    serial: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


class Presence:
    """When each computer last asked for its work."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}

    def seen(self, host: Computer) -> None:
        """Note that a computer asks now.

        :param host: the computer as it was just read.
        """
        now = time.time()
        with self._lock:
            self._seen[host.reference] = now
        if host.contacted_at is None or now - host.contacted_at > _CONTACT_INTERVAL:
            self._write(host, now, told=0)

    def read(self, host: Computer) -> None:
        """Note that a computer has been told all its changes up to its number."""
        if host.fetched_number < host.number:
            self._write(host, time.time(), told=host.number)
        self.seen(host)

    def _write(self, host: Computer, now: float, told: int) -> None:
        """Keep the contact and what the computer was told."""
        try:
            with self._database.writing() as session:
                stored = session.get_one(Computer, host.id)
                stored.contacted_at = now
                stored.fetched_number = max(stored.fetched_number, told)
        except OperationalError as error:
            # A full disk must not keep computers from reading what they shall run.
            _log.warning("contact not kept computer=%s error=%s", host.reference, error.orig)

    def last(self, host: Computer) -> float | None:
        """Return when the computer last asked, in seconds since the epoch, or None."""
        with self._lock:
            return self._seen.get(host.reference, host.contacted_at)


@dataclass(frozen=True, slots=True)
class Context:
    """What the application keeps between requests."""

    database: Database
    presence: Presence
    callers: Callers
    #: What signs certificates; None for a master that only listens in clear.
    authority: Authority | None
    #: Whether the master listens in clear, on loopback, where every caller is an operator.
    is_plain: bool

    def reading(self) -> AbstractContextManager[Session]:
        """Give a session that changes nothing."""
        return self.database.reading()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session whose changes are kept as the caller's.

        :raises ForbiddenError: when what gave the caller its right has changed since the request
            came, such as the instance in its partition.
        """
        with self.database.writing(str(g.caller)) as session:
            g.right(session)
            yield session


def context() -> Context:
    """Return the context of the application that handles the request."""
    return cast("Context", current_app.extensions[EXTENSION])
