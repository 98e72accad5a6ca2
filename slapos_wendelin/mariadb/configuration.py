# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a storage node's MariaDB is told when it starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from slapos_wendelin.mariadb.memory import LEAST
from slapos_wendelin.mariadb.place import Place, server_user

INNODB, ROCKSDB = "innodb", "rocksdb"

#: The engines, as parameters name them, and as MariaDB does.
ENGINES = {INNODB: "InnoDB", ROCKSDB: "ROCKSDB"}

SAFE, RELAXED = "safe", "relaxed"

#: The database of NEO's tables.
DATABASE = "neo"

#: What flush_log_at_trx_commit is: 1 writes each commit to the disk, 2 all once a second.
_FLUSH = {SAFE: "1", RELAXED: "2"}

_SIZE = re.compile(r"([1-9][0-9]*)([KMG])iB")


def configuration(
    place: Place,
    software: Path,
    *,
    engine: str,
    durability: str,
    buffers: int,
    settings: Mapping[str, str],
) -> str:
    """Return the content of the server's configuration file.

    :param software: folder of the compiled MariaDB.
    :param buffers: size of its buffers in bytes, unless the settings say another.
    :param settings: options of the server that users gave, over those that follow from the rest.
    """
    options = {
        **_places(place, software),
        **_fixed(),
        **_engine(engine, buffers),
        "innodb-flush-log-at-trx-commit": _FLUSH[durability],
        **({"rocksdb-flush-log-at-trx-commit": _FLUSH[durability]} if engine == ROCKSDB else {}),
        **{name: _value(value) for name, value in settings.items()},
    }
    lines = [f"{name} = {value}" if value else name for name, value in options.items()]
    return "\n".join(["[mariadbd]", *lines, ""])


def first_statements() -> str:
    """Return what the server runs before it takes connections: user and database are made.

    The user is who runs the server: a data folder that was moved to another partition has another.
    """
    user = f"`{server_user()}`@localhost"
    return (
        f"CREATE USER IF NOT EXISTS {user} IDENTIFIED VIA unix_socket;\n"
        f"GRANT ALL PRIVILEGES ON *.* TO {user} WITH GRANT OPTION;\n"
        f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
    )


def _places(place: Place, software: Path) -> dict[str, str]:
    """Return the options that say where files are."""
    return {
        "basedir": str(software),
        "datadir": str(place.data),
        "tmpdir": str(place.temporary),
        "socket": str(place.socket),
        "pid-file": str(place.server_pid),
        "init-file": str(place.first_statements),
        "log-error": str(place.error_log),
        "slow-query-log-file": str(place.slow_log),
    }


def _fixed() -> dict[str, str]:
    """Return the options that are the same for all."""
    return {
        "skip-networking": "",
        "skip-name-resolve": "",
        "skip-log-bin": "",
        "slow-query-log": "1",
        "long-query-time": "1",
        "max-connections": "64",
        # Less than 32769K are refused by NEO.
        "max-allowed-packet": "64M",
        # Without it, a server that cannot read its data would start without it.
        "default-storage-engine": ENGINES[INNODB],
    }


def _engine(engine: str, buffers: int) -> dict[str, str]:
    """Return the options of an engine. The tables of the server itself are InnoDB's in any case."""
    if engine == INNODB:
        return {"innodb-buffer-pool-size": str(buffers)}
    return {
        "plugin-load-add": "ha_rocksdb",
        "rocksdb": "FORCE",
        "rocksdb-block-cache-size": str(buffers),
        "innodb-buffer-pool-size": str(LEAST // 2),
    }


def _value(text: str) -> str:
    """Return a value as the server reads it."""
    size = _SIZE.fullmatch(text)
    if size:
        return size[1] + size[2]
    return {"true": "1", "false": "0"}.get(text.lower(), text)
