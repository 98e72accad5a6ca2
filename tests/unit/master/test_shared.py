# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users get of shared instances, which another instance hosts."""

from __future__ import annotations

import pytest
import requests
import slapos.slap
from master_cloud import RELEASE, Cloud


def hosted(cloud: Cloud, provider) -> list[dict]:
    """Return the shared instances that a provider finds among its parameters."""
    return cloud.partition(provider).getInstanceParameterDict()["slave_instance_list"]


def names(cloud: Cloud, provider) -> list[str]:
    """Return the names of the shared instances that a provider finds."""
    return [each["slave_title"] for each in hosted(cloud, provider)]


def test_a_shared_instance_is_found_by_its_provider_with_its_parameters(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    before = cloud.timestamp(provider)
    site = cloud.request("site", shared=True, partition_parameter_kw={"url": "http://a", "n": 2})
    assert site.getId() == provider.getId()
    assert site.slap_computer_id == "paris"
    assert site.getState() == "started"
    (entry,) = hosted(cloud, provider)
    assert (entry["url"], entry["n"]) == ("http://a", "2")
    assert entry["slave_title"] == "site"
    assert entry["slave_reference"] == site.getInstanceGuid()
    assert entry["slap_software_type"] == "default"
    assert cloud.timestamp(provider) == int(entry["timestamp"].replace(".", "")) > before


def test_a_shared_instance_takes_no_partition_and_no_release(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    cloud.request("frontend")
    for name in ("one", "two"):
        cloud.request(name, shared=True)
    (computer,) = cloud.client.computers()
    assert (computer["partitions_used"], len(computer["software"])) == (1, 1)


def test_every_change_makes_the_provider_due_and_repeating_does_not(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    changes = [
        {},
        {"partition_parameter_kw": {"url": "http://b"}},
        {"partition_parameter_kw": {"url": "http://b"}, "state": "stopped"},
        {"partition_parameter_kw": {"url": "http://b"}, "state": "started"},
        {"state": "destroyed"},
    ]
    for change in changes:
        before = cloud.timestamp(provider)
        cloud.request("site", shared=True, **change)
        changed = cloud.timestamp(provider)
        assert changed > before
        cloud.request("site", shared=True, **change)
        assert cloud.timestamp(provider) == changed


def test_a_stopped_one_is_not_in_the_providers_list_until_started_again(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    cloud.request("site", shared=True)
    cloud.request("site", shared=True, state="stopped")
    assert names(cloud, provider) == []
    cloud.request("site", shared=True, state="started")
    assert names(cloud, provider) == ["site"]


def test_what_the_provider_publishes_for_it_reaches_its_requester_only(cloud: Cloud):
    cloud.add_computer("paris", partitions=4)
    provider = cloud.request("frontend", software_type="frontend")
    root = cloud.request("cluster")
    child = cloud.request_from(root, "node")
    cloud.request_from(child, "site", shared=True, software_type="frontend")
    before = cloud.timestamp(root), cloud.timestamp(child)
    (entry,) = hosted(cloud, provider)
    reference = entry["slave_reference"]
    cloud.partition(provider).setConnectionDict({"domain": "a.example"}, reference)
    assert cloud.timestamp(root) == before[0]
    published = cloud.timestamp(child)
    assert published > before[1]
    again = cloud.request_from(child, "site", shared=True, software_type="frontend")
    assert again.getConnectionParameter("domain") == "a.example"
    cloud.partition(provider).setConnectionDict({"domain": "a.example"}, reference)
    assert cloud.timestamp(child) == published
    assert cloud.partition(provider).getConnectionParameterDict() == {}


def test_its_error_is_its_own_and_goes_when_it_is_published_for_again(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    reference = cloud.request("site", shared=True).getInstanceGuid()
    cloud.partition(provider).error("no such host", slave_reference=reference)
    assert cloud.client.instance("site")["error"]["text"] == "no such host"
    assert cloud.client.instance("frontend")["error"] is None
    cloud.partition(provider).setConnectionDict({"domain": "a.example"}, reference)
    assert cloud.client.instance("site")["error"] is None


def test_it_is_settled_when_its_provider_has_read_its_change_and_reported(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    cloud.partition(provider).started()
    cloud.request("site", shared=True)
    cloud.slap.registerComputerPartition("paris", provider.getId()).started()
    assert not cloud.client.instance("site")["settled"]
    cloud.partition(provider).started()
    shown = cloud.client.instance("site")
    assert (shown["settled"], shown["reported_state"]) == (True, "started")
    assert (shown["shared"], shown["provider"]) == (True, provider.getInstanceGuid())
    assert (shown["computer"], shown["partition"]) == ("paris", provider.getId())


def test_those_that_its_requester_gave_up_are_destroyed(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    provider = cloud.request("frontend", software_type="frontend")
    root = cloud.request("cluster")
    for name in ("kept", "dropped"):
        cloud.request_from(root, name, shared=True, software_type="frontend")
    cloud.partition(root).setComputerPartitionRelatedInstanceList(["kept"])
    assert names(cloud, provider) == ["kept"]
    (child,) = cloud.client.instance("cluster")["children"]
    assert child["reference"] == "kept"


def test_they_go_with_the_tree_that_requested_them(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    provider = cloud.request("frontend", software_type="frontend")
    root = cloud.request("cluster")
    cloud.request_from(root, "site", shared=True, software_type="frontend")
    cloud.request("cluster", state="stopped")
    assert names(cloud, provider) == []
    cloud.request("cluster", state="destroyed")
    cloud.partition(root).destroyed()
    assert [each["reference"] for each in cloud.client.instances()] == ["frontend"]


def test_a_provider_that_others_use_cannot_be_destroyed_before_them(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    guid = cloud.request("site", shared=True).getInstanceGuid()
    with pytest.raises(requests.HTTPError, match=rf"hosts shared instances: site \({guid}\)"):
        cloud.request("frontend", state="destroyed")
    assert cloud.partition(provider).getState() == "started"
    cloud.request("site", shared=True, state="destroyed")
    cloud.request("frontend", state="destroyed")
    cloud.partition(provider).destroyed()
    assert cloud.client.instances() == []


def test_a_tree_that_hosts_only_its_own_shared_instances_is_destroyed_at_once(cloud: Cloud):
    cloud.add_computer("paris", partitions=2)
    root = cloud.request("cluster", software_type="root")
    provider = cloud.request_from(root, "frontend")
    cloud.request_from(root, "site", shared=True)
    cloud.request("cluster", software_type="root", state="destroyed")
    for each in (root, provider):
        cloud.partition(each).destroyed()
    assert cloud.client.instances() == []


def test_a_provider_that_its_requester_gave_up_stays_until_others_have_left(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    root = cloud.request("cluster", software_type="root")
    provider = cloud.request_from(root, "frontend")
    cloud.request("site", shared=True)
    cloud.partition(root).setComputerPartitionRelatedInstanceList([])
    assert cloud.partition(provider).getState() == "started"
    before = cloud.timestamp(root)
    cloud.request("site", shared=True, state="destroyed")
    assert cloud.timestamp(root) > before
    cloud.partition(root).setComputerPartitionRelatedInstanceList([])
    assert cloud.partition(provider).getState() == "destroyed"


def test_the_provider_with_the_fewest_shared_instances_is_chosen(cloud: Cloud):
    cloud.add_computer("paris", partitions=2)
    providers = [cloud.request(name) for name in ("one", "two")]
    for number in range(4):
        cloud.request(f"site-{number}", shared=True)
    assert [len(hosted(cloud, each)) for each in providers] == [2, 2]


def test_the_sla_chooses_the_providers_place_or_the_provider(cloud: Cloud):
    cloud.add_computer("paris", datacenter="paris")
    cloud.add_computer("tokyo", datacenter="tokyo")
    cloud.request("one", filter_kw={"computer_guid": "paris"})
    tokyo = cloud.request("two", filter_kw={"computer_guid": "tokyo"})
    for filter_kw in (
        {"datacenter": "tokyo"},
        {"computer_guid": "tokyo"},
        {"instance_guid": tokyo.getInstanceGuid()},
    ):
        name = "-".join(filter_kw)
        site = cloud.request(name, shared=True, filter_kw=filter_kw)
        assert site.slap_computer_id == "tokyo"
        assert name in names(cloud, tokyo)


def test_without_a_provider_the_refusal_says_why(cloud: Cloud):
    cloud.add_computer("paris", datacenter="paris", partitions=1)
    with pytest.raises(slapos.slap.ServerError, match="can host it: there is none"):
        cloud.request("site", shared=True)
    provider = cloud.request("frontend")
    with pytest.raises(slapos.slap.ServerError) as refusal:
        cloud.request("site", shared=True, filter_kw={"datacenter": "tokyo"})
    assert f"no instance of {RELEASE} with software type 'default'" in str(refusal.value)
    guid = provider.getInstanceGuid()
    assert f"paris, {guid}: data center is paris, asked for tokyo" in str(refusal.value)
    with pytest.raises(slapos.slap.ServerError, match="there is none"):
        cloud.request("site", shared=True, software_type="other")
    assert [each["reference"] for each in cloud.client.instances()] == ["frontend"]


def test_a_shared_instance_hosts_none(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    cloud.request("frontend")
    guid = cloud.request("site", shared=True).getInstanceGuid()
    with pytest.raises(slapos.slap.ServerError, match=f"asked for {guid}"):
        cloud.request("page", shared=True, filter_kw={"instance_guid": guid})


@pytest.mark.parametrize("shared", [True, False])
def test_the_kind_of_an_instance_stays(cloud: Cloud, shared: bool):
    cloud.add_computer("paris")
    cloud.request("frontend")
    cloud.request("site", shared=not shared)
    with pytest.raises(requests.HTTPError, match="a shared instance"):
        cloud.request("site", shared=shared)
    assert cloud.client.instance("site")["shared"] is not shared


def test_another_instance_cannot_publish_for_it(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("frontend")
    other = cloud.request("other", software_type="other")
    reference = cloud.request("site", shared=True).getInstanceGuid()
    with pytest.raises(slapos.slap.NotFoundError):
        cloud.partition(other).setConnectionDict({"domain": "evil.example"}, reference)
    assert cloud.client.instance("site")["connection"] == {}


def test_it_stays_with_its_provider_when_either_is_upgraded(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    cloud.request("site", shared=True)
    cloud.request("frontend", release="https://example.org/1.1/software.cfg")
    cloud.request("site", shared=True, partition_parameter_kw={"url": "http://b"})
    (entry,) = hosted(cloud, provider)
    assert entry["url"] == "http://b"


def test_renaming_shows_in_the_providers_list(cloud: Cloud):
    cloud.add_computer("paris", partitions=1)
    provider = cloud.request("frontend")
    reference = cloud.request("site", shared=True).getInstanceGuid()
    cloud.partition(provider).rename("page", slave_reference=reference)
    assert names(cloud, provider) == ["page"]
    assert cloud.request("page", shared=True).getInstanceGuid() == reference
