# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans, history and the requests of the past, the same on every database."""

from __future__ import annotations

import pytest
from database_servers import on_every_database
from master_cloud import RELEASE, Cloud

from slapos_wendelin.master.client import MasterAnswerError

REQUEST = {
    "reference": "cluster",
    "release_url": RELEASE,
    "parameters": {"_": '{"size": 1}'},
    "sla": {"datacenter": "tokyo"},
    "children": [
        {"reference": "storage", "software_type": "neo", "parameters": {"size": 1.5, "on": True}}
    ],
}


def changes_of_instances(effects: dict) -> list[tuple[str, str]]:
    changes = [*effects["changes"], *(effects["later"] or [])]
    return [(each["name"], each["action"]) for each in changes if each["kind"] == "instance"]


@on_every_database
def test_a_plan_is_applied_as_it_was_shown_or_not_at_all(cloud: Cloud):
    cloud.add_computer("paris", datacenter="paris")
    cloud.add_computer("tokyo", datacenter="tokyo")
    shown, stale = cloud.client.make_plan(REQUEST), cloud.client.make_plan(REQUEST)
    assert changes_of_instances(shown["effects"]) == [
        ("cluster", "added"),
        ("cluster/storage", "added"),
    ]
    assert cloud.client.instances() == []
    instance = cloud.client.apply_plan(shown["plan"])
    assert (instance["computer"], instance["parameters"]) == ("tokyo", {"size": 1})
    with pytest.raises(MasterAnswerError, match="would do something else now") as caught:
        cloud.client.apply_plan(stale["plan"])
    assert any("instance cluster: added in the plan" in line for line in caught.value.details)
    assert cloud.client.plan(shown["plan"])["effects"] == shown["effects"]


@on_every_database
def test_history_tells_what_was_requested_at_each_change(cloud: Cloud):
    cloud.add_computer("tokyo", datacenter="tokyo")
    cloud.client.request({key: each for key, each in REQUEST.items() if key != "children"})
    changed = {"reference": "cluster", "release_url": RELEASE, "state": "stopped"}
    cloud.client.request(changed)
    history = cloud.client.history(instance="cluster")["changes"]
    first, last = history[0]["id"], history[-1]["id"]
    then = cloud.client.request_of_the_past("cluster", first)
    assert (then["parameters"], then["state"]) == (REQUEST["parameters"], "started")
    now = cloud.client.request_of_the_past("cluster", last)
    assert (now["parameters"], now["state"]) == ({}, "stopped")
