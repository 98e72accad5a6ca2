# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting a master, and what stops it from starting."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
from pathlib import Path

import pytest

from slapos_wendelin.master.__main__ import main
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import DatabaseError, ListenError
from slapos_wendelin.master.models import Product
from slapos_wendelin.master.options import split_listen
from slapos_wendelin.master.server import check_loopback


def start(database: Path, listen: str) -> int:
    """Run a master that will not start, and return its exit status."""
    return main(["--plain", "--database", str(database), "--listen", listen])


def test_a_taken_port_names_its_holder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        assert start(tmp_path / "master.sqlite", f"127.0.0.1:{port}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"port {port} of 127.0.0.1 is taken by process {os.getpid()}" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_listening_in_clear_beyond_loopback_is_refused(host: str):
    with pytest.raises(ListenError, match="not a loopback address"):
        check_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.7", "::1", "localhost"])
def test_loopback_addresses_are_accepted(host: str):
    check_loopback(host)


@pytest.mark.parametrize("listen", ["5000", "127.0.0.1", "127.0.0.1:x", ":5000", "a:70000"])
def test_a_wrong_address_is_named(listen: str):
    with pytest.raises(ListenError, match=listen):
        split_listen(listen)


def test_addresses_are_split():
    assert split_listen("127.0.0.1:5000") == ("127.0.0.1", 5000)
    assert split_listen("[::1]:5000") == ("::1", 5000)


def test_the_database_is_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "master.sqlite"
    database = Database(path)
    with database.writing() as session:
        session.add(Product(name="a", release_url="b"))
    for each in tmp_path.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
    database.close()


def test_writes_are_on_disk_when_they_end(tmp_path: Path):
    database = Database(tmp_path / "master.sqlite")
    with database.reading() as session:
        assert session.connection().exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert session.connection().exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    database.close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path):
    database = Database(tmp_path / "master.sqlite")

    def fail() -> None:
        with database.writing() as session:
            session.add(Product(name="a", release_url="b"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.reading() as session:
        assert session.get(Product, "a") is None
    database.close()


def test_a_database_of_another_program_is_refused(tmp_path: Path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmark (url TEXT)")
    with pytest.raises(DatabaseError, match="a database of another program"):
        Database(path)


def test_a_file_that_is_no_database_is_refused_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    assert start(path, "127.0.0.1:0") == 1
    assert "cannot be read as a database" in capsys.readouterr().err
    assert path.read_text() == "not a database " * 100


def test_a_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert start(tmp_path / "missing" / "master.sqlite", "127.0.0.1:0") == 1
    assert "create its folder" in capsys.readouterr().err
