# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a running master puts what is requested with an SLA."""

from __future__ import annotations

import pytest
import slapos.slap
from master_cloud import Cloud


def computers_of(cloud: Cloud, root, sla: dict[str, str], count: int) -> list[str]:
    """Request instances from a root and return the computer of each."""
    return [
        cloud.request_from(root, f"node-{number}", filter_kw=sla).slap_computer_id
        for number in range(count)
    ]


def test_instances_go_beside_the_one_that_they_name(cloud: Cloud):
    cloud.add_computer("paris", partitions=2)
    cloud.add_computer("tokyo", partitions=5)
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    beside = {"instance_guid": root.getInstanceGuid()}
    assert computers_of(cloud, root, beside, 1) == ["paris"]
    with pytest.raises(slapos.slap.ServerError, match="paris: full"):
        cloud.request_from(root, "node-1", filter_kw=beside)
    with pytest.raises(slapos.slap.NotFoundError):
        cloud.request("other", filter_kw={"instance_guid": "SOFTINST-999"})


def test_a_tree_that_wants_a_computer_for_each_instance_counts_its_root(cloud: Cloud):
    for name in ("paris", "tokyo", "virginia"):
        cloud.add_computer(name, partitions=3)
    root = cloud.request("cluster", filter_kw={"computer_guid": "tokyo"})
    apart = {"mode": "unique_by_computer"}
    assert computers_of(cloud, root, apart, 2) == ["paris", "virginia"]
    with pytest.raises(slapos.slap.ServerError, match="tokyo: hosts an instance of this tree"):
        cloud.request_from(root, "node-2", filter_kw=apart)


def test_roots_of_different_users_are_no_tree(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    apart = {"mode": "unique_by_computer"}
    assert cloud.request("one", filter_kw=apart).slap_computer_id == "paris"
    assert cloud.request("two", filter_kw=apart).slap_computer_id == "paris"


def test_a_pinned_instance_counts_in_its_group_and_a_label_does_not(cloud: Cloud):
    cloud.add_computer("paris", datacenter="paris", labels={"group": "storage"})
    cloud.add_computer("tokyo", datacenter="tokyo", partitions=1)
    root = cloud.request("cluster", filter_kw={"group": "storage"})
    assert root.slap_computer_id == "paris"
    spread = {"spread": "datacenter", "group": "storage"}
    pinned = cloud.request_from(root, "pinned", filter_kw=spread | {"computer_guid": "tokyo"})
    assert pinned.slap_computer_id == "tokyo"
    assert computers_of(cloud, root, spread, 1) == ["paris"]


def test_computers_are_chosen_by_label(cloud: Cloud):
    cloud.add_computer("paris", partitions=5)
    cloud.add_computer("tokyo", partitions=1, labels={"storage_type": "ssd", "rack": "7"})
    wanted = {"storage_type": "ssd", "label.rack": "7"}
    assert cloud.request("one", filter_kw=wanted).slap_computer_id == "tokyo"
    with pytest.raises(slapos.slap.ServerError, match=r"paris: lacks label\.rack=7 and lacks stor"):
        cloud.request("two", filter_kw=wanted)
