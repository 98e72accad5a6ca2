# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bare hosts become computers over SSH, whatever happens meanwhile, and hosts again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import count

import pytest
from operators import Operator, collect_wheels, files_of, follow, made_operator, put_release

from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.polling import until

_numbers = count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Yield the operator of a master in a lab of three data centers without hosts."""
    collect_wheels()
    with Lab.build({"paris": 0, "tokyo": 0, "virginia": 0}) as lab:
        operator = made_operator(lab, tmp_path_factory)
        yield operator
        operator.stop_master()


@pytest.fixture
def host(cloud: Operator) -> Iterator[Host]:
    """Yield a bare host in Paris, and power it off at the end."""
    yield from bare_hosts(cloud, "paris")


@pytest.fixture
def another_host(cloud: Operator) -> Iterator[Host]:
    """Yield one more bare host, in Tokyo."""
    yield from bare_hosts(cloud, "tokyo")


def bare_hosts(cloud: Operator, center: str) -> Iterator[Host]:
    (host,) = cloud.lab.add_hosts([(center, f"{center}-{next(_numbers)}")])
    yield host
    host.power_off()


def test_a_bare_host_becomes_a_computer_that_builds_and_runs_an_instance(
    cloud: Operator, host: Host
) -> None:
    outcome = cloud.join(host)
    assert outcome["result"] == "joined", outcome
    assert outcome["computer"] == host.name
    computer = cloud.computer(host.name)
    assert (computer["datacenter"], computer["partitions"]) == ("paris", 3)
    put_release(host)
    instance = cloud.request("hello", host.name)
    assert instance["connection"]["computer"] == host.name
    assert instance["connection"]["address"] == host.address
    partition = f"/srv/slapos-wendelin/inst/{instance['partition']}"
    assert host.run("cat", f"{partition}/who").stdout.strip().startswith("slapuser")
    assert host.run("stat", "-c", "%a %U", partition).stdout.startswith("750 slapuser")

    again = cloud.join(host)
    assert again["result"] == "unchanged", again
    assert cloud.instance("hello")["settled"]
