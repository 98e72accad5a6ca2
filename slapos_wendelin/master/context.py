# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every request handler needs: the database, the callers, the computers seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeVar, cast
from urllib.parse import urlsplit

from flask import current_app, g, request
from sqlalchemy.orm import Session

from slapos_wendelin.master import fleet_cache
from slapos_wendelin.master.answers import Answers
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.due import given_number
from slapos_wendelin.master.errors import ForbiddenError
from slapos_wendelin.master.fleet_cache import FleetCache
from slapos_wendelin.master.history import HistorySession
from slapos_wendelin.master.metrics import Metrics
from slapos_wendelin.master.presence import Presence

_Result = TypeVar("_Result")

OPERATOR = "operator"

#: The key of the context among the extensions of the Flask application.
EXTENSION = "wendelin-master"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the request."""

    #: operator, viewer, computer, partition or anonymous.
    kind: str
    #: The user, the computer's reference or the guid of the instance in the partition.
    name: str
    #: The address that it comes from.
    address: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Context:
    """What the application keeps between requests."""

    database: Database
    presence: Presence
    fleet: FleetCache
    metrics: Metrics
    answers: Answers = field(default_factory=Answers)

    def reading(self) -> AbstractContextManager[Session]:
        """Give a session that changes nothing."""
        return self.database.reading()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session whose changes are kept as the caller's."""
        began = time.perf_counter()
        with self.database.writing(str(g.caller)) as session:
            self.metrics.waited(time.perf_counter() - began)
            fleet_cache.keep_in(session, self.fleet)
            yield session
        _note_number(given_number(session))

    @contextmanager
    def trying(self) -> Iterator[Session]:
        """Give a session of which nothing is kept."""
        with self.database.trying(str(g.caller)) as session:
            fleet_cache.keep_in(session, self.fleet)
            yield session

    def changing(self, work: Callable[[Session], _Result]) -> tuple[_Result, bool]:
        """Do work that seldom changes anything; return its result and whether it did."""
        tried_at = time.perf_counter()
        given: int | None = None

        def place_and_work(session: Session) -> _Result:
            nonlocal tried_at, given
            if not isinstance(session, HistorySession):
                try:
                    return work(session)
                finally:
                    tried_at = time.perf_counter()
            self.metrics.waited(time.perf_counter() - tried_at)
            fleet_cache.keep_in(session, self.fleet)
            result = work(session)
            session.flush()
            given = given_number(session)
            return result

        result = self.database.changing(str(g.caller), place_and_work)
        _note_number(given)
        return result


def _note_number(number: int | None) -> None:
    """Let the request's line in the log name the transaction in which it changed something."""
    if number is not None:
        g.number = number


def context() -> Context:
    """Return the context of the application that handles the request."""
    return cast("Context", current_app.extensions[EXTENSION])


def identify() -> None:
    """Set ``flask.g.caller``: the one place where certificates will tell who calls.

    :raises ForbiddenError: for a request that a web page sent. Every program on loopback is
        trusted, and a browser is a program that runs what strangers wrote: its cross-site posts
        carry an Origin, and its rebound names are not those of loopback.
    """
    host = urlsplit(f"//{request.host}").hostname or ""
    if "Origin" in request.headers or not _is_address(host):
        raise ForbiddenError(
            f"requests from web pages are refused (Host: {host})",
            "call by IP address or localhost, and not from a browser",
        )
    g.caller = Caller(OPERATOR, "loopback", request.remote_addr or "")


def _is_address(host: str) -> bool:
    """Say whether a host is an IP address or localhost."""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
