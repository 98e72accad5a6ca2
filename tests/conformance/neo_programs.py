# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NEO's own programs, as a cluster on the loopback address."""

import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from slapos_wendelin.free_ports import free_ports

#: Seconds for what takes one or two, on a slow machine.
PATIENCE = 180

COUNTER = """
import sys, time, transaction, ZODB, zodburi
from ZODB.POSException import ConflictError, StorageError
open_storage, options = zodburi.resolve_uri(sys.argv[1])
db = ZODB.DB(open_storage(), **options)
root = db.open().root()
def commit(value):
    while 1:
        try:
            with transaction.manager:
                root["value"] = value
            return
        except (ConflictError, StorageError):
            time.sleep(.1)
for line in sys.stdin:
    commit(int(line))
    print("committed", line.strip(), flush=True)
print("value", root["value"], flush=True)
"""

BULK = """
import os, sys, transaction, ZODB, zodburi
from persistent.mapping import PersistentMapping
open_storage, options = zodburi.resolve_uri(sys.argv[1])
db = ZODB.DB(open_storage(), **options)
with transaction.manager:
    db.open().root()["bulk"] = [
        PersistentMapping(data=os.urandom(100_000)) for _ in range(int(sys.argv[2]) // 100_000)
    ]
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.1)


class Cluster:
    """An admin, masters m1 and so on, storages s1 and so on; all on loopback."""

    def __init__(
        self,
        programs: Path,
        folder: Path,
        *,
        masters: int = 1,
        storages: int = 2,
        replicas: int = 1,
        quorum: bool = False,
        host: str = "127.0.0.1",
        certificates: Path | None = None,
    ) -> None:
        """Describe a cluster; nothing is started.

        :param host: the loopback address, in brackets when it is of IPv6.
        :param certificates: the folder of a certificate for all nodes and clients; None for none.
        :param quorum: whether a majority of the masters has to agree. Storages are then in data
            centers of their own.
        """
        self.programs = programs
        self.folder = folder
        self.admin, *addresses = (f"{host}:{port}" for port in free_ports(1 + masters, host))
        self.masters = " ".join(addresses)
        self.uri = f"neo://demo@{','.join(addresses)}"
        self.tls: list[str] = []
        if certificates is not None:
            authority, identity = certificates / "ca.pem", certificates / "identity.pem"
            self.tls = [f"--ca={authority}", f"--cert={identity}", f"--key={identity}"]
            self.uri += f"?ca={authority}&cert={identity}&key={identity}"
        sizes = ["-p4", f"-r{replicas}", f"-A{storages}"]
        self.commands = {"admin": ["neoadmin", f"-b{self.admin}"]}
        for number, address in enumerate(addresses, 1):
            extra = [f"-qm{number}.json"] if quorum else []
            self.commands[f"m{number}"] = ["neomaster", f"-b{address}", *sizes, *extra]
        for number in range(1, storages + 1):
            extra = [f"--data-center=dc{number}"] if quorum else []
            extra += [f"-b{host}:0"] * (host != "127.0.0.1")
            database = f"-ds{number}.sqlite"
            self.commands[f"s{number}"] = ["neostorage", "-aSQLite", database, *extra]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self.commands:
                self.start(name)
            wait_until(lambda: self.state() == "RUNNING")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.end(name, signal.SIGKILL)

    def start(self, name: str) -> None:
        """Start one node."""
        program, *options = self.commands[name]
        command = [self.programs / program, "-cdemo", f"-m{self.masters}", f"-l{name}.log"]
        command += [*self.tls, *options]
        with (self.folder / f"{name}.err").open("ab") as errors:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, stderr=errors, stdin=subprocess.DEVNULL
            )

    def end(self, name: str, number: int) -> int:
        """Send a signal and return the exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(PATIENCE)

    def ended(self) -> list[str]:
        """Return the nodes that have ended by themselves."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def primary(self) -> str:
        """Return the name of the primary master, or nothing."""
        table = self.ask("print", "node")
        for line in table.splitlines():
            words = [word.strip() for word in line.split("|")]
            if words[1:2] == ["MASTER"] and words[3:] == ["RUNNING", "None"]:
                return f"m{self.masters.split().index(words[2]) + 1}"
        return ""

    def neoctl(self, *arguments: str, status: int = 0) -> str:
        """Run neoctl and return what it prints."""
        result = self._neoctl(*arguments)
        output = result.stdout + result.stderr
        assert result.returncode == status, output
        assert "Traceback" not in output
        return output

    def ask(self, *arguments: str) -> str:
        """Return what neoctl says, or an error message."""
        result = self._neoctl(*arguments)
        return (result.stdout + result.stderr).strip()

    def _neoctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / "neoctl", f"-a{self.admin}", *self.tls, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def state(self) -> str:
        """Return the state of the cluster, or an error message."""
        return self.ask("print", "cluster")

    def is_replicated(self) -> bool:
        """Tell whether all storages have all partitions, up to date."""
        count = sum(name.startswith("s") for name in self.commands)
        table = self.ask("print", "pt")
        return self.state() == "RUNNING" and table.count(" R UUUU") == count

    def lost(self) -> str:
        """Wait until a storage is missed; return what NEO calls it."""
        found: list[str] = []

        def is_missed() -> bool:
            table = self.ask("print", "node", "storage").splitlines()
            found[:] = [line.split()[0] for line in table if " DOWN " in line]
            return bool(found)

        wait_until(is_missed)
        return found[0]

    def errors(self) -> str:
        """Return what the nodes wrote to their standard error."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.err")))

    def log(self, name: str) -> str:
        """Return what a node has written to its log."""
        command = [self.programs / "neolog", f"{name}.log"]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=True
        ).stdout

    def client(self, uri: str = "") -> subprocess.Popen[str]:
        """Start a process that commits each number it reads.

        :param uri: empty for that of a client with the nodes' certificate.
        """
        return subprocess.Popen(
            [self.programs / "python", "-c", COUNTER, uri or self.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def commit(client: subprocess.Popen[str], value: int) -> None:
    begin_commit(client, value)
    end_commit(client, value)


def begin_commit(client: subprocess.Popen[str], value: int) -> None:
    assert client.stdin
    client.stdin.write(f"{value}\n")
    client.stdin.flush()


def end_commit(client: subprocess.Popen[str], value: int) -> None:
    assert client.stdout
    assert select.select([client.stdout], [], [], 2 * PATIENCE)[0], f"{value} is not committed"
    assert client.stdout.readline() == f"committed {value}\n"


def last_value(client: subprocess.Popen[str]) -> str:
    output, _ = client.communicate(timeout=PATIENCE)
    return output
