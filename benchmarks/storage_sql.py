# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same measures of MariaDB alone: the same sizes as rows of tables, by SQL.

An address is ``sql://`` and the path of the server's socket.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from storage_sizes import (
    BLOCK_BYTES,
    BLOCKS,
    BLOCKS_PER_COMMIT,
    BLOCKS_SIZE,
    CLIENTS,
    COMMIT_SECONDS,
    OBJECTS,
    block_rate,
    wait_for_start,
)

from slapos_wendelin.mariadb.place import server_user

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEME = "sql://"

_TABLES = {
    "counters": "number INT PRIMARY KEY, value INT NOT NULL",
    "objects": "number INT PRIMARY KEY, text VARCHAR(200) NOT NULL",
    "blocks": "number INT PRIMARY KEY, data LONGBLOB NOT NULL",
}


def _connect(uri: str) -> contextlib.closing[Any]:
    """Return a connection whose transactions are committed by hand."""
    import MySQLdb  # noqa: PLC0415 - only there where MariaDB is measured

    socket = uri.removeprefix(SCHEME)
    return contextlib.closing(
        MySQLdb.connect(unix_socket=socket, user=server_user(), database="neo")
    )


def prepare(uri: str) -> None:
    """Make the tables, with the rows that are changed and read."""
    with _connect(uri) as connection, connection.cursor() as cursor:
        for name, columns in _TABLES.items():
            cursor.execute(f"CREATE TABLE {name} ({columns}) ENGINE=InnoDB")
        counters = [(number, 0) for number in range(CLIENTS)]
        cursor.executemany("INSERT INTO counters VALUES (%s, %s)", counters)
        objects = [(number, f"{number:0100}") for number in range(OBJECTS)]
        cursor.executemany("INSERT INTO objects VALUES (%s, %s)", objects)
        connection.commit()


def commit_for_a_while(uri: str, number: int) -> float:
    """Return how many small changes a client commits in a second."""
    with _connect(uri) as connection, connection.cursor() as cursor:
        wait_for_start()
        start = time.perf_counter()
        commits = 0
        while time.perf_counter() - start < COMMIT_SECONDS:
            cursor.execute("UPDATE counters SET value = value + 1 WHERE number = %s", [number])
            connection.commit()
            commits += 1
        return commits / (time.perf_counter() - start)


def read_objects(uri: str, _: int) -> float:
    """Return how many small rows a client reads in a second, one by one."""
    with _connect(uri) as connection, connection.cursor() as cursor:
        wait_for_start()
        start = time.perf_counter()
        for number in range(OBJECTS):
            cursor.execute("SELECT text FROM objects WHERE number = %s", [number])
            cursor.fetchone()
        return OBJECTS / (time.perf_counter() - start)


def write_blocks(uri: str, _: int) -> float:
    """Return how many megabytes of blocks a client writes in a second, in several commits."""
    contents = [os.urandom(BLOCK_BYTES) for _ in range(BLOCKS)]
    with _connect(uri) as connection, connection.cursor() as cursor:
        wait_for_start()
        start = time.perf_counter()
        for number, content in enumerate(contents, 1):
            cursor.execute("REPLACE INTO blocks VALUES (%s, %s)", [number, content])
            if number % BLOCKS_PER_COMMIT == 0:
                connection.commit()
        return BLOCKS_SIZE / (time.perf_counter() - start)


def read_blocks(uri: str, _: int) -> float:
    """Return how many megabytes of blocks a client reads in a second."""
    size = 0
    with _connect(uri) as connection, connection.cursor() as cursor:
        wait_for_start()
        start = time.perf_counter()
        for number in range(1, BLOCKS + 1):
            cursor.execute("SELECT data FROM blocks WHERE number = %s", [number])
            size += len(cursor.fetchone()[0])
        seconds = time.perf_counter() - start
    return block_rate(size, seconds)


MEASURES: dict[str, Callable[[str, int], float]] = {
    "commits": commit_for_a_while,
    "objects": read_objects,
    "write": write_blocks,
    "read": read_blocks,
}
