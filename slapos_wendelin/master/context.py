# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every request handler needs: the database, the callers, the computers seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from flask import current_app, g
from sqlalchemy.orm import Session

from slapos_wendelin.master import fleet_cache
from slapos_wendelin.master.answers import Answers
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.due import ChangesError, given_number
from slapos_wendelin.master.fleet_cache import FleetCache
from slapos_wendelin.master.metrics import Metrics
from slapos_wendelin.master.presence import Presence

_Result = TypeVar("_Result")

if TYPE_CHECKING:
    from slapos_wendelin.master.authority import Authority
    from slapos_wendelin.master.callers import Callers

#: The kinds of callers.
OPERATOR = "operator"
VIEWER = "viewer"
COMPUTER = "computer"
PARTITION = "partition"
ANONYMOUS = "anonymous"

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
    #: The serial number of its certificate; empty when it has shown none.
    serial: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Context:
    """What the application keeps between requests."""

    database: Database
    presence: Presence
    fleet: FleetCache
    metrics: Metrics
    callers: Callers
    #: What signs certificates; None for a master that only listens in clear.
    authority: Authority | None
    #: Whether the master listens in clear, on loopback, where every caller is an operator.
    is_plain: bool
    answers: Answers = field(default_factory=Answers)

    def is_call_of_computer(self) -> bool:
        """Say whether the request comes from a computer, not from somebody who looks at it."""
        return self.is_plain or g.caller.kind == COMPUTER

    def reading(self) -> AbstractContextManager[Session]:
        """Give a session that changes nothing."""
        return self.database.reading()

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session whose changes are kept as the caller's.

        :raises ForbiddenError: when what gave the caller its right has changed since the request
            came, such as the instance in its partition.
        """
        began = time.perf_counter()
        with self.database.writing(str(g.caller)) as session:
            self.metrics.waited(time.perf_counter() - began)
            g.right(session)
            fleet_cache.keep_in(session, self.fleet)
            yield session
        _note_number(given_number(session))

    @contextmanager
    def trying(self) -> Iterator[Session]:
        """Give a session of which nothing is kept."""
        with self.database.trying(str(g.caller)) as session:
            g.right(session)
            fleet_cache.keep_in(session, self.fleet)
            yield session

    def changing(self, work: Callable[[Session], _Result], *, seldom: bool) -> _Result:
        """Do work that may change something, and return its result.

        :param seldom: whether it is likely to change nothing. It is first done in a session that
            reads then, so that it waits for nobody, and again in one that writes if need be.
        :raises ForbiddenError: as `writing`.
        """

        def work_if_allowed(session: Session) -> _Result:
            g.right(session)
            return work(session)

        if seldom:
            try:
                return self.database.only_reading(work_if_allowed)
            except ChangesError:
                pass
        with self.writing() as session:
            return work(session)


def _note_number(number: int | None) -> None:
    """Let the request's line in the log name the transaction in which it changed something."""
    if number is not None:
        g.number = number


def context() -> Context:
    """Return the context of the application that handles the request."""
    return cast("Context", current_app.extensions[EXTENSION])
