# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers that grow with every change, and the board on which computers wait for theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, inspect, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from slapos_wendelin.master.models import Computer, Instance, Operation, Property, Software

#: The key of ``Session.info`` that holds the computers with new work of a transaction.
_NEWS = "wendelin.due"

#: The key of ``Session.info`` that holds the numbers of computers that are not written yet.
_TOUCHED = "wendelin.touched"

#: The row of `Property` that holds the last number.
LAST_NUMBER = "last_number"

#: The keys of ``Session.info`` that hold the last number that is committed, the last one before the
#: session, and the last one.
_COMMITTED, _BEFORE, _LAST = (
    "wendelin.committed_number",
    "wendelin.number_before",
    "wendelin.last_number",
)

_LAST_NUMBER = select(Property.value).where(Property.name == LAST_NUMBER).with_for_update()

_KEEP_NUMBER = update(Property).where(Property.name == LAST_NUMBER).values(value=bindparam("last"))


class ChangesError(Exception):
    """Work in a session that only reads would change something."""


def begin_numbers(connection: Connection) -> int:
    """Take the lock that makes writing transactions one sequence, and return the last number.

    The row is locked until the transaction ends, by whatever master process it is.
    """
    return connection.execute(_LAST_NUMBER).scalar_one()


def start_numbers(session: Session, committed: int, last: int) -> None:
    """Let a session give out the numbers after the last one.

    :param committed: the last number before the transaction, of which the session may be a part.
    """
    session.info |= {_COMMITTED: committed, _BEFORE: last, _LAST: last}


def committed_number(session: Session) -> int:
    """Return the last number that was given out before the session's transaction.

    All that is committed has numbers up to it; what the transaction changes gets larger ones.
    """
    number: int = session.info[_COMMITTED]
    return number


def number_before(session: Session) -> int:
    """Return the last number that was given out before the session.

    What has a number up to it is not changed again under that number.
    """
    number: int = session.info[_BEFORE]
    return number


def given_number(session: Session) -> int | None:
    """Return the last number that the session gave out, or None."""
    before, last = session.info.get(_BEFORE), session.info.get(_LAST)
    return last if last != before else None


def next_number(session: Session) -> int:
    """Return a number larger than all before it.

    It is the time in microseconds, or one more than the last number when the clock stands or goes
    back. So numbers stay new even when an older copy of the database is put back, and a computer
    that kept a number of the lost time still sees later changes as changes.
    """
    expect_changes(session)
    number = max(session.info[_LAST] + 1, time.time_ns() // 1000)
    session.info[_LAST] = number
    return number


def expect_changes(session: Session) -> None:
    """End work that only reads, before anything is done in vain.

    :raises ChangesError: when the session is one that only reads.
    """
    if _LAST not in session.info:
        raise ChangesError


def taken_number(session: Session) -> int:
    """Return the last number that the session gave out, or the one before it."""
    return session.info[_LAST]


def keep_numbers(connection: Connection, first: int, last: int) -> None:
    """Write the last number that a transaction gave out; called before it commits."""
    if last != first:
        connection.execute(_KEEP_NUMBER, {"last": last})


def touch_computer(session: Session, computer: Computer) -> int:
    """Give the computer new work and return its number."""
    number = next_number(session)
    if inspect(computer).persistent:
        # It is written with the computer's revision.
        set_committed_value(computer, "number", number)
        session.info.setdefault(_TOUCHED, {})[computer.id] = number
    else:
        computer.number = number
    session.info.setdefault(_NEWS, {})[computer.reference] = number
    return number


def has_touched(session: Session) -> bool:
    """Return whether numbers of computers are not written yet."""
    return _TOUCHED in session.info


def take_touched(session: Session) -> dict[int, int]:
    """Return and forget the computers, by row, whose new numbers are not written yet."""
    touched: dict[int, int] = session.info.pop(_TOUCHED, {})
    return touched


def touch_instance(session: Session, instance: Instance) -> None:
    """Make the instance's partition due on whatever computer it is, or that of its provider."""
    host = instance.provider if instance.shared else instance
    if host is not None and host.partition is not None:
        host.number = instance.number = touch_computer(session, host.partition.computer)


def touch_software(session: Session, software: Software) -> None:
    """Make the software release due on its computer."""
    software.number = touch_computer(session, software.computer)


def operations_of(tree: int) -> str:
    """Return under which name the board knows the operations of a tree; no computer has such."""
    return f"operations\n{tree}"


def touch_operation(session: Session, operation: Operation) -> None:
    """Let the keeper of a cluster know that it is asked for something, or not any more."""
    operation.number = next_number(session)
    session.info.setdefault(_NEWS, {})[operations_of(operation.tree_id)] = operation.number


def take_news(session: Session) -> dict[str, int]:
    """Return and forget who got work in the session's transaction, as the board knows them."""
    return session.info.pop(_NEWS, {})


class Board:
    """The newest number of each computer, in memory, and the requests that wait for a newer one."""

    def __init__(self, waiting_limit: int = 48) -> None:
        """Start with nothing known.

        :param waiting_limit: how many requests may wait at once; each holds a thread of the server.
        """
        self._condition = threading.Condition()
        self._numbers: dict[str, int] = {}
        self._waiting = 0
        self._waiting_limit = waiting_limit
        self._closed = False

    def publish(self, news: Mapping[str, int]) -> None:
        """Wake those who wait for the computers in the news."""
        if not news:
            return
        with self._condition:
            for reference, number in news.items():
                self._numbers[reference] = max(number, self._numbers.get(reference, 0))
            self._condition.notify_all()

    def wait(
        self, reference: str, known: int, after: int, timeout: float, *, share: float = 1.0
    ) -> int:
        """Return the computer's number as soon as it is larger than `after`, or after the timeout.

        :param known: the number that the database held just before the call.
        :param timeout: seconds.
        :param share: the part of all places that may be taken already for this one to wait.
        """
        limit = self._waiting_limit * share
        with self._condition:

            def newest() -> int:
                return max(known, self._numbers.get(reference, 0))

            if newest() <= after and self._waiting < limit:
                self._waiting += 1
                self._condition.notify_all()
                try:
                    self._condition.wait_for(lambda: self._closed or newest() > after, timeout)
                finally:
                    self._waiting -= 1
            return newest()

    def wait_for_waiters(self, timeout: float) -> bool:
        """Return whether somebody waits, now or before the timeout in seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: self._waiting > 0 or self._closed, timeout)

    def close(self) -> None:
        """Let everyone who waits go, so that the server can stop."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
