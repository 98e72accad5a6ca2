# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A NEO cluster over hosts, clients that write down what was promised to them, and its check."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import slapos_wendelin
from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.namespaces import Place
from slapos_wendelin.lab.polling import until

#: Says what it is about to commit, and what came of it, with the time of this machine.
CLIENT = """
import itertools, json, sys, time, transaction, ZODB, zodburi
from persistent.mapping import PersistentMapping
uri, name = sys.argv[1:]
def say(**what):
    print(json.dumps(what | {"at": time.monotonic()}), flush=True)
def connect():
    while True:
        try:
            open_storage, options = zodburi.resolve_uri(uri)
            return ZODB.DB(open_storage(), **options)
        except Exception as error:
            say(event="away", error=repr(error))
            time.sleep(.2)
db = connect()
while True:
    try:
        with db.transaction() as connection:
            # An object of its own: clients shall not wait for each other.
            connection.root().setdefault(name, PersistentMapping())
        break
    except Exception as error:
        say(event="away", error=repr(error))
        time.sleep(.1)
for number in itertools.count():
    say(event="begin", number=number)
    try:
        with db.transaction(f"{name} {number}") as connection:
            connection.root()[name]["number"] = number
    except Exception as error:
        say(event="failed", number=number, error=repr(error))
        time.sleep(.1)
    else:
        say(event="acknowledged", number=number)
"""

#: Prints the descriptions of all transactions, in their order.
READER = """
import sys, ZODB, zodburi
open_storage, options = zodburi.resolve_uri(sys.argv[1])
for record in open_storage().iterator():
    print((record.description or b"").decode())
"""

#: Our modules, some of which start MariaDB, and the user who has its data.
MODULES = Path(slapos_wendelin.__file__).parent
USER = "nobody"
SOCKET = "/var/neo/var/run/mariadb.sock"


@dataclass(frozen=True)
class Word:
    """One thing that a client said."""

    event: str
    number: int
    at: float


class Writer:
    """A client on a host that commits one transaction after the other."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def words(self) -> list[Word]:
        """Return what it has said so far; a last line that is cut off is not said yet."""
        lines = self.log.read_text().split("\n")[:-1]
        said = [json.loads(line) for line in lines]
        return [Word(each["event"], each.get("number", -1), each["at"]) for each in said]

    def acknowledged(self, begin: float = 0.0, end: float = float("inf")) -> list[Word]:
        """Return the commits that were acknowledged in a time."""
        return [
            word
            for word in self.words()
            if word.event == "acknowledged" and begin <= word.at <= end
        ]

    def longest_pause(self) -> float:
        """Return the longest time between two acknowledged commits, in seconds."""
        times = [word.at for word in self.acknowledged()]
        return max((after - before for before, after in pairwise(times)), default=0.0)


PARTITIONS = 6


@dataclass(frozen=True)
class MariaDB:
    """What storages keep their data in, each in a server of its own."""

    software: Path
    #: That of the tables, as NEO calls it.
    engine: str = "InnoDB"


class NeoOverHosts:
    """A cluster with a master and a storage on each of three hosts."""

    def __init__(
        self,
        lab: Lab,
        hosts: list[Host],
        python: Path,
        folder: Path,
        *,
        mariadb: MariaDB | None = None,
        replicas: int = 2,
    ) -> None:
        """Describe a cluster.

        :param mariadb: None for SQLite.
        :param replicas: with two, all hosts have all data.
        """
        self.mariadb = mariadb
        self.replicas = replicas
        self.lab = lab
        self.hosts = {host.name: host for host in hosts}
        self.python = python
        self.folder = folder
        self.admin = f"{lab.address}:12052"
        self.masters = " ".join(f"{host.address}:12051" for host in hosts)
        # No node of another test may take part.
        self.name = f"cut-{secrets.token_hex(4)}"
        self.uri = f"neo://{self.name}@{self.masters.replace(' ', ',')}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.writers: dict[str, Writer] = {}

    def install(self) -> None:
        """Copy the environment to the hosts, to the same place."""
        folders = [
            self.python.parents[1],
            *([self.mariadb.software, MODULES] if self.mariadb else []),
        ]
        for host in self.hosts.values():
            for folder in folders:
                host.copy(folder, folder)
                # They may be below the home of root, and the user of the data runs them.
                host.run("chmod", "o+x", *map(str, list(folder.parents)[:-1]))
            shutil.rmtree(host.path("/var/neo"), ignore_errors=True)
            for path in ("srv", "var/run", "var/log"):
                host.path(f"/var/neo/{path}").mkdir(parents=True)
            host.run("chown", "-R", USER, "/var/neo")
            # Without power a host forgets what was copied to it just before.
            host.run("sync", "-f", "/")

    def start(self) -> None:
        """Start all programs and wait until every storage has everything."""
        for host in self.hosts.values():
            self.start_nodes(host)
        self._program(self.lab.master, "admin", "neoadmin", f"--bind={self.admin}")
        until(self._whole_or_ended, "the cluster is whole", patience=300)

    def _whole_or_ended(self) -> bool:
        """Say whether all copies are there; fail at once where a program has ended meanwhile."""
        for process in self.processes:
            assert process.poll() is None, f"{process.args} ended: see the logs in {self.folder}"
        return self.is_whole()

    def start_nodes(self, host: Host) -> None:
        """Start the master and the storage of a host."""
        sizes = (f"--partitions={PARTITIONS}", f"--replicas={self.replicas}", "--autostart=3")
        own = (f"--bind={host.address}:12051", "--quorum=quorum.json")
        self._program(host, "master", "neomaster", *own, *sizes)
        place = (f"--data-center={host.data_center}", f"--bind={host.address}:12053")
        if self.mariadb is None:
            database = ("--adapter=SQLite", "--database=neo.sqlite")
            self._program(host, "storage", "neostorage", *place, *database)
            return
        self._start_mariadb(host, self.mariadb)
        wait = (*self._as_user("slapos_wendelin.mariadb.wait"), f"--socket={SOCKET}", "--")
        database = ("--adapter=MySQL", f"--database={USER}@neo{SOCKET}")
        engine = f"--engine={self.mariadb.engine}"
        self._program(host, "storage", "neostorage", *place, *database, engine, before=wait)

    def _start_mariadb(self, host: Host, mariadb: MariaDB) -> None:
        """Start the server of a storage."""
        starter = self._as_user("slapos_wendelin.mariadb.start")
        engine = f"--engine={mariadb.engine.lower()}"
        options = ("--partition=/var/neo", f"--software={mariadb.software}", engine)
        self._start(host, "mariadb", *starter, *options)

    def _as_user(self, module: str) -> tuple[str, ...]:
        """Return the command that runs a module as the user who has the data, not as root."""
        # A change of user would let it live on when what has started it is killed.
        user = ("setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups")
        dying = ("--pdeathsig=KILL", "--")
        return (
            *user,
            *dying,
            "env",
            f"PYTHONPATH={MODULES.parent}",
            str(self.python),
            "-m",
            module,
        )

    def _program(
        self, place: Place, name: str, program: str, *options: str, before: tuple[str, ...] = ()
    ) -> None:
        """Start a program of NEO.

        :param before: the command that starts it.
        """
        common = (f"--cluster={self.name}", f"--masters={self.masters}", f"--logfile={name}.log")
        self._start(place, name, *before, str(self.python.with_name(program)), *common, *options)

    def _start(self, place: Place, name: str, *command: str) -> None:
        """Start a program; what it prints goes to a log of this machine."""
        with (self.folder / f"{place.name}-{name}.log").open("ab") as log:
            process = place.popen(
                command,
                cwd=self.folder if place is self.lab.master else "/var/neo",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)

    def neoctl(self, *arguments: str) -> str:
        """Ask the admin, from the master's place, and return what it says."""
        program = str(self.python.with_name("neoctl"))
        ask = (program, f"--address={self.admin}", *arguments)
        return self.lab.master.run(*ask, check=False).stdout

    def primary(self) -> str:
        """Return the name of the host of the primary master, once there is one."""
        return until(self._primary, "a master is the primary one")

    def _primary(self) -> str:
        """Return the name of the host of the primary master; empty while there is none."""
        for line in self.neoctl("print", "node").splitlines():
            words = [word.strip() for word in line.split("|")]
            if words[1:2] == ["MASTER"] and words[3:] == ["RUNNING", "None"]:
                address = words[2].rpartition(":")[0]
                return next(name for name, host in self.hosts.items() if host.address == address)
        return ""

    def others(self, than: str) -> list[str]:
        """Return the names of all hosts but one."""
        return [name for name in self.hosts if name != than]

    def is_whole(self) -> bool:
        """Say whether all copies are there, up to date."""
        cells = _cells(self.neoctl("print", "pt"))
        copies = PARTITIONS * (self.replicas + 1)
        is_running = self.neoctl("print", "cluster") == "RUNNING\n"
        return is_running and cells.count("U") == copies == len(cells.replace(".", ""))

    def write_from_everywhere(self) -> None:
        """Start a client on each host, and wait until each has committed a few times."""
        for host in self.hosts.values():
            log = self.folder / f"client-{host.name}-{len(self.writers)}.json"
            with log.open("wb") as output:
                process = host.popen(
                    [str(self.python), "-c", CLIENT, self.uri, host.name],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.DEVNULL,
                )
            self.processes.append(process)
            self.writers[host.name] = Writer(host.name, process, log)
        self.wait_for_commits(*self.writers, count=10)

    def wait_for_commits(self, *names: str, count: int = 3) -> None:
        """Wait until each of these clients has had more commits acknowledged."""
        begin = time.monotonic()
        for name in names:
            writer = self.writers[name]
            until(
                lambda writer=writer: len(writer.acknowledged(begin)) >= count,
                f"{name} commits",
                patience=300,
            )

    def stop_writing(self) -> None:
        """End the clients, whatever they are at."""
        self._end([each.process for each in self.writers.values()], f"{self.uri}\0")

    def found(self) -> dict[str, list[int]]:
        """Return the numbers that each client has committed, in the order of the transactions."""
        told = self.lab.master.run(str(self.python), "-c", READER, self.uri, timeout=300).stdout
        numbers: dict[str, list[int]] = defaultdict(list)
        for line in told.splitlines():
            name, _, number = line.partition(" ")
            if number.isdecimal():
                numbers[name].append(int(number))
        return numbers

    def stop(self) -> None:
        """End everything."""
        self._end(self.processes, self.name, "/var/neo")

    def _end(self, processes: list[subprocess.Popen[bytes]], *marks: str) -> None:
        """Kill processes and wait until nothing whose command has one of the marks is left.

        What is killed is what entered a host; the program itself ends a moment later.
        """
        for process in processes:
            process.kill()
            process.wait()
        until(
            lambda: not any(mark in command for command in self._commands() for mark in marks),
            "what was killed has ended",
        )

    def _commands(self) -> list[str]:
        """Return the commands that run on the hosts, with a zero between their words."""
        found = []
        for host in self.hosts.values():
            for process in host.group.processes():
                with suppress(OSError):
                    found.append(Path(f"/proc/{process}/cmdline").read_text())
        return found


def check_history(neo: NeoOverHosts) -> None:
    """Check that what was acknowledged is there, once and in order, and nothing unknown."""
    found = neo.found()
    for name, writer in neo.writers.items():
        acknowledged = [word.number for word in writer.acknowledged()]
        begun = {word.number for word in writer.words() if word.event == "begin"}
        numbers = found[name]
        wrong = [pair for pair in pairwise(numbers) if pair[0] >= pair[1]]
        assert not wrong, f"{name} has something twice or in another order: {wrong}"
        assert set(acknowledged) <= set(numbers), (
            f"{name} has lost {sorted(set(acknowledged) - set(numbers))}"
        )
        assert set(numbers) <= begun


def check_replicas(neo: NeoOverHosts) -> None:
    """Wait for all copies and let NEO compare them: cells that differ would be called corrupted."""
    until(neo.is_whole, "every storage has everything again", patience=300)
    neo.neoctl("check", ":")
    until(lambda: "C" not in _cells(neo.neoctl("print", "pt")), "no copy differs")
    until(neo.is_whole, "every storage is as it was")


def _cells(table: str) -> str:
    return "".join(line.rpartition(" ")[2] for line in table.splitlines()[1:])


@contextmanager
def running_neo(
    lab: Lab, python: Path, folder: Path, *, mariadb: MariaDB | None = None, replicas: int = 2
) -> Iterator[NeoOverHosts]:
    """Run a cluster on the first host of each data center."""
    hosts = [center.hosts[0] for center in lab.data_centers.values()]
    neo = NeoOverHosts(lab, hosts, python, folder, mariadb=mariadb, replicas=replicas)
    try:
        neo.install()
        neo.start()
        yield neo
    finally:
        neo.stop()
