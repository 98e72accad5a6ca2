# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may call what: the table of all rights, tried with every kind of caller."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from secure_cloud import RELEASE, Caller, SecureCloud, configuration
from slapos.util import dumps

from slapos_wendelin.master import registry
from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.rights import RULES

#: The callers: an operator, a viewer, the computer and the instance that the request is about, a
#: computer and an instance that it is not about, and somebody without a certificate.
CALLERS = ("operator", "viewer", "computer", "instance", "other computer", "other instance", "none")

OPERATOR = {"operator"}
VIEWER = {"operator", "viewer"}
COMPUTER = {"operator", "computer"}
INSTANCE = {"operator", "instance"}
BOTH = {"operator", "computer", "instance"}
CERTIFIED = set(CALLERS) - {"none"}
EVERYBODY = set(CALLERS)


@dataclass
class Request:
    """A request about the computer and the instance, or about nobody in particular."""

    path: str
    #: Who may send it.
    allowed: set[str]
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] | None = None
    document: dict[str, Any] | None = None
    method: str = ""

    def send(self, caller: Caller):
        """Send the request."""
        body = self.form is not None or self.document is not None
        method = self.method or ("POST" if body else "GET")
        return caller.ask(method, self.path, params=self.query, data=self.form, json=self.document)


HOST = {"computer_id": "paris"}
PLACE = {"computer_id": "paris", "computer_partition_id": "slappart0"}
GUID = {"instance_guid": "SOFTINST-1"}
HOST_DOCUMENT = {"computer_guid": "paris"}
NOTHING = {}
PRODUCT = {"release_url": "https://example.org/software.cfg"}
SOFTWARE = {"computer_guid": "paris", "software_release_uri": "https://example.org/a.cfg"}

#: Each endpoint, by the name that Flask knows it by. What is sent is as little as shows the right:
#: the master may find it wrong afterwards.
REQUESTS = {
    # The slap protocol.
    "protocol.get_full_computer_information": Request(
        "getFullComputerInformation", COMPUTER, query=HOST
    ),
    "protocol.register_computer_partition": Request(
        "registerComputerPartition",
        BOTH,
        query={"computer_reference": "paris", "computer_partition_reference": "slappart0"},
    ),
    "protocol.request_computer_partition": Request(
        "requestComputerPartition", INSTANCE, form=PLACE
    ),
    "protocol.set_computer_partition_connection_xml": Request(
        "setComputerPartitionConnectionXml", INSTANCE, form=PLACE
    ),
    "protocol.started_computer_partition": Request(
        "startedComputerPartition", COMPUTER, form=PLACE
    ),
    "protocol.stopped_computer_partition": Request(
        "stoppedComputerPartition", COMPUTER, form=PLACE
    ),
    "protocol.destroyed_computer_partition": Request(
        "destroyedComputerPartition", COMPUTER, form=PLACE
    ),
    "protocol.software_instance_error": Request("softwareInstanceError", BOTH, form=PLACE),
    "protocol.software_instance_rename": Request("softwareInstanceRename", INSTANCE, form=PLACE),
    "protocol.software_instance_bang": Request("softwareInstanceBang", BOTH, form=PLACE),
    "protocol.computer_bang": Request("computerBang", COMPUTER, form=HOST),
    "protocol.update_computer_partition_related_instance_list": Request(
        "updateComputerPartitionRelatedInstanceList", BOTH, form=PLACE
    ),
    "protocol.supply_supply": Request("supplySupply", OPERATOR, form=HOST),
    "protocol.building_software_release": Request("buildingSoftwareRelease", COMPUTER, form=HOST),
    "protocol.available_software_release": Request("availableSoftwareRelease", COMPUTER, form=HOST),
    "protocol.destroyed_software_release": Request("destroyedSoftwareRelease", COMPUTER, form=HOST),
    "protocol.software_release_error": Request("softwareReleaseError", COMPUTER, form=HOST),
    "protocol.load_computer_configuration_from_xml": Request(
        "loadComputerConfigurationFromXML",
        COMPUTER,
        form={"xml": dumps(configuration("paris", ["slappart0", "slappart1"])).decode()},
    ),
    "protocol.use_computer": Request("useComputer", COMPUTER, form=HOST),
    "protocol.get_computer_partition_certificate": Request(
        "getComputerPartitionCertificate", COMPUTER, query=PLACE
    ),
    "protocol.generate_computer_certificate": Request(
        "generateComputerCertificate", OPERATOR, form=HOST
    ),
    "protocol.revoke_computer_certificate": Request(
        "revokeComputerCertificate", OPERATOR, form={"computer_id": "nowhere"}
    ),
    "protocol.get_computer_status": Request("getComputerStatus", COMPUTER | VIEWER, query=HOST),
    "protocol.get_computer_partition_status": Request(
        "getComputerPartitionStatus", BOTH, query=PLACE
    ),
    "protocol.get_hosting_subscription_ip_list": Request(
        "getHostingSubscriptionIpList", BOTH, query=PLACE
    ),
    "protocol.get_software_release_list_from_software_product": Request(
        "getSoftwareReleaseListFromSoftwareProduct", CERTIFIED
    ),
    "protocol.get_hateoas_url": Request("getHateoasUrl", CERTIFIED),
    # The JSON-RPC methods.
    "json_rpc.get_software_instance": Request(
        "slapos.get.v0.software_instance", BOTH, document=GUID
    ),
    "json_rpc.get_compute_partition": Request(
        "slapos.get.v0.compute_partition",
        BOTH,
        document=HOST_DOCUMENT | {"compute_partition_id": "slappart0"},
    ),
    "json_rpc.get_instance_tree": Request(
        "slapos.get.v0.instance_tree", OPERATOR, document={"title": "cluster"}
    ),
    "json_rpc.all_instance_trees": Request(
        "slapos.allDocs.v0.instance_tree_list", VIEWER, document=NOTHING
    ),
    "json_rpc.all_instances_of_computer": Request(
        "slapos.allDocs.v0.compute_node_instance_list", COMPUTER, document=HOST_DOCUMENT
    ),
    "json_rpc.all_shared_instances": Request(
        "slapos.allDocs.v0.instance_node_instance_list", BOTH, document=GUID
    ),
    "json_rpc.put_reported_state": Request(
        "slapos.put.v0.software_instance_reported_state", COMPUTER, document=GUID
    ),
    "json_rpc.put_instance_error": Request(
        "slapos.put.v0.software_instance_error", BOTH, document=GUID
    ),
    "json_rpc.put_instance_bang": Request(
        "slapos.put.v0.software_instance_bang", BOTH, document=GUID
    ),
    "json_rpc.put_instance_title": Request(
        "slapos.put.v0.software_instance_title", INSTANCE, document=GUID
    ),
    "json_rpc.put_connection_parameters": Request(
        "slapos.put.v0.software_instance_connection_parameter", INSTANCE, document=GUID
    ),
    "json_rpc.post_software_instance": Request(
        "slapos.post.v0.software_instance", OPERATOR, document=NOTHING
    ),
    "json_rpc.post_software_installation": Request(
        "slapos.post.v0.software_installation", OPERATOR, document=HOST_DOCUMENT
    ),
    "json_rpc.all_software_of_computer": Request(
        "slapos.allDocs.v0.compute_node_software_installation_list",
        COMPUTER,
        document=HOST_DOCUMENT,
    ),
    "json_rpc.put_software_state": Request(
        "slapos.put.v0.software_installation_reported_state", COMPUTER, document=SOFTWARE
    ),
    "json_rpc.put_software_error": Request(
        "slapos.put.v0.software_installation_error", COMPUTER, document=SOFTWARE
    ),
    "json_rpc.put_format": Request(
        "slapos.put.v0.compute_node_format", COMPUTER, document=HOST_DOCUMENT
    ),
    "json_rpc.put_computer_bang": Request(
        "slapos.put.v0.compute_node_bang", COMPUTER, document=HOST_DOCUMENT
    ),
    "json_rpc.post_usage": Request(
        "slapos.post.v0.compute_node_usage", COMPUTER, document=HOST_DOCUMENT
    ),
    "json_rpc.get_computer_status": Request(
        "slapos.get.v0.compute_node_status", COMPUTER | VIEWER, document=HOST_DOCUMENT
    ),
    "json_rpc.all_computers": Request(
        "slapos.allDocs.WIP.compute_node_list", VIEWER, document=NOTHING
    ),
    "json_rpc.get_instance_certificate": Request(
        "slapos.get.v0.software_instance_certificate", COMPUTER, document=GUID
    ),
    "json_rpc.post_computer_certificate": Request(
        "slapos.post.v0.compute_node_certificate", OPERATOR, document=HOST_DOCUMENT
    ),
    "json_rpc.remove_computer_certificate": Request(
        "slapos.remove.v0.compute_node_certificate",
        OPERATOR,
        document={"computer_guid": "nowhere"},
    ),
    "json_rpc.get_hateoas_url": Request("slapos.get.v0.hateoas_url", CERTIFIED, document=NOTHING),
    # What `slapos service` and `slapos computer` read.
    "hateoas.root": Request("hateoas/", VIEWER),
    "hateoas.search": Request("hateoas/search", VIEWER),
    "hateoas.document": Request("hateoas/document", VIEWER),
    # The API of our own tools.
    "api.health": Request("v1/health", CERTIFIED),
    "catalog.put_product": Request("v1/products/neo", OPERATOR, document=PRODUCT, method="PUT"),
    "catalog.delete_product": Request("v1/products/none", OPERATOR, method="DELETE"),
    "catalog.get_products": Request("v1/products", VIEWER),
    "catalog.get_product": Request("v1/products/neo", VIEWER),
    "catalog.get_software": Request("v1/software", VIEWER, query={"url": "https://example.org"}),
    "plan_api.post_request": Request("v1/requests", OPERATOR, document=NOTHING),
    "plan_api.post_plan": Request("v1/plans", OPERATOR, document=NOTHING),
    "plan_api.get_plan": Request("v1/plans/1", VIEWER),
    "plan_api.apply_plan": Request("v1/plans/1/apply", OPERATOR, document=NOTHING),
    "plan_api.get_history": Request("v1/history", VIEWER),
    "plan_api.get_request_of_the_past": Request("v1/history/1/request/cluster", VIEWER),
    "api.get_instances": Request("v1/instances", VIEWER),
    "api.get_instance": Request("v1/instances/cluster", VIEWER),
    "registry.put_computer": Request(
        "v1/computers/paris", OPERATOR, document=NOTHING, method="PUT"
    ),
    "registry.get_computers": Request("v1/computers", VIEWER),
    "registry.get_computer": Request("v1/computers/paris", COMPUTER | VIEWER),
    "registry.delete_computer": Request("v1/computers/nowhere", OPERATOR, method="DELETE"),
    "registry.put_measurement": Request(
        "v1/computers/paris/measurement", COMPUTER, document=NOTHING, method="PUT"
    ),
    "registry.put_build": Request(
        "v1/computers/paris/build", COMPUTER, document=NOTHING, method="PUT"
    ),
    "registry.get_due": Request("v1/computers/paris/due", COMPUTER),
    "registry.get_location": Request("v1/location", BOTH, query=PLACE),
    "registry.move_instance": Request("v1/instances/nothing/move", OPERATOR, document=NOTHING),
    "registry.get_status": Request("v1/status", VIEWER),
    "metrics.metrics": Request("metrics", VIEWER),
    "registration.request_computer": Request("Person_requestComputer", EVERYBODY, form=NOTHING),
    "registration.get_certificate": Request("Person_getCertificate", EVERYBODY, form=NOTHING),
    "registration.get_computer_token": Request(
        "hateoas/computer_module/Base_getComputerToken", OPERATOR
    ),
    "access.join": Request("v1/join", EVERYBODY, document=NOTHING),
    "access.renew": Request(
        "v1/renew",
        {"operator", "viewer", "computer", "other computer"},
        document=NOTHING,
    ),
    "access.post_token": Request("v1/tokens", OPERATOR, document=NOTHING),
    "access.get_users": Request("v1/users", VIEWER),
    "access.post_user": Request("v1/users", OPERATOR, document=NOTHING),
    "access.delete_user": Request("v1/users/nobody", OPERATOR, method="DELETE"),
    "access.get_certificates": Request("v1/certificates", VIEWER),
    "access.revoke_certificate": Request("v1/certificates/0/revoke", OPERATOR, document=NOTHING),
    "access.get_revoked": Request("v1/crl", CERTIFIED),
    "access.get_authority": Request("v1/ca", CERTIFIED),
    "cluster.get_cluster": Request("v1/cluster", INSTANCE, query=PLACE),
    "cluster.get_cluster_of_instance": Request("v1/clusters/cluster", VIEWER),
    "cluster.post_node_certificate": Request("v1/cluster/certificate", INSTANCE, document=PLACE),
    "cluster.post_user_certificate": Request(
        "v1/clusters/cluster/certificate", OPERATOR, document=NOTHING
    ),
    "operations.post_look": Request("v1/clusters/cluster/looks", VIEWER, document=NOTHING),
    "operations.post_operation": Request(
        "v1/clusters/cluster/operations", OPERATOR, document=NOTHING
    ),
    "operations.get_operations": Request("v1/clusters/cluster/operations", VIEWER),
    "operations.get_operation": Request("v1/clusters/cluster/operations/1", VIEWER),
    "operations.delete_operation": Request(
        "v1/clusters/cluster/operations/1", OPERATOR, method="DELETE"
    ),
    "operations.get_offered": Request("v1/cluster/operations", INSTANCE, query=PLACE),
    "operations.put_report": Request(
        "v1/cluster/operations/1", INSTANCE, document=PLACE, method="PUT"
    ),
}


@pytest.fixture(scope="module")
def callers(secure_cloud: SecureCloud) -> dict[str, Caller]:
    """Give one caller of each kind."""
    cloud = secure_cloud
    paris, tokyo = cloud.add_computer("paris"), cloud.add_computer("tokyo")
    for reference, computer in (("cluster", "paris"), ("other", "tokyo")):
        cloud.request(reference, filter_kw={"computer_guid": computer})
    return {
        "operator": cloud.operator,
        "viewer": cloud.viewer,
        "computer": paris,
        "instance": cloud.holder("partition", "SOFTINST-1"),
        "other computer": tokyo,
        "other instance": cloud.holder("partition", "SOFTINST-2"),
        "none": cloud.stranger,
    }


@pytest.mark.parametrize("endpoint", REQUESTS)
@pytest.mark.parametrize("caller", CALLERS)
def test_a_caller_may_do_what_the_table_says_and_nothing_else(
    callers: dict[str, Caller], caller: str, endpoint: str
):
    request = REQUESTS[endpoint]
    answer = request.send(callers[caller])
    refused = answer.status_code == 403 and " may not call " in answer.text
    assert refused == (caller not in request.allowed), answer.text
    assert answer.status_code < 500


HEADER = "X-SlapPartition computer_id={}, computer_partition_id={}"


@pytest.mark.parametrize(
    ("caller", "path", "query", "form"),
    [
        # A right in one place of the request does not cover a wrong in another.
        ("computer", "computerBang", {"computer_id": "tokyo"}, HOST),
        ("computer", "computerBang", HOST, {"computer_id": "tokyo"}),
        ("computer", "computerBang", {}, {"computer_id": ["paris", "tokyo"]}),
        ("instance", "softwareInstanceBang", PLACE, PLACE | {"computer_id": "tokyo"}),
        ("instance", "softwareInstanceBang", PLACE, {"computer_partition_id": "slappart1"}),
        # Not even the own computer's other partitions, or the own name elsewhere.
        ("instance", "softwareInstanceBang", {}, PLACE | {"computer_partition_id": "slappart1"}),
        ("instance", "softwareInstanceBang", {}, PLACE | {"computer_id": "tokyo"}),
        ("computer", "computerBang", {}, {}),
        ("instance", "softwareInstanceBang", {}, {}),
        # What a user requests is not for instances and computers.
        ("instance", "requestComputerPartition", {}, {}),
        ("computer", "requestComputerPartition", {}, {}),
        ("computer", "requestComputerPartition", {}, PLACE),
        # Neither a computer's configuration nor a second one beside it.
        (
            "other computer",
            "loadComputerConfigurationFromXML",
            {"xml": dumps(configuration("tokyo", [])).decode()},
            {"xml": dumps(configuration("paris", [])).decode()},
        ),
    ],
)
def test_nobody_acts_for_another_however_the_request_is_put(
    callers: dict[str, Caller], caller: str, path: str, query: Any, form: Any
):
    answer = callers[caller].ask("POST", path, params=query, data=form)
    assert answer.status_code == 403
    assert " may not call " in answer.text


@pytest.mark.parametrize("path", ["requestComputerPartition", "slapos.post.v0.software_instance"])
@pytest.mark.parametrize(
    ("caller", "place", "refused"),
    [
        ("instance", ("paris", "slappart0"), False),
        ("instance", ("paris", "slappart1"), True),
        ("instance", ("tokyo", "slappart0"), True),
        ("other instance", ("paris", "slappart0"), True),
        ("computer", ("paris", "slappart0"), True),
    ],
)
def test_an_instance_requests_others_from_its_own_partition_only(
    callers: dict[str, Caller], path: str, caller: str, place: tuple[str, str], refused: bool
):
    sent = {"data": {}} if path.startswith("request") else {"json": {}}
    headers = {"Authorization": HEADER.format(*place)}
    answer = callers[caller].ask("POST", path, headers=headers, **sent)
    assert (" may not call " in answer.text) == refused


def test_different_requests_of_an_instance_get_different_answers_again_and_again(
    secure_cloud: SecureCloud,
):
    cloud = secure_cloud
    cloud.add_computer("bern", partitions=4)
    root = cloud.request("repeating", filter_kw={"computer_guid": "bern"})
    library = cloud.holder("partition", root.getInstanceGuid()).slap
    partition = library.registerComputerPartition("bern", root.slap_computer_partition_id)
    sla = {"computer_guid": "bern"}
    for _ in range(3):
        guids = [
            partition.request(RELEASE, "default", name, filter_kw=sla).getInstanceGuid()
            for name in ("first", "second")
        ]
        assert len(set(guids)) == 2


def test_an_instance_reads_and_publishes_for_a_shared_instance_that_it_hosts(
    secure_cloud: SecureCloud, callers: dict[str, Caller]
):
    shared = secure_cloud.request("frontend", shared=True, filter_kw={"computer_guid": "paris"})
    document = {
        "instance_guid": shared.getInstanceGuid(),
        "connection_parameter_dict": {"url": "https://a.example"},
    }
    path = "slapos.put.v0.software_instance_connection_parameter"
    assert callers["instance"].ask("POST", path, json=document).status_code == 200
    assert callers["other instance"].ask("POST", path, json=document).status_code == 403


@pytest.mark.usefixtures("callers")
def test_a_right_that_is_lost_while_the_request_waits_is_not_used(
    secure_cloud: SecureCloud, monkeypatch: pytest.MonkeyPatch
):
    cloud, waits = secure_cloud, threading.Event()
    instance = cloud.request("brief", filter_kw={"computer_guid": "tokyo"})
    caller = cloud.holder("partition", instance.getInstanceGuid())
    place = {"computer_id": "tokyo", "computer_partition_id": instance.getId()}
    assert caller.ask("POST", "softwareInstanceBang", data=place).status_code == 200
    stock_writing = Database.writing

    def writing(database: Database, who: str = "master"):
        waits.set()
        return stock_writing(database, who)

    with ThreadPoolExecutor(1) as pool:
        with cloud.database.writing() as session:
            monkeypatch.setattr(Database, "writing", writing)
            answer = pool.submit(caller.ask, "POST", "softwareInstanceBang", data=place)
            assert waits.wait(240)
            registry.instance(session, instance.getInstanceGuid()).partition = None
        assert answer.result().status_code == 403
    assert " may not call " in answer.result().text


SECRETS = {"password": "hunter2", "url": "mysql://root:hunter2@a.example/b", "count": "3"}


@pytest.mark.usefixtures("callers")
def test_a_viewer_sees_everything_but_secrets(secure_cloud: SecureCloud):
    cloud = secure_cloud
    instance = cloud.request("secretive", partition_parameter_kw=SECRETS)
    partition = cloud.holder(
        "partition", instance.getInstanceGuid()
    ).slap.registerComputerPartition(instance._computer_id, instance.getId())
    partition.setConnectionDict(SECRETS)
    relative = f"hateoas/document?relative_url=instance_tree/{instance.getInstanceGuid()}"
    query = '("Software Instance", "Slave Instance") AND validation_state:validated'
    search = f'hateoas/search?query=portal_type:{query} AND default_specialise_title:="secretive"'
    for path in ("v1/instances/secretive", "v1/instances", "v1/status", relative, search):
        shown = {
            caller: client.ask("GET", path).text
            for caller, client in (("viewer", cloud.viewer), ("operator", cloud.operator))
        }
        assert "hunter2" in shown["operator"]
        assert "hunter2" not in shown["viewer"]
        assert "(hidden)" in shown["viewer"]
        assert "a.example" in shown["viewer"]


@pytest.fixture
def application(tmp_path) -> Iterator[Flask]:
    database = Database(tmp_path / "master.sqlite")
    yield create_application(database)
    database.close()


def test_every_endpoint_has_a_rule_and_is_tried(application: Flask):
    endpoints = {rule.endpoint for rule in application.url_map.iter_rules()}
    assert endpoints == set(RULES)
    assert endpoints == set(REQUESTS)


def test_an_endpoint_without_a_rule_is_refused_to_operators_too(application: Flask):
    application.add_url_rule("/new", "new", lambda: "secret")
    client = application.test_client()
    answer = client.get("/new", environ_base={"REMOTE_ADDR": "127.0.0.1"})
    assert answer.status_code == 403
    assert b"secret" not in answer.data


def test_somebody_without_a_certificate_learns_not_even_what_there_is(
    callers: dict[str, Caller],
):
    for path in ("v1/nothing", "nothing", "", "v1/health", "static/a"):
        answer = callers["none"].ask("GET", path)
        assert answer.status_code == 403
        assert "join with a token" in answer.text
    assert callers["operator"].ask("GET", "v1/nothing").status_code == 404
