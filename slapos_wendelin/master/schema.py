# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a database to the version of this program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, inspect, select, text

from slapos_wendelin.master.due import LAST_NUMBER
from slapos_wendelin.master.errors import DatabaseError
from slapos_wendelin.master.models import Base, Property

if TYPE_CHECKING:
    from alembic.config import Config

#: The version of the tables in `models`, that of the last file in `migrations/versions`.
NEWEST_VERSION = "4"

#: The table in which Alembic keeps the version of the others.
_VERSION_TABLE = "alembic_version"

#: The table in which files of versions 1 and 2 say their version, as a row of this name.
_OLD_VERSION = "schema_version"

#: What takes and gives back the lock for working on the tables; taking it returns a true value.
_NAMED_LOCK = (
    "SELECT GET_LOCK('slapos_wendelin.schema', 60)",
    "SELECT RELEASE_LOCK('slapos_wendelin.schema')",
)
_LOCKS = {
    "mariadb": _NAMED_LOCK,
    "mysql": _NAMED_LOCK,
    "postgresql": (
        "SELECT pg_advisory_lock(hashtext('slapos_wendelin.schema')) IS NOT NULL",
        "SELECT pg_advisory_unlock(hashtext('slapos_wendelin.schema'))",
    ),
}

_OTHER_DATABASE = "name another one with --database"


def current_version(connection: Connection) -> str | None:
    """Return the version of the tables, or None when there are none yet."""
    tables = set(inspect(connection).get_table_names())
    if _VERSION_TABLE in tables:
        version = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))  # noqa: S608
        if version is not None:
            return str(version)
    if Property.__tablename__ not in tables:
        return None
    old = connection.scalar(select(Property.value).where(Property.name == _OLD_VERSION))
    return None if old is None else str(old)


def prepare(connection: Connection, name: str) -> None:
    """Create the tables in an empty database, or bring existing ones up to date.

    :param name: the database as errors name it.
    :raises DatabaseError: when it belongs to another program or to a later version.
    """
    with _alone(connection, name):
        _prepare(connection, name)
        connection.commit()


def _prepare(connection: Connection, name: str) -> None:
    """Do so while no other master does."""
    version = current_version(connection)
    if version == NEWEST_VERSION:
        return
    tables = set(inspect(connection).get_table_names())
    if tables - set(Base.metadata.tables) - {_VERSION_TABLE}:
        raise DatabaseError(f"{name} is a database of another program", _OTHER_DATABASE)
    if version is None:
        _create(connection)
        return
    if not version.isdigit() or int(version) > int(NEWEST_VERSION):
        raise DatabaseError(
            f"{name} has schema version {version}, this master knows up to {NEWEST_VERSION}",
            "start the version of slapos_wendelin that wrote it, or a later one",
        )
    from alembic import command  # noqa: PLC0415 (its many imports would slow down every start)

    command.stamp(_configuration(connection), version)
    command.upgrade(_configuration(connection), NEWEST_VERSION)


def _create(connection: Connection) -> None:
    """Make all tables; the version comes last, so that an interrupted start is made good."""
    from alembic import command  # noqa: PLC0415 (its many imports would slow down every start)

    Base.metadata.create_all(connection)
    if connection.scalar(select(Property.value).where(Property.name == LAST_NUMBER)) is None:
        connection.execute(insert(Property).values(name=LAST_NUMBER, value=0))
    command.stamp(_configuration(connection), NEWEST_VERSION)


@contextmanager
def _alone(connection: Connection, name: str) -> Iterator[None]:
    """Let one master at a time work on the tables; SQLite's write lock does that by itself.

    The lock is one of the connection, not of a transaction: MariaDB commits at each new table.
    """
    take, release = _LOCKS.get(connection.dialect.name, ("", ""))
    if take and not connection.scalar(text(take)):
        raise DatabaseError(
            f"another master is changing the tables of {name}",
            "start this one again when it is done",
        )
    try:
        yield
    finally:
        connection.rollback()
        if release:
            connection.execute(text(release))


def _configuration(connection: Connection) -> Config:
    """Return Alembic's configuration for a connection."""
    from alembic.config import Config  # noqa: PLC0415 (its many imports would slow down every start)

    configuration = Config()
    configuration.set_main_option("script_location", "slapos_wendelin.master:migrations")
    configuration.attributes["connection"] = connection
    return configuration
