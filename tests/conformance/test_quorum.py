# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masters that agree by majority: never two halves at work, never data of last week."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from neo_programs import Cluster, begin_commit, commit, end_commit, last_value, wait_until


@pytest.fixture
def cluster(neo_python: str, tmp_path: Path) -> Iterator[Cluster]:
    """Yield three data centers, each with a master and a copy of all data."""
    programs = Path(neo_python).parent
    with Cluster(programs, tmp_path, masters=3, storages=3, replicas=2, quorum=True) as started:
        wait_until(started.is_replicated)
        yield started


@pytest.fixture
def client(cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """Yield a client that has committed once."""
    with cluster.client() as process:
        commit(process, 1)
        yield process
        process.kill()


def end(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.end(name, signal.SIGKILL)


def start(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.start(name)


def primary_of(cluster: Cluster, *names: str) -> Callable[[], bool]:
    return lambda: cluster.state() == "RUNNING" and cluster.primary() in names


def leave_only_what_is_old(cluster: Cluster, client: subprocess.Popen[str]) -> None:
    """Let a storage miss a commit, and the cluster wait for another one than that."""
    end(cluster, "s3")
    commit(client, 2)
    # Masters first, so that none can tell one of the storages that the other is lost.
    end(cluster, "m1", "m2", "m3", "s1", "s2")
    start(cluster, "m1", "m2", "m3", "s3")
    message = "Waiting for a storage node with version"
    wait_until(lambda: any(message in cluster.log(name) for name in ("m1", "m2", "m3")))


def test_a_primary_that_hangs_is_replaced_and_follows_when_it_wakes_up(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    hung = cluster.primary()
    cluster.processes[hung].send_signal(signal.SIGSTOP)
    commit(client, 2)
    others = {"m1", "m2", "m3"} - {hung}
    wait_until(primary_of(cluster, *others))
    cluster.processes[hung].send_signal(signal.SIGCONT)
    commit(client, 3)
    wait_until(lambda: cluster.ask("print", "node").count("| MASTER  |") == 3)
    wait_until(lambda: " DOWN " not in cluster.ask("print", "node"))
    wait_until(primary_of(cluster, *others))
    assert last_value(client) == "value 3\n"


def test_what_a_primary_alone_knew_when_it_woke_up_is_not_waited_for(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    hung = cluster.primary()
    killed = min({"m1", "m2", "m3"} - {hung})
    center = [cluster.processes[name] for name in (hung, f"s{hung[1]}")]
    for process in center:
        process.send_signal(signal.SIGSTOP)
    end(cluster, killed)
    wait_until(lambda: "primary master is down" in cluster.errors())
    for process in center:
        process.send_signal(signal.SIGCONT)
    start(cluster, killed)
    commit(client, 2)
    wait_until(cluster.is_replicated)
    assert last_value(client) == "value 2\n"


def test_a_partition_table_that_no_storage_has_stored_is_not_waited_for(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    # As when all end at once: what the loss of the first ones changes reaches the masters only.
    for name in ("s1", "s2"):
        cluster.processes[name].send_signal(signal.SIGSTOP)
    end(cluster, "s3")
    wait_until(lambda: " DOWN " in cluster.ask("print", "node"))
    time.sleep(3)
    end(cluster, "s1", "s2", "m1", "m2", "m3")
    start(cluster, "m1", "m2", "m3", "s1", "s2", "s3")
    wait_until(lambda: cluster.state() == "RUNNING")
    commit(client, 2)
    wait_until(cluster.is_replicated)
    assert last_value(client) == "value 2\n"


def test_the_others_go_on_without_the_data_center_of_the_primary_although_it_has_everything(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    lost = cluster.primary()
    number = lost[1]
    end(cluster, lost, f"s{number}")
    commit(client, 2)
    start(cluster, lost, f"s{number}")
    wait_until(cluster.is_replicated)
    assert cluster.primary() != lost
    commit(client, 3)
    assert last_value(client) == "value 3\n"


def test_nothing_is_committed_without_a_majority(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    primary = cluster.primary()
    others = sorted({"m1", "m2", "m3"} - {primary})
    end(cluster, *others)
    wait_until(lambda: cluster.state() == "RECOVERING")
    begin_commit(client, 2)
    assert "No majority of masters" in cluster.log(primary)
    wait_until(lambda: cluster.state() == "RECOVERING")
    start(cluster, others[0])
    end_commit(client, 2)
    assert last_value(client) == "value 2\n"


def test_a_storage_that_was_away_does_not_start_the_cluster_with_old_data(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    leave_only_what_is_old(cluster, client)
    wait_until(lambda: cluster.state() == "RECOVERING")
    start(cluster, "s1")
    commit(client, 3)
    start(cluster, "s2")
    wait_until(cluster.is_replicated)
    assert last_value(client) == "value 3\n"


def test_an_operator_can_start_what_is_left(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    leave_only_what_is_old(cluster, client)
    wait_until(lambda: " PENDING " in cluster.ask("print", "node"))
    cluster.neoctl("start")
    wait_until(lambda: cluster.state() == "RUNNING")
    with cluster.client() as reader:
        assert last_value(reader) == "value 1\n"


def test_a_whole_cluster_that_is_killed_comes_back(
    cluster: Cluster, client: subprocess.Popen[str]
) -> None:
    end(cluster, *list(cluster.processes))
    start(cluster, *cluster.commands)
    commit(client, 2)
    wait_until(cluster.is_replicated)
    assert last_value(client) == "value 2\n"


def test_a_damaged_file_of_a_master_is_named(neo_python: str, tmp_path: Path) -> None:
    cluster = Cluster(Path(neo_python).parent, tmp_path, quorum=True)
    (tmp_path / "m1.json").write_text('{"term"')
    cluster.start("m1")
    assert cluster.processes["m1"].wait() == 1
    assert "m1.json is damaged" in cluster.errors()
