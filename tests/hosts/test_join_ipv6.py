# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that have addresses of IPv6 and no other become computers of a master that has such too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from operators import Operator, made_operator, put_release

from slapos_wendelin.lab import Lab
from slapos_wendelin.lab.polling import until


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Yield the operator of a master in a lab of two hosts."""
    with Lab.build({"paris": 1, "tokyo": 1}, ipv6=True) as lab:
        operator = made_operator(lab, tmp_path_factory)
        yield operator
        operator.stop_master()


def test_a_host_becomes_a_computer_that_runs_an_instance(cloud: Operator) -> None:
    host = cloud.lab.host("paris-1")
    assert cloud.join(host)["result"] == "joined"
    put_release(host)
    instance = cloud.request("hello", host.name)
    assert instance["connection"]["address"] == f"[{host.address}]"
    assert not host.run("ip", "-4", "address", "show", "eth0").stdout
    assert cloud.join(host)["result"] == "unchanged"


def test_partitions_get_addresses_of_their_own_which_come_back_with_the_host(
    cloud: Operator,
) -> None:
    host = cloud.lab.host("tokyo-1")
    block = "fd00:77::2:100/125"
    assert cloud.join(host, "--partitions", "2", "--addresses", block)["result"] == "joined"
    put_release(host)
    instance = cloud.request("addressed", host.name)
    address = instance["connection"]["address"].strip("[]")
    assert address.startswith("fd00:77::2:10")
    assert address in host.run("ip", "-6", "address", "show", "eth0").stdout
    host.power_off()
    host.power_on()
    until(lambda: address in host.run("ip", "-6", "address").stdout, "the address is back")
    until(lambda: "sleep 1000000" in host.run("ps", "ax").stdout, "the instance runs again", 300)
    left = cloud.slapos(
        "computer", "leave", host.name, *cloud.way(), "--yes", "--destroy-instances"
    )
    assert "is no computer any more." in left.stdout
    assert address not in host.run("ip", "-6", "address").stdout
