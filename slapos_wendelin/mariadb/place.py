# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files of a storage node's MariaDB are."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from slapos_wendelin.mariadb.errors import ServerError

#: Bytes that a path of a unix socket may have on Linux, without the final zero.
_SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class Place:
    """The partition of a storage node."""

    partition: Path

    @property
    def folder(self) -> Path:
        """Folder of all that must not be lost."""
        return self.partition / "srv" / "mariadb"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def note(self) -> Path:
        """What is known of the data: its engine, and the version that has written it."""
        return self.data / "wendelin.json"

    @property
    def temporary(self) -> Path:
        """Folder of what the server forgets when it ends."""
        return self.folder / "tmp"

    @property
    def server_pid(self) -> Path:
        """File with the process id of the server, which removes it when it ends in order."""
        return self.folder / "server.pid"

    @property
    def crashes(self) -> Path:
        """The times at which the server was found to have ended without shutting down."""
        return self.folder / "crashes"

    @property
    def configuration(self) -> Path:
        """What the server reads when it starts."""
        return self.folder / "server.cnf"

    @property
    def first_statements(self) -> Path:
        """The statements that the server runs before it takes connections."""
        return self.folder / "start.sql"

    @property
    def lock(self) -> Path:
        """Held by whoever prepares the data folder."""
        return self.folder / "lock"

    @property
    def socket(self) -> Path:
        """Where the server answers, and nowhere else."""
        return self.partition / "var" / "run" / "mariadb.sock"

    @property
    def upgrade_socket(self) -> Path:
        """Where it answers while this process upgrades it; one that was killed has another."""
        return self.socket.with_name(f"upgrade-{os.getpid()}.sock")

    def old_upgrade_sockets(self) -> list[Path]:
        """Return the sockets of upgrades, all of which may be old ones."""
        return list(self.socket.parent.glob("upgrade-*.sock"))

    @property
    def error_log(self) -> Path:
        """What the server tells of itself."""
        return self.partition / "var" / "log" / "mariadb-error.log"

    @property
    def slow_log(self) -> Path:
        """The statements that took long."""
        return self.partition / "var" / "log" / "mariadb-slow.log"

    def check(self) -> None:
        """Refuse a partition whose path is too long for sockets.

        :raises ServerError: which says so.
        """
        longest = max(self.socket, self.upgrade_socket, key=lambda path: len(os.fsencode(path)))
        if len(os.fsencode(longest)) > _SOCKET_PATH_LIMIT:
            raise ServerError(
                f"the path {longest} is too long for a socket"
                f" (more than {_SOCKET_PATH_LIMIT} bytes)",
                "let the partitions of this computer be in a folder with a shorter path",
            )


def server_user() -> str:
    """Return the name of the user that runs this, who is the one that the server lets in."""
    return pwd.getpwuid(os.getuid()).pw_name
