# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory of hosts is read as it is meant, and every fault in it is named with its place."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from slapos_wendelin.cli.inventory import InventoryError, read_inventory
from slapos_wendelin.compiled.keys import make_key
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.remote.errors import HostError
from slapos_wendelin.remote.fleet import Names, for_all
from slapos_wendelin.remote.target import Address, parse_address, parse_jumps

INVENTORY = """
defaults:
  user: admin
  partitions: 20
  labels: {owner: us}
datacenters:
  paris:
    region: eu
    jump: ops@bastion.example.org:2222, inner
    hosts:
      - 192.0.2.10
      - address: root@192.0.2.11:2200
        name: paris-big
        partitions: 40
        addresses: 192.0.2.64/26
        labels: {storage_type: ssd}
  tokyo:
    partitions: 4
    hosts: [{address: "2001:db8::1"}]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "computers.yaml"
    path.write_text(text)
    return path


def test_the_nearest_to_a_host_counts(tmp_path: Path) -> None:
    first, second, third = read_inventory(written(tmp_path, INVENTORY))
    assert first.address == Address("192.0.2.10", None, "admin")
    assert first.jumps == (Address("bastion.example.org", 2222, "ops"), Address("inner"))
    assert (first.datacenter, first.region, first.partitions) == ("paris", "eu", 20)
    assert second.address == Address("192.0.2.11", 2200, "root")
    assert (second.name, second.partitions) == ("paris-big", 40)
    assert second.labels == {"owner": "us", "storage_type": "ssd"}
    assert second.addresses == "192.0.2.64/26"
    assert (third.datacenter, third.region, third.partitions) == ("tokyo", "", 4)
    assert third.address.host == "2001:db8::1"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("partitions: 4", "partitions: many", ':18: datacenters.tokyo.partitions: "many" must be'),
        (
            "partitions: 40",
            "partitions: 0",
            ":14: datacenters.paris.hosts.1.partitions: 0 must be at",
        ),
        (
            "    region: eu",
            "    regoin: eu",
            ":8: datacenters.paris.regoin: unknown key, did you mean",
        ),
        ("name: paris-big", "name: a b", 'hosts.1.name: "a b" must match'),
        ("[{address:", "[{adress:", "unknown key, did you mean address?"),
        ("192.0.2.64/26", "192.0.2.65/26", "has host bits set"),
        ("192.0.2.64/26", "192.0.2.64/30", "4 addresses for 40 partitions"),
        ("192.0.2.10", "root@192.0.2.11:2200", "is given twice"),
        ("root@192.0.2.11:2200", "http://192.0.2.11", "no address for SSH"),
        ("root@192.0.2.11:2200", "192.0.2.11:99999", "the port is none"),
        ("root@192.0.2.11:2200", "ssh://a:b@192.0.2.11", "holds a password"),
        ("  tokyo:", "  paris:", "'paris' is given twice, in lines 7 and 17"),
    ],
)
def test_a_fault_is_named_with_its_place_its_value_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    assert old in INVENTORY
    path = written(tmp_path, INVENTORY.replace(old, new))
    with pytest.raises(ParameterError) as caught:
        read_inventory(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)


def test_hosts_share_a_cache_and_one_may_do_without(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    text = INVENTORY.replace(
        "  labels: {owner: us}\n",
        "  labels: {owner: us}\n  compiled-cache: https://cache.example.org\n"
        f"  compiled-cache-keys: ['{key}']\n  source-mirror: /srv/mirror\n",
    ).replace("    partitions: 4\n", "    partitions: 4\n    compile: never\n")
    text = text.replace("name: paris-big", "name: paris-big\n        compiled-cache: ''")
    first, second, third = read_inventory(written(tmp_path, text))
    cache = {"compiled-cache": "https://cache.example.org", "compiled-cache-keys": key}
    assert first.builds == cache | {"source-mirror": "/srv/mirror"}
    assert {name for name, value in second.builds.items() if value} == {"source-mirror"}
    assert third.builds == first.builds | {"compile": "never"}


def test_a_cache_that_cannot_be_is_named_with_its_place(tmp_path: Path) -> None:
    text = INVENTORY.replace("    region: eu", "    source-mirror: ftp://x")
    with pytest.raises(InventoryError) as caught:
        read_inventory(written(tmp_path, text))
    assert "hosts.0: source-mirror is 'ftp://x', no URL of http or https" in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    text = INVENTORY.replace("partitions: 40", "partitions: x").replace("region: eu", "region: 1")
    with pytest.raises(InventoryError) as caught:
        read_inventory(written(tmp_path, text))
    assert "hosts.1.partitions" in caught.value.message
    assert "paris.region" in caught.value.message
    assert "nothing was done" in caught.value.remedy


def test_an_inventory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"missing\.yaml cannot be read: No such file"):
        read_inventory(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ssh://admin@host:2222", "admin@host:2222"),
        ("admin@host", "admin@host"),
        ("host:22", "host"),
        ("ssh://[2001:db8::1]:2200", "[2001:db8::1]:2200"),
    ],
)
def test_an_address_is_shown_as_it_is_written(text: str, shown: str) -> None:
    assert str(parse_address(text, "the host")) == shown


@pytest.mark.parametrize("text", ["", "ssh://", "ssh://host/path", "ssh://host?x", "user@"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="no address for SSH"):
        parse_address(text, "the host")


def test_no_jumps_are_none() -> None:
    assert parse_jumps("", "--jump") == ()


def test_a_name_is_for_one_host() -> None:
    names = Names()
    first, second = Address("192.0.2.1"), Address("192.0.2.2")
    names.take("paris-1", first)
    names.take("paris-1", first)
    with pytest.raises(HostError, match=r"192\.0\.2\.1 is to be the computer paris-1 as well"):
        names.take("paris-1", second)


def test_work_is_done_for_all_and_results_are_in_their_order() -> None:
    assert for_all([3, 1, 2], lambda each: each * 2, parallel=2) == [6, 2, 4]
    assert for_all([], lambda each: each) == []


def test_who_interrupts_waits_for_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = threading.Event()
    monkeypatch.setattr("slapos_wendelin.remote.ssh.drop_all", dropped.set)

    def work(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        # Like a host that is worked on until its connection is dropped.
        assert dropped.wait(60)

    with pytest.raises(KeyboardInterrupt):
        for_all(range(3), work, parallel=2)
    assert dropped.is_set()
