# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage servers on the loopback address of this machine, for tests and benchmarks.

    with NeoCluster(folder, storage_count=2) as cluster:
        client.run(cluster.uri, function)

The programs are those of the environment that runs this module. They end with the context, and with
this process should it be killed. What they store stays in the folder.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.mariadb.place import Place, server_user
from slapos_wendelin.neo import client, memory

if TYPE_CHECKING:
    from types import TracebackType

#: Seconds that a server has to end in good order before it is killed.
STOP_LIMIT = 10.0

#: Seconds that servers have to begin to serve.
START_LIMIT = 120.0

#: The kernel kills the servers when the thread that started them ends, so it has to be one that
#: lasts as long as this process.
_starter = concurrent.futures.ThreadPoolExecutor(1, "server-starter")


class Server:
    """A server process that can be stopped, killed and started again.

    :param name: names the log in the folder.
    :param arguments: the program, one of this environment, and its arguments.
    """

    def __init__(self, folder: Path, name: str, arguments: list[str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        program = Path(sys.executable).parent / arguments[0]
        if not program.exists():
            raise MissingRequirementError(
                f"{arguments[0]} is not installed in {program.parent.parent}",
                "install the wheel of component/neoppod there",
            )
        # setpriv of util-linux asks the kernel to kill the server when this process has gone.
        setpriv = shutil.which("setpriv")
        self.command = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        self.command += [str(program), *arguments[1:]]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; what it prints goes to the log."""
        with self.log.open("ab") as log:
            self.process = _starter.submit(
                subprocess.Popen,
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | memory.MALLOC_ENVIRONMENT,
            ).result()

    def stop(self) -> None:
        """End the process in good order, and by force when it does not end."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End the process as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Kill the process and start it again."""
        self.kill()
        self.start()


class Servers:
    """Servers that make one storage. `uri` is the address for clients."""

    uri: str

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            client.run(self.uri, lambda _: None, time_limit=START_LIMIT)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        client.close_databases()
        self.stop()

    def stop(self) -> None:
        """End all servers."""
        for server in reversed(self.servers):
            with contextlib.suppress(OSError):
                server.stop()


class ZeoServer(Servers):
    """A ZEO server with a FileStorage in the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        (port,) = free_ports(1)
        self.uri = f"zeo://127.0.0.1:{port}?wait_timeout=5"
        self.servers = [
            Server(
                folder, "zeo", ["runzeo", "-a", f"127.0.0.1:{port}", "-f", str(folder / "zeo.fs")]
            )
        ]


class Engine(NamedTuple):
    """What servers of MariaDB are started with.

    :param name: `innodb` or `rocksdb`.
    :param software: the folder of the MariaDB.
    :param share: how many servers of this machine share its memory.
    """

    name: str
    software: Path
    share: int = 1


class MariadbServer(Server):
    """A MariaDB that is configured as that of a storage node. Root is refused, by MariaDB.

    :param folder: is made; its path is short enough for a socket.
    """

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine = engine.name
        self.place = Place(folder)
        for path in (self.place.folder, self.place.socket, self.place.error_log):
            path.parent.mkdir(parents=True, exist_ok=True)
        command = ["python", "-m", "slapos_wendelin.mariadb.start"]
        command += [f"--software={engine.software}", f"--partition={folder}"]
        super().__init__(
            folder, "mariadb", [*command, f"--engine={engine.name}", f"--share={engine.share}"]
        )

    def waiting(self, program: str) -> list[str]:
        """Return what starts a program of this environment once the server answers."""
        path = Path(sys.executable).with_name(program)
        wait = ["python", "-m", "slapos_wendelin.mariadb.wait"]
        return [*wait, "--socket", str(self.place.socket), "--", str(path)]


class NeoCluster(Servers):
    """A NEO cluster on SQLite, or on a MariaDB for each storage.

    :param master_count: three, if the cluster shall go on without one of them.
    :param replicas: copies of each NEO partition beside the first one.
    :param engine: that of MariaDB; None for SQLite.
    """

    def __init__(
        self,
        folder: Path,
        *,
        storage_count: int = 2,
        master_count: int = 1,
        partitions: int = 12,
        replicas: int = 0,
        engine: Engine | None = None,
    ) -> None:
        super().__init__()
        self.databases: list[MariadbServer] = []
        if engine is not None:
            places = [folder / f"mariadb-{number}" for number in range(storage_count)]
            self.databases = [MariadbServer(place, engine) for place in places]
        ports = free_ports(master_count + storage_count)
        masters = [f"127.0.0.1:{port}" for port in ports[:master_count]]
        name = f"test-{secrets.token_hex(4)}"
        self.uri = f"neo://{name}@{','.join(masters)}"
        common = ["--cluster", name, "--masters", " ".join(masters)]
        sizes = ["--partitions", str(partitions), "--replicas", str(replicas)]
        sizes += ["--autostart", str(storage_count)]
        self.masters = [
            self._master(folder, number, [*common, "--bind", address, *sizes])
            for number, address in enumerate(masters)
        ]
        self.storages = [
            self._storage(folder, number, [*common, "--bind", f"127.0.0.1:{port}"])
            for number, port in enumerate(ports[master_count:])
        ]
        self.servers = self.databases + self.masters + self.storages

    @staticmethod
    def _master(folder: Path, number: int, arguments: list[str]) -> Server:
        """Return a master node, which works as long as a majority of the masters agrees."""
        quorum = ["--quorum", str(folder / f"master-{number}.json")]
        return Server(folder, f"master-{number}", ["neomaster", *arguments, *quorum])

    def _storage(self, folder: Path, number: int, arguments: list[str]) -> Server:
        """Return a storage node with a database of its own."""
        name = f"storage-{number}"
        if not self.databases:
            kind = ["--adapter", "SQLite", "--database", str(folder / f"{name}.sqlite")]
            return Server(folder, name, ["neostorage", *arguments, *kind])
        database = self.databases[number]
        engine = {"innodb": "InnoDB", "rocksdb": "RocksDB"}[database.engine]
        address = f"{server_user()}@neo{database.place.socket}"
        kind = ["--adapter", "MySQL", "--engine", engine, "--database", address]
        return Server(folder, name, [*database.waiting("neostorage"), *arguments, *kind])
