# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each promise turns red when what it watches over breaks, is seen at the master, and recovers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from cluster import Cluster, Outcome
from environment import Environment, listening, wait_for
from slapos.grid.svcbackend import getSupervisorRPC

from slapos_wendelin.local.home import DATA_CENTERS

#: The programs that are killed: a node of each type, with the program where it has two.
VICTIMS = [
    ("neo-master-0", "neo-master"),
    ("neo-admin", "neo-admin"),
    ("neo-admin", "neo-keeper"),
    ("neo-storage-0", "neo-storage"),
    ("dask-scheduler", "dask-scheduler"),
    ("dask-worker-0", "dask-worker"),
]
#: Their promises, and what each says when the program is dead.
RED = {
    ("neo-master-0", "neo-master-runs"): "does not run",
    ("neo-master-0", "neo-master-listens"): "nothing listens at 127.",
    ("neo-admin", "neo-admin-runs"): "does not run",
    ("neo-admin", "neo-admin-listens"): "nothing listens at 127.",
    ("neo-admin", "neo-keeper-runs"): "does not run",
    ("neo-admin", "cluster-is-running"): "does not answer",
    ("neo-storage-0", "neo-storage-runs"): "does not run",
    ("neo-storage-0", "neo-storage-listens"): "nothing listens at 127.",
    ("neo-storage-0", "storage-has-cells"): "does not answer",
    ("dask-scheduler", "dask-scheduler-runs"): "does not run",
    ("dask-scheduler", "dask-scheduler-listens"): "nothing listens at 127.",
    ("dask-worker-0", "dask-worker-runs"): "does not run",
    ("dask-worker-0", "dask-worker-listens"): "nothing listens at 127.",
    ("wendelin-cluster", "masters-listen"): "nothing listens at 127.",
}

Found = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="module")
def killed(environment: Environment) -> Iterator[tuple[Found, dict[str, str], Found]]:
    """Kill a program of each kind; yield promises and the master's errors, then promises again."""
    cluster = environment.cluster
    cluster.wait_until_well()
    with environment.unattended(*DATA_CENTERS):
        for node, program in VICTIMS:
            cluster.kill(node, program)
        says = {promise: re.escape(text) for promise, text in RED.items()}
        red = cluster.look_until(*RED, is_red=True, says=says)
        errors = {node: cluster.error(node) for node, _ in RED}
    yield red, errors, cluster.look_until(*RED, is_red=False)
    cluster.wait_until_well()
    wait_for(lambda: not any(cluster.error(node) for node, _ in RED), "the master is told")


@pytest.mark.parametrize(("node", "promise"), RED)
def test_promise_is_red_while_the_program_is_dead_and_green_again(
    killed: tuple[Found, dict[str, str], Found], node: str, promise: str
) -> None:
    red, errors, green = killed
    assert red[node, promise].is_red
    assert RED[node, promise] in red[node, promise].message
    assert errors[node].startswith("Promise '")
    assert not green[node, promise].is_red


def test_port_is_missed_when_a_program_hangs_before_it_listens(cluster: Cluster) -> None:
    node = "neo-storage-1"
    hanging = cluster.successor(cluster.kill(node), node)
    hanging.suspend()
    assert not [c for c in hanging.net_connections() if c.status == psutil.CONN_LISTEN]
    try:
        cluster.look_until((node, "neo-storage-listens"), is_red=True)
        # It may have been looked for before it was started again.
        cluster.look_until((node, "neo-storage-runs"), is_red=False)
        wait_for(lambda: cluster.error(node), "the master is told")
    finally:
        hanging.resume()
    cluster.look_until((node, "neo-storage-listens"), is_red=False)


def drop(environment: Environment, cluster: Cluster, node: str, name: str) -> None:
    """Take a storage out of the partition table, then let it come back as one without data."""

    def others_have_all() -> bool:
        rows = cluster.state()["partition-table"]
        copied = [[s for n, s in row if n != name] == ["UP_TO_DATE"] * 2 for row in rows]
        return bool(rows) and all(copied)

    def missed() -> bool:
        running = [n["id"] for n in cluster.state()["nodes"] if n["state"] == "RUNNING"]
        return bool(running) and name not in running

    def added() -> bool:
        cluster.neoctl("add", "all")
        nodes = cluster.state()["nodes"]
        return [n["state"] for n in nodes if n["type"] == "STORAGE"] == ["RUNNING"] * 3

    cluster.neoctl("tweak", name)
    wait_for(others_have_all, f"the data of {name} is copied")
    with environment.unattended(cluster.computer(node)):
        cluster.kill(node)
        wait_for(missed, f"NEO misses {name}")
        cluster.neoctl("drop", name)
    wait_for(added, "the storage is back")


def test_storage_without_cells_in_the_partition_table_is_red(
    environment: Environment, cluster: Cluster
) -> None:
    node, promise = "neo-storage-2", "storage-has-cells"
    name = cluster.neo_id(node)
    keeper = cluster.process("neo-admin", "neo-keeper")
    keeper.suspend()
    try:
        drop(environment, cluster, node, name)
        # While it was dropped the promise was red too, since the cluster did not know it.
        cluster.look_until((node, promise), is_red=True, says="has no cell in the partition table")
        wait_for(lambda: cluster.error(node), "the master is told")
    finally:
        keeper.resume()
    cluster.look_until((node, promise), is_red=False)


def test_cluster_that_is_not_running_is_red(environment: Environment, cluster: Cluster) -> None:
    storages = [node for node in cluster.nodes() if node.startswith("neo-storage-")]
    promise = ("neo-admin", "cluster-is-running")
    # The service that runs the promise has to be at work: it leaves alone what was stopped.
    unattended = {cluster.computer(node) for node in storages} - {cluster.computer("neo-admin")}
    with environment.unattended(*unattended):
        for node in storages:
            with supervisor_of(environment, cluster, node) as supervisor:
                supervisor.stopProcessGroup(cluster.folder(node).name)
        wait_for(lambda: cluster.state()["cluster"] != "RUNNING", "NEO sees that it lacks data")
        cluster.look_until(promise, is_red=True, says="not RUNNING")
        wait_for(lambda: "not RUNNING" in cluster.error("neo-admin"), "the master is told")
        for node in storages:
            with supervisor_of(environment, cluster, node) as supervisor:
                supervisor.startProcessGroup(cluster.folder(node).name)
    cluster.look_until(promise, is_red=False)


def supervisor_of(environment: Environment, cluster: Cluster, node: str) -> Any:
    """Return the supervisord that has the programs of a node."""
    folder = environment.home.computer(cluster.computer(node))
    return getSupervisorRPC(str(folder / "inst" / "sv.sock"))


def test_taken_port_of_a_partition_is_named_and_the_program_starts_once_it_is_free(
    environment: Environment, cluster: Cluster
) -> None:
    node, promise = "neo-storage-0", "neo-storage-runs"
    host, port = cluster.nodes()[node]["connection"]["address"].split(":")
    with environment.unattended(cluster.computer(node)):
        cluster.kill(node)
        other = listening(host, int(port))
        other.__enter__()
    try:
        cluster.look_until(
            (node, promise), is_red=True, says=f"cannot listen at {re.escape(host)}:{port}: Address"
        )
        wait_for(lambda: cluster.error(node), "the master is told")
    finally:
        other.__exit__(None, None, None)
    cluster.look_until((node, promise), is_red=False)
