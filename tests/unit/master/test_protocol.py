# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the slap library, slapgrid and the recipes get from the master."""

from __future__ import annotations

import json

import pytest
import requests
import slapos.slap
from master_cloud import RELEASE, Cloud

OTHER_RELEASE = "https://example.org/software/neo/1.1/software.cfg"


def test_a_user_gets_an_instance_with_its_place_and_parameters(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request(
        "cluster", partition_parameter_kw={"count": 3, "name": "é & <b>"}, software_type="neo"
    )
    assert instance.getId() == "slappart0"
    assert instance.getState() == "started"
    parameters = cloud.partition(instance).getInstanceParameterDict()
    assert parameters["count"] == "3"
    assert parameters["name"] == "é & <b>"
    assert parameters["slap_software_type"] == "neo"
    assert parameters["instance_title"] == parameters["root_instance_title"] == "cluster"
    assert parameters["ip_list"] == [("tap0", "10.0.0.0")]
    assert cloud.partition(instance).getSoftwareRelease().getURI() == RELEASE
    assert cloud.partition(instance).getInstanceGuid() == instance.getInstanceGuid()


def test_json_serialised_parameters_pass_through_untouched(cloud: Cloud):
    cloud.add_computer("paris")
    text = json.dumps({"storage-count": 3, "names": ["a", "b"], "text": "&lt;é\n"}, indent=2)
    instance = cloud.request("cluster", partition_parameter_kw={"_": text})
    assert cloud.partition(instance).getInstanceParameterDict()["_"] == text


def test_a_placed_instance_brings_its_release_to_its_computer(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("cluster")
    (release,) = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    assert (release.getURI(), release.getState()) == (RELEASE, "available")


def test_an_unchanged_request_leaves_the_timestamp(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request("cluster", partition_parameter_kw={"a": "1"})
    before = cloud.timestamp(instance)
    again = cloud.request("cluster", partition_parameter_kw={"a": "1"})
    assert again.getInstanceGuid() == instance.getInstanceGuid()
    assert cloud.timestamp(instance) == before


@pytest.mark.parametrize(
    ("text", "is_change"),
    [('{"b": [2, 1], "a": 1}', False), ('{"a": true, "b": [2, 1]}', True)],
)
def test_json_parameters_are_new_when_their_values_are(cloud: Cloud, text: str, is_change: bool):
    cloud.add_computer("paris")
    instance = cloud.request("cluster", partition_parameter_kw={"_": '{"a":1,"b":[2,1]}'})
    before = cloud.partition(instance).getInstanceParameterDict()["timestamp"]
    cloud.request("cluster", partition_parameter_kw={"_": text})
    after = cloud.partition(instance).getInstanceParameterDict()["timestamp"]
    assert (after != before) == is_change


@pytest.mark.parametrize(
    "change",
    [
        {"partition_parameter_kw": {"a": "2"}},
        {"software_type": "other"},
        {"release": OTHER_RELEASE},
        {"state": "stopped"},
    ],
)
def test_a_changed_request_makes_the_partition_due(cloud: Cloud, change: dict):
    cloud.add_computer("paris")
    instance = cloud.request("cluster", partition_parameter_kw={"a": "1"})
    before = cloud.timestamp(instance)
    cloud.request("cluster", **({"partition_parameter_kw": {"a": "1"}} | change))
    assert cloud.timestamp(instance) > before


def test_a_new_release_url_upgrades_in_place(cloud: Cloud):
    cloud.add_computer("paris")
    before = cloud.request("cluster")
    after = cloud.request("cluster", release=OTHER_RELEASE)
    assert after.getInstanceGuid() == before.getInstanceGuid()
    assert after.getId() == before.getId()
    assert cloud.partition(after).getSoftwareRelease().getURI() == OTHER_RELEASE
    releases = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    assert [each.getURI() for each in releases] == [RELEASE, OTHER_RELEASE]


def test_a_child_on_another_computer_makes_its_root_due_when_it_publishes(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    child = cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo"})
    assert child.slap_computer_id == "tokyo"
    before = cloud.timestamp(root)
    cloud.partition(child).setConnectionDict({"url": "neo://10.0.0.1:1"})
    published = cloud.timestamp(root)
    assert published > before
    cloud.partition(child).setConnectionDict({"url": "neo://10.0.0.1:1"})
    assert cloud.timestamp(root) == published
    again = cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo"})
    assert again.getConnectionParameter("url") == "neo://10.0.0.1:1"


def test_a_childs_new_reported_state_makes_its_root_due_once(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    before = cloud.timestamp(root)
    cloud.partition(child).started()
    reported = cloud.timestamp(root)
    assert reported > before
    cloud.partition(child).started()
    cloud.partition(child).error("a promise fails")
    cloud.partition(child).started()
    assert cloud.timestamp(root) == reported


def test_children_keep_the_name_of_their_root(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    grandchild = cloud.request_from(child, "cell")
    parameters = cloud.partition(grandchild).getInstanceParameterDict()
    assert parameters["instance_title"] == "cell"
    assert parameters["root_instance_title"] == "cluster"


def test_two_trees_use_the_same_names_without_meeting(cloud: Cloud):
    cloud.add_computer("paris", partitions=4)
    guids = {
        cloud.request_from(cloud.request(root), "storage").getInstanceGuid()
        for root in ("one", "two")
    }
    assert len(guids) == 2


def test_children_no_longer_requested_are_destroyed(cloud: Cloud):
    cloud.add_computer("paris", partitions=4)
    root = cloud.request("cluster")
    kept = cloud.request_from(root, "storage-0")
    dropped = cloud.request_from(root, "storage-1")
    grandchild = cloud.request_from(dropped, "cell")
    cloud.partition(root).setComputerPartitionRelatedInstanceList(["storage-0"])
    assert cloud.partition(kept).getState() == "started"
    assert cloud.partition(dropped).getState() == "destroyed"
    assert cloud.partition(grandchild).getState() == "destroyed"


def test_destroying_a_root_destroys_its_tree_and_frees_its_partitions(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    child = cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo"})
    before = cloud.timestamp(child)
    cloud.request("cluster", state="destroyed")
    assert cloud.timestamp(child) > before
    for instance in (root, child):
        partition = cloud.partition(instance)
        assert partition.getState() == "destroyed"
        assert partition.getSoftwareRelease().getURI() == RELEASE
        partition.destroyed()
        partition.destroyed()  # slapgrid repeats a report whose answer was lost
        with pytest.raises(slapos.slap.NotFoundError):
            cloud.partition(instance).getSoftwareRelease()
    assert cloud.client.instances() == []


def test_a_name_is_free_at_once_while_its_old_instance_is_being_destroyed(cloud: Cloud):
    cloud.add_computer("paris")
    old = cloud.request("cluster")
    assert cloud.request("cluster", state="destroyed").getState() == "destroyed"
    new = cloud.request("cluster")
    assert (old.getId(), new.getId()) == ("slappart0", "slappart1")
    assert new.getInstanceGuid() != old.getInstanceGuid()
    with pytest.raises(slapos.slap.ServerError, match=r"full \(2 of 2 partitions in use\)"):
        cloud.request("third")


def test_destroying_twice_is_one_destruction(cloud: Cloud):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    for _ in range(2):
        assert cloud.request_from(root, "storage", state="destroyed").getState() == "destroyed"
    cloud.partition(child).destroyed()
    assert cloud.request_from(root, "storage", state="destroyed").getState() == "destroyed"
    assert cloud.request_from(root, "never-was", state="destroyed").getState() == "destroyed"
    assert cloud.client.instance("cluster")["children"] == []


def test_a_user_who_destroys_what_never_was_is_told(cloud: Cloud):
    with pytest.raises(requests.HTTPError, match="no instance 'typo' to destroy"):
        cloud.request("typo", state="destroyed")


def test_stopping_a_root_stops_its_tree_and_starting_restores_it(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    running = cloud.request_from(root, "running")
    stopped = cloud.request_from(root, "stopped", state="stopped")
    cloud.request("cluster", state="stopped")
    assert cloud.partition(running).getState() == "stopped"
    assert cloud.request_from(root, "running", state="started").getState() == "stopped"
    cloud.request("cluster", state="started")
    assert cloud.partition(running).getState() == "started"
    assert cloud.partition(stopped).getState() == "stopped"


def test_an_instance_that_is_being_destroyed_may_request_nothing(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    cloud.request("cluster", state="destroyed")
    with pytest.raises(requests.HTTPError, match="is being destroyed"):
        cloud.request_from(root, "storage")


def test_a_partition_that_holds_nothing_may_request_nothing(cloud: Cloud):
    cloud.add_computer("paris")
    with pytest.raises(slapos.slap.NotFoundError):
        cloud.slap.registerComputerPartition("paris", "slappart0").request(RELEASE, "default", "x")
    assert cloud.client.instances() == []


def test_an_instance_cannot_request_its_own_requester(cloud: Cloud):
    cloud.add_computer("paris", partitions=4)
    child = cloud.request_from(cloud.request("cluster"), "storage")
    grandchild = cloud.request_from(child, "cell")
    with pytest.raises(requests.HTTPError, match="which is itself or requested it"):
        cloud.request_from(grandchild, "storage")


def test_a_child_requested_by_another_instance_of_its_tree_moves_to_it(cloud: Cloud):
    cloud.add_computer("paris", partitions=4)
    root = cloud.request("cluster")
    first, second = (cloud.request_from(root, name) for name in ("first", "second"))
    shared = cloud.request_from(first, "cell")
    assert cloud.request_from(second, "cell").getInstanceGuid() == shared.getInstanceGuid()
    cloud.partition(first).setComputerPartitionRelatedInstanceList([])
    assert cloud.partition(shared).getState() == "started"
    cloud.partition(second).setComputerPartitionRelatedInstanceList([])
    assert cloud.partition(shared).getState() == "destroyed"


def test_errors_are_kept_until_the_next_good_report(cloud: Cloud):
    cloud.add_computer("paris")
    partition = cloud.partition(cloud.request("cluster"))
    partition.error("promise check-port failed\n10.0.0.1:1 refused")
    reported = cloud.client.instance("cluster")
    assert reported["error"]["text"].startswith("promise check-port failed")
    assert reported["error"]["time"]
    partition.started()
    reported = cloud.client.instance("cluster")
    assert (reported["error"], reported["reported_state"]) == (None, "started")


def test_an_error_with_terminal_colours_reaches_the_requester(cloud: Cloud):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    cloud.partition(child).error("While:\n  \x1b[31mInstalling neo.\x1b[0m\ufffe")
    again = cloud.request_from(root, "storage")
    assert again.getAccessStatus() == "#error   ?[31mInstalling neo.?[0m?"
    cloud.partition(child).error(" \n")
    again = cloud.request_from(root, "storage")
    assert again.getAccessStatus() == "#error no text was reported"


def test_an_instance_is_settled_once_its_newest_change_was_read_and_reported(cloud: Cloud):
    cloud.add_computer("paris")

    def settled() -> bool:
        return cloud.client.instance("cluster")["settled"]

    instance = cloud.request("cluster")
    pass_before = cloud.partition(instance)
    assert not settled()
    pass_before.started()
    assert settled()
    cloud.request("cluster", partition_parameter_kw={"a": "2"})
    assert not settled()
    # A run that began before the change ends after it.
    pass_before.started()
    assert not settled()
    pass_after = cloud.partition(instance)
    pass_after.error("a promise fails")
    assert not settled()
    pass_after.started()
    assert settled()


def test_slapgrid_repeats_reports_only_while_something_is_wrong(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request("cluster")
    cloud.partition(instance).started()
    assert cloud.partition(instance).getAccessStatus().startswith("#access")
    cloud.partition(instance).error("a promise fails")
    assert cloud.partition(instance).getAccessStatus() is None


def test_a_banged_instance_makes_its_whole_tree_due_and_no_other(cloud: Cloud):
    cloud.add_computer("paris", partitions=4)
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    other = cloud.request("other")
    before = [cloud.timestamp(each) for each in (root, child, other)]
    cloud.partition(child).bang("something happened")
    after = [cloud.timestamp(each) for each in (root, child, other)]
    assert [new > old for new, old in zip(after, before, strict=True)] == [True, True, False]


def test_a_banged_computer_makes_its_instances_due(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    here = cloud.request("here", filter_kw={"computer_guid": "paris"})
    there = cloud.request("there", filter_kw={"computer_guid": "tokyo"})
    before = [cloud.timestamp(each) for each in (here, there)]
    cloud.slap.registerComputer("paris").bang("rebooted")
    after = [cloud.timestamp(each) for each in (here, there)]
    assert [new > old for new, old in zip(after, before, strict=True)] == [True, False]


def test_a_release_goes_from_supplied_to_built_to_removed(cloud: Cloud):
    cloud.add_computer("paris")

    def state() -> list[tuple[str, str]]:
        (computer,) = cloud.client.computers()
        return [(each["requested_state"], each["reported_state"]) for each in computer["software"]]

    cloud.slap.registerSupply().supply(RELEASE, "paris")
    assert state() == [("available", "")]
    (release,) = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    release.building()
    assert state() == [("available", "building")]
    release.error("gcc: not found")
    assert state() == [("available", "error")]
    assert cloud.client.status()["software"][0]["error"] == "gcc: not found"
    release.available()
    assert state() == [("available", "available")]
    cloud.slap.registerSupply().supply(RELEASE, "paris", "destroyed")
    (release,) = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    assert release.getState() == "destroyed"
    release.destroyed()
    assert state() == []


def test_instances_become_due_when_their_failed_release_is_built_at_last(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request("cluster")
    (release,) = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    release.error("no network")
    before = cloud.timestamp(instance)
    release.building()
    release.available()
    assert cloud.timestamp(instance) > before


def test_a_release_in_use_is_not_removed(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("cluster")
    with pytest.raises(requests.HTTPError, match="in use on paris by cluster"):
        cloud.slap.registerSupply().supply(RELEASE, "paris", "destroyed")
    cloud.request("cluster", state="destroyed")
    cloud.slap.registerSupply().supply(RELEASE, "paris", "destroyed")


def test_supplying_to_an_unknown_computer_is_refused(cloud: Cloud):
    with pytest.raises(slapos.slap.NotFoundError, match="Computer nowhere has not been found"):
        cloud.slap.registerSupply().supply(RELEASE, "nowhere")


def test_format_may_come_before_registration(cloud: Cloud):
    cloud.format("paris", ["slappart0"])
    cloud.client.put_computer("paris", datacenter="paris-1")
    (computer,) = cloud.client.computers()
    assert (computer["datacenter"], computer["partitions"]) == ("paris-1", 1)


def test_format_never_loses_a_partition_in_use(cloud: Cloud):
    cloud.add_computer("paris", partitions=2)
    instance = cloud.request("cluster")
    cloud.format("paris", ["slappart7"])
    assert cloud.partition(instance).getState() == "started"
    assert cloud.request("second").getId() == "slappart7"
    with pytest.raises(slapos.slap.ServerError, match="full"):
        cloud.request("third")
    cloud.request("cluster", state="destroyed")
    cloud.partition(instance).destroyed()
    (document,) = cloud.slap.registerComputer("paris").getComputerPartitionList()
    assert document.getId() == "slappart7"


def test_a_partition_named_twice_by_format_is_refused(cloud: Cloud):
    with pytest.raises(requests.HTTPError, match="names partition 'slappart1' twice"):
        cloud.format("paris", ["slappart1", "slappart1"])
    assert cloud.client.computers() == []


def test_partition_certificates_are_empty_files_that_slapgrid_accepts(cloud: Cloud):
    cloud.add_computer("paris")
    partition = cloud.slap.registerComputerPartition("paris", "slappart0")
    assert partition.getCertificate() == {"certificate": "", "key": ""}


def test_products_resolve_to_their_release(cloud: Cloud):
    cloud.client.put_product("wendelin-cluster", RELEASE)
    find = cloud.slap.getSoftwareReleaseListFromSoftwareProduct
    assert find("wendelin-cluster") == [RELEASE]
    assert find("unknown") == []


def test_usage_reports_are_accepted(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.slap.registerComputer("paris").reportUsage("<journal/>")


def test_the_hateoas_routes_list_and_describe(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request('my "cluster"', partition_parameter_kw={"_": '{"a": 1}'})
    cloud.partition(instance).setConnectionDict({"url": "neo://"})
    assert list(cloud.slap.getComputerDict()) == ["paris"]
    assert cloud.slap.registerComputer("paris").getInformation()._title == "paris"
    with pytest.raises(slapos.slap.NotFoundError):
        cloud.slap.registerComputer("nowhere").getInformation()
    trees = cloud.slap.getOpenOrderDict()
    assert trees['my "cluster"']._software_release_url == RELEASE
    described = cloud.slap.registerOpenOrder().getInformation('my "cluster"')
    assert described._parameter_dict == {"_": {"a": 1}}
    assert described._connection_dict == [{"connection_key": "url", "connection_value": "neo://"}]
    assert described._requested_state == "started"
    with pytest.raises(slapos.slap.NotFoundError):
        cloud.slap.registerOpenOrder().getInformation("other")


def test_a_renamed_instance_keeps_its_guid_and_is_requested_under_its_new_name(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    before = cloud.timestamp(child)
    cloud.partition(child).rename("archive")
    assert cloud.timestamp(child) > before
    assert cloud.partition(child).getInstanceParameterDict()["instance_title"] == "archive"
    assert cloud.request_from(root, "archive").getInstanceGuid() == child.getInstanceGuid()
    assert cloud.request_from(root, "storage").getInstanceGuid() != child.getInstanceGuid()
    with pytest.raises(requests.HTTPError, match="has the name 'storage'"):
        cloud.partition(child).rename("storage")


def test_a_requester_is_known_by_the_header_or_by_the_form_and_not_by_two_names(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster")
    form = {"software_release": RELEASE, "partition_reference": "storage"}
    place = {"computer_id": "paris", "computer_partition_id": root.getId()}
    header = f"X-SlapPartition computer_id=paris, computer_partition_id={root.getId()}"
    other = "X-SlapPartition computer_id=paris, computer_partition_id=slappart2"
    url = f"{cloud.url}requestComputerPartition"
    for data, headers in ((form, {"Authorization": header}), (form | place, {})):
        assert requests.post(url, data=data, headers=headers, timeout=60).status_code == 200
        (child,) = cloud.client.instance("cluster")["children"]
        assert child["reference"] == "storage"
    answer = requests.post(url, data=form | place, headers={"Authorization": other}, timeout=60)
    assert answer.status_code == 400
    assert "name different partitions" in answer.reason


def test_a_partition_without_an_instance_requests_nothing(cloud: Cloud):
    cloud.add_computer("paris")
    free = cloud.slap.registerComputerPartition("paris", "slappart1")
    with pytest.raises(slapos.slap.NotFoundError):
        free.request(RELEASE, "default", "storage")
    assert cloud.client.instances() == []


def test_the_slap_library_reads_the_news_of_computers_instances_and_releases(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster", partition_parameter_kw={"a": "1"})
    child = cloud.request_from(root, "storage")
    cloud.partition(child).error("first line\nno disk")
    (release,) = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    release.available()
    navigator = cloud.slap._hateoas_navigator
    instances = navigator.getInstanceTreeInstanceList("cluster")
    assert [each["title"] for each in instances] == ["cluster", "storage"]
    assert instances[1]["SoftwareInstance_getNewsDict"]["text"] == "#error no disk"
    assert navigator.getComputerPartitionNews("paris", child.getId()) == "#error no disk"
    assert navigator.getComputerPartitionNews("paris", "slappart2") == "#error no data found"
    assert "was last in contact at" in navigator.getComputerNews("paris")
    news = navigator.getSoftwareInstallationNews("paris", RELEASE)
    assert news == "#access Software Release is available"


def test_the_addresses_of_a_whole_tree_are_told(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    cloud.add_computer("tokyo", partitions=1)
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    child = cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo"})
    for each in (root, child):
        assert cloud.partition(each).getFullHostingIpAddressList() == [("tap0", "10.0.0.0")] * 2


@pytest.mark.parametrize(
    "query",
    ["portal_type:Person", 'portal_type:"Compute Node" AND validation_state:validated OR 1'],
)
def test_an_unknown_query_is_refused(cloud: Cloud, query: str):
    answer = requests.get(f"{cloud.url}hateoas/search", params={"query": query}, timeout=60)
    assert answer.status_code == 400
    assert "is not known" in answer.text
