# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a backup back, into a database of whatever kind.

The world went on since the backup was made. So everything becomes due once more: computers bring
what they run to what the database says, although they know newer numbers. And guids that the lost
database may have given out are not given out again: others may still hold certificates for them.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, or_, select, text, update

from slapos_wendelin.files import sync_folder
from slapos_wendelin.master.backup import BackupFile, tables
from slapos_wendelin.master.checks import DESTROYED
from slapos_wendelin.master.database import Database, FileLock
from slapos_wendelin.master.due import LAST_NUMBER
from slapos_wendelin.master.errors import BackupError, DatabaseError
from slapos_wendelin.master.models import Base, Computer, Instance, Property, Software

#: How many rows are written at a time.
_BATCH = 500

#: How many guids are left out: more than are given out between two backups.
_GAP = 100_000

_REPLACE = "name a new database, or add --replace to lose what is in it"


def restore(backup: BackupFile, location: str, *, replace: bool) -> None:
    """Put a backup into a database; until all of it is there, the database stays as it was.

    :param replace: whether to do so though the database is not empty.
    :raises BackupError: when the database is not empty and is not to be replaced.
    :raises DatabaseError: when it cannot be written, or a master uses it.
    """
    path = Database.path_of(location)
    if path is None:
        _restore_server(backup, location, replace=replace)
    else:
        _restore_file(backup, path, replace=replace)


def restore_authority(backup: BackupFile, folder: Path, *, replace: bool) -> None:
    """Put the files of the certificate authority into a folder.

    :raises BackupError: when the backup has none, or the folder is there and not to be replaced.
    """
    check_authority(backup, folder, replace=replace)
    new, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    for each in (new, old):
        shutil.rmtree(each, ignore_errors=True)
    new.mkdir(mode=0o700)
    for name, content in backup.files():
        path = _inside(new, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(path.parent)
    sync_folder(new)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file of a backup, which must not be elsewhere."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BackupError(f"the backup holds the file {name!r}", "use another backup")
    return path


def check_authority(backup: BackupFile, folder: Path, *, replace: bool) -> None:
    """Refuse what `restore_authority` would refuse, before anything is done."""
    if not backup.summary.authority:
        raise BackupError(
            "the backup holds no certificate authority", "leave --authority out, or use another one"
        )
    if folder.exists() and any(folder.iterdir()) and not replace:
        raise BackupError(f"the folder {folder} is not empty", _REPLACE)


def _restore_file(backup: BackupFile, path: Path, *, replace: bool) -> None:
    """Make a new SQLite file and put it in the place of the old one."""
    if path.exists() and path.stat().st_size and not replace and not _is_empty_file(path):
        raise BackupError(f"the database {path} is not empty", _REPLACE)
    new = path.with_name(f".{path.name}.new")
    lock = FileLock(path)
    try:
        with lock.alone():
            _remove_file(new)
            database = Database(new)
            try:
                with database.alone() as connection:
                    _fill(connection, backup, _last_number_in(path))
            finally:
                database.close()
            _sync_file(new)
            _end_journal(path)
            new.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise DatabaseError(
            f"the database {path} cannot be written: {error.strerror}",
            "free space there, then repeat",
        ) from error
    finally:
        lock.release()
        _remove_file(new)


def _restore_server(backup: BackupFile, location: str, *, replace: bool) -> None:
    """Replace all rows of a server's database in one transaction."""
    database = Database(location)
    try:
        with database.alone() as connection:
            if not replace and not _is_empty(connection):
                raise BackupError(f"the database {database.name} is not empty", _REPLACE)
            _fill(connection, backup, _last_number(connection))
    finally:
        database.close()


def _fill(connection: Connection, backup: BackupFile, last: int) -> None:
    """Replace all rows, and make everything due.

    :param last: the last number of the database that is replaced.
    """
    for table in reversed(tables()):
        if own := _own_references(table):
            # MariaDB looks at each row that goes, whether another one refers to it still.
            connection.execute(update(table).values(dict.fromkeys(own)))
        connection.execute(delete(table))
    for table, rows in backup.tables():
        _fill_table(connection, table, rows)
    number = max(_last_number(connection), last, time.time_ns() // 1000) + 1
    _leave_guids_out(connection)
    _make_due(connection, number)
    if connection.dialect.name == "postgresql":
        _continue_sequences(connection)


def _fill_table(connection: Connection, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows; what refers to rows of the same table is written when all are there."""
    own = _own_references(table)
    references: list[dict[str, Any]] = []
    for batch in _batches(rows):
        for row in batch:
            if any(row[column] is not None for column in own):
                references.append({"row": row["id"], **{f"{each}_": row[each] for each in own}})
                row.update(dict.fromkeys(own))
        connection.execute(insert(table), batch)
    if not own:
        return
    statement = (
        update(table)
        .where(table.c.id == bindparam("row"))
        .values({column: bindparam(f"{column}_") for column in own})
    )
    for batch in _batches(references):
        connection.execute(statement, batch)


def _own_references(table: Table) -> list[str]:
    """Return the columns that refer to rows of the same table."""
    return [key.parent.name for key in table.foreign_keys if key.column.table is table]


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in lists of a bounded length."""
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _make_due(connection: Connection, number: int) -> None:
    """Give all that computers run a new number."""
    connection.execute(
        update(Instance)
        .where(or_(Instance.partition_id.is_not(None), Instance.provider_id.is_not(None)))
        .values(number=number)
    )
    connection.execute(update(Software).values(number=number))
    connection.execute(update(Computer).values(number=number, revision=number))
    connection.execute(update(Property).where(Property.name == LAST_NUMBER).values(value=number))


def _leave_guids_out(connection: Connection) -> None:
    """Insert a destroyed instance far behind the last one: numbers go on after it."""
    now = time.time()
    last = connection.scalar(select(func.max(Instance.id))) or 0
    when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    connection.execute(
        insert(Instance).values(
            id=last + _GAP,
            reference=f"backup put back at {when}",
            live=None,
            software_release="",
            software_type="",
            requested_state=DESTROYED,
            state=DESTROYED,
            created_at=now,
            destroyed_at=now,
        )
    )


def _continue_sequences(connection: Connection) -> None:
    """Let PostgreSQL number new rows after those that are there."""
    for table in tables():
        column = table.autoincrement_column
        if column is None:
            continue
        last = connection.scalar(select(func.max(column)))
        if last is not None:
            name = connection.dialect.identifier_preparer.format_table(table)
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:name, :column), :last)"),
                {"name": name, "column": column.name, "last": last},
            )


def _is_empty(connection: Connection) -> bool:
    """Say whether a database has no rows but its own properties."""
    return not any(
        connection.scalar(select(func.count()).select_from(table))
        for table in tables()
        if table is not Base.metadata.tables[Property.__tablename__]
    )


def _is_empty_file(path: Path) -> bool:
    """Say whether a SQLite file is a master's and has no rows; a damaged one is not empty."""
    try:
        database = Database(path, create=False)
    except DatabaseError:
        return False
    try:
        with database.reading() as session:
            return _is_empty(session.connection())
    finally:
        database.close()


def _last_number(connection: Connection) -> int:
    """Return the last number of a database."""
    return connection.scalar(select(Property.value).where(Property.name == LAST_NUMBER)) or 0


def _last_number_in(path: Path) -> int:
    """Return the last number of a SQLite file; 0 when it cannot be read."""
    try:
        with sqlite3.connect(path) as connection:
            row = connection.execute(
                "SELECT value FROM property WHERE name = ?", (LAST_NUMBER,)
            ).fetchone()
    except sqlite3.DatabaseError:
        return 0
    return cast("int", row[0]) if row else 0


def _end_journal(path: Path) -> None:
    """Put what is in the write-ahead log of a SQLite file into the file.

    A log that stayed would be taken for that of the file which replaces this one.
    """
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError:
        # The file is damaged. It is about to go, and its log with it.
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    finally:
        connection.close()


def _sync_file(path: Path) -> None:
    """Make a SQLite file durable, which nobody has open."""
    _end_journal(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_file(path: Path) -> None:
    """Remove a SQLite file with what belongs to it."""
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
