# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong parameters are refused with a sentence that says what is wrong, and nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from environment import Environment, wait_for
from slapos.slap import slap

REFUSED = {
    "wrong type": ({"replicas": "many"}, 'replicas: "many" must be of type integer'),
    "too small": ({"storage_count": 0}, "storage-count: 0 must be at least 1"),
    "too large": ({"worker_count": 257}, "worker-count: 257 must be at most 256"),
    "unknown key": (
        {"replica": 1},
        "replica: unknown key, did you mean replicas? (known are cluster",
    ),
    "unknown engine": ({"storage_engine": "tape"}, 'storage-engine: "tape" must be one of sqlite'),
    "unwritable memory": (
        {"worker_memory_limit": "lots"},
        'worker-memory-limit: "lots" must match',
    ),
    "as many replicas as storages": (
        {"replicas": 3},
        "replicas: 3 needs storage-count 4 or more, and it is 3",
    ),
    "partitions after creation": (
        {"partitions": 24},
        "partitions: cannot be changed after creation (it is 12, not 24)",
    ),
    "name after creation": (
        {"cluster": "other"},
        "cluster: cannot be changed after creation (it is wendelin, not other)",
    ),
    "a storage less": (
        {"storage_count": 2},
        "storage-count: cannot be lowered (it is 3, not 2)",
    ),
    "two faults": ({"replicas": -1, "worker_threads": 0}, "worker-threads: 0 must be at least 1"),
}


def picture(cluster: Cluster) -> dict[str, Any]:
    """Return what must not change: what was requested, and the processes."""
    requested = {
        name: (node["parameters"], node["number"], node["requested_state"], node["release_url"])
        for name, node in cluster.nodes().items()
    }
    return {"requested": requested, "processes": cluster.processes()}


@pytest.mark.parametrize("case", REFUSED)
def test_request_refuses_and_changes_nothing(cluster: Cluster, case: str) -> None:
    parameters, sentence = REFUSED[case]
    before = picture(cluster)
    done = cluster.request(**parameters)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "remedy: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert picture(cluster) == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("replicas: [1", "parameters.yaml cannot be read"),
        ("- 1\n- 2\n", "parameters.yaml holds no parameters but"),
        ("\x00\x01", "parameters.yaml cannot be read"),
        (b"\xff\xfe\xfd", "parameters.yaml cannot be read"),
        ('{"replicas": {}}', "replicas: {} must be of type integer"),
    ],
)
def test_request_refuses_a_parameter_file_it_cannot_read(
    cluster: Cluster, tmp_path: Path, content: str | bytes, sentence: str
) -> None:
    before = picture(cluster)
    path = tmp_path / "parameters.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = cluster.request("--parameters-file", str(path))
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert picture(cluster) == before


def test_request_refuses_a_parameter_file_that_is_not_there(cluster: Cluster) -> None:
    done = cluster.request("--parameters-file", "nowhere.yaml")
    assert done.returncode in {1, 2}
    assert "nowhere.yaml" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_request_refuses_an_unknown_product(environment: Environment) -> None:
    done = environment.slapos("request", "another-cluster", "wendelin-clutser")
    assert done.returncode == 1
    assert "the master's catalog has no product 'wendelin-clutser'" in done.stderr
    assert "one of the products: wendelin-cluster" in done.stderr
    references = [root["reference"] for root in environment.master.instances()]
    assert references == ["wendelin-cluster"]


def test_root_instance_refuses_what_an_unmodified_client_sends(
    environment: Environment, cluster: Cluster
) -> None:
    root = cluster.root
    processes = cluster.processes()

    def request(parameters: dict[str, Any]) -> None:
        connection = slap()
        home = environment.home
        connection.initializeConnection(
            home.master_url, str(home.user.key), str(home.user.certificate)
        )
        connection.registerOpenOrder().request(
            software_release=root["release_url"],
            partition_reference=root["reference"],
            partition_parameter_kw={"_": json.dumps(parameters)},
            software_type="default",
        )

    request({"partitions": 24, "replicas": 1})
    sentence = "partitions: cannot be changed after creation (it is 12, not 24)"
    try:
        wait_for(lambda: sentence in cluster.error(root["reference"]), "the root instance is red")
        wait_for(lambda: set(cluster.faults()) == {root["reference"]}, "no other node is red")
        assert cluster.state()["cluster"] == "RUNNING"
        assert cluster.processes() == processes
    finally:
        request(root["parameters"])
    cluster.wait_until_well()
    assert cluster.processes() == processes
