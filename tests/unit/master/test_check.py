# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever cannot stand in the database is found, and named with a remedy."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from cheroot.server import HTTPServer
from database_servers import on_every_database
from master_cloud import serving
from master_command import slapos_master

from slapos_wendelin.master.consistency import check
from slapos_wendelin.master.database import Database


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with a tree on two computers; the instances are 1 to 4, the last shared."""
    path = tmp_path_factory.mktemp("filled") / "master.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPServer, "expiration_interval", 0.02)
        with serving(path) as cloud:
            for name in ("paris", "tokyo"):
                cloud.add_computer(name)
            root = cloud.request("root", filter_kw={"computer_guid": "paris"})
            child = cloud.request_from(root, "child", filter_kw={"computer_guid": "tokyo"})
            cloud.request_from(child, "grandchild")
            cloud.request_from(root, "shared", shared=True)
            other = cloud.request("other")
            cloud.request("other", state="destroyed")
            cloud.slap.registerComputerPartition(
                other.slap_computer_id, other.slap_computer_partition_id
            ).destroyed()
    return path


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    shutil.copy(filled, tmp_path)
    return tmp_path / filled.name


def damage(path: Path, statements: str) -> None:
    """Write past the master."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"PRAGMA foreign_keys = OFF; {statements}")
    connection.close()


def findings(path: Path) -> list[tuple[str, str]]:
    database = Database(path, create=False)
    with database.reading() as session:
        found = check(session)
    database.close()
    assert all(each.remedy for each in found)
    return [(each.rule, each.message) for each in found]


CHILD = "instance SOFTINST-2 ('child')"


@pytest.mark.parametrize(
    ("statements", "rule", "message"),
    [
        ("DROP TABLE plan", "table", "the tables are not those of this version"),
        ("DROP INDEX change_by_tree", "table", "change_by_tree"),
        (
            "UPDATE instance SET parameters = '{' WHERE id = 2",
            "value",
            "instance 2: parameters is '{'",
        ),
        (
            "UPDATE partition SET addresses = '{}' WHERE id = 1",
            "value",
            "partition 1: addresses is '{}'",
        ),
        (
            "UPDATE partition SET computer_id = 9 WHERE id = 1",
            "reference",
            "partition 1: computer_id is 9, which is no computer",
        ),
        (
            "UPDATE instance SET requester_id = 99 WHERE id = 2",
            "reference",
            "instance 2: requester_id is 99, which is no instance",
        ),
        ("UPDATE instance SET state = 'paused' WHERE id = 2", "state", "state is 'paused'"),
        ("UPDATE software SET reported_state = 'x' WHERE id = 1", "state", "software 1"),
        (
            "UPDATE instance SET state = 'stopped' WHERE id = 1",
            "wanted state",
            "('root') is to be stopped, not started",
        ),
        (
            "UPDATE instance SET state = 'stopped', requested_state = 'stopped' WHERE id = 1",
            "wanted state",
            f"{CHILD} is to be started, not stopped",
        ),
        (
            "UPDATE instance SET requester_id = 2 WHERE id = 1",
            "tree",
            "is a root but was requested",
        ),
        ("UPDATE instance SET requester_id = NULL WHERE id = 2", "tree", "nothing requested it"),
        ("UPDATE instance SET tree_id = 77 WHERE id = 2", "tree", "of 77, which is no root"),
        ("UPDATE instance SET tree_id = 5 WHERE id = 3", "tree", "was requested from another tree"),
        (
            "UPDATE instance SET requester_id = 3 WHERE id = 2",
            "circle",
            "was requested by what it requested",
        ),
        ("UPDATE instance SET live = NULL WHERE id = 2", "life", f"{CHILD} is to be started"),
        ("UPDATE instance SET live = 1 WHERE id = 5", "life", "('other') is to be destroyed"),
        ("UPDATE instance SET partition_id = NULL WHERE id = 2", "place", "has no partition"),
        ("UPDATE instance SET provider_id = NULL WHERE id = 4", "place", "has no provider"),
        ("UPDATE instance SET provider_id = 4 WHERE id = 4", "place", "by what has no partition"),
        ("UPDATE instance SET provider_id = 1 WHERE id = 2", "place", "is not shared but has a"),
        (
            "UPDATE instance SET provider_id = 1 WHERE id = 5",
            "place",
            "is destroyed but has a place",
        ),
        (
            "INSERT INTO partition VALUES (99, 1, 'slappart9', '[]', 0)",
            "partition",
            "slappart9 of paris is neither offered nor used",
        ),
        ("DELETE FROM software", "software", "which paris is not to have"),
        ("DELETE FROM property", "number", "the row last_number of the table property is missing"),
        ("UPDATE property SET value = 7", "number", "which is beyond 7"),
        (
            "UPDATE instance SET number = number + 1000000000 WHERE id = 2",
            "number",
            f"number of {CHILD}",
        ),
        (
            "UPDATE computer SET fetched_number = number + 5 WHERE reference = 'paris'",
            "number",
            "fetched_number of computer 'paris'",
        ),
        (
            "UPDATE change SET number = 5 WHERE id = (SELECT max(id) FROM change)",
            "number",
            "has a smaller number than the one before",
        ),
    ],
)
def test_what_cannot_be_is_found(path: Path, statements: str, rule: str, message: str):
    assert findings(path) == []
    damage(path, statements)
    found = findings(path)
    assert any(rule == kind and message in text for kind, text in found), found


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE instance SET partition_id = 1 WHERE id IN (2, 3)",
            "instances are in slappart0 of paris",
        ),
        (
            "UPDATE instance SET reference = 'child' WHERE id = 3",
            "2 instances of tree 1 are named 'child'",
        ),
    ],
)
def test_what_a_lost_constraint_let_happen_is_found(path: Path, statement: str, message: str):
    connection = sqlite3.connect(path, isolation_level=None)
    query = "SELECT sql FROM sqlite_master WHERE tbl_name = 'instance' AND sql IS NOT NULL"
    table, *indexes = [row[0] for row in connection.execute(query)]
    for unique in ("UNIQUE (partition_id)", "UNIQUE (tree_id, reference, live)"):
        assert unique in table
        table = table.replace(unique, "CHECK (1)")
    made = table.replace("CREATE TABLE instance", "CREATE TABLE made", 1)
    for each in (
        "PRAGMA foreign_keys = OFF",
        made,
        "INSERT INTO made SELECT * FROM instance",
        "DROP TABLE instance",
        "ALTER TABLE made RENAME TO instance",
        *indexes,
        statement,
    ):
        connection.execute(each)
    connection.close()
    found = [text for _, text in findings(path)]
    assert any("add_constraint" in text for text in found)
    assert any(message in text for text in found), found


def test_a_page_that_cannot_be_read_is_found(path: Path):
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(size - 4096 * 3)
        stream.write(b"\xff" * 4096)
    assert any(rule == "file" and "is damaged" in text for rule, text in findings(path))


@on_every_database
def test_the_command_says_what_is_wrong_and_what_to_do(
    location: Path | str, capsys: pytest.CaptureFixture[str]
):
    with serving(location) as cloud:
        cloud.add_computer("paris")
        cloud.request("cluster")
    assert slapos_master("check", "--database", location) == 0
    assert capsys.readouterr().out == "The database is consistent.\n"
    database = Database(location)
    with database.alone() as connection:
        connection.exec_driver_sql("UPDATE instance SET state = 'stopped'")
        connection.exec_driver_sql("UPDATE instance SET parameters = '[]'")
    database.close()
    assert slapos_master("check", "--database", location) == 1
    assert "value: instance 1: parameters is '[]'\n  remedy: put a backup back" in (
        capsys.readouterr().out
    )
    assert slapos_master("check", "--database", location, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["consistent"] is False
    assert [each["rule"] for each in told["findings"]] == ["value"]
