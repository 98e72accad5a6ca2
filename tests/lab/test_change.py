# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters change a cluster in place, with its data in it and clients at work on it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from cluster import Cluster, cells_of, copies
from environment import PATIENCE, Environment, wait_for

STORAGES = "neo-storage-"


class Witness:
    """Looks at the cluster again and again, while a client uses it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.states: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._client = cluster.start_python("tests/lab/objects.py", "use", "objects", "200")
        assert self._client.stdout
        assert self._client.stdout.readline() == "ready\n"
        self._thread.start()

    def testify(self) -> int:
        """Stop; fail when the cluster did not run all the time; return the client's commits."""
        self._stop.set()
        self._thread.join()
        self._client.send_signal(signal.SIGTERM)
        output, errors = self._client.communicate(timeout=PATIENCE)
        assert output.endswith("0 wrong\n"), output + errors
        assert set(self.states) == {"RUNNING"}
        return len(output.splitlines()) - 1

    def end(self) -> None:
        """Let nothing go on after the test."""
        self._stop.set()
        self._thread.join()
        self._client.kill()
        self._client.wait()

    def _look(self) -> None:
        """Note the state of the cluster, while the admin node is there to tell it."""
        while not self._stop.is_set():
            state = self.cluster.state()
            if state["nodes"]:
                self.states.append(state["cluster"])


@pytest.fixture(scope="module")
def small(environment: Environment) -> Iterator[Cluster]:
    """Yield a second, small cluster in the environment, without replicas; destroy it afterwards."""
    environment.cluster.wait_until_well()
    cluster = Cluster(environment, "small-cluster")
    asked = cluster.request(
        cluster="small", storage_count=3, replicas=0, master_count=1, worker_count=0
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    wait_for(lambda: "admin" in cluster.root["connection"], "the small cluster publishes")
    cluster.wait_until_well()
    cluster.write_objects("objects")
    yield cluster
    cluster.wait_until_well()
    processes = [pid for pid, _ in cluster.processes().values()]
    signs_for_it = environment.home.authority.parent / "clusters" / cluster.root["guid"]
    assert list(signs_for_it.glob("*/ca.key"))
    destroyed = cluster.request("--state", "destroyed")
    assert destroyed.returncode == 0, destroyed.stdout + destroyed.stderr
    wait_for(
        lambda: not {process.pid for process in environment.processes()} & set(processes),
        "the processes of the destroyed cluster end",
    )
    wait_for(lambda: not signs_for_it.exists(), "the master removes the authority of the cluster")
    environment.cluster.wait_until_well()


@pytest.fixture
def witness(small: Cluster) -> Iterator[Witness]:
    """Yield a witness of what happens to the small cluster."""
    witness = Witness(small)
    yield witness
    witness.end()


def test_added_storage_takes_its_part_of_the_data(
    environment: Environment, small: Cluster, witness: Witness
) -> None:
    before = small.processes()
    assert len(before) == 6
    done = environment.wendelin(
        *("run", "slapos", "request", "small-cluster", "wendelin-cluster"),
        *("--parameters", "storage-count=4"),
    )
    assert "storage-count: 3 → 4" in done.stdout
    wait_for(lambda: f"{STORAGES}3" in small.nodes(), "the new storage is requested")
    state = small.wait_until_well()
    assert witness.testify() > 0
    new = small.neo_id(f"{STORAGES}3")
    assert cells_of(state, new) == ["UP_TO_DATE"] * 3
    assert list(copies(state)) == [1] * 12
    after = small.processes()
    assert {node: after[node] for node in before if node.startswith(STORAGES)} == {
        node: process for node, process in before.items() if node.startswith(STORAGES)
    }
    small.check_objects("objects")


def test_added_replica_gives_every_partition_a_second_copy(
    small: Cluster, witness: Witness
) -> None:
    before = small.processes(STORAGES)
    done = small.request(replicas=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "replicas: 0 → 1" in done.stdout
    wait_for(lambda: small.state()["replicas"] == 1, "NEO keeps a replica")
    state = small.wait_until_well()
    assert witness.testify() > 0
    assert list(copies(state)) == [2] * 12
    assert small.processes(STORAGES) == before
    small.check_objects("objects")


def test_data_survives_the_loss_of_a_storage_once_it_has_a_replica(
    environment: Environment, small: Cluster
) -> None:
    node = f"{STORAGES}3"
    with environment.unattended(small.computer(node)):
        small.kill(node)
        small.check_objects("objects")
        assert small.state()["cluster"] == "RUNNING"
    small.wait_until_well()
