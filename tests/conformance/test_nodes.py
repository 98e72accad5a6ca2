# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of NEO's own programs: what operators do with it, and what they fear."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: Seconds for what takes one or two, on a slow machine.
PATIENCE = 60

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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.1)


class Cluster:
    """One master, one admin, two storages with one replica; all on loopback."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.master = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one node."""
        program, options = {
            "master": ("neomaster", [f"-b{self.master}", "-p4", "-r1", "-A2"]),
            "admin": ("neoadmin", [f"-b{self.admin}"]),
            "s1": ("neostorage", ["-aSQLite", "-ds1.sqlite"]),
            "s2": ("neostorage", ["-aSQLite", "-ds2.sqlite"]),
        }[name]
        command = [self.programs / program, "-cdemo", f"-m{self.master}", f"-l{name}.log"]
        with (self.folder / f"{name}.err").open("ab") as errors:
            self.processes[name] = subprocess.Popen(
                [*command, *options], cwd=self.folder, stderr=errors, stdin=subprocess.DEVNULL
            )

    def end(self, name: str, number: int) -> int:
        """Send a signal and return the exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(PATIENCE)

    def neoctl(self, *arguments: str, status: int = 0) -> str:
        """Run neoctl and return what it prints."""
        result = subprocess.run(
            [self.programs / "neoctl", f"-a{self.admin}", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        output = result.stdout + result.stderr
        assert result.returncode == status, output
        assert "Traceback" not in output
        return output

    def state(self) -> str:
        """Return the state of the cluster, or an error message."""
        result = subprocess.run(
            [self.programs / "neoctl", f"-a{self.admin}", "print", "cluster"],
            capture_output=True,
            text=True,
            check=False,
        )
        return (result.stdout + result.stderr).strip()

    def is_replicated(self) -> bool:
        """Tell whether both storages have all partitions, up to date."""
        table = self.neoctl("print", "pt")
        return self.state() == "RUNNING" and table.count(" R UUUU") == 2

    def errors(self) -> str:
        """Return what the nodes wrote to their standard error."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.err")))

    def client(self) -> subprocess.Popen[str]:
        """Start a process that commits each number it reads."""
        return subprocess.Popen(
            [self.programs / "python", "-c", COUNTER, f"neo://demo@{self.master}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def cluster(neo_python: str, tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(Path(neo_python).parent, tmp_path)
    try:
        for name in ("master", "admin", "s1", "s2"):
            started.start(name)
        wait_until(lambda: started.state() == "RUNNING")
        yield started
    finally:
        for name in list(started.processes):
            started.end(name, signal.SIGKILL)


def commit(client: subprocess.Popen[str], value: int) -> None:
    assert client.stdin
    assert client.stdout
    client.stdin.write(f"{value}\n")
    client.stdin.flush()
    assert client.stdout.readline() == f"committed {value}\n"


def last_value(client: subprocess.Popen[str]) -> str:
    output, _ = client.communicate(timeout=PATIENCE)
    return output


def test_neoctl_shows_and_changes_the_cluster(cluster: Cluster) -> None:
    wait_until(cluster.is_replicated)
    assert cluster.neoctl("print", "primary") == "M1\n"
    assert cluster.neoctl("print", "node").count(" | RUNNING | ") == 4
    assert "last_tid = 0x0 " in cluster.neoctl("print", "ids")
    assert cluster.neoctl("tweak") == cluster.neoctl("tweak", "-n") == "No change done.\n"
    cluster.neoctl("check", ":")
    cluster.neoctl("flush_log")
    cluster.neoctl("set", "replicas", "0")
    assert "replicas: 0" in cluster.neoctl("print", "pt")
    assert "S1 R" in cluster.neoctl("tweak")
    cluster.neoctl("set", "replicas", "1")
    cluster.neoctl("tweak")
    wait_until(cluster.is_replicated)
    cluster.neoctl("set", "cluster", "stopping")
    for name in ("s1", "s2", "master"):
        assert cluster.processes[name].wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("set cluster melting", "'melting' is not one of: RECOVERING VERIFYING RUNNING"),
        ("set replicas many", "invalid number of replicas"),
        ("set replicas -1", "invalid number of replicas"),
        ("print node brain", "'brain' is not one of: MASTER STORAGE CLIENT ADMIN"),
        ("kill", "'' is not a node id"),
        ("kill X1", "'X1' is not a node id"),
        ("drop S1 S2", "'S1 S2' is not a node id"),
        ("truncate yesterday", "'yesterday' is neither an integer nor a timestamp"),
        ("print", "incomplete command: print"),
        ("sing", "invalid command: sing"),
    ],
)
def test_neoctl_names_the_mistake(neo_python: str, command: str, message: str) -> None:
    cluster = Cluster(Path(neo_python).parent, Path())
    assert message in cluster.neoctl(*command.split(), status=1)


def test_neoctl_fails_when_there_is_no_cluster(neo_python: str) -> None:
    cluster = Cluster(Path(neo_python).parent, Path())
    assert "ERROR: not connected" in cluster.neoctl("print", "cluster", status=1)


def test_nodes_start_from_a_configuration_file(neo_python: str, tmp_path: Path) -> None:
    cluster = Cluster(Path(neo_python).parent, tmp_path)
    (tmp_path / "neo.conf").write_text(
        f"[DEFAULT]\ncluster: demo\nmasters: {cluster.master}\nautostart: 1\n"
        f"[master]\nbind: {cluster.master}\npartitions: 2\n"
        f"[admin]\nbind: {cluster.admin}\n"
        "[s1]\nadapter: SQLite\ndatabase: s1.sqlite\n"
    )
    try:
        for program, section in (
            ("neomaster", "master"),
            ("neoadmin", "admin"),
            ("neostorage", "s1"),
        ):
            cluster.processes[section] = subprocess.Popen(
                [cluster.programs / program, "-fneo.conf", f"-s{section}"], cwd=tmp_path
            )
        wait_until(lambda: cluster.state() == "RUNNING")
        assert "S1 R UU" in cluster.neoctl("print", "pt")
    finally:
        for name in list(cluster.processes):
            cluster.end(name, signal.SIGKILL)


def test_nodes_end_on_sigterm_and_write_no_traceback(cluster: Cluster) -> None:
    client = cluster.client()
    commit(client, 1)
    for name in ("admin", "s1", "s2", "master"):
        assert cluster.end(name, signal.SIGTERM) in {0, -signal.SIGTERM}
    client.kill()
    client.communicate()
    assert "Traceback" not in cluster.errors()


def test_logs_of_an_idle_cluster_do_not_grow(cluster: Cluster) -> None:
    wait_until(cluster.is_replicated)
    cluster.neoctl("flush_log")

    def size() -> int:
        return sum(path.stat().st_size for path in cluster.folder.glob("*.[le]*"))

    before = size()
    time.sleep(3)
    assert size() == before


@pytest.mark.parametrize("victim", ["s1", "s2", "master", "admin"])
def test_a_node_that_is_killed_comes_back_and_nothing_is_lost(
    cluster: Cluster, victim: str
) -> None:
    wait_until(cluster.is_replicated)
    client = cluster.client()
    for value in range(5):
        commit(client, value)
    cluster.end(victim, signal.SIGKILL)
    if victim != "master":
        commit(client, 5)
    cluster.start(victim)
    for value in range(6, 10):
        commit(client, value)
    wait_until(lambda: "RUNNING" in cluster.state() and cluster.is_replicated())
    assert last_value(client) == "value 9\n"
    # Each replica alone has everything.
    for other in ("s1", "s2"):
        cluster.end(other, signal.SIGKILL)
        reader = cluster.client()
        assert last_value(reader) == "value 9\n"
        cluster.start(other)
        wait_until(cluster.is_replicated)


def test_all_nodes_killed_at_once_come_back(cluster: Cluster) -> None:
    client = cluster.client()
    for value in range(20):
        commit(client, value)
    for name in ("master", "s1", "s2", "admin"):
        os.kill(cluster.processes[name].pid, signal.SIGKILL)
    for name in ("master", "s1", "s2", "admin"):
        cluster.processes.pop(name).wait()
        cluster.start(name)
    commit(client, 20)
    assert last_value(client) == "value 20\n"
    wait_until(cluster.is_replicated)
