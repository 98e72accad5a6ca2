# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real MariaDB and PostgreSQL servers of the system, each private to one run of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from slapos_wendelin.master.database import database_url

KINDS = ("sqlite", "mariadb", "postgresql")

#: Runs a test on each kind of database; it takes the fixture ``location``.
on_every_database = pytest.mark.parametrize("location", KINDS, indirect=True)

#: Servers refuse to run as root.
_USER, _USER_GROUP = "nobody", "nogroup"

_PATIENCE = 300  # seconds

_FOLDERS = ["/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]


class DatabaseServer:
    """A server in a folder of its own that listens on a socket there."""

    #: The program, the Debian package that has it, and what stops it at once.
    program = ""
    package = ""
    stop_signal = signal.SIGKILL

    def __init__(self) -> None:
        """Make the server's files and start it; it ends with this process."""
        self.folder = Path(tempfile.mkdtemp(prefix="wendelin-"))
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if os.getuid() == 0:
                shutil.chown(self.folder, _USER)
            self._run(self.preparation())
            self.configure()
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    _as_user(self.command()), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its files."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            self._process.wait(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """Return the URL of a new, empty database."""
        self._databases += 1
        name = f"master{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def preparation(self) -> list[str]:
        """Return the command that makes the files."""
        raise NotImplementedError

    def configure(self) -> None:
        """Change what the files say before the server runs."""

    def command(self) -> list[str]:
        """Return the command that runs the server."""
        raise NotImplementedError

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        """Execute a statement in the database that every server has."""
        engine = create_engine(database_url(self.url("")), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def _wait(self) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + _PATIENCE
        while self._process is not None and self._process.poll() is None:
            try:
                self.execute("SELECT 1")
            except SQLAlchemyError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"{self.program} does not start:\n{(self.folder / 'log').read_text()}")

    def _run(self, command: Sequence[str]) -> None:
        """Run a command that makes files."""
        done = subprocess.run(
            _as_user(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=_PATIENCE,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")


class MariadbServer(DatabaseServer):
    """MariaDB."""

    program = "mariadbd"
    package = "mariadb-server-core mariadb-client-core"

    def preparation(self) -> list[str]:
        return [
            find_program("mariadb-install-db", self.package),
            "--no-defaults",
            f"--datadir={self.folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]

    def command(self) -> list[str]:
        return [
            find_program(self.program, self.package),
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            "--skip-networking",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=2",
        ]

    def url(self, name: str) -> str:
        return f"mariadb://root@localhost/{name or 'mysql'}?unix_socket={self.folder}/socket"


class PostgresqlServer(DatabaseServer):
    """PostgreSQL."""

    program = "postgres"
    package = "postgresql"
    stop_signal = signal.SIGQUIT

    def preparation(self) -> list[str]:
        return [
            find_program("initdb", self.package),
            f"--pgdata={self.folder}/data",
            "--username=wendelin",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]

    def configure(self) -> None:
        # The user slapos has to give its password.
        access = self.folder / "data" / "pg_hba.conf"
        access.write_text(f"local all slapos scram-sha-256\n{access.read_text()}")

    def command(self) -> list[str]:
        return [
            find_program(self.program, self.package),
            "-D",
            f"{self.folder}/data",
            *("-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={self.folder}"),
            *("-c", "fsync=off"),
            *("-c", "max_connections=300"),
        ]

    def url(self, name: str) -> str:
        return f"postgresql://wendelin@/{name or 'postgres'}?host={self.folder}"


SERVERS = {"mariadb": MariadbServer, "postgresql": PostgresqlServer}


def find_program(name: str, package: str) -> str:
    """Return the path of a server's program; a machine without it fails the test."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS]))
    if found is None:
        pytest.fail(
            f"{name} is missing, and the master is tested with it; as root:"
            f" apt-get install --yes --no-install-recommends {package}"
        )
    return found


def _as_user(command: Sequence[str]) -> list[str]:
    """Return the command as an ordinary user runs it; it ends when the tests do."""
    options = ["--pdeathsig=KILL"]
    if os.getuid() == 0:
        options += [f"--reuid={_USER}", f"--regid={_USER_GROUP}", "--clear-groups"]
    return ["setpriv", *options, "--", *command]
