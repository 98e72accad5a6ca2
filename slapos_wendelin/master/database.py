# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database: how it is opened, and what a transaction is."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError as SQLAlchemyDatabaseError
from sqlalchemy.orm import Session

from slapos_wendelin.master.due import Board, take_news
from slapos_wendelin.master.errors import DatabaseError
from slapos_wendelin.master.models import Base, Property


def _add_read_numbers(connection: Connection) -> None:
    """Keep which changes a computer had read when it reported."""
    for table, column in (("computer", "fetched_number"), ("instance", "reported_number")):
        connection.exec_driver_sql(
            f"ALTER TABLE {table} ADD COLUMN {column} BIGINT NOT NULL DEFAULT 0"
        )


#: The version of the tables in ``models``.
SCHEMA_VERSION = 2

#: For each earlier version, what brings a database from it to the next one.
MIGRATIONS: dict[int, Callable[[Connection], None]] = {1: _add_read_numbers}

#: The key in ``Session.info`` of the execution option that asks for a write lock at once.
_WRITING = "wendelin_writing"

_BUSY_TIMEOUT = 30.0  # seconds


class Database:
    """A SQLite database file that one master process uses.

    A writing transaction takes SQLite's write lock when it begins, so all of them form one sequence
    and none reads what another is about to change. A lock of the process makes the threads queue in
    turn instead of polling SQLite's lock.
    """

    def __init__(self, path: Path) -> None:
        """Open the database and create or check its tables.

        :raises DatabaseError: when the file is not a database of this master, is of another
            version, or is in use by another master.
        """
        self.path = path
        self.board = Board()
        self._write_lock = threading.Lock()
        self._lock_file = _lock(path)
        try:
            self._engine = _engine(path)
            self._writing_engine = self._engine.execution_options(**{_WRITING: True})
            self._prepare()
        except BaseException:
            os.close(self._lock_file)
            raise

    def close(self) -> None:
        """Release the file."""
        self.board.close()
        with self._write_lock:
            self._engine.dispose()
            os.close(self._lock_file)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that sees one state of the database and changes nothing.

        What was loaded in the block can be read after it.
        """
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session whose changes are all on disk when the block ends, or none of them."""
        with self._write_lock, Session(self._writing_engine) as session:
            yield session
            session.commit()
            news = take_news(session)
        self.board.publish(news)

    def _prepare(self) -> None:
        """Create the tables in a new file, or check the version of an existing one."""
        try:
            with self._writing_engine.begin() as connection:
                tables = inspect(connection).get_table_names()
                if not tables:
                    Base.metadata.create_all(connection)
                    with Session(connection) as session:
                        session.add(Property(name="schema_version", value=SCHEMA_VERSION))
                        session.flush()
                        session.commit()
                    return
                if "property" not in tables:
                    raise DatabaseError(
                        f"{self.path} is a database of another program",
                        "name another file with --database",
                    )
                _migrate(connection, self.path)
        except SQLAlchemyDatabaseError as error:
            raise DatabaseError(
                f"{self.path} cannot be read as a database: {error.orig}",
                "name another file with --database, or put a backup in its place",
            ) from error


def _migrate(connection: Connection, path: Path) -> None:
    """Bring the tables to the version of this program."""
    with Session(connection) as session:
        version = session.get(Property, "schema_version")
        if version is None or version.value > SCHEMA_VERSION:
            found = "an unknown" if version is None else str(version.value)
            raise DatabaseError(
                f"{path} has schema version {found}, this master knows up to {SCHEMA_VERSION}",
                "start the version of slapos_wendelin that wrote it, or a later one",
            )
        while version.value < SCHEMA_VERSION:
            MIGRATIONS[version.value](connection)
            version.value += 1
        session.commit()


def _lock(path: Path) -> int:
    """Make the file, for its owner only, and hold its lock; return the lock's descriptor."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseError(
            f"the database {path} cannot be opened: {error.strerror}",
            "create its folder, or name a file that may be written with --database",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise DatabaseError(
            f"another master (process {holder}) uses the database {path}",
            f"stop process {holder}, or name another file with --database",
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def _engine(path: Path) -> Engine:
    """Return an engine whose transactions begin with SQLAlchemy's, which sqlite3 would delay."""
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": _BUSY_TIMEOUT, "check_same_thread": False},
        pool_size=16,
        max_overflow=64,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine
