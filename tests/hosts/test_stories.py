# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud in three data centers, and what becomes of it when a part of it fails.

One command joins six hosts. All stories are of this cloud: each leaves it well for the next one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from operators import PATIENCE, TREE, TREE_ON_HOSTS, Operator, made_operator, put_release

from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.polling import until

CENTERS = ("paris", "tokyo", "virginia")
RELEASE = f"{TREE_ON_HOSTS}/software.cfg"
INSTANCES = "/srv/slapos-wendelin/inst"
AGENT_LOG = "/srv/slapos-wendelin/run/agent.log"

Document = dict[str, Any]


class Cloud(Operator):
    """A master and its six computers."""

    def join_all(self) -> list[Document]:
        """Join all hosts of the lab by one inventory; return what came of each."""
        centers: Document = {center: {"region": f"{center}-region"} for center in CENTERS}
        for center, described in centers.items():
            hosts = self.lab.data_center(center).hosts
            described["hosts"] = [{"address": each.address, "name": each.name} for each in hosts]
        document = {"defaults": {"user": "admin", "partitions": 3}, "datacenters": centers}
        (self.folder / "computers.yaml").write_text(yaml.safe_dump(document))
        join = ("computer", "join", "--inventory", "computers.yaml", *self.way(), "--json")
        outcomes: list[Document] = json.loads(self.slapos(*join).stdout)
        return outcomes

    def tree(self, name: str, *parameters: str, wait: bool = True) -> Document:
        """Request an instance tree, or change it, and wait until all of it is well; return it."""
        waiting = ("--wait", str(PATIENCE)) if wait else ()
        given = ("--parameters", *parameters) if parameters else ()
        self.slapos("request", name, RELEASE, "--unchecked", *given, *waiting)
        return self.instance(name)

    def end(self, name: str) -> None:
        """Destroy an instance tree, and wait until it is gone."""
        self.slapos("request", name, "--state", "destroyed", "--wait", str(PATIENCE))

    def status(self) -> Document:
        """Return the state of everything."""
        document: Document = json.loads(self.slapos("cluster", "status", "--json", status=None).stdout)
        return document

    def is_well(self) -> bool:
        """Say whether everything is as it should be."""
        return bool(self.status()["well"])

    def host_of(self, instance: Document) -> Host:
        """Return the host that an instance is on."""
        return self.lab.host(instance["computer"])


def starts(host: Host, instance: Document) -> list[str]:
    """Return the process of each start of a node's program."""
    return host.run("cat", f"{INSTANCES}/{instance['partition']}/starts").stdout.split()


def words(host: Host, instance: Document) -> str:
    """Return the words that a node was given."""
    return host.run("cat", f"{INSTANCES}/{instance['partition']}/words").stdout.strip()


def runs(host: Host, process: str) -> bool:
    """Say whether a process of a host runs."""
    return host.run("kill", "-0", process, check=False).returncode == 0


def processed(host: Host, instance: Document) -> int:
    """Return how often the agent has processed a partition to the end."""
    log = host.run("cat", AGENT_LOG).stdout
    return log.count(f"{instance['partition']}: well")


def agent_status(host: Host, *options: str) -> Document:
    """Return what the agent of a host says."""
    node = "/opt/slapos-wendelin/current/bin/slapos"
    done = host.run(node, "node", "status", "--json", *options, check=False)
    document: Document = json.loads(done.stdout)
    return document


def nodes_of(tree: Document) -> list[Document]:
    """Return the nodes of a tree, without its root."""
    children: list[Document] = tree["children"]
    return children


def made_cloud(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cloud, list[Document]]:
    """Return a cloud of all hosts of a lab, and what came of the joining of each."""
    made_cloud_ = made_operator(lab, tmp_path_factory, Cloud)
    for host in lab.hosts.values():
        put_release(host, TREE, TREE_ON_HOSTS)
    return made_cloud_, made_cloud_.join_all()


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, list[Document]]]:
    """Yield the cloud, and what came of the joining of each host."""
    with Lab.build(dict.fromkeys(CENTERS, 2)) as lab:
        cloud, outcomes = made_cloud(lab, tmp_path_factory)
        yield cloud, outcomes
        cloud.stop_master()


@pytest.fixture
def cloud(joined: tuple[Cloud, list[Document]]) -> Iterator[Cloud]:
    """Yield the cloud, which is well before and after each story."""
    cloud, _ = joined
    yield cloud
    mend(cloud)


def mend(cloud: Cloud) -> None:
    """Make a cloud well and empty again, whatever a story has done."""
    lab = cloud.lab
    for center in lab.data_centers.values():
        center.heal()
    for host in lab.hosts.values():
        host.thaw()
        host.power_on()
        host.free_disk()
    for tree in cloud.status()["instances"]:
        cloud.end(tree["reference"])
    until(cloud.is_well, "all is well for the next story", PATIENCE, 0.2)


def test_one_inventory_makes_a_cloud_and_a_tree_spreads_over_its_data_centers(
    joined: tuple[Cloud, list[Document]], cloud: Cloud
) -> None:
    _, outcomes = joined
    assert [each["result"] for each in outcomes] == ["joined"] * 6, outcomes
    assert {each["name"]: len(each["computers"]) for each in cloud.status()["datacenters"]} == (
        dict.fromkeys(CENTERS, 2)
    )

    tree = cloud.tree("spread", "nodes=6", "words=bonjour")
    nodes = nodes_of(tree)
    assert sorted(each["computer"] for each in nodes) == sorted(cloud.lab.hosts)
    assert Counter(each["datacenter"] for each in nodes) == dict.fromkeys(CENTERS, 2)
    # What the root publishes it has from its nodes, by the master, across data centers.
    for node in nodes:
        assert tree["connection"][node["reference"]] == f"{node['computer']} says bonjour"
        (process,) = starts(cloud.host_of(node), node)
        assert runs(cloud.host_of(node), process)
    for computer in cloud.status()["computers"]:
        (release,) = computer["software"]
        assert (release["url"], release["reported_state"]) == (RELEASE, "available")


def test_a_data_center_that_is_cut_catches_up_and_does_nothing_twice(cloud: Cloud) -> None:
    tree = cloud.tree("cut", "nodes=3", "words=before")
    (away,) = (each for each in nodes_of(tree) if each["datacenter"] == "tokyo")
    host = cloud.host_of(away)
    before = {each["guid"]: starts(cloud.host_of(each), each) for each in nodes_of(tree)}
    count = processed(host, away)

    # The cut comes while the computers process a change; two more come meanwhile.
    cloud.tree("cut", "words=first", wait=False)
    cloud.lab.data_center("tokyo").cut()
    cloud.tree("cut", "words=second", wait=False)
    changed = cloud.tree("cut", "words=third", wait=False)
    others = [each for each in nodes_of(changed) if each["datacenter"] != "tokyo"]
    for node in others:
        until(lambda node=node: words(cloud.host_of(node), node) == "third", "others go on", PATIENCE)
    assert words(host, away) in {"before", "first"}
    assert starts(host, away) == before[away["guid"]]
    assert runs(host, before[away["guid"]][0])
    until(lambda: agent_status(host)["master"]["error"], "the agent knows that it is cut off", 120)

    cloud.lab.data_center("tokyo").heal()
    healed = cloud.tree("cut")
    assert healed["connection"][away["reference"]] == f"{away['computer']} says third"
    assert words(host, away) == "third"
    # The same instances at the same places; their programs were never started anew.
    kept = ("guid", "computer", "partition", "reference")
    assert [[each[key] for key in kept] for each in nodes_of(healed)] == [
        [each[key] for key in kept] for each in nodes_of(tree)
    ]
    assert {each["guid"]: starts(cloud.host_of(each), each) for each in nodes_of(tree)} == before
    assert all(runs(cloud.host_of(each), before[each["guid"]][0]) for each in nodes_of(tree))
    # What was asked for twice while it was away was done once.
    assert processed(host, away) - count in {1, 2}
    assert sum(each["partitions_used"] for each in cloud.status()["computers"]) == 4
