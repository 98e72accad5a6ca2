# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""With one replica, any one storage, master or data center may be lost while data is written."""

from __future__ import annotations

import re

import pytest
from cluster import Cluster
from digits import DigitsRun, writing
from environment import Environment, wait_for


@pytest.fixture(scope="session")
def accuracy(environment: Environment) -> float:
    """Return the accuracy of the run that ``up`` made as proof, which nothing disturbed."""
    found = re.search(r"nothing was learned from: ([0-9.]+)", environment.said)
    assert found, environment.said
    return float(found[1])


def check_answer(run: DigitsRun, accuracy: float) -> None:
    """Wait for the end of the run; its answer is that of the undisturbed run, to the last block."""
    result = run.result()
    assert result["blocks_verified"] == 32
    assert round(result["accuracy"], 4) == accuracy


@pytest.mark.parametrize("storage", ["neo-storage-0", "neo-storage-1", "neo-storage-2"])
def test_example_survives_kill_9_of_any_storage(
    cluster: Cluster, accuracy: float, storage: str
) -> None:
    with writing(cluster, storage) as run:
        killed = cluster.kill(storage)
        run.check_writes()
        check_answer(run, accuracy)
    cluster.successor(killed, storage)
    cluster.wait_until_well()


def test_example_survives_kill_9_of_the_primary_master(cluster: Cluster, accuracy: float) -> None:
    primary = cluster.primary()
    with writing(cluster, "primary") as run:
        killed = cluster.kill(primary)
        run.check_writes()
        check_answer(run, accuracy)
    cluster.successor(killed, primary)
    cluster.wait_until_well()


def test_example_survives_kill_9_of_all_of_tokyo(
    environment: Environment, cluster: Cluster, accuracy: float
) -> None:
    with writing(cluster, "tokyo") as run:
        burned = environment.burn("tokyo")
        run.check_writes()
        assert cluster.computer("dask-scheduler") == "tokyo"
        check_answer(run, accuracy)
    cluster.wait_until_well()
    assert not {environment.service("tokyo"), environment.supervisord("tokyo")} & set(burned)


def test_example_ends_while_tokyo_stays_dead(
    environment: Environment, cluster: Cluster, accuracy: float
) -> None:
    """The one dask scheduler is in tokyo: the example works with workers of its own."""
    with writing(cluster, "dead-tokyo", own_workers=True) as run, environment.dark("tokyo"):
        run.check_writes()
        check_answer(run, accuracy)
        assert cluster.state()["cluster"] == "RUNNING"


def test_example_ends_while_the_data_center_of_the_primary_stays_dead(
    environment: Environment, cluster: Cluster, accuracy: float
) -> None:
    """The masters that are left elect a primary, which starts without the lost storage."""
    if cluster.computer(cluster.primary()) != "paris":
        lead_from(environment, cluster, "paris")
    with writing(cluster, "dead-primary") as run, environment.dark("paris"):
        run.check_writes()
        check_answer(run, accuracy)
        assert cluster.state()["cluster"] == "RUNNING"


def lead_from(environment: Environment, cluster: Cluster, computer: str) -> None:
    """Let the master of a computer become the primary, by keeping the others dead meanwhile."""
    masters = [node for node in cluster.nodes() if node.startswith("neo-master-")]
    others = [node for node in masters if cluster.computer(node) != computer]
    with environment.unattended(*(cluster.computer(node) for node in others)):
        for node in others:
            cluster.kill(node)
        wait_for(lambda: cluster.primary() not in others, f"the master of {computer} leads")
    cluster.wait_until_well()
    assert cluster.computer(cluster.primary()) == computer
