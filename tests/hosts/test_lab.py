# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab promises to the tests that are told in it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest

from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.lab import Host, Lab, LabError
from slapos_wendelin.lab.cgroups import groups_of_lab
from slapos_wendelin.lab.keeper import FOLDER
from slapos_wendelin.lab.polling import until
from slapos_wendelin.lab.ssh import log_in

MEBIBYTE = 1 << 20


def said(client: paramiko.SSHClient, command: str) -> str:
    """Return what a command prints that is run over SSH."""
    _, output, _ = client.exec_command(command, timeout=60)
    return output.read().decode().strip()


def reaches(origin: Host, target: Host) -> bool:
    """Return whether a host gets a packet to another and back."""
    ping = origin.run("ping", "-n", "-c", "1", "-W", "1", target.address, check=False)
    return ping.returncode == 0


def wait_to_reach(origin: Host, target: Host) -> None:
    """Wait until a host reaches another; where a way was mended, they look for each other first."""
    until(lambda: reaches(origin, target), f"{origin.name} reaches {target.name}")


def takes(origin: Host, target: Host, least: float, most: float) -> None:
    """Wait until a round trip takes less than *most* seconds; less than *least* is never right."""
    wait_to_reach(origin, target)

    def is_short() -> bool:
        found = round_trip(origin, target)
        assert found >= least
        return found < most

    until(is_short, f"packets take less than {most} s between {origin.name} and {target.name}")


def round_trip(origin: Host, target: Host) -> float:
    """Return the shortest of a few round trips, in seconds."""
    text = origin.run("ping", "-n", "-c", "8", "-i", "0.05", target.address).stdout
    found = re.search(r"rtt min/avg/max/mdev = ([\d.]+)/", text)
    assert found, text
    return float(found[1]) / 1000


def test_every_host_is_reached_over_ssh_and_lets_its_administrator_do_everything(lab: Lab) -> None:
    assert sorted(lab.hosts) == [
        *("paris-1", "paris-2", "tokyo-1", "tokyo-2", "virginia-1", "virginia-2")
    ]
    for host in lab.hosts.values():
        with host.ssh() as client:
            assert said(client, "hostname; whoami; sudo id --user") == f"{host.name}\nadmin\n0"


def test_a_host_with_another_key_is_refused(lab: Lab) -> None:
    host = lab.host("paris-1")
    with lab.host("tokyo-1").ssh() as other:
        assert said(other, "hostname") == "tokyo-1"
    client = paramiko.SSHClient()
    client.load_host_keys(str(lab.known_hosts))
    with pytest.raises(paramiko.BadHostKeyException):
        client.connect(
            "tokyo-1", username=host.user, sock=lab.master.connect((host.address, host.port))
        )


def test_hosts_know_each_other_and_the_master_by_name_and_nobody_else(lab: Lab) -> None:
    host = lab.host("paris-1")
    for name in ("paris-2", "virginia-2", "master"):
        host.run("ping", "-n", "-c", "1", name)
    lab.master.run("ping", "-n", "-c", "1", "tokyo-2")
    outside = host.run("ip", "route", "get", "192.0.2.1", check=False)
    assert "Network is unreachable" in outside.stderr
    assert host.run("getent", "hosts", "example.org", check=False).returncode == 2


def test_a_host_has_the_packages_of_this_machine_and_nothing_else_of_it(
    lab: Lab, tmp_path: Path
) -> None:
    host = lab.host("paris-1")
    assert host.run("dpkg-query", "--show", "openssh-server").stdout
    for folder in (Path("/root"), Path("/var/log"), tmp_path):
        assert folder.is_dir()
    assert Path(__file__).exists()
    assert host.run("ls", "-A", "/root", "/srv", "/opt", "/var/log").stdout.split() == [
        *("/opt:", "/root:", "/srv:", "/var/log:")
    ]
    assert host.run("ls", "/home").stdout.split() == ["admin"]
    for path in (tmp_path, Path(__file__), lab.folder, Path.home() / ".ssh"):
        assert host.run("ls", "-d", str(path), check=False).returncode == 2
    passwords = [line.split(":")[1] for line in host.run("cat", "/etc/shadow").stdout.splitlines()]
    assert set(passwords) == {"*"}
    assert "wendelin" not in host.run("cat", "/etc/passwd").stdout


def test_what_a_host_writes_stays_on_its_disk(lab: Lab) -> None:
    host = lab.data_center("paris").add_host()
    try:
        name = f"/usr/bin/{lab.name}"
        host.run("sh", "-c", f"echo 'echo mine' > {name}; chmod +x {name}; rm /etc/debian_version")
        assert host.run("sh", "-c", f"{name}; ls /etc/debian_version || true").stdout == "mine\n"
        assert not Path(name).exists()
        assert not lab.host("paris-1").path(name).exists()
        assert Path("/etc/debian_version").exists()
    finally:
        lab.remove_host(host.name)


def test_a_host_is_added_to_a_lab_that_stands_and_taken_away_again(lab: Lab) -> None:
    host = lab.data_center("tokyo").add_host("tokyo-extra")
    with host.ssh() as client:
        assert said(client, "hostname") == "tokyo-extra"
    lab.host("paris-1").run("ping", "-n", "-c", "1", "tokyo-extra")
    lab.remove_host("tokyo-extra")
    assert not reaches(lab.host("paris-1"), host)
    with pytest.raises(LabError, match="the lab has no host 'tokyo-extra'"):
        lab.host("tokyo-extra")
    assert "tokyo-extra" not in lab.host("paris-1").run("cat", "/etc/hosts").stdout


def test_programs_run_in_the_masters_place_with_the_files_of_this_machine(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("from the master")
    command = [sys.executable, "-m", "http.server", "8000", "--bind", lab.address]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with lab.master.popen(command, cwd=tmp_path, **silent) as server:
        try:
            ask = "import urllib.request as r; print(r.urlopen('http://master:8000').read())"
            answer = until(
                lambda: lab.host("virginia-1").run("python3", "-c", ask, check=False).stdout,
                "the server answers",
            )
        finally:
            server.kill()
    assert answer == "b'from the master'\n"
    until(lambda: not listens(lab, 8000), "the server is gone with its starter")


def listens(lab: Lab, port: int) -> bool:
    """Return whether a program listens at a port of the master's place."""
    try:
        lab.master.connect((lab.address, port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_command_that_fails_or_hangs_is_an_error_that_names_the_host(lab: Lab) -> None:
    host = lab.host("paris-1")
    with pytest.raises(CommandError, match=r"'ls /nowhere' failed on paris-1 .*No such file"):
        host.run("ls", "/nowhere")
    with pytest.raises(CommandError, match="sleep did not end on paris-1"):
        host.run("sleep", "1000002", timeout=5)
    until(lambda: "sleep 1000002" not in host.run("ps", "ax").stdout, "the command is gone")


def test_a_data_center_that_is_cut_off_lives_on_by_itself(lab: Lab) -> None:
    paris, other = lab.host("paris-1"), lab.host("tokyo-1")
    with other.ssh(origin=paris) as client:
        lab.data_center("paris").cut()
        assert lab.data_center("paris").is_cut
        assert not reaches(paris, other)
        assert not reaches(other, paris)
        wait_to_reach(paris, lab.host("paris-2"))
        wait_to_reach(other, lab.host("virginia-1"))
        with pytest.raises(TimeoutError):
            lab.master.connect((paris.address, paris.port), timeout=0.5)

        waiting = client.get_transport().open_session  # the connection outlives the cut
        lab.data_center("paris").heal()
        channel = waiting(timeout=60)
        channel.exec_command("hostname")
        assert channel.recv(100) == b"tokyo-1\n"
    wait_to_reach(paris, other)


def test_the_way_between_two_data_centers_is_cut_and_no_other(lab: Lab) -> None:
    link = lab.link("paris", "tokyo")
    link.cut()
    assert not reaches(lab.host("paris-1"), lab.host("tokyo-1"))
    wait_to_reach(lab.host("paris-1"), lab.host("virginia-1"))
    lab.master.run("ping", "-n", "-c", "1", "tokyo-1")
    link.heal()
    wait_to_reach(lab.host("paris-1"), lab.host("tokyo-1"))


def test_healing_a_data_center_leaves_what_else_is_cut(lab: Lab) -> None:
    for name in ("paris", "tokyo"):
        lab.data_center(name).cut()
    lab.data_center("paris").heal()
    assert not reaches(lab.host("paris-1"), lab.host("tokyo-1"))
    wait_to_reach(lab.host("paris-1"), lab.host("virginia-1"))


def test_one_host_is_taken_off_the_network(lab: Lab) -> None:
    host, neighbour = lab.host("paris-1"), lab.host("paris-2")
    host.cut()
    assert not reaches(neighbour, host)
    assert host.run("hostname").stdout == "paris-1\n"
    host.heal()
    wait_to_reach(neighbour, host)


def test_packets_take_as_long_as_asked(lab: Lab) -> None:
    paris, tokyo, virginia = (lab.host(f"{name}-1") for name in ("paris", "tokyo", "virginia"))
    lab.data_center("paris").slow_down(0.06)
    lab.link("paris", "virginia").slow_down(0.03)
    takes(paris, tokyo, 0.06, 0.12)
    takes(paris, virginia, 0.03, 0.06)
    # Not more than the half of what the others take is near enough to no time at all.
    takes(tokyo, virginia, 0, 0.015)
    takes(paris, lab.host("paris-2"), 0, 0.015)
    lab.data_center("paris").slow_down(0)
    takes(paris, tokyo, 0, 0.03)


def test_packets_are_lost_as_asked(lab: Lab) -> None:
    paris, tokyo = lab.host("paris-1"), lab.host("tokyo-1")

    def lost() -> float:
        command = ("ping", "-n", "-q", "-c", "200", "-i", "0.002", "-W", "1", tokyo.address)
        text = paris.run(*command, check=False).stdout
        found = re.search(r"([\d.]+)% packet loss", text)
        assert found, text
        return float(found[1])

    wait_to_reach(paris, tokyo)
    wait_to_reach(tokyo, paris)
    lab.link("paris", "tokyo").lose(0.5)
    # Three of four are lost, on their way or on the way back; 200 of them never stray this far.
    assert 50 < lost() < 95
    lab.link("paris", "tokyo").lose(0)
    # It ends with the 200th answer, however late that is read.
    command = ("ping", "-n", "-c", "200", "-w", "60", "-i", "0.002", tokyo.address)
    text = paris.run(*command, check=False).stdout
    assert re.findall(r"icmp_seq=(\d+) ttl", text) == [str(number) for number in range(1, 201)]


def test_no_more_goes_through_than_asked(lab: Lab) -> None:
    paris, tokyo = lab.host("paris-1"), lab.host("tokyo-1")
    size = 2_000_000
    lab.link("paris", "tokyo").limit(16)
    with (
        tokyo.listen((tokyo.address, 5000)) as server,
        paris.connect((tokyo.address, 5000)) as sender,
        server.accept()[0] as receiver,
    ):
        begin = time.monotonic()
        thread = threading.Thread(target=sender.sendall, args=(bytes(size),))
        thread.start()
        received = 0
        while received < size:
            received += len(receiver.recv(65536))
        seconds = time.monotonic() - begin
        thread.join()
    assert size * 8 / seconds <= 16_000_000


def test_without_power_a_host_forgets_what_was_not_synced(lab: Lab) -> None:
    host = lab.host("paris-1")
    host.run("sh", "-c", "echo kept > /root/synced; sync /root/synced; sync -f /root")
    forever = host.popen(["sleep", "1000001"])
    until(lambda: "1000001" in commands(host), "the command runs")
    host.run("sh", "-c", "echo lost > /root/not-synced")
    host.power_off()
    assert host.state == "off"
    forever.wait(timeout=60)
    assert not reaches(lab.host("paris-2"), host)
    with pytest.raises(LabError, match="paris-1 does not run") as refusal:
        host.run("true")
    assert "power it on" in refusal.value.remedy

    host.power_on()
    assert host.state == "on"
    assert host.run("cat", "/root/synced").stdout == "kept\n"
    assert host.run("cat", "/root/not-synced", check=False).stdout == ""
    assert "sleep 1000001" not in host.run("ps", "ax").stdout
    with host.ssh(origin=lab.host("tokyo-1")) as client:
        assert said(client, "hostname") == "paris-1"


def test_nobody_hears_from_a_host_that_loses_its_power(lab: Lab) -> None:
    host, other = lab.host("paris-1"), lab.host("tokyo-1")
    with host.listen((host.address, 5000)) as server:
        connection = other.connect((host.address, 5000))
        accepted, _ = server.accept()
        # The socket here keeps the connection's other end, the host's network is what is gone.
        host.power_off()
        accepted.close()
    with connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_host_that_ended_by_itself_is_powered_on_again(lab: Lab) -> None:
    host = lab.host("paris-1")
    host.run("touch", "/root/before")
    os.kill(host.init, signal.SIGKILL)
    until(lambda: not host.runs, "the host has ended")
    host.power_on()
    host.run("ls", "/root/before")
    wait_to_reach(lab.host("paris-2"), host)


def test_power_may_be_taken_again_where_that_was_interrupted(lab: Lab) -> None:
    host = lab.host("paris-1")
    host.unplug()
    host.freeze()
    host.disk.lose_power()
    host.power_off()
    host.power_off()
    host.power_on()
    host.power_on()
    wait_to_reach(lab.host("paris-2"), host)


def test_what_is_started_at_boot_runs_again_with_the_power(lab: Lab) -> None:
    host = lab.host("paris-1")
    script = """#!/bin/sh
### BEGIN INIT INFO
# Provides:       greeter
# Required-Start:
# Required-Stop:
# Default-Start:  2 3 4 5
# Default-Stop:
### END INIT INFO
[ $1 != start ] || echo hello > /run/started
"""
    host.run("sh", "-c", "cat > /etc/init.d/greeter; chmod +x /etc/init.d/greeter", input=script)
    host.run("update-rc.d", "greeter", "defaults")
    host.run("sync", "-f", "/etc")
    host.power_off()
    host.power_on()
    until(
        lambda: host.run("cat", "/run/started", check=False).returncode == 0, "the script has run"
    )


def test_a_frozen_host_says_nothing_until_it_is_thawed(lab: Lab) -> None:
    host = lab.host("paris-1")
    host.freeze()
    assert host.state == "frozen"
    with lab.master.connect((host.address, host.port)) as connection:
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(3)
        host.thaw()
        connection.settimeout(60)
        assert connection.recv(4) == b"SSH-"
    assert host.state == "on"


def test_a_frozen_host_can_lose_its_power(lab: Lab) -> None:
    host = lab.host("paris-1")
    host.freeze()
    host.power_off()
    host.power_on()
    assert host.run("hostname").stdout == "paris-1\n"


def test_a_full_disk_takes_nothing_and_is_freed(lab: Lab) -> None:
    host = lab.data_center("virginia").add_host(disk_size=64 * MEBIBYTE)
    try:
        write = ("sh", "-c", "head -c 1000000 /dev/zero > /srv/file && sync /srv/file")
        host.run(*write)
        host.run("rm", "/srv/file")
        host.fill_disk()
        with pytest.raises(CommandError, match="No space left on device"):
            host.run(*write)
        host.run("rm", "-f", "/srv/file")
        host.free_disk()
        host.run(*write)
        with pytest.raises(CommandError, match="No space left on device"):
            host.run("sh", "-c", "head -c 100000000 /dev/zero > /srv/file")
    finally:
        lab.remove_host(host.name)


def test_two_labs_do_not_meet(lab: Lab) -> None:
    with Lab.build({"paris": 1}) as other:
        ours, theirs = lab.host("paris-1"), other.host("paris-1")
        assert ours.address == theirs.address
        theirs.run("touch", "/root/only-here")
        assert ours.run("ls", "/root").stdout.count("only-here") == 0
        with pytest.raises(paramiko.SSHException):
            log_in(
                lab.master.connect((theirs.address, theirs.port)),
                theirs.name,
                other.key,
                other.known_hosts,
                timeout=60,
            )
        other.data_center("paris").cut()
        wait_to_reach(ours, lab.host("tokyo-1"))


def test_another_process_finds_a_lab_by_its_name(lab: Lab) -> None:
    found = Lab.attach(lab.name)
    assert list(found.hosts) == list(lab.hosts)
    assert found.host("tokyo-2").run("hostname").stdout == "tokyo-2\n"
    with pytest.raises(LabError, match="there is no lab 'nowhere'"):
        Lab.attach("nowhere")


def test_wrong_values_are_refused_with_what_is_right(lab: Lab) -> None:
    center = lab.data_center("paris")
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: lab.host("pariss-1"), "no host 'pariss-1'.*paris-1, paris-2"),
        (lambda: lab.data_center("rome"), "no data center 'rome'.*paris, tokyo, virginia"),
        (lambda: lab.link("paris", "rome"), "no data center 'rome'"),
        (lambda: lab.link("paris", "paris"), "'paris' and 'paris' are one"),
        (lambda: lab.add_data_center("paris"), "'paris' already"),
        (lambda: lab.add_data_center("../etc"), "'../etc' is no name"),
        (lambda: center.add_host("tokyo-1"), "'tokyo-1' already"),
        (lambda: center.slow_down(-1), "-1"),
        (lambda: center.lose(1.5), "from 0 to 1, not 1.5"),
        (lambda: center.limit(float("nan")), "nan"),
        (lambda: Lab.build({"paris": 1}, name=lab.name), "there is a lab"),
        (lambda: Lab.build({}, name="../../etc"), "'../../etc' is no name"),
    ]
    for call, words in refused:
        with pytest.raises(LabError, match=words):
            call()
    assert len(lab.hosts) == 6


def test_nothing_is_left_of_a_lab_that_could_not_be_built() -> None:
    with pytest.raises(WendelinError, match="not made"):
        Lab.build({"paris": 1, "tokyo": 1}, name="test-too-small", disk_size=1000)
    assert not traces("test-too-small", set())


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "with a frozen host"])
def test_nothing_is_left_when_the_builder_is_killed(frozen: bool, tmp_path: Path) -> None:
    story = f"""
from slapos_wendelin.lab import Lab
lab = Lab.build({{"paris": 1, "tokyo": 1}})
if {frozen}:
    lab.host("paris-1").freeze()
print(lab.name, flush=True)
lab.host("tokyo-1").run("sleep", "1000003", timeout=1000)
"""
    command = [sys.executable, "-c", story]
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as builder,
    ):
        assert builder.stdout
        name = builder.stdout.readline().strip()
        assert name, log.read_text()
        lab = Lab.attach(name)
        places = [lab.master, *lab.hosts.values()]
        until(lambda: "1000003" in commands(lab.host("tokyo-1")), "the command runs")
        spaces = {space for place in places for space in namespaces_of(place.init)}
        # A network for the lab, one for each host; the same with mounts and process numbers.
        assert len(spaces) == 9
        assert len(traces(name, spaces)) > 20
        builder.kill()
    until(lambda: not traces(name, spaces), "nothing is left")
    interfaces = [path.name for path in Path("/sys/class/net").iterdir()]
    assert not [each for each in interfaces if re.match(r"dc\d|wan|host\d", each)]


def commands(host: Host) -> list[str]:
    """Return the words of the commands that run on a host."""
    found = []
    for process in host.group.processes():
        # It may end meanwhile.
        with suppress(OSError):
            found += Path(f"/proc/{process}/cmdline").read_text().split("\0")
    return found


def namespaces_of(process: int | str) -> set[str]:
    """Return the network, the mounts and the process numbers that a process lives with."""
    kinds = ("net", "mnt", "pid")
    return {str(Path(f"/proc/{process}/ns/{kind}").readlink()) for kind in kinds}


def traces(name: str, spaces: set[str]) -> set[str]:
    """Return what there is of a lab on this machine: by its name, and by its namespaces."""
    loops = subprocess.run(["losetup", "--list"], check=True, capture_output=True, text=True)
    found = {line for line in loops.stdout.splitlines() if name in line}
    found |= {str(path) for path in (FOLDER / name, groups_of_lab(name)) if path.exists()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = (process / "mountinfo").read_text(), (process / "cmdline").read_text()
            found |= namespaces_of(process.name) & spaces
        except OSError:
            continue
        found |= {line for text in texts for line in text.splitlines() if name in line}
    return found
