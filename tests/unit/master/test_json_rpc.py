# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What callers of the JSON-RPC methods get; every answer is as slapos.core's OpenAPI file says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from master_cloud import RELEASE, Cloud

from slapos_wendelin.master import open_api
from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.database import Database

OTHER_RELEASE = "https://example.org/1.1/software.cfg"


def call(cloud: Cloud, method: str, **sent: Any) -> dict[str, Any]:
    """Call a method that succeeds and check that the answer is as described."""
    answer = send(cloud, method, **sent)
    assert answer.status_code == 200, answer.text
    open_api.methods()[f"/slapos.{method}"].check_output(answer.json())
    return answer.json()


def send(cloud: Cloud, method: str, **sent: Any) -> requests.Response:
    """Call a method."""
    headers = sent.pop("headers", {})
    return requests.post(f"{cloud.url}slapos.{method}", json=sent, headers=headers, timeout=60)


def refusal(cloud: Cloud, method: str, **sent: Any) -> tuple[int, str]:
    """Call a method that refuses and return the status and the reason."""
    answer = send(cloud, method, **sent)
    document = answer.json()
    assert set(document) == {"status", "type", "title"}
    assert document["status"] == answer.status_code
    return answer.status_code, document["title"]


def request_instance(cloud: Cloud, title: str, **more: Any) -> dict[str, Any]:
    """Request an instance."""
    wanted = {"title": title, "software_release_uri": RELEASE, "software_type": "default"}
    return call(cloud, "post.v0.software_instance", **(wanted | more))


def test_every_method_of_the_open_api_files_is_served(cloud: Cloud):
    for path in open_api.methods():
        answer = requests.post(cloud.url + path.lstrip("/"), json=[], timeout=60)
        assert answer.status_code == 400, path
        assert "the document is []" in answer.json()["title"]


def test_a_user_requests_changes_stops_and_destroys_an_instance(cloud: Cloud):
    cloud.add_computer("paris")
    made = request_instance(cloud, "cluster", parameters={"count": 3, "quick": True, "none": None})
    assert made["parameters"] == {"count": "3", "quick": "True", "none": ""}
    assert (made["computer_guid"], made["compute_partition_id"]) == ("paris", "slappart0")
    assert made["ip_list"] == [["tap0", "10.0.0.0"]]
    assert made["access_status_message"] == ""
    changed = request_instance(cloud, "cluster", software_release_uri=OTHER_RELEASE)
    assert changed["instance_guid"] == made["instance_guid"]
    assert changed["processing_timestamp"] > made["processing_timestamp"]
    assert request_instance(cloud, "cluster", state="stopped")["state"] == "stopped"
    assert request_instance(cloud, "cluster", state="destroyed")["state"] == "destroyed"
    call(
        cloud,
        "put.v0.software_instance_reported_state",
        instance_guid=made["instance_guid"],
        reported_state="destroyed",
    )
    assert call(cloud, "allDocs.v0.instance_tree_list") == {"result_list": []}
    assert refusal(cloud, "get.v0.software_instance", instance_guid=made["instance_guid"])[0] == 403


def test_the_same_instance_is_seen_by_both_kinds_of_clients(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request("cluster", partition_parameter_kw={"a": "1"})
    guid = instance.getInstanceGuid()
    seen = call(cloud, "get.v0.software_instance", instance_guid=guid)
    assert (seen["title"], seen["parameters"]) == ("cluster", {"a": "1"})
    place = {"computer_guid": "paris", "compute_partition_id": instance.getId()}
    assert call(cloud, "get.v0.compute_partition", **place) == seen
    assert call(cloud, "get.v0.instance_tree", title="cluster") == seen
    request_instance(cloud, "cluster", parameters={"a": "2"})
    assert cloud.partition(instance).getInstanceParameterDict()["a"] == "2"


def test_an_instance_requests_another_on_another_computer(cloud: Cloud):
    cloud.add_computer("paris", datacenter="paris")
    cloud.add_computer("tokyo", datacenter="tokyo")
    root = request_instance(cloud, "cluster", sla_parameters={"computer_guid": "paris"})
    place = "computer_id=paris, computer_partition_id=slappart0"
    child = request_instance(
        cloud,
        "storage",
        sla_parameters={"datacenter": "tokyo"},
        headers={"Authorization": f"X-SlapPartition {place}"},
    )
    assert (child["computer_guid"], child["root_instance_title"]) == ("tokyo", "cluster")
    call(
        cloud,
        "put.v0.software_instance_connection_parameter",
        instance_guid=child["instance_guid"],
        connection_parameter_dict={"url": "neo://tokyo"},
    )
    seen = call(cloud, "get.v0.software_instance", instance_guid=root["instance_guid"])
    assert seen["processing_timestamp"] > root["processing_timestamp"]


def test_a_computer_works_with_these_methods_alone(cloud: Cloud):
    computer = {"computer_guid": "paris"}
    address = {"ip-address": "10.0.0.1", "network-interface": "tap0"}
    formatted = [{"partition_id": "slappart0", "ip_list": [address]}, {"partition_id": "slappart1"}]
    call(cloud, "put.v0.compute_node_format", **computer, compute_partition_list=formatted)
    made = request_instance(cloud, "cluster")
    software = {**computer, "software_release_uri": RELEASE}
    assert call(cloud, "allDocs.v0.compute_node_software_installation_list", **computer) == {
        "result_list": [{"software_release_uri": RELEASE, "state": "available"}]
    }
    call(
        cloud, "put.v0.software_installation_reported_state", **software, reported_state="building"
    )
    call(cloud, "put.v0.software_installation_error", **software, message="no network")
    (seen,) = cloud.client.status()["software"]
    assert (seen["reported_state"], seen["error"]) == ("error", "no network")
    call(
        cloud, "put.v0.software_installation_reported_state", **software, reported_state="available"
    )
    (listed,) = call(cloud, "allDocs.v0.compute_node_instance_list", **computer)["result_list"]
    assert listed["instance_guid"] == made["instance_guid"]
    instance = {"instance_guid": made["instance_guid"]}
    call(cloud, "put.v0.software_instance_error", **instance, message="a promise fails")
    seen = call(cloud, "get.v0.software_instance", **instance)
    assert seen["access_status_message"] == "#error a promise fails"
    call(cloud, "put.v0.software_instance_reported_state", **instance, reported_state="started")
    assert cloud.client.instance("cluster")["settled"]
    assert "last in contact at" in call(cloud, "get.v0.compute_node_status", **computer)["text"]
    call(cloud, "post.v0.compute_node_usage", **computer, tioxml="<journal/>")


@pytest.mark.parametrize("what", ["software_instance", "compute_node"])
def test_a_bang_makes_the_instance_due(cloud: Cloud, what: str):
    cloud.add_computer("paris")
    instance = cloud.request("cluster")
    before = cloud.timestamp(instance)
    names = {
        "software_instance": {"instance_guid": instance.getInstanceGuid()},
        "compute_node": {"computer_guid": "paris"},
    }
    call(cloud, f"put.v0.{what}_bang", **names[what], message="please")
    assert cloud.timestamp(instance) > before


def test_a_renamed_root_is_found_under_its_new_name_by_its_whole_tree(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    before = cloud.timestamp(child)
    guid = root.getInstanceGuid()
    call(cloud, "put.v0.software_instance_title", instance_guid=guid, title="archive")
    assert cloud.timestamp(child) > before
    assert cloud.partition(child).getInstanceParameterDict()["root_instance_title"] == "archive"
    assert cloud.request("archive").getInstanceGuid() == guid
    status, reason = refusal(
        cloud,
        "put.v0.software_instance_title",
        instance_guid=cloud.request("other").getInstanceGuid(),
        title="archive",
    )
    assert (status, reason) == (403, f"{guid} has the name 'archive' (choose another name)")


def test_shared_instances_are_listed_to_their_provider(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = request_instance(cloud, "frontend")
    site = request_instance(cloud, "site", shared=True, parameters={"url": "http://a"})
    guid = {"instance_guid": site["instance_guid"]}
    listed = call(
        cloud, "allDocs.v0.instance_node_instance_list", instance_guid=provider["instance_guid"]
    )
    (entry,) = listed["result_list"]
    assert entry == {
        "title": "site",
        "instance_guid": site["instance_guid"],
        "software_type": "default",
        "state": "started",
        "parameters": {"url": "http://a"},
        "compute_partition_id": "slappart0",
    }
    call(cloud, "put.v0.software_instance_reported_state", **guid, reported_state="started")
    assert cloud.client.instance("site")["reported_state"] == "started"
    status, _ = refusal(
        cloud, "put.v0.software_instance_reported_state", **guid, reported_state="destroyed"
    )
    assert status == 403
    request_instance(cloud, "site", shared=True, state="destroyed")
    call(cloud, "put.v0.software_instance_reported_state", **guid, reported_state="destroyed")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"title": "cluster"}, "'software_release_uri' is a required property"),
        ({"title": 3}, "title is 3: it is not of type 'string'"),
        ({"title": "a" * 10_000}, "title is 'aaaaaaaa"),
        ({"title": "a\nb"}, "without control characters"),
        ({"title": "a\ud800"}, "without control characters"),
        ({"state": "paused"}, "state is 'paused': it is not one of ['started', 'stopped',"),
        ({"colour": "red"}, "('colour' was unexpected)"),
        ({"software_release_uri": "http://a b"}, "holds a space"),
        ({"parameters": {"a": [1]}}, "parameters: 'a' is a list"),
        ({"parameters": {"a": "\x01"}}, "parameters: 'a' holds the character '\\x01'"),
        ({"parameters": {"a": "\ud800"}}, "parameters: 'a' holds the character '\\ud800'"),
        ({"parameters": {"\x00": "a"}}, "holds the character '\\x00'"),
        ({"sla_parameters": {"colour": "red"}}, "unknown SLA key 'colour'"),
    ],
)
def test_a_wrong_request_is_refused_with_place_value_and_remedy(
    cloud: Cloud, sent: dict[str, Any], reason: str
):
    cloud.add_computer("paris")
    wanted = {"title": "cluster", "software_release_uri": RELEASE, "software_type": "default"}
    whole = sent if sent == {"title": "cluster"} else wanted | sent
    status, title = refusal(cloud, "post.v0.software_instance", **whole)
    assert status == 400
    assert reason in title
    assert cloud.client.status()["instances"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(cloud: Cloud, body: bytes):
    answer = requests.post(
        f"{cloud.url}slapos.post.v0.software_instance",
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 400
    assert answer.json()["title"] == "the body is not one JSON document (send one object)"


def test_another_content_type_another_http_method_and_an_unknown_method_are_refused(cloud: Cloud):
    url = f"{cloud.url}slapos.allDocs.v0.instance_tree_list"
    assert requests.post(url, data={"a": "b"}, timeout=60).json()["status"] == 415
    assert requests.get(url, timeout=60).json()["status"] == 405
    assert (
        requests.post(f"{cloud.url}slapos.get.v9.all", json={}, timeout=60).json()["status"] == 404
    )


def test_a_full_cloud_tells_the_reason_for_each_computer(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    request_instance(cloud, "one")
    status, title = refusal(
        cloud,
        "post.v0.software_instance",
        title="two",
        software_release_uri=RELEASE,
        software_type="default",
    )
    assert status == 403
    assert "paris: full (1 of 1 partitions in use)" in title


@pytest.mark.parametrize(
    "header", ["X-SlapPartition computer_id=paris", "X-SlapPartition", "X-SlapPartition ="]
)
def test_a_requester_that_is_half_named_is_refused(cloud: Cloud, header: str):
    cloud.add_computer("paris")
    answer = send(
        cloud,
        "post.v0.software_instance",
        title="two",
        software_release_uri=RELEASE,
        software_type="default",
        headers={"Authorization": header},
    )
    assert (answer.status_code, cloud.client.instances()) in [(400, []), (403, [])]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@st.composite
def _calls(draw: st.DrawFn) -> tuple[str, object]:
    """Draw a method and something that looks a little like what it takes."""
    path = draw(st.sampled_from(sorted(open_api.methods())))
    schema = open_api.methods()[path].input.schema
    assert isinstance(schema, dict)
    sent = {}
    for name, described in schema.get("properties", {}).items():
        kinds = [st.just("SOFTINST-1"), st.text(max_size=12), _json]
        kinds += map(st.just, described.get("enum", ()))
        if name in schema.get("required", ()) or draw(st.booleans()):
            sent[name] = draw(st.one_of(kinds))
    return path, draw(st.just(sent) | _json)


@pytest.fixture
def application(tmp_path) -> Flask:
    """Give an application whose database has one computer and one instance."""
    database = Database(tmp_path / "master.sqlite")
    application = create_application(database, is_plain=True)
    client = application.test_client()
    partition = {"computer_guid": "paris", "compute_partition_list": [{"partition_id": "part0"}]}
    assert client.post("/slapos.put.v0.compute_node_format", json=partition).status_code == 200
    wanted = {"title": "cluster", "software_release_uri": RELEASE, "software_type": "default"}
    assert client.post("/slapos.post.v0.software_instance", json=wanted).status_code == 200
    yield application
    database.close()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_calls())
def test_whatever_is_sent_the_answer_is_a_result_or_a_reason(
    application: Flask, call_: tuple[str, object]
):
    path, sent = call_
    answer = application.test_client().post(
        path, data=json.dumps(sent), content_type="application/json"
    )
    assert answer.status_code in {200, 400, 403}, answer.text
    if answer.status_code == 200:
        open_api.methods()[path].check_output(answer.json)
    else:
        assert answer.json["title"]
