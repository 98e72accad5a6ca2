# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance that has its place goes to another one when somebody asks."""

from __future__ import annotations

import pytest
from database_servers import on_every_database
from master_cloud import RELEASE, Cloud

from slapos_wendelin.master.client import MasterAnswerError, NotFoundError


@pytest.fixture
def tree(cloud: Cloud):
    """Give a root on paris and its child on lyon, both running; osaka is free."""
    for name in ("paris", "lyon", "osaka"):
        cloud.add_computer(name, partitions=2, datacenter=name)
    cloud.request("cluster", filter_kw={"datacenter": "paris"})
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage", filter_kw={"datacenter": "lyon, osaka"})
    cloud.partition(child).setConnectionDict({"url": "neo://lyon"})
    for each in (root, child):
        cloud.partition(each).started()
    return root, child


def states(cloud: Cloud, computer: str) -> dict[str, str]:
    """Return the state of each partition of a computer as its slapgrid sees it."""
    partitions = cloud.slap.registerComputer(computer).getComputerPartitionList()
    return {each.getId(): each.getState() for each in partitions}


def test_a_moved_instance_keeps_its_guid_and_runs_elsewhere(cloud: Cloud, tree):
    _, child = tree
    moved = cloud.client.move(child.getInstanceGuid())
    assert (moved["from"]["computer"], moved["to"]["computer"]) == ("lyon", "osaka")
    shown = cloud.client.instance(child.getInstanceGuid())
    assert (shown["computer"], shown["state"], shown["reported_state"]) == ("osaka", "started", "")
    assert not shown["settled"]
    assert states(cloud, "osaka")["slappart0"] == "started"


@on_every_database
def test_the_partition_that_was_left_is_wiped_and_then_free(cloud: Cloud, tree):
    _, child = tree
    cloud.client.move(child.getInstanceGuid())
    assert states(cloud, "lyon")["slappart0"] == "destroyed"
    (computer,) = [each for each in cloud.client.computers() if each["reference"] == "lyon"]
    assert computer["partitions_used"] == 1
    cloud.slap.registerComputerPartition("lyon", "slappart0").destroyed()
    assert cloud.client.computer("lyon")["partitions_used"] == 0
    assert cloud.client.instance(child.getInstanceGuid())["computer"] == "osaka"


def test_the_computers_and_the_requester_become_due(cloud: Cloud, tree):
    root, child = tree
    before = {
        name: cloud.client.wait_due(name, timeout=0)["number"]
        for name in ("paris", "lyon", "osaka")
    }
    cloud.client.move(child.getInstanceGuid())
    due = {name: cloud.client.wait_due(name, after, timeout=0) for name, after in before.items()}
    assert [each["guid"] for each in due["paris"]["instances"]] == [root.getInstanceGuid()]
    assert [each["state"] for each in due["lyon"]["instances"]] == ["destroyed"]
    assert [each["guid"] for each in due["osaka"]["instances"]] == [child.getInstanceGuid()]
    assert RELEASE in [each["url"] for each in due["osaka"]["software"]]


def test_what_was_published_from_the_old_place_is_forgotten(cloud: Cloud, tree):
    root, child = tree
    cloud.client.move(child.getInstanceGuid())
    again = cloud.request_from(root, "storage", filter_kw={"datacenter": "lyon, osaka"})
    assert again.slap_computer_id == "osaka"
    assert again.getConnectionParameterDict() == {}


def test_requests_of_the_requester_do_not_move_it_back(cloud: Cloud, tree):
    root, child = tree
    cloud.client.move(child.getInstanceGuid())
    sla = {"datacenter": "lyon, osaka"}
    assert cloud.request_from(root, "storage", filter_kw=sla).slap_computer_id == "osaka"
    cloud.partition(root).setComputerPartitionRelatedInstanceList(["storage"])
    assert cloud.client.instance(child.getInstanceGuid())["state"] == "started"


def test_a_root_moves_and_keeps_what_it_requested(cloud: Cloud, tree):
    root, child = tree
    cloud.client.move("cluster", "lyon")
    shown = cloud.client.instance("cluster")
    assert (shown["guid"], shown["computer"]) == (root.getInstanceGuid(), "lyon")
    assert [each["guid"] for each in shown["children"]] == [child.getInstanceGuid()]
    again = cloud.request("cluster")
    assert again.getInstanceGuid() == root.getInstanceGuid()


def test_an_instance_may_move_within_its_computer_when_asked(cloud: Cloud, tree):
    _, child = tree
    moved = cloud.client.move(child.getInstanceGuid(), "lyon")
    assert (moved["to"]["computer"], moved["to"]["partition"]) == ("lyon", "slappart1")
    assert states(cloud, "lyon") == {"slappart0": "destroyed", "slappart1": "started"}


def test_a_stopped_instance_moves_and_stays_stopped(cloud: Cloud, tree):
    root, child = tree
    sla = {"datacenter": "lyon, osaka"}
    cloud.request_from(root, "storage", filter_kw=sla, state="stopped")
    cloud.client.move(child.getInstanceGuid())
    assert states(cloud, "osaka")["slappart0"] == "stopped"


def test_a_move_keeps_a_spread_group_apart(cloud: Cloud):
    for name in ("paris", "tokyo", "osaka", "madrid"):
        cloud.add_computer(name, partitions=4, datacenter=name)
    root = cloud.request("cluster", filter_kw={"datacenter": "paris"})
    sla = {"spread": "datacenter", "group": "storage"}
    nodes = [cloud.request_from(root, f"storage-{index}", filter_kw=sla) for index in range(3)]
    used = {each.slap_computer_id for each in nodes}
    (unused,) = {"paris", "tokyo", "osaka", "madrid"} - used
    assert cloud.client.move(nodes[0].getInstanceGuid())["to"]["computer"] == unused


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "computer 'nowhere' is not registered"),
        ("paris", "paris: data center is paris, asked for lyon or osaka"),
    ],
)
def test_a_target_that_cannot_be_is_told_and_nothing_changes(
    cloud: Cloud, tree, target: str, message: str
):
    _, child = tree
    before = cloud.client.instances()
    with pytest.raises(MasterAnswerError, match=message):
        cloud.client.move(child.getInstanceGuid(), target)
    assert cloud.client.instances() == before


def test_without_another_place_the_refusal_says_why_for_each_computer(cloud: Cloud):
    cloud.add_computer("paris", partitions=2)
    cloud.add_computer("tokyo", partitions=1)
    cloud.request("first", filter_kw={"computer_guid": "tokyo"})
    cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    with pytest.raises(MasterAnswerError) as refusal:
        cloud.client.move("cluster")
    assert "paris: it is there now" in refusal.value.message
    assert "tokyo: asked for computer paris and full (1 of 1 partitions" in refusal.value.message
    with pytest.raises(MasterAnswerError, match="asks for computer 'paris'"):
        cloud.client.move("cluster", "tokyo")


def test_what_is_being_destroyed_does_not_move(cloud: Cloud, tree):
    root, _ = tree
    cloud.request("cluster", state="destroyed")
    with pytest.raises(MasterAnswerError, match="is destroyed or being destroyed"):
        cloud.client.move(root.getInstanceGuid())
    with pytest.raises(NotFoundError, match="no instance 'nothing'"):
        cloud.client.move("nothing")


@pytest.mark.usefixtures("tree")
def test_a_moved_tree_can_be_destroyed_before_the_old_place_is_wiped(cloud: Cloud):
    cloud.client.move("cluster", "lyon")
    cloud.request("cluster", state="destroyed")
    for computer in ("paris", "lyon", "osaka"):
        for partition in cloud.slap.registerComputer(computer).getComputerPartitionList():
            if partition.getState() == "destroyed":
                partition.destroyed()
    assert cloud.client.instances() == []
    assert sum(each["partitions_used"] for each in cloud.client.computers()) == 0
