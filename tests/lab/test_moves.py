# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A computer is drained: everything on it goes elsewhere, and no data is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster, copies
from environment import Environment

#: Seconds in which all that was on a computer has to be well elsewhere.
MOVING_TIME = 900.0


@pytest.fixture
def drained(environment: Environment, cluster: Cluster) -> Iterator[str]:
    """Yield the name of the computer to drain; it takes instances again afterwards."""
    computer = cluster.computer("neo-storage-0")
    yield computer
    environment.slapos("computer", "uncordon", computer)


def test_a_drained_computer_loses_no_data_while_a_client_writes(
    environment: Environment, cluster: Cluster, drained: str
) -> None:
    cluster.write_objects("moved")
    client = cluster.start_python("tests/lab/objects.py", "use", "moved", "200")
    assert client.stdout
    assert client.stdout.readline() == "ready\n"
    done = environment.slapos("computer", "drain", drained, "--yes", seconds=MOVING_TIME)
    assert done.returncode == 0, done.stdout + done.stderr
    state = cluster.wait_until_well()
    assert drained not in {node["computer"] for node in cluster.nodes().values()}
    storages = [node for node in state["nodes"] if node["type"] == "STORAGE"]
    assert [node["state"] for node in storages] == ["RUNNING"] * 3
    assert list(copies(state)) == [2] * 12
    client.terminate()
    # It may be looking for the primary master still, which moved too.
    output, errors = client.communicate(timeout=300)
    assert output.endswith("0 wrong\n"), output + errors
    cluster.check_objects("moved")
