# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RelStorage on the system's PostgreSQL, as another way to keep ZODB in a database.

RelStorage 4.3 speaks a dialect that MariaDB refuses.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path
from typing import Self

from slapos_wendelin.errors import CommandError, MissingRequirementError
from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.mariadb.place import server_user
from slapos_wendelin.neo.servers import START_LIMIT, Server, Servers


class RelStorageServer(Servers):
    """A PostgreSQL of its own on the loopback address, with fsync as it is by default."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.programs = _programs()
        data, password = folder / "data", secrets.token_hex(16)
        password_file = folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        made = subprocess.run(
            [
                *(self.programs / "initdb", f"--pgdata={data}", "--encoding=UTF8"),
                *("--auth=scram-sha-256", f"--pwfile={password_file}"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise CommandError(f"initdb fails: {made.stderr.strip()}", "see what it says")
        (self.port,) = free_ports(1)
        arguments = ["-D", str(data), "-k", str(folder), "-p", str(self.port)]
        arguments += ["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=1GB"]
        self.servers = [Server(folder, "postgres", [str(self.programs / "postgres"), *arguments])]
        user = f"{server_user()}:{password}"
        self.uri = f"postgres://{user}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        (server,) = self.servers
        server.start()
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + START_LIMIT
        while subprocess.run(ready, check=False).returncode:
            if time.monotonic() > deadline or server.process.poll() is not None:
                self.stop()
                raise CommandError("PostgreSQL does not start", f"see {server.log}")
            time.sleep(0.1)
        return self


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise MissingRequirementError(
            "RelStorage is measured on PostgreSQL, and there is none",
            "apt-get install --yes --no-install-recommends postgresql, or choose others with"
            " --storage",
        )
    return found[-1].parent
