# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A computer that loses its power at the worst moment has all that it has told of, or does it anew.

A journal keeps the names of new files before what is in them is on the disk: any program that syncs
a file of its own writes the names down. So the tests do that, and take the power at once.
"""

from __future__ import annotations

from hashlib import md5
from pathlib import Path

import pytest
from operators import RELEASE, REPOSITORY, Operator

from slapos_wendelin.lab import Host
from slapos_wendelin.lab.polling import until

DATA = Path("/srv/slapos-wendelin")
GREETING = "a tool that several releases share\n"
#: What a release has in addition: before the build ends somebody must open the gate.
TOOL_AND_GATE = """
[tool]
recipe = slapos.recipe.cmmi
shared = true
path = ${:_profile_base_location_}
configure-command = true
make-binary = true
post-install = echo "a tool that several releases share" > %(location)s/greeting

[gate]
recipe = slapos.recipe.cmmi
path = ${:_profile_base_location_}
configure-command = true
make-binary = true
pre-configure = until test -e /run/gate-is-open; do sleep 0.1; done
"""


@pytest.fixture
def cloud(computer_of_root: tuple[Operator, Host]) -> Operator:
    """Return the operator of a computer."""
    return computer_of_root[0]


@pytest.fixture
def host(computer_of_root: tuple[Operator, Host]) -> Host:
    """Return the computer, which is on and has written down what was before."""
    _, host = computer_of_root
    host.power_on()
    host.run("sync", "-f", "/")
    return host


def put_release(host: Host, name: str, more: str = "") -> str:
    """Put a release of its own for a test on the host; return its URL."""
    folder = host.path(f"/usr/local/share/{name}")
    folder.mkdir()
    for path in (*RELEASE.iterdir(), REPOSITORY / "stack" / "slapos.cfg"):
        (folder / path.name).write_bytes(path.read_bytes())
    if more:
        profile = folder / "software.cfg"
        parts = "parts = instance-template"
        profile.write_text(profile.read_text().replace(parts, f"{parts} tool gate") + more)
    host.run("sync", "-f", "/")
    return f"/usr/local/share/{name}/software.cfg"


def write_names_down(host: Host) -> None:
    """Sync one file on the host, as any database does at each commit."""
    host.run("dd", "if=/dev/zero", "of=/var/tmp/database", "bs=512", "count=1", "conv=fsync")


def lose_power(host: Host) -> None:
    write_names_down(host)
    host.power_off()
    host.power_on()


def state_of(cloud: Operator, host: Host, release: str) -> str | None:
    """Return what the master has heard of a release."""
    told = cloud.computer(host.name)["software"]
    return next((each["reported_state"] for each in told if each["url"] == release), None)


def contents(host: Host, folder: Path) -> dict[str, str]:
    """Return the checksums of all files below a folder, but of the mark, which may be empty."""
    find = ["find", str(folder), "-type", "f", "!", "-name", ".completed"]
    lines = host.run(*find, "-exec", "sha256sum", "{}", "+").stdout.splitlines()
    return {path: checksum for checksum, path in (line.split(None, 1) for line in lines)}


def folder_of(release: str) -> Path:
    return DATA / "soft" / md5(release.encode(), usedforsecurity=False).hexdigest()


def test_a_release_that_the_master_has_heard_of_is_whole(cloud: Operator, host: Host) -> None:
    release = put_release(host, "heard-of")
    cloud.slapos("supply", release, host.name)
    until(lambda: state_of(cloud, host, release) == "available", "the master has heard of it")
    folder = folder_of(release)
    until(lambda: host.path(folder / ".completed").exists(), "the release is marked")
    before = contents(host, folder)
    lose_power(host)
    assert host.path(folder / ".completed").exists()
    assert contents(host, folder) == before
    cloud.slapos("request", "after", release, "--unchecked", "--wait", "300")
    assert cloud.instance("after")["settled"]


def test_a_release_that_was_being_built_is_built_whole(cloud: Operator, host: Host) -> None:
    release = put_release(host, "slow", TOOL_AND_GATE)
    cloud.slapos("supply", release, host.name)
    is_waiting = lambda: "gate-is-open" in host.run("ps", "axww").stdout  # noqa: E731
    until(is_waiting, "all but the end is built", 300)
    lose_power(host)
    host.run("touch", "/run/gate-is-open")
    until(lambda: state_of(cloud, host, release) == "available", "the release is built", 300)
    (tool,) = host.path(DATA / "shared" / "tool").glob("*/greeting")
    assert tool.read_text() == GREETING
    folder = folder_of(release)
    for name in ("buildout.cfg", "instance.cfg", ".installed.cfg", "bin/buildout"):
        assert host.path(folder / name).read_text(), f"{name} is empty"
    assert not list(host.path(DATA / "soft").glob(".*.building"))


def test_an_instance_that_has_settled_is_whole_and_runs_again(cloud: Operator, host: Host) -> None:
    release = put_release(host, "settled")
    cloud.slapos("request", "settled", release, "--unchecked", "--wait", "300")
    partition = DATA / "inst" / cloud.instance("settled")["partition"]
    until(lambda: host.path(partition / ".timestamp").exists(), "the partition is marked")
    names = ("buildout.cfg", ".installed.cfg", "etc/service/greeter")
    before = {name: host.path(partition / name).read_text() for name in names}
    lose_power(host)
    assert {name: host.path(partition / name).read_text() for name in names} == before
    owner = f"slapuser{partition.name.removeprefix('slappart')}"
    until(lambda: host.run("pgrep", "-u", owner, "sleep", check=False).stdout, "it runs again", 300)
