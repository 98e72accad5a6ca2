# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A storage that comes back after a week, on a real cluster of NEO.

Meanwhile objects were changed, undone and made, the others have packed, and its cells may have been
given to them. Afterwards it has what they have, revision by revision, and nothing else.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from compiled_mariadb import find_compiled
from neo_mariadb import running_server
from neo_programs import PATIENCE, Cluster, wait_until
from neo_suite import build_environment

REPOSITORY = Path(__file__).resolve().parents[2]
STORAGES = ("s1", "s2", "s3")

#: A client: each word of its input is something to do. It says how much there is to see at the end.
CLIENT = """
import sys, transaction, ZODB, zodburi
from persistent.mapping import PersistentMapping
open_storage, options = zodburi.resolve_uri(sys.argv[1])
db = ZODB.DB(open_storage(), **options)
root = db.open().root()
def commit(note):
    transaction.get().note(note)
    transaction.commit()
def make(name):
    root[name] = PersistentMapping({n: PersistentMapping(value=0) for n in range(600)})
    commit(f"make {name}")
def change(name):
    for part in range(4):
        for number in range(part, 600, 4):
            root[name][number]["value"] += 1
        commit(f"change {name}")
def undo(note):
    found = db.undoLog(0, 100)
    db.undo(next(each["id"] for each in found if each["description"] in (note, note.encode())))
    commit(f"undo {note}")
for word in sys.argv[2:]:
    action, _, name = word.partition(":")
    dict(make=make, change=change, undo=undo)[action](name.replace("_", " "))
transaction.begin()
db.cacheMinimize()
print({name: sorted({each["value"] for each in root[name].values()}) for name in sorted(root)})
"""

Rows = dict[int, set[tuple[Any, ...]]]

CELLS = "SELECT `partition` FROM pt WHERE nid = (SELECT value FROM config WHERE name = 'nid')"
OBJECTS = (
    "SELECT `partition`, oid, tid, value_tid, HEX(hash)"
    " FROM obj LEFT JOIN data ON data.id = obj.data_id"
)
TRANSACTIONS = "SELECT `partition`, tid, HEX(oids), HEX(description) FROM trans"


class Week:
    """A cluster of three storages with two copies of all, and what its storages have."""

    def __init__(self, cluster: Cluster, ask: Callable[[str, str], list[tuple[Any, ...]]]) -> None:
        self.cluster = cluster
        self.ask = ask

    def use(self, *words: str) -> str:
        """Let a client do something, and return what there is to see."""
        command = [self.cluster.programs / "python", "-c", CLIENT, self.cluster.uri, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lose(self, name: str) -> str:
        """Kill a storage; return what NEO calls it."""
        self.cluster.end(name, signal.SIGKILL)
        return self.cluster.lost()

    def pack(self, before: float) -> None:
        """Forget what was before a time, as any client may ask for."""
        command = [self.cluster.programs / "python", "-m", "slapos_wendelin.neo.packing"]
        options = ("--cluster", "demo", "--masters", self.cluster.masters, "--before", str(before))
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run([*command, *options], env=environment, check=True, timeout=2 * PATIENCE)

    def wait_for_copies(self) -> None:
        """Wait until there are two copies of all."""
        wait_until(lambda: _cells(self.cluster).replace(".", "") == "U" * 8)

    def check_copies(self) -> None:
        """Check that the copies of each NEO partition are the same, for NEO and row by row."""
        self.wait_for_copies()
        self.cluster.neoctl("check", ":")
        time.sleep(3)
        assert "C" not in _cells(self.cluster), self.cluster.neoctl("print", "pt")
        # A storage writes some of what it does a moment later.
        deadline = time.monotonic() + PATIENCE
        while (differing := self.differences()) and time.monotonic() < deadline:
            time.sleep(1)
        assert not differing, differing

    def differences(self) -> list[str]:
        """Return how the copies differ, row by row; all is wrong where there is nothing."""
        found = []
        for question in (OBJECTS, TRANSACTIONS):
            copies: dict[int, list[set[tuple[Any, ...]]]] = {cell: [] for cell in range(4)}
            for storage in STORAGES:
                rows = self.ask(storage, question)
                for (cell,) in self.ask(storage, CELLS):
                    copies[int(cell)].append({row[1:] for row in rows if row[0] == cell})
            for cell, sets in copies.items():
                if len(sets) != 2 or not all(sets):
                    found.append(f"cell {cell} has copies of {[len(each) for each in sets]} rows")
                elif sets[0] != sets[1]:
                    found.append(f"cell {cell} differs in {sorted(sets[0] ^ sets[1], key=repr)}")
        return found


def _cells(cluster: Cluster) -> str:
    """Return the letters of all cells."""
    return "".join(line.rpartition(" ")[2] for line in cluster.ask("print", "pt").splitlines()[1:])


@pytest.fixture(params=["sqlite", "innodb"])
def week(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Week]:
    """Yield the cluster on each engine; on that of MariaDB only where it is compiled."""
    running = _on_sqlite if request.param == "sqlite" else _on_innodb
    yield from running(tmp_path, tmp_path_factory)


def _on_sqlite(folder: Path, _: pytest.TempPathFactory) -> Iterator[Week]:
    def ask(storage: str, question: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{folder / storage}.sqlite?mode=ro", uri=True)
        try:
            return connection.execute(question).fetchall()
        finally:
            connection.close()

    programs = Path(os.environ.get("WENDELIN_NEO_PYTHON") or build_environment()).parent
    with Cluster(programs, folder, storages=3) as cluster:
        yield Week(cluster, ask)


def _on_innodb(folder: Path, factory: pytest.TempPathFactory) -> Iterator[Week]:
    compiled = find_compiled(factory.mktemp("buildout"))
    if isinstance(compiled, str):
        pytest.skip(compiled)
    python = build_environment("-mariadb", (compiled.wheel,))
    with running_server(compiled.mariadb) as (socket, _):

        def run(statement: str, *options: str) -> str:
            client = (compiled.mariadb / "bin" / "mariadb", "--no-defaults", f"--socket={socket}")
            command = [*client, "--batch", "--skip-column-names", *options, f"-e{statement}"]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        def ask(storage: str, question: str) -> list[tuple[Any, ...]]:
            return [tuple(_values(line)) for line in run(question, storage).splitlines()]

        cluster = Cluster(Path(python).parent, folder, storages=3)
        for storage in STORAGES:
            run(f"CREATE DATABASE {storage}; GRANT ALL ON {storage}.* TO test@localhost")
            database = ("-aMySQL", "-eInnoDB", f"-dtest@{storage}{socket}")
            cluster.commands[storage] = ["neostorage", *database]
        with cluster:
            yield Week(cluster, ask)


def _values(line: str) -> Iterator[int | str]:
    """Return the values of a row."""
    for value in line.split("\t"):
        yield int(value) if value.isdecimal() else value


def moment() -> float:
    """Return the time between what was committed before and what will be."""
    time.sleep(1.1)
    now = time.time()
    time.sleep(1.1)
    return now


@pytest.mark.parametrize("packed", ["before it went", "while it was away"])
@pytest.mark.parametrize("cells", ["its own", "given to the others"])
def test_a_storage_that_comes_back_has_what_the_others_have(
    week: Week, packed: str, cells: str
) -> None:
    week.wait_for_copies()
    week.use("make:old", "change:old", "change:old", "make:gone", "make:undone", "change:gone")
    earlier = moment()
    week.use("change:old", "undo:change_old", "undo:make_undone", "change:gone")
    lost = week.lose("s3")
    week.use("change:old", "change:old", "make:new", "change:new", "make:unmade", "change:gone")
    later = moment()
    seen = week.use("undo:change_old", "undo:make_unmade", "change:old", "undo:change_new")
    week.pack(earlier if packed == "before it went" else later)
    if cells == "given to the others":
        week.cluster.neoctl("tweak", lost)
        wait_until(lambda: _cells(week.cluster).count("U") == 8)
    week.use("change:new", "change:old")
    seen = week.use("undo:change_new")
    week.cluster.start("s3")
    wait_until(lambda: week.cluster.ask("print", "node", "storage").count(" RUNNING ") == 3)
    if cells == "given to the others":
        week.cluster.neoctl("tweak")
    week.check_copies()
    assert week.use() == seen
    # It alone, with what the others lack, is what all read from when they go.
    week.lose("s1")
    assert week.use() == seen
