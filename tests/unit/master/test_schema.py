# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users get of a database: it is brought up to date, shared by masters, and never mistaken."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from database_servers import on_every_database
from sqlalchemy import Connection, create_engine, text

from slapos_wendelin.master import migrations
from slapos_wendelin.master.database import Database, FileLock, database_url
from slapos_wendelin.master.errors import DatabaseError
from slapos_wendelin.master.models import Base, Product, Property
from slapos_wendelin.master.schema import NEWEST_VERSION, current_version
from slapos_wendelin.master.views import find_instance

DUMPS = sorted(Path(__file__).parent.glob("schema_*.sql"))


def load(dump: Path, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(dump.read_text())


def execute(location: Path | str, statement: str) -> None:
    """Execute a statement past the master."""
    engine = create_engine(database_url(location))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def differences(connection: Connection) -> list[object]:
    """Return what the tables lack. SQLite ignores the lengths in types, and so does this."""
    context = MigrationContext.configure(connection, opts={"compare_type": False})
    return list(compare_metadata(context, Base.metadata))


def test_there_is_a_dump_of_each_earlier_version():
    assert [dump.stem for dump in DUMPS] == [
        f"schema_{version}" for version in range(1, int(NEWEST_VERSION))
    ]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_a_database_of_an_earlier_version_is_brought_to_the_present_one(tmp_path: Path, dump: Path):
    path = tmp_path / "master.sqlite"
    load(dump, path)
    Database(path).close()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        assert current_version(connection) == NEWEST_VERSION
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


@on_every_database
def test_a_new_database_is_of_the_newest_version(location: Path | str):
    Database(location).close()
    with create_engine(database_url(location)).connect() as connection:
        assert current_version(connection) == NEWEST_VERSION
        assert differences(connection) == []


@on_every_database
def test_a_database_of_a_later_version_is_refused(location: Path | str):
    Database(location).close()
    execute(location, "UPDATE alembic_version SET version_num = '99'")
    with pytest.raises(
        DatabaseError, match=f"version 99, this master knows up to {NEWEST_VERSION}"
    ):
        Database(location)


@on_every_database
def test_a_database_of_another_program_is_refused(location: Path | str):
    execute(location, "CREATE TABLE bookmark (url TEXT)")
    with pytest.raises(DatabaseError, match="is a database of another program"):
        Database(location)


@on_every_database
def test_tables_whose_making_was_cut_short_are_completed_at_the_next_start(location: Path | str):
    """MariaDB keeps each table that was made; the version is written last."""
    Database(location).close()
    for table in ("alembic_version", "certificate", "plan"):
        execute(location, f"DROP TABLE {table}")
    execute(location, "DELETE FROM property")
    database = Database(location)
    with database.writing() as session:
        session.add(Product(name="neo", release_url="a"))
    database.close()
    with create_engine(database_url(location)).connect() as connection:
        assert current_version(connection) == NEWEST_VERSION
        assert differences(connection) == []


@on_every_database
def test_masters_that_start_at_once_make_the_tables_once(location: Path | str):
    with ThreadPoolExecutor(4) as pool:
        databases = list(pool.map(lambda _: Database(location), range(4)))
    for database in databases:
        database.close()
    with create_engine(database_url(location)).connect() as connection:
        assert differences(connection) == []


@on_every_database
def test_several_masters_share_a_database(location: Path | str):
    first, second = Database(location), Database(location)
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
    with pytest.raises(DatabaseError, match="a master uses it"):
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


def test_the_newest_version_is_that_of_the_last_migration():
    folder = Path(migrations.__file__).parent / "versions"
    numbers = [int(each.stem.removeprefix("version_")) for each in folder.glob("version_*.py")]
    assert max(numbers) == int(NEWEST_VERSION)
