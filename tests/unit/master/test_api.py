# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints through their client."""

from __future__ import annotations

import pytest
import requests
from master_cloud import RELEASE, Cloud

from slapos_wendelin.master.client import (
    MasterAnswerError,
    MasterClient,
    MasterUnreachableError,
    NotFoundError,
)


def test_computers_are_registered_and_changed_field_by_field(cloud: Cloud):
    cloud.client.put_computer("paris-1", datacenter="paris", region="eu", labels={"disk": "ssd"})
    changed = cloud.client.put_computer("paris-1", region="europe")
    assert (changed["datacenter"], changed["region"]) == ("paris", "europe")
    assert changed["labels"] == {"disk": "ssd"}
    assert [each["reference"] for each in cloud.client.computers()] == ["paris-1"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"datacentre": "paris"}, "unknown key 'datacentre'"),
        ({"datacenter": "paris, tokyo"}, "without commas and spaces"),
        ({"datacenter": 3}, "datacenter is 3"),
        ({"labels": {"disk": 3}}, "labels is"),
        ([], "not a JSON object"),
    ],
)
def test_a_wrong_computer_is_refused(cloud: Cloud, body: object, message: str):
    answer = requests.put(f"{cloud.url}v1/computers/paris", json=body, timeout=60)
    assert answer.status_code == 400
    assert message in " ".join(answer.json().values())
    assert cloud.client.computers() == []


def test_a_body_that_is_not_json_is_refused(cloud: Cloud):
    answer = requests.put(f"{cloud.url}v1/computers/paris", data="{", timeout=60)
    assert (answer.status_code, answer.json()["remedy"]) == (
        400,
        "send a JSON object as application/json",
    )


def test_the_catalog_keeps_and_replaces_products(cloud: Cloud):
    cloud.client.put_product("wendelin-cluster", RELEASE, defaults={"storage-count": 3})
    cloud.client.put_product("wendelin-cluster", RELEASE, "neo", "1.1")
    assert cloud.client.product("wendelin-cluster") == {
        "name": "wendelin-cluster",
        "release_url": RELEASE,
        "software_type": "neo",
        "version": "1.1",
        "defaults": {},
    }
    assert [each["name"] for each in cloud.client.products()] == ["wendelin-cluster"]
    with pytest.raises(NotFoundError, match="the products are: wendelin-cluster"):
        cloud.client.product("wendelin")


def test_an_instance_tree_is_shown_whole(cloud: Cloud):
    cloud.add_computer("paris-1", datacenter="paris")
    cloud.add_computer("tokyo-1", datacenter="tokyo")
    root = cloud.request(
        "cluster",
        partition_parameter_kw={"_": '{"storage-count": 2}'},
        filter_kw={"datacenter": "paris"},
    )
    child = cloud.request_from(root, "storage-0", filter_kw={"datacenter": "tokyo"})
    cloud.partition(child).setConnectionDict({"_": '{"url": "neo://"}'})
    cloud.partition(child).started()
    (shown,) = cloud.client.instances()
    assert shown == cloud.client.instance("cluster")
    assert shown["parameters"] == {"storage-count": 2}
    assert (shown["computer"], shown["datacenter"]) == ("paris-1", "paris")
    (node,) = shown["children"]
    assert node == cloud.client.instance(child.getInstanceGuid())
    assert node["reference"] == "storage-0"
    assert (node["computer"], node["partition"]) == ("tokyo-1", "slappart0")
    assert node["connection"] == {"url": "neo://"}
    assert (node["state"], node["reported_state"], node["error"]) == ("started", "started", None)
    assert {each["computer"]: each["chosen"] for each in node["placement"]} == {
        "tokyo-1": True,
        "paris-1": False,
    }


def test_parameters_that_are_no_usable_json_are_shown_as_they_are(cloud: Cloud):
    cloud.add_computer("paris")
    deep = "[" * 100_000
    cloud.request("cluster", partition_parameter_kw={"_": deep})
    assert cloud.client.instance("cluster")["parameters"] == {"_": deep}
    answer = requests.put(
        f"{cloud.url}v1/computers/tokyo",
        data=deep,
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 400


def test_references_may_hold_slashes(cloud: Cloud):
    cloud.add_computer("team/paris")
    cloud.request("team/cluster")
    assert cloud.client.wait_due("team/paris")["instances"]
    assert cloud.client.instance("team/cluster")["reference"] == "team/cluster"


def test_a_child_is_not_found_by_the_name_that_only_its_tree_knows(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request_from(cloud.request("cluster"), "storage")
    with pytest.raises(NotFoundError, match="no instance 'storage'"):
        cloud.client.instance("storage")


def test_the_status_shows_data_centers_computers_releases_and_trees(cloud: Cloud):
    cloud.add_computer("paris-1", partitions=3, datacenter="paris")
    cloud.request("cluster")
    status = cloud.client.status()
    (datacenter,) = status["datacenters"]
    assert (datacenter["name"], datacenter["computers"]) == ("paris", ["paris-1"])
    (computer,) = status["computers"]
    assert (computer["partitions"], computer["partitions_used"]) == (3, 1)
    assert [each["url"] for each in status["software"]] == [RELEASE]
    assert [each["reference"] for each in status["instances"]] == ["cluster"]


def test_what_is_not_there_is_told_in_json(cloud: Cloud):
    answer = requests.get(f"{cloud.url}v1/nothing", timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "the master has nothing at /v1/nothing",
    )
    answer = requests.delete(f"{cloud.url}v1/computers", timeout=60)
    assert (answer.status_code, "GET" in answer.headers["Allow"]) == (405, True)


def test_a_master_that_does_not_answer_is_named():
    with pytest.raises(MasterUnreachableError, match=r"127\.0\.0\.1:9 does not answer: Conn"):
        MasterClient("http://127.0.0.1:9/", timeout=5).health()


def test_something_that_is_no_master_is_named(cloud: Cloud):
    with pytest.raises(MasterAnswerError, match="is not a master"):
        MasterClient(f"{cloud.url}getHateoasUrl?").health()
