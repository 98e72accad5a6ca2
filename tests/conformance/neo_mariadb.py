# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MariaDB on which NEO's own tests run: one server, started as that of a storage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from neo_suite import neo_cases

from slapos_wendelin.mariadb.place import Place, server_user
from slapos_wendelin.mariadb.wait import answers

#: The engines, as NEO names them.
ENGINES = ("InnoDB", "RocksDB")

_START_TIME = 120.0


def mariadb_cases() -> list[str]:
    """Return the cases that run on MariaDB: all but those of SQLite, and MariaDB's own."""
    others = [case for case in neo_cases() if ".testStorageSQLite." not in case]
    # MariaDB has no TokuDB any more.
    own = [case for case in neo_cases("neo-cases-mariadb.txt") if "TokuDB" not in case]
    return [*others, *own]


class Server(NamedTuple):
    """A running server."""

    socket: Path
    #: Folder of its programs, by the names that NEO calls them.
    programs: Path


def variables(server: Server, engine: str) -> Callable[[str], dict[str, str]]:
    """Return what tells NEO's tests of each module where its databases are."""

    def of(module: str) -> dict[str, str]:
        return {
            "NEO_TESTS_ADAPTER": "MySQL",
            "NEO_TESTS_ENGINE": engine,
            "NEO_DB_SOCKET": str(server.socket),
            "PATH": f"{server.programs}{os.pathsep}{os.environ['PATH']}",
            "NEO_DB_ADMIN": "root" if os.getuid() == 0 else server_user(),
            # Modules run beside each other.
            "NEO_DB_PREFIX": f"{engine}_{module.removeprefix('neo.tests.').replace('.', '_')}_",
        }

    return of


def _make_programs(folder: Path, software: Path) -> Path:
    """Give MariaDB's programs the names by which NEO calls them; return the folder."""
    folder.mkdir()
    for name, program in {"mysql": "mariadb", "mysqldump": "mariadb-dump"}.items():
        (folder / name).symlink_to(software / "bin" / program)
    return folder


@contextmanager
def running_server(software: Path) -> Iterator[Server]:
    """Run a server that has both engines. Nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="wendelin-"))
    place = Place(folder)
    for path in (place.socket.parent, place.error_log.parent, folder / "srv"):
        path.mkdir(parents=True, exist_ok=True)
    user: tuple[str, ...] = ()
    if os.getuid() == 0:
        # Servers refuse to run as root.
        user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
        subprocess.run(["chown", "-R", "nobody:nogroup", folder], check=True)
    command = [
        *(*user, sys.executable, "-m", "slapos_wendelin.mariadb.start"),
        *(f"--software={software}", f"--partition={folder}"),
        *("--engine=rocksdb", "--durability=relaxed", "--set=max-connections=500"),
        *("--set=innodb-buffer-pool-size=256MiB", "--set=rocksdb-block-cache-size=64MiB"),
    ]
    server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_TIME
        while not answers(place.socket):
            assert server.poll() is None, place.error_log.read_text()
            assert time.monotonic() < deadline, place.error_log.read_text()
            time.sleep(0.05)
        # NEO's tests give rights to this user, who must be there already.
        statement = "CREATE USER test@localhost IDENTIFIED BY ''"
        client = (software / "bin" / "mariadb", "--no-defaults", f"--socket={place.socket}")
        subprocess.run([*client, f"--execute={statement}"], check=True)
        yield Server(place.socket, _make_programs(folder / "programs", software))
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder)
