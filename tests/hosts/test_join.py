# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bare hosts become computers over SSH, whatever happens meanwhile, and hosts again."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from operators import (
    Operator,
    collect_wheels,
    files_of,
    follow,
    made_operator,
    put_release,
    serving,
    systemctl,
    systemd_on,
)

from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.polling import until
from slapos_wendelin.remote.joining import STEPS

_numbers = count(1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Yield the operator of a master in a lab of three data centers without hosts."""
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
    # Whoever comes later gets no instance on a computer that is off.
    cloud.slapos("computer", "cordon", host.name, status=None)
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
    # Nothing of the instance says that its program has begun.
    until(
        lambda: host.run("cat", f"{partition}/who", check=False).stdout.startswith("slapuser"),
        "the program tells who it is",
    )
    assert host.run("stat", "-c", "%a %U", partition).stdout.startswith("750 slapuser")

    again = cloud.join(host)
    assert again["result"] == "unchanged", again
    assert cloud.instance("hello")["settled"]


def test_a_join_that_is_killed_after_each_step_goes_on_where_it_stopped(
    cloud: Operator, host: Host
) -> None:
    for step in ("check", "toolkit", "certificate", "configuration", "format", "agent"):
        process = cloud.start(*cloud.joining(host, "--partitions", "2"))
        follow(process, STEPS[step])
        process.send_signal(signal.SIGKILL)
        process.wait()
    outcome = cloud.join(host, "--partitions", "2")
    assert outcome["result"] in {"joined", "unchanged"}, outcome
    kept = {each["step"] for each in outcome["steps"] if each["kept"]}
    assert kept >= {"toolkit", "certificate", "configuration", "format"}
    assert cloud.computer(host.name)["partitions"] == 2
    assert cloud.join(host, "--partitions", "2")["result"] == "unchanged"


def test_a_join_whose_host_is_killed_while_the_toolkit_arrives_goes_on_when_it_is_repeated(
    cloud: Operator, host: Host
) -> None:
    process = cloud.start(*cloud.joining(host, "--partitions", "2"))
    until(lambda: host.path("/opt/slapos-wendelin/versions").exists(), "the toolkit arrives")
    host.power_off()
    said = process.communicate()[0]
    assert process.returncode == 1, said
    assert "was lost" in said
    assert "repeat the command: it goes on where it stopped" in said
    host.power_on()
    assert cloud.join(host, "--partitions", "2")["result"] == "joined"


def test_a_join_whose_connection_is_cut_goes_on_when_it_is_repeated(
    cloud: Operator, host: Host
) -> None:
    process = cloud.start(*cloud.joining(host, "--partitions", "2"))
    until(lambda: host.path("/opt/slapos-wendelin/versions").exists(), "the toolkit arrives")
    host.cut()
    said = process.communicate()[0]
    assert process.returncode == 1, said
    assert f"the connection to {host.user}@{host.address} was lost" in said
    host.heal()
    assert cloud.join(host, "--partitions", "2")["result"] == "joined"


def test_the_second_of_two_joins_of_one_host_is_refused(cloud: Operator, host: Host) -> None:
    first = cloud.start(*cloud.joining(host, "--partitions", "2"))
    follow(first, STEPS["check"])
    until(lambda: host.path("/run/slapos-wendelin.lock").exists(), "the first holds the host")
    # It takes long then.
    cloud.lab.data_center("paris").limit(20)
    second = cloud.join(host, "--partitions", "2", status=1)
    cloud.lab.data_center("paris").limit(0)
    assert "somebody else works on this host: root on " in second["error"]
    assert first.communicate()[0].count("failed") == 0
    assert first.returncode == 0
    assert cloud.join(host, "--partitions", "2")["result"] == "unchanged"


def test_a_host_whose_key_is_unknown_or_has_changed_is_refused(
    cloud: Operator, host: Host, another_host: Host, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    options = ("--known-hosts", str(known))
    unknown = cloud.join(host, *options, status=1)
    assert f"the key of {host.address} is not known yet: ssh-ed25519 SHA256:" in unknown["error"]
    assert "--accept-new-host-key" in unknown["remedy"]
    assert cloud.join(host, *options, "--accept-new-host-key", "--dry-run")["result"] == "fit"
    assert cloud.join(host, *options, "--dry-run")["result"] == "fit"
    # Another machine answers at the address of the first.
    key = another_host.description.host_key
    known.write_text(f"{host.address} {key}\n")
    for more in ((), ("--accept-new-host-key",)):
        changed = cloud.join(host, *options, *more, status=1)
        assert f"the key of {host.address} has changed" in changed["error"]
        assert f"ssh-keygen -f {known} -R '{host.address}'" in changed["remedy"]
    assert known.read_text() == f"{host.address} {key}\n"
    assert not host.path("/opt/slapos-wendelin").exists()


def test_wrong_expired_and_used_tokens_are_refused_and_a_good_one_lets_in(
    cloud: Operator, host: Host, another_host: Host
) -> None:
    def join_with(token: str, where: Host, status: int = 0) -> dict[str, Any]:
        options = ("--token", token, "--master-url", cloud.url, "--name", host.name)
        return cloud.join(where, *options, "--partitions", "2", status=status)

    good = cloud.token(host.name, "--datacenter", "paris")
    wrong = "0" * 64 + good[64:]
    assert "the token is not known to this master" in join_with(wrong, host, 1)["error"]
    ended = cloud.token(host.name, "--lifetime", "1s")
    time.sleep(2)
    assert "has ended" in join_with(ended, host, 1)["error"]
    assert join_with(good, host)["result"] == "joined"
    assert "has been used" in join_with(good, another_host, 1)["error"]
    # What was begun is taken up with a token of its own.
    options = ("--name", another_host.name)
    refused = cloud.join(another_host, *options, status=1)
    assert f"it has joined before with computer {host.name}" in refused["error"]


def test_a_host_behind_another_is_joined_through_it(
    cloud: Operator, host: Host, another_host: Host
) -> None:
    jump = ("--jump", f"{another_host.user}@{another_host.address}")
    process = cloud.start(*cloud.joining(host, *jump, "--partitions", "2"))
    connections = ("ss", "-Htn", "dst", host.address)
    until(lambda: ":22" in another_host.run(*connections).stdout, "the way leads through it")
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert cloud.computer(host.name)["labels"]["ssh_jump"] == jump[1]
    # The way is known to the master: the name is enough to leave.
    cloud.slapos("computer", "leave", host.name, "--yes", *cloud.way())
    assert cloud.computer(host.name)["state"] == "removed"


def test_all_that_a_host_lacks_is_said_at_once_and_nothing_is_changed(
    cloud: Operator, host: Host
) -> None:
    host.run("sh", "-c", "mkdir /opt/slapos-wendelin && echo mine > /opt/slapos-wendelin/file")
    host.run("rm", "/usr/sbin/useradd", "/usr/bin/python3")
    release = host.path("/etc/os-release")
    host.run("sh", "-c", "rm /etc/os-release && echo 'ID=fedora' > /etc/os-release")
    assert release.exists()
    before = files_of(host)
    outcome = cloud.join(host, status=1)
    for fault in (
        "it runs fedora",
        "it lacks useradd",
        "/opt/slapos-wendelin holds something that was not put there by this",
    ):
        assert fault in outcome["error"], outcome
    assert files_of(host) == before


def test_a_dry_run_says_what_would_be_done_and_does_nothing(cloud: Operator, host: Host) -> None:
    before = files_of(host)
    outcome = cloud.join(host, "--dry-run")
    assert outcome["result"] == "fit"
    assert "would start the service: supervisord (no systemd runs there)" in outcome["notes"]
    assert files_of(host) == before
    assert cloud.slapos("computer", "show", host.name, status=1).stderr


def test_partitions_get_addresses_of_their_own_which_come_back_with_the_host(
    cloud: Operator, host: Host
) -> None:
    block = f"{host.address.rpartition('.')[0]}.{200 + next(_numbers) % 4 * 8}/29"
    assert cloud.join(host, "--partitions", "2", "--addresses", block)["result"] == "joined"
    put_release(host)
    instance = cloud.request("addressed", host.name)
    address = instance["connection"]["address"]
    assert address != host.address
    assert address in host.run("ip", "-4", "address", "show", "eth0").stdout
    host.power_off()
    host.power_on()
    until(lambda: address in host.run("ip", "-4", "address").stdout, "the address is back")
    until(lambda: "sleep 1000000" in host.run("ps", "ax").stdout, "the instance runs again", 300)


def test_a_computer_leaves_without_a_trace(cloud: Operator, host: Host) -> None:
    put_release(host)
    before = files_of(host)
    cloud.join(host, "--partitions", "2")
    cloud.request("short-lived", host.name)
    assert files_of(host) != before
    leave = ("computer", "leave", host.name, *cloud.way())
    asked = cloud.slapos(*leave, status=1)
    assert "There is no terminal to ask on" in asked.stderr
    # There is no other computer for the instance.
    stays = cloud.slapos(*leave, "--yes", status=1)
    assert "--destroy-instances" in stays.stderr
    left = cloud.slapos(*leave, "--yes", "--destroy-instances")
    assert f"{host.user}@{host.address} is no computer any more." in left.stdout
    assert files_of(host) == before
    assert "slapuser" not in host.run("ps", "aux").stdout
    assert cloud.computer(host.name)["state"] == "removed"
    again = cloud.slapos(
        "computer", "leave", f"ssh://{host.user}@{host.address}", "--yes", *cloud.way()
    )
    assert "there was nothing to take away" in again.stdout
    # It may come back.
    assert cloud.join(host, "--partitions", "2")["result"] == "joined"


def test_a_computer_that_leaves_gives_its_instances_to_others(
    cloud: Operator, host: Host, another_host: Host
) -> None:
    for each in (host, another_host):
        put_release(each)
        cloud.join(each, "--partitions", "2")
    cloud.slapos("computer", "cordon", another_host.name)
    cloud.request("wanderer")
    assert cloud.instance("wanderer")["computer"] == host.name
    cloud.slapos("computer", "uncordon", another_host.name)
    said = cloud.slapos("computer", "leave", host.name, "--yes", *cloud.way()).stdout
    assert f"goes to {another_host.name}/" in said
    moved = cloud.instance("wanderer")
    assert moved["computer"] == another_host.name
    assert moved["settled"]


def test_one_inventory_joins_six_hosts_in_three_data_centers_and_a_bad_one_stops_nobody(
    cloud: Operator, tmp_path: Path
) -> None:
    centers = ("paris", "tokyo", "virginia")
    names = [(center, f"{center}-{next(_numbers)}") for center in centers for _ in range(2)]
    hosts = cloud.lab.add_hosts(names)
    bad = hosts[3]
    bad.run("rm", "/etc/sudoers.d/administrator")
    inventory = tmp_path / "computers.yaml"
    described: dict[str, Any] = {
        center: {"region": f"{center}-region", "hosts": []} for center in centers
    }
    for host in hosts:
        described[host.data_center]["hosts"].append({"address": host.address, "name": host.name})
    document = {"defaults": {"user": "admin", "partitions": 2}, "datacenters": described}
    inventory.write_text(yaml.safe_dump(document))
    arguments = ["computer", "join", "--inventory", str(inventory), *cloud.way()]
    outcomes = json.loads(cloud.slapos(*arguments, "--json", status=1).stdout)
    results = {each["computer"]: each["result"] for each in outcomes}
    assert results == {host.name: "failed" if host is bad else "joined" for host in hosts}
    (failed,) = [each for each in outcomes if each["result"] == "failed"]
    assert "sudo asks for a password or is missing" in failed["error"]
    computers = json.loads(cloud.slapos("cluster", "status", "--json", status=None).stdout)[
        "computers"
    ]
    places = {each["reference"]: each["datacenter"] for each in computers}
    assert all(places[host.name] == host.data_center for host in hosts if host is not bad)
    bad.run("sh", "-c", "echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/administrator")
    table = cloud.slapos(*arguments).stdout
    assert table.count("unchanged") >= 5
    for host in hosts:
        host.power_off()


def test_a_host_that_reaches_an_index_gets_its_wheels_from_there(
    cloud: Operator, host: Host, tmp_path: Path
) -> None:
    for wheel in collect_wheels():
        name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        folder = tmp_path / "simple" / name
        folder.mkdir(parents=True)
        (folder / wheel.name).symlink_to(wheel)
    log = tmp_path / "log"
    with serving(cloud.lab, tmp_path, 5002, log) as url:
        host.path("/etc/pip.conf").write_text(
            f"[global]\nindex-url = {url}/simple\ntrusted-host = {cloud.lab.address}\n"
        )
        fits = cloud.join(host, "--dry-run")
        assert any("from the network" in note for note in fits["notes"]), fits
        assert cloud.join(host, "--partitions", "2")["result"] == "joined"
    fetched = log.read_text()
    assert "/simple/uv/uv-" in fetched
    assert "/simple/netifaces/netifaces-" not in fetched


def test_where_systemd_runs_it_keeps_the_service_running(
    cloud: Operator, host: Host, tmp_path: Path
) -> None:
    known = ("--known-hosts", str(tmp_path / "known_hosts"), "--accept-new-host-key")
    way = (*cloud.way(), *known)
    place = f"ssh://{host.user}@{host.address}:2222"
    join = ("computer", "join", place, "--datacenter", "paris", "--partitions", "2", "--json")
    with systemd_on(host, 2222):
        (outcome,) = json.loads(cloud.slapos(*join, *way).stdout)
        assert outcome["result"] == "joined", outcome
        assert "systemd starts it when the host starts" in outcome["notes"]
        show = ("show", "--value", "--property", "MainPID", "slapos-wendelin")
        assert systemctl(host, "is-enabled", "slapos-wendelin") == "enabled"
        before = systemctl(host, *show)
        systemctl(host, "kill", "--signal", "KILL", "--kill-who", "main", "slapos-wendelin")
        until(lambda: systemctl(host, *show) not in {before, "0", ""}, "systemd starts it again")
        (again,) = json.loads(cloud.slapos(*join, *way).stdout)
        assert again["result"] == "unchanged"
        cloud.slapos("computer", "leave", host.name, "--yes", *way)
        assert systemctl(host, "is-enabled", "slapos-wendelin") == ""
        until(lambda: "slapos_wendelin" not in host.run("ps", "ax").stdout, "all has ended")


def test_a_name_that_another_host_has_is_taken_over_when_asked_only(
    cloud: Operator, host: Host, another_host: Host
) -> None:
    assert cloud.join(host, "--partitions", "2")["result"] == "joined"
    options = ("--name", host.name, "--partitions", "2")
    refused = cloud.join(another_host, *options, status=1)
    assert f"the master has a computer {host.name} already in paris" in refused["error"]
    assert "--replace" in refused["remedy"]
    assert not another_host.path("/opt/slapos-wendelin").exists()
    assert cloud.join(another_host, *options, "--replace")["result"] == "joined"
    assert cloud.computer(host.name)["address"] == another_host.address
    # The first one would have to take its name back.
    assert "--replace" in cloud.join(host, *options, status=1)["remedy"]
