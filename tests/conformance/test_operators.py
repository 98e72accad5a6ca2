# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever operators ask NEO's admin for: it says what is wrong, and no node is harmed."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from neo_programs import PATIENCE, Cluster, commit, last_value, wait_until

#: What is asked for by mistake, and what neoctl says of it.
MISTAKES = [
    ("check 99:", "there is no partition 99"),
    ("check -1:", "invalid parameters: check -1:"),
    ("check x:", "invalid parameters: check x:"),
    ("check 0:S9", "S9 has no readable cell of partition 0"),
    ("check 0:A1", "A1 has no readable cell of partition 0"),
    ("check : 0x10000000000000000", "'0x10000000000000000' is neither an integer"),
    ("print pt 5 99", "invalid partition table offset"),
    ("print pt -3 2", "invalid parameters: print pt -3 2"),
    ("print pt first", "invalid parameters: print pt first"),
    ("print pt 0 0 S1 S2", "invalid parameters: print pt 0 0 S1 S2"),
    ("print cluster now", "invalid parameters: print cluster now"),
    ("print node storage storage", "invalid parameters: print node storage storage"),
    ("set cluster starting_backup", "No upstream cluster to backup"),
    ("set cluster recovering", "Invalid state requested"),
    ("set replicas 99999999999", "invalid parameters: set replicas 99999999999"),
    ("tweak S9", "unknown storage node S9"),
    ("tweak -n M1", "unknown storage node M1"),
    ("tweak S1 S2", "Can't remove all nodes"),
    ("drop S1", "a running node must be stopped"),
    ("kill M1", "can not kill primary master node"),
    ("prune_orphan", "invalid parameters: prune_orphan"),
    ("prune_orphan 2 all", "invalid parameters: prune_orphan 2 all"),
    ("prune_orphan 0 S9", "invalid storage node S9"),
    ("truncate 0", "can not truncate everything"),
    ("start now", "invalid parameters: start now"),
]

#: Takes all cells from a storage and gives them back, over and over without a pause.
FICKLE = """
import sys
from neo.lib.util import parseNodeAddress
from neo.neoctl.neoctl import NeoCTL
from neo.lib.protocol import NodeTypes
control = NeoCTL(parseNodeAddress(sys.argv[1]), ssl=None)
last = max(node[2] for node in control.getNodeList(NodeTypes.STORAGE))
for _ in range(300):
    control.tweakPartitionTable([last])
    control.tweakPartitionTable([])
control.close()
"""


@pytest.fixture
def cluster(neo_python: str, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(Path(neo_python).parent, tmp_path) as started:
        wait_until(started.is_replicated)
        yield started


def test_no_mistake_of_an_operator_harms_a_node(cluster: Cluster) -> None:
    # There is no transaction yet: nothing to compare.
    cluster.neoctl("check", ":", "0x7fffffffffffffff")
    client = cluster.client()
    commit(client, 1)
    assert last_value(client) == "value 1\n"
    for command, message in MISTAKES:
        assert message in cluster.neoctl(*command.split(), status=1), command
        assert not cluster.ended(), command
    assert cluster.is_replicated()
    client = cluster.client()
    commit(client, 2)
    assert last_value(client) == "value 2\n"
    assert "Traceback" not in cluster.errors()


def test_who_asks_a_master_that_is_lost_is_told(cluster: Cluster) -> None:
    cluster.processes["m1"].send_signal(signal.SIGSTOP)
    asking = subprocess.Popen(
        [cluster.programs / "neoctl", f"-a{cluster.admin}", "tweak"],
        stderr=subprocess.PIPE,
        text=True,
    )
    # Nobody can tell from outside that the admin has passed the question on.
    time.sleep(2)
    cluster.end("m1", signal.SIGKILL)
    _, said = asking.communicate(timeout=PATIENCE)
    assert said.startswith("ERROR: ")
    assert asking.returncode == 1


def test_a_storage_may_lose_cells_that_it_has_just_been_given(
    neo_python: str, tmp_path: Path
) -> None:
    with Cluster(Path(neo_python).parent, tmp_path, storages=3) as cluster:
        client = cluster.client()
        commit(client, 1)
        command = [cluster.programs / "python", "-c", FICKLE, cluster.admin]
        subprocess.run(command, check=True, timeout=PATIENCE)
        commit(client, 2)
        assert last_value(client) == "value 2\n"
        assert not cluster.ended()
        assert "Traceback" not in cluster.errors()
