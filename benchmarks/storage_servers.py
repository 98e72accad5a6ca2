# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storages that are compared, with their servers on the loopback address."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import storage_sql
import storage_zodb
from relstorage_server import RelStorageServer

from slapos_wendelin.errors import CommandError, ParameterError
from slapos_wendelin.mariadb.wait import answers
from slapos_wendelin.neo import client
from slapos_wendelin.neo.servers import (
    START_LIMIT,
    Engine,
    MariadbServer,
    NeoCluster,
    Server,
    ZeoServer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Those that are always there.
ALWAYS = (
    "FileStorage",
    "ZEO",
    "NEO on SQLite",
    "NEO on SQLite, zlib",
    "NEO on SQLite, 1 replica",
)

#: That which wants a PostgreSQL.
ON_POSTGRESQL = "RelStorage on PostgreSQL"

#: Those that want a MariaDB.
ON_MARIADB = (
    "MariaDB alone",
    "NEO on InnoDB",
    "NEO on InnoDB, 1 replica",
    "NEO on RocksDB",
    "NEO on RocksDB, 1 replica",
)

#: Servers of MariaDB that the memory is shared among: only one cluster is busy at a time.
_SHARE = 2


@contextlib.contextmanager
def storages(folder: Path, names: list[str], mariadb: Path | None) -> Iterator[dict[str, str]]:
    """Start the servers and yield the address of each storage.

    :param mariadb: the folder of the MariaDB.
    :raises ParameterError: when it is needed and not given.
    """
    lacking = [name for name in names if name in ON_MARIADB] if mariadb is None else []
    if lacking:
        raise ParameterError(f"{lacking[0]!r} needs a MariaDB", "name its folder with --mariadb")
    with contextlib.ExitStack() as servers:
        found = {}
        for number, name in enumerate(names):
            place = folder / str(number)
            place.mkdir()
            uri = servers.enter_context(_storage(name, place, mariadb))
            (storage_sql if uri.startswith(storage_sql.SCHEME) else storage_zodb).prepare(uri)
            found[name] = uri
        client.close_databases()
        yield found


@contextlib.contextmanager
def _storage(name: str, folder: Path, mariadb: Path | None) -> Iterator[str]:
    """Start the servers of a storage and yield its address."""
    kind, _, how = name.partition(", ")
    if kind == "FileStorage":
        yield f"file://{folder}/data.fs"
    elif kind == "ZEO":
        with ZeoServer(folder) as server:
            yield server.uri
    elif kind == ON_POSTGRESQL:
        with RelStorageServer(folder) as server:
            yield server.uri
    elif kind == "MariaDB alone":
        with _mariadb(folder, mariadb) as server:
            yield f"{storage_sql.SCHEME}{server.place.socket}"
    else:
        engine = kind.removeprefix("NEO on ").lower()
        on = None if engine == "sqlite" else Engine(engine, mariadb, _SHARE)
        with NeoCluster(folder, engine=on, replicas=int(how == "1 replica")) as cluster:
            yield f"{cluster.uri}?compress=true" if how == "zlib" else cluster.uri


@contextlib.contextmanager
def _mariadb(folder: Path, mariadb: Path) -> Iterator[MariadbServer]:
    """Run one MariaDB on InnoDB until it is not needed any more."""
    server = MariadbServer(folder, Engine("innodb", mariadb, _SHARE))
    with contextlib.ExitStack() as ended:
        ended.callback(Server.stop, server)
        server.start()
        deadline = time.monotonic() + START_LIMIT
        while not answers(server.place.socket):
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise CommandError("MariaDB does not start", f"see {server.place.error_log}")
            time.sleep(0.1)
        yield server
