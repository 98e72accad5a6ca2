# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos cluster neo`` on a real cluster: from the command line over the master to the keeper."""

from __future__ import annotations

import json
import subprocess

from cluster import Cluster
from environment import Environment, wait_for


def neo(environment: Environment, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command about the cluster of the environment."""
    return environment.slapos("cluster", "neo", command, "wendelin-cluster", *options)


def test_nodes_cells_and_the_partition_table_are_shown_with_their_places(
    environment: Environment, cluster: Cluster
) -> None:
    table = json.loads(neo(environment, "pt", "--json").stdout)
    assert len(table["partitions"]) == 12
    nodes = cluster.nodes()
    for row in table["partitions"]:
        assert len({cell["datacenter"] for cell in row["cells"]}) == table["replicas"] + 1 == 2
        for cell in row["cells"]:
            assert cell["computer"] == nodes[cell["name"]]["computer"]
            assert cell["id"] == cluster.neo_id(cell["name"])
    shown = neo(environment, "nodes")
    assert "wendelin-cluster is RUNNING" in shown.stdout
    for name in nodes:
        assert not name.startswith("neo-") or name in shown.stdout
    cells = neo(environment, "cells", "neo-storage-1")
    held = [cell for row in table["partitions"] for cell in row["cells"]]
    own = [cell for cell in held if cell["name"] == "neo-storage-1"]
    assert cells.stdout.count("UP_TO_DATE") == len(own) > 0


def test_a_keeper_that_dies_is_back_before_anybody_notices(
    environment: Environment, cluster: Cluster
) -> None:
    cluster.kill("neo-admin", "neo-keeper")
    done = neo(environment, "tweak")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No change")


def test_copies_of_a_storage_that_was_away_are_followed(
    environment: Environment, cluster: Cluster
) -> None:
    cluster.kill("neo-storage-0")
    wait_for(lambda: neo(environment, "balance").returncode == 0, "the cluster is balanced")
    held = json.loads(neo(environment, "cells", "--json").stdout)
    assert len(held) == 3
    assert sum(each["states"]["UP_TO_DATE"] for each in held) == 24


def test_a_pack_keeps_what_is_current_and_history_tells_who_did_it(
    environment: Environment, cluster: Cluster
) -> None:
    for _ in range(2):
        cluster.write_objects("packed", 50)
    done = neo(environment, "pack", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert "3 storages of wendelin-cluster have forgotten what was before" in done.stdout
    cluster.check_objects("packed", 50)
    past = environment.master.history(instance="wendelin-cluster")["changes"]
    packs = [each for each in past if each["after"].get("kind") == "pack"]
    assert [each["who"].partition("/")[0] for each in packs] == ["operator"]
