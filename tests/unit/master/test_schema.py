# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users get of a database: it is brought up to date, shared by masters, and never mistaken."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine

from slapos_wendelin.master.database import Database, FileLock
from slapos_wendelin.master.errors import DatabaseError
from slapos_wendelin.master.models import Base, Property
from slapos_wendelin.master.schema import current_version, newest_version
from slapos_wendelin.master.views import find_instance

DUMPS = sorted(Path(__file__).parent.glob("schema_*.sql"))


def load(dump: Path, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(dump.read_text())


def differences(connection: Connection) -> list[object]:
    """Return what the tables lack. SQLite ignores the lengths in types, and so does this."""
    context = MigrationContext.configure(connection, opts={"compare_type": False})
    return list(compare_metadata(context, Base.metadata))


def test_there_is_a_dump_of_each_earlier_version():
    assert [dump.stem for dump in DUMPS] == [
        f"schema_{version}" for version in range(1, int(newest_version()))
    ]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_a_database_of_an_earlier_version_is_brought_to_the_present_one(tmp_path: Path, dump: Path):
    path = tmp_path / "master.sqlite"
    load(dump, path)
    Database(path).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        assert current_version(connection) == newest_version()
        assert differences(connection) == []


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_what_was_there_stays_and_can_be_changed(tmp_path: Path, dump: Path):
    path = tmp_path / "master.sqlite"
    load(dump, path)
    database = Database(path)
    with database.writing() as session:
        storage = find_instance(session, "SOFTINST-2")
        assert (storage.reference, storage.connection) == ("storage", {"url": "neo://"})
        assert storage.partition is not None
        assert storage.partition.computer.reference == "paris"
        assert storage.partition.computer.state == "eligible"
        assert session.get(Property, "schema_version") is None
        storage.parameters = {"changed": "yes"}
    with database.reading() as session:
        assert find_instance(session, "SOFTINST-2").parameters == {"changed": "yes"}
    database.close()


def test_a_new_database_is_of_the_newest_version(tmp_path: Path):
    path = tmp_path / "master.sqlite"
    Database(path).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        assert current_version(connection) == newest_version()
        assert differences(connection) == []


def test_a_database_of_a_later_version_is_refused(tmp_path: Path):
    path = tmp_path / "master.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '99'")
    with pytest.raises(
        DatabaseError, match=f"version 99, this master knows up to {newest_version()}"
    ):
        Database(path)


def test_several_masters_share_a_database(tmp_path: Path):
    path = tmp_path / "master.sqlite"
    first, second = Database(path), Database(path)
    with first.writing() as session:
        session.add(Property(name="seen", value=1))
    with second.reading() as session:
        seen = session.get(Property, "seen")
        assert seen is not None
        assert seen.value == 1
    first.close()
    second.close()


def test_tables_are_not_changed_under_a_running_master(tmp_path: Path):
    path = tmp_path / "master.sqlite"
    load(DUMPS[-1], path)
    lock = FileLock(path)
    with pytest.raises(DatabaseError, match="another master uses it"):
        Database(path)
    lock.release()
    Database(path).close()


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("oracle://user@host/name", "no database of the kind 'oracle'"),
        ("://", "cannot be read"),
        ("postgresql://nobody@127.0.0.1:1/name", "cannot be read as a database"),
        ("mariadb://nobody@127.0.0.1:1/name", "cannot be read as a database"),
    ],
)
def test_a_wrong_url_is_told(location: str, message: str):
    with pytest.raises(DatabaseError, match=message):
        Database(location)
