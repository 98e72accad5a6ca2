# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that wait for each other go to the disk together.

A change must be on the disk before it is answered, and a disk takes milliseconds for that, however
little is written. So whoever has made its changes while others wait leaves the transaction open for
the next one, in a savepoint of its own. The last one commits, and all are answered then.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from slapos_wendelin.master.due import begin_numbers, keep_numbers, start_numbers, taken_number
from slapos_wendelin.master.history import WHO, HistorySession

#: How many changes, at most, are committed together, and for how long the first one of them may
#: wait for others to come in, in seconds.
_LARGEST_GROUP = 64
_LONGEST_GROUP = 0.05

#: The savepoint in which a member of a group makes its changes.
_SAVEPOINT = "member"

_log = logging.getLogger(__name__)


class Turn(Protocol):
    """Lets one process at a time write, so that none of them polls for SQLite's lock."""

    def take(self) -> None:
        """Wait for the turn."""

    def give(self) -> None:
        """Let the next process have it."""


class Writer:
    """Gives the threads of a process their turns to change the database."""

    def __init__(self, engine: Engine, others: Turn | None = None) -> None:
        """Write through the connections of an engine.

        :param others: what gives this process its turn among others that use the database.
        """
        self._engine = engine
        self._others = others
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self._group: _Group | None = None

    @contextmanager
    def session(self, who: str, *, keep: bool = True) -> Iterator[Session]:
        """Give a session; its changes are on disk after the block, or none of them.

        :param who: kind and name of the caller, which history keeps.
        :param keep: False to keep nothing.
        """
        group = self._begin()
        try:
            with group.member(who, keep=keep) as session:
                yield session
        finally:
            self._end(group)
        if keep:
            group.wait()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Keep everybody from writing; nobody is in the middle of it in the block."""
        with self._turn:
            if self._group is not None:
                self._close(self._group)
            yield

    def _begin(self) -> _Group:
        """Wait for the turn; join the group that was left open, or open one."""
        with self._counting:
            self._waiting += 1
        self._turn.acquire()
        with self._counting:
            self._waiting -= 1
        try:
            if self._group is None:
                self._group = self._open()
        except BaseException:
            self._turn.release()
            raise
        return self._group

    def _end(self, group: _Group) -> None:
        """Give the turn to the next; commit when there is none, or when it is time."""
        try:
            if not self._waiting or group.is_over():
                self._close(group)
        finally:
            self._turn.release()

    def _open(self) -> _Group:
        """Open a group when it is this process's turn."""
        if self._others is None:
            return _Group(self._engine.connect())
        self._others.take()
        try:
            return _Group(self._engine.connect())
        except BaseException:
            self._others.give()
            raise

    def _close(self, group: _Group) -> None:
        """Commit a group and let other processes have their turn."""
        self._group = None
        try:
            group.end()
        finally:
            if self._others is not None:
                self._others.give()


class _Group:
    """The changes that one transaction of the database holds."""

    def __init__(self, connection: Connection) -> None:
        """Begin the transaction, which takes the lock common to all masters."""
        self._connection = connection
        self._began = time.monotonic()
        self._members = 0
        self._lost = False
        self._error: BaseException | None = None
        self._ended = threading.Event()
        try:
            self._transaction = connection.begin()
            self._first = self._number = begin_numbers(connection)
        except BaseException:
            connection.close()
            raise

    @contextmanager
    def member(self, who: str, *, keep: bool) -> Iterator[Session]:
        """Give a session whose changes become part of the group at the end of the block.

        The first one needs no savepoint: when it fails there is nothing else to keep.
        """
        is_first = self._members == 0
        if not is_first:
            self._execute(f"SAVEPOINT {_SAVEPOINT}")
        session = HistorySession(
            self._connection,
            join_transaction_mode="rollback_only" if is_first else "create_savepoint",
        )
        session.info[WHO] = who
        start_numbers(session, self._first, self._number)
        kept = False
        try:
            yield session
            session.flush()
            if keep:
                session.commit()
                if not is_first:
                    self._execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
                self._members += 1
                kept = True
        finally:
            self._number = taken_number(session)
            session.close()
            if not kept:
                self._undo(is_first=is_first)

    def is_over(self) -> bool:
        """Whether nothing should be added any more."""
        return (
            self._lost
            or self._members >= _LARGEST_GROUP
            or time.monotonic() - self._began > _LONGEST_GROUP
        )

    def end(self) -> None:
        """Commit, and let those go who wait for that."""
        try:
            if self._lost:
                if self._transaction.is_active:
                    self._transaction.rollback()
            else:
                keep_numbers(self._connection, self._first, self._number)
                self._check_open()
                self._transaction.commit()
        except SQLAlchemyError as error:
            self._fail(error)
        finally:
            self._connection.close()
            self._ended.set()

    def wait(self) -> None:
        """Return when the changes are on disk; raise what kept them from it.

        :raises OperationalError: with the fault of the database as its origin.
        """
        self._ended.wait()
        if self._error is not None:
            # Each thread raises an error of its own: a traceback belongs to one.
            raise OperationalError(None, None, self._error) from self._error

    def _undo(self, *, is_first: bool) -> None:
        """Undo the changes of a member that failed or was a trial."""
        if is_first:
            self._lost = True
            return
        try:
            self._execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        except SQLAlchemyError as error:
            # Some faults, such as a full disk, undo the whole transaction.
            self._fail(error)

    def _execute(self, statement: str) -> None:
        """Execute a statement about the transaction past SQLAlchemy, which would hide its fault."""
        self._check_open()
        self._connection.exec_driver_sql(statement)

    def _check_open(self) -> None:
        """Raise when SQLite has ended the transaction by itself; every statement would be one."""
        connection = self._connection.connection.dbapi_connection
        if isinstance(connection, sqlite3.Connection) and not connection.in_transaction:
            fault = sqlite3.OperationalError("the transaction was undone by the database")
            raise OperationalError(None, None, fault)

    def _fail(self, error: SQLAlchemyError) -> None:
        """Keep that all members' changes are lost."""
        _log.error("changes lost requests=%d error=%s", self._members, error)
        self._lost = True
        if self._error is None:
            self._error = getattr(error, "orig", None) or error
