# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The database: how it is opened, and what a transaction is."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.exc import DatabaseError as SQLAlchemyDatabaseError
from sqlalchemy.orm import Session, UOWTransaction

from slapos_wendelin.master import schema
from slapos_wendelin.master.due import Board, ChangesError, begin_numbers, take_news
from slapos_wendelin.master.errors import DatabaseError, InUseError
from slapos_wendelin.master.watch import Watcher
from slapos_wendelin.master.writing import Writer

_Result = TypeVar("_Result")

#: The key in the execution options of what begins a transaction of SQLite.
_BEGIN = "wendelin_begin"

_BUSY_TIMEOUT = 30.0  # seconds

#: How long a process leaves the lock to others after its turn, in seconds.
_YIELD = 0.0005

#: How long another master may take to start, in seconds.
_STARTING = 5.0

#: What counts the other connections to the same database.
_OTHERS = {
    "mysql": "SELECT count(*) FROM information_schema.processlist"
    " WHERE db = database() AND id <> connection_id()",
    "postgresql": "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'",
}
_OTHERS["mariadb"] = _OTHERS["mysql"]

#: The drivers that are installed, by the database's name in a URL.
_DRIVERS = {
    "mariadb": "mariadb+pymysql",
    "mysql": "mariadb+pymysql",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "sqlite": "sqlite",
}


class Database:
    """A database that one or several master processes use.

    A writing transaction first takes a lock that is common to all of them (SQLite's write lock, or
    one row of the others), so all form one sequence and none reads what another is about to change.
    """

    def __init__(self, location: Path | str, *, create: bool = True) -> None:
        """Open the database and create its tables or bring them up to date.

        :param location: the path of a SQLite file, or a URL such as
            ``postgresql://user@host/name`` or ``mariadb://user@host/name``.
        :param create: False to refuse a database that is not there, or is of another version.
        :raises DatabaseError: when it cannot be reached, is not a database of this master, or is of
            a later version.
        """
        self.url = database_url(location)
        self.name = self.url.render_as_string(hide_password=True)
        self.path = self.path_of(location)
        if self.path is not None:
            self.name = str(self.path)
            if not create and not self.path.exists():
                raise DatabaseError(
                    f"there is no database {self.path}",
                    "name the one that the master is started with",
                )
        self.board = Board()
        #: What is called with each session whose changes are on disk.
        self.followers: list[Callable[[Session], None]] = []
        self._file_lock = None if self.path is None else FileLock(self.path)
        try:
            self._reading, self._writing, self._glancing = _engines(self.url)
            self._prepare(create=create)
        except BaseException:
            self._release()
            raise
        self._writer = Writer(self._writing, self._file_lock)
        self._watcher = Watcher(self.reading, self.board)

    @staticmethod
    def path_of(location: Path | str) -> Path | None:
        """Return the path of a SQLite file, or None for a server's database."""
        url = database_url(location)
        return Path(url.database or "") if url.get_backend_name() == "sqlite" else None

    def close(self) -> None:
        """Release the database."""
        self.board.close()
        self._watcher.close()
        with self._writer.pause():
            self._reading.dispose()
            self._writing.dispose()
            self._release()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that sees one state of the database and changes nothing.

        What was loaded in the block can be read after it.
        """
        with Session(self._reading) as session:
            yield session

    @contextmanager
    def glancing(self) -> Iterator[Connection]:
        """Give a connection for one statement that reads, outside of a transaction."""
        with self._glancing.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, who: str = "master") -> Iterator[Session]:
        """Give a session whose changes are all on disk when the block ends, or none of them.

        :param who: kind and name of the caller, which history keeps.
        """
        with self._writer.session(who) as session:
            yield session
        self.board.publish(take_news(session))
        for follow in self.followers:
            follow(session)

    def only_reading(self, work: Callable[[Session], _Result]) -> _Result:
        """Do work that seldom changes anything, and return its result.

        :raises ChangesError: when it would change something.
        """
        with ReadingSession(self._reading) as session:
            result = work(session)
            session.flush()
            return result

    @contextmanager
    def trying(self, who: str = "master") -> Iterator[Session]:
        """Give a session of which nothing is kept: to see what changes would do."""
        with self._writer.session(who, keep=False) as session:
            yield session

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Give a connection whose changes are all kept at the end of the block, or none of them.

        :raises InUseError: when another program is connected to the server's database.
        """
        with self._writer.pause():
            # So that this connection is the only one of this process.
            self._reading.dispose()
            with self._writing.connect() as connection, connection.begin():
                if self.path is None:
                    _refuse_others(connection, self.name)
                begin_numbers(connection)
                yield connection

    def _release(self) -> None:
        """Give back the lock of the file."""
        if self._file_lock is not None:
            self._file_lock.release()

    def _prepare(self, *, create: bool) -> None:
        """Create the tables, or check the version of existing ones."""
        try:
            deadline = time.monotonic() + _STARTING
            while not self._is_current():
                if not create:
                    raise DatabaseError(
                        f"{self.name} is no database of a master of this version",
                        "start its master once, which brings it up to date",
                    )
                try:
                    self._make_tables()
                except InUseError:
                    # It may be another master that starts, and makes the tables.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            if self._file_lock is not None:
                self._file_lock.share(_STARTING)
        except SQLAlchemyDatabaseError as error:
            raise DatabaseError(
                f"{self.name} cannot be read as a database: {_reason(error)}",
                "name another one with --database, start its server, or put a backup in its place",
            ) from error

    def _is_current(self) -> bool:
        """Say whether the tables are of this version."""
        with self._reading.connect() as connection:
            return schema.current_version(connection) == schema.NEWEST_VERSION

    def _make_tables(self) -> None:
        """Create the tables or bring them up to date, while nobody else uses a SQLite file."""
        with (
            nullcontext() if self._file_lock is None else self._file_lock.alone(),
            self._writing.connect() as connection,
        ):
            schema.prepare(connection, self.name)


class ReadingSession(Session):
    """A session that refuses to write."""


def _refuse_changes(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """End the work in a session that reads as soon as it would write."""
    if session.new or session.deleted or any(map(session.is_modified, session.dirty)):
        raise ChangesError


event.listen(ReadingSession, "before_flush", _refuse_changes)


class FileLock:
    """The locks beside a SQLite file.

    Masters share the lock of the whole file beside it, and who replaces the database holds that
    alone. One byte of it is the turn of the master that writes: they queue for it, where SQLite
    would let each try again and again.
    """

    def __init__(self, path: Path) -> None:
        """Make the file, for its owner only, and share its lock.

        :raises DatabaseError: when the file cannot be made, or somebody replaces it.
        """
        self._path = path
        self._given_at = 0.0
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatabaseError(
                f"the database {path} cannot be opened: {error.strerror}",
                "create its folder, or name a file that may be written with --database",
            ) from error
        try:
            self.share(_STARTING)
        except BaseException:
            self.release()
            raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone in the block, and share it again after it.

        :raises InUseError: when a master uses the file; the lock is not held any more then.
        """
        # A lock that two share can be given up by neither for the other.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._take(fcntl.LOCK_EX, "a master uses it")
        try:
            yield
        finally:
            self.share(_STARTING)

    def take(self) -> None:
        """Wait for this process's turn to write."""
        # One that has just had it lets those go first who wait.
        if time.monotonic() - self._given_at < _YIELD:
            time.sleep(_YIELD)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)

    def give(self) -> None:
        """Let another process write."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)
        self._given_at = time.monotonic()

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)

    def share(self, patience: float) -> None:
        """Use the file with others, as soon as nobody holds its lock alone; patience in seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._take(
                    fcntl.LOCK_SH, "its tables are being changed or a backup is put back"
                )
            except InUseError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _take(self, kind: int, reason: str) -> None:
        """Take the lock or say why not."""
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            raise InUseError(
                f"the database {self._path} is in use: {reason}",
                f"stop the masters that use it (`fuser {self._path}.lock` names them), then repeat",
            ) from error


def _refuse_others(connection: Connection, name: str) -> None:
    """Refuse to go on while another program is connected to the server's database."""
    deadline = time.monotonic() + _STARTING
    # The server may still be ending connections that were just closed.
    while others := connection.scalar(text(_OTHERS[connection.dialect.name])):
        if time.monotonic() > deadline:
            raise InUseError(
                f"{others} other programs are connected to the database {name}",
                "stop the masters that use it, then repeat",
            )
        time.sleep(0.1)


def database_url(location: Path | str) -> URL:
    """Return the URL of a database with the driver that is installed for it.

    :raises DatabaseError: when it is neither a path nor a URL of a known database.
    """
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(location)
    except ArgumentError as error:
        raise DatabaseError(
            "the database's URL cannot be read", "write KIND://USER@HOST:PORT/NAME"
        ) from error
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise DatabaseError(
            f"there is no database of the kind {url.drivername!r}",
            "use a path (SQLite), mariadb://USER@HOST/NAME or postgresql://USER@HOST/NAME",
        )
    return url.set(drivername=driver)


def _engines(url: URL) -> tuple[Engine, Engine, Engine]:
    """Return the engines for reading, writing and single statements; they share connections.

    Readers see one snapshot. Writers, who come one after another, read what is committed.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"timeout": _BUSY_TIMEOUT, "check_same_thread": False},
            pool_size=16,
            max_overflow=64,
        )
        _make_transactional(engine)
        return (
            engine,
            engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}),
            engine.execution_options(**{_BEGIN: ""}),
        )
    try:
        engine = create_engine(url, pool_size=16, max_overflow=64, pool_pre_ping=True)
    except (NoSuchModuleError, ImportError) as error:
        raise DatabaseError(f"the driver of {url.drivername} is missing: {error}") from error
    return (
        engine.execution_options(isolation_level="REPEATABLE READ"),
        engine.execution_options(isolation_level="READ COMMITTED"),
        engine.execution_options(isolation_level="AUTOCOMMIT"),
    )


def _make_transactional(engine: Engine) -> None:
    """Let SQLite's transactions begin with SQLAlchemy's, which sqlite3 would delay."""

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        _keep_log_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get(_BEGIN, "BEGIN")
        if statement:
            connection.exec_driver_sql(statement)


def _keep_log_ahead(cursor: sqlite3.Cursor) -> None:
    """Set the kind of a new file's log; SQLite does not wait when another process does so."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _reason(error: SQLAlchemyDatabaseError) -> str:
    """Return what the database's driver says, on one line and without a password."""
    return " ".join(str(error.orig).split())
