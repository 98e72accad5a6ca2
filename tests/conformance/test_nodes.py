# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of NEO's own programs: what operators do with it, and what they fear."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from neo_programs import (
    BULK,
    PATIENCE,
    Cluster,
    commit,
    last_value,
    wait_until,
)

from slapos_wendelin.free_ports import free_ports

#: Looks for the primary master among addresses, so many times; each time it gives up after so
#: many failures. Says how often it was found before that.
FINDER = """
import sys
from neo.client.Storage import Storage
from neo.client.exception import NEOPrimaryMasterLost
storage = Storage(sys.argv[1], "demo")
storage.app.max_reconnection_to_master = int(sys.argv[2])
for lookup in range(int(sys.argv[3])):
    try:
        storage.sync()
    except NEOPrimaryMasterLost:
        continue
    print("found", flush=True)
    break
storage.close()
"""

#: Asks a secondary master for the primary, once.
ASKER = """
import sys
from neo.lib.app import BaseApplication
from neo.lib.connection import ClientConnection
from neo.lib.handler import EventHandler
from neo.lib.protocol import NodeTypes, Packets
from neo.lib.util import parseNodeAddress
class Handler(EventHandler):
    def connectionCompleted(self, conn):
        conn.ask(Packets.RequestIdentification(NodeTypes.CLIENT, None, None, "demo", None, (), ()))
    def notPrimaryMaster(self, conn, primary, known):
        print(None if primary is None else "%s:%s" % tuple(known[primary]), flush=True)
        sys.exit()
    def connectionLost(self, conn, state):
        sys.exit("no answer")
app = BaseApplication(None)
app.name = "demo"
ClientConnection(app, Handler(app), app.nm.createMaster(address=parseNodeAddress(sys.argv[1])))
while True:
    app.em.poll(1)
"""

#: Asks an admin for the partition table without a pause, until it has it.
IMPATIENT = """
import sys
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL, NotReadyException
asker = NeoCTL(parseNodeAddress(sys.argv[1]), ssl=None)
while True:
    try:
        table = asker.getPartitionRowList()
    except NotReadyException:
        continue
    print(len(table[-1]), "partitions")
    break
"""


@pytest.fixture
def cluster(neo_python: str, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(Path(neo_python).parent, tmp_path) as started:
        yield started


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
    for name in ("s1", "s2", "m1"):
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
        f"[DEFAULT]\ncluster: demo\nmasters: {cluster.masters}\nautostart: 1\n"
        f"[m1]\nbind: {cluster.masters}\npartitions: 2\n"
        f"[admin]\nbind: {cluster.admin}\n"
        "[s1]\nadapter: SQLite\ndatabase: s1.sqlite\n"
    )
    try:
        for program, section in (
            ("neomaster", "m1"),
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
    for name in ("admin", "s1", "s2", "m1"):
        assert cluster.end(name, signal.SIGTERM) in {0, -signal.SIGTERM}
    client.kill()
    client.communicate()
    assert "Traceback" not in cluster.errors()


def test_logs_of_an_idle_cluster_do_not_grow(cluster: Cluster) -> None:
    wait_until(cluster.is_replicated)
    cluster.neoctl("flush_log")

    def size() -> int:
        return sum(path.stat().st_size for path in cluster.folder.glob("*.[le]*"))

    def rests() -> bool:
        before = size()
        time.sleep(3)
        return size() == before

    # Nobody tells when all nodes have done what they were told.
    wait_until(rests)


@pytest.mark.parametrize("victim", ["s1", "s2", "m1", "admin"])
def test_a_node_that_is_killed_comes_back_and_nothing_is_lost(
    cluster: Cluster, victim: str
) -> None:
    wait_until(cluster.is_replicated)
    client = cluster.client()
    for value in range(5):
        commit(client, value)
    cluster.end(victim, signal.SIGKILL)
    if victim != "m1":
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
    for name in ("m1", "s1", "s2", "admin"):
        os.kill(cluster.processes[name].pid, signal.SIGKILL)
    for name in ("m1", "s1", "s2", "admin"):
        cluster.processes.pop(name).wait()
        cluster.start(name)
    commit(client, 20)
    assert last_value(client) == "value 20\n"
    wait_until(cluster.is_replicated)


def test_a_client_goes_on_when_a_storage_was_dropped_while_it_was_away(cluster: Cluster) -> None:
    wait_until(cluster.is_replicated)
    client = cluster.client()
    commit(client, 1)
    client.send_signal(signal.SIGSTOP)
    cluster.end("m1", signal.SIGKILL)
    cluster.start("m1")
    wait_until(lambda: cluster.state() == "RUNNING")
    cluster.end("s2", signal.SIGKILL)
    down = cluster.lost()
    cluster.neoctl("set", "replicas", "0")
    cluster.neoctl("tweak", down)
    cluster.neoctl("drop", down)
    client.send_signal(signal.SIGCONT)
    commit(client, 2)
    assert last_value(client) == "value 2\n"


def slow_copies(programs: Path, folder: Path, bandwidth: int) -> Cluster:
    """Describe a cluster whose storages copy so many bytes in a second."""
    cluster = Cluster(programs, folder)
    for storage in ("s1", "s2"):
        cluster.commands[storage].append(f"--replication-bandwidth={bandwidth}")
    return cluster


def miss(cluster: Cluster, size: int) -> None:
    """Kill a storage, and commit so many bytes without it."""
    wait_until(cluster.is_replicated)
    cluster.end("s2", signal.SIGKILL)
    command = [cluster.programs / "python", "-c", BULK, cluster.uri, str(size)]
    subprocess.run(command, check=True, timeout=PATIENCE)


def test_what_a_storage_copies_is_bounded_and_clients_go_on(
    neo_python: str, tmp_path: Path
) -> None:
    bandwidth, size = 1_000_000, 5_000_000
    with slow_copies(Path(neo_python).parent, tmp_path, bandwidth) as cluster:
        miss(cluster, size)
        client = cluster.client()
        commit(client, 0)
        began = time.monotonic()
        cluster.start("s2")
        commits = 0
        with ThreadPoolExecutor(1) as pool:
            # Beside the commits: a look takes seconds on a busy machine.
            copied = pool.submit(wait_until, cluster.is_replicated)
            while not copied.done():
                commits += 1
                commit(client, commits)
        copied.result()
        seconds = time.monotonic() - began
        assert seconds > 0.9 * size / bandwidth
        assert commits > 2
        assert last_value(client) == f"value {commits}\n"


def test_a_storage_lives_when_the_one_that_copies_from_it_is_killed(
    neo_python: str, tmp_path: Path
) -> None:
    with slow_copies(Path(neo_python).parent, tmp_path, 1_000_000) as cluster:
        # Enough for as long as a busy machine may take to look.
        miss(cluster, 60_000_000)
        for _ in range(3):
            cluster.start("s2")
            wait_until(lambda: " DOWN " not in cluster.ask("print", "node", "storage"))
            time.sleep(1)
            assert not cluster.is_replicated()
            cluster.end("s2", signal.SIGKILL)
            cluster.lost()
            time.sleep(1)
            assert not cluster.ended()
        client = cluster.client()
        commit(client, 1)
        assert last_value(client) == "value 1\n"
        assert "Traceback" not in cluster.errors()


def test_a_node_whose_log_is_damaged_starts_with_a_new_one(cluster: Cluster) -> None:
    wait_until(cluster.is_replicated)
    cluster.end("s2", signal.SIGKILL)
    (cluster.folder / "s2.log").write_text("half of a page")
    cluster.start("s2")
    wait_until(cluster.is_replicated)
    assert (cluster.folder / "s2.log.damaged").read_text() == "half of a page"


def find_primary(cluster: Cluster, masters: str, *, failures: int, lookups: int) -> str:
    """Return what a client says that looks for the primary master."""
    return run(cluster, FINDER, masters, str(failures), str(lookups))


def run(cluster: Cluster, program: str, *arguments: str) -> str:
    """Return what a program says that uses NEO."""
    done = subprocess.run(
        [cluster.programs / "python", "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout


def test_a_client_that_gives_up_tries_other_masters_next_time(cluster: Cluster) -> None:
    # More than it tries at once are gone, as after some moves.
    gone = [f"127.0.0.1:{port}" for port in free_ports(40)]
    masters = " ".join([*gone, cluster.masters])
    assert find_primary(cluster, masters, failures=3, lookups=14) == "found\n"


def test_the_address_of_any_master_is_enough(neo_python: str, tmp_path: Path) -> None:
    with Cluster(Path(neo_python).parent, tmp_path, masters=3) as cluster:
        wait_until(lambda: cluster.ask("print", "node", "master").count(" RUNNING ") == 3)
        for address in cluster.masters.split():
            assert find_primary(cluster, address, failures=2, lookups=3) == "found\n"


def test_a_secondary_master_tells_who_is_the_primary(neo_python: str, tmp_path: Path) -> None:
    with Cluster(Path(neo_python).parent, tmp_path, masters=3) as cluster:
        wait_until(lambda: cluster.ask("print", "node", "master").count(" RUNNING ") == 3)
        addresses = cluster.masters.split()
        primary = addresses[int(cluster.primary().removeprefix("m")) - 1]
        addresses.remove(primary)
        assert [run(cluster, ASKER, address) for address in addresses] == [f"{primary}\n"] * 2


def test_an_admin_that_has_not_got_the_partition_table_yet_says_so(cluster: Cluster) -> None:
    for _ in range(20):
        cluster.end("admin", signal.SIGKILL)
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(run, cluster, IMPATIENT, cluster.admin) for _ in range(3)]
            cluster.start("admin")
            answers = [each.result() for each in asked]
        assert answers == ["4 partitions\n"] * 3
    assert "Traceback" not in cluster.errors()
