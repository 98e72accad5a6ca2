# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./wendelin lab``: a lab stays when the command that built it has ended."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from slapos_wendelin.lab.keeper import standing
from slapos_wendelin.lab.polling import until

Wendelin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def name() -> str:
    """Return the name of the lab, which no other lab has."""
    return f"test-commands-{os.getpid()}-{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def wendelin(name: str) -> Iterator[Wendelin]:
    """Yield a function that runs ``./wendelin lab`` on a lab of two data centers."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "slapos_wendelin.cli.lab", "--name", name]
        return subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)

    built = run("up", "--data-centers", "paris,tokyo", "--hosts", "1", "--delay", "40ms")
    assert built.returncode == 0, built.stderr
    assert f"./wendelin lab --name {name} ssh paris-1" in built.stdout
    yield run
    run("down")
    assert name not in standing()


def state(wendelin: Wendelin) -> dict[str, Any]:
    """Return what ``status --json`` says."""
    return json.loads(wendelin("status", "--json").stdout)


def way(wendelin: Wendelin, *ends: str) -> dict[str, Any]:
    """Return the way between two data centers."""
    found = [way for way in state(wendelin)["ways"] if set(way["between"]) == set(ends)]
    assert len(found) == 1
    return found[0]


def host_states(wendelin: Wendelin) -> dict[str, str]:
    """Return the state of each host."""
    return {host["name"]: host["state"] for host in state(wendelin)["hosts"]}


def test_the_lab_stays_and_shows_its_hosts_and_ways(wendelin: Wendelin) -> None:
    shown = wendelin("status")
    assert shown.returncode == 0
    assert "paris-1  paris        10.77.1.1  on" in shown.stdout
    assert "paris - tokyo   40 ms" in shown.stdout
    assert host_states(wendelin) == {"paris-1": "on", "tokyo-1": "on"}


def test_ssh_logs_in_and_run_runs_beside_the_hosts(wendelin: Wendelin) -> None:
    assert wendelin("ssh", "paris-1", "hostname;", "sudo", "whoami").stdout == "paris-1\nroot\n"
    assert "1 received" in wendelin("run", "ping", "-c", "1", "tokyo-1").stdout
    assert wendelin("run", "sh", "-c", "exit 7").returncode == 7


def test_a_data_center_is_cut_and_healed(wendelin: Wendelin) -> None:
    ping = ("run", "ping", "-c", "1", "-W", "1", "paris-1")
    assert wendelin("cut", "paris").returncode == 0
    assert way(wendelin, "paris", "tokyo")["is_cut"]
    assert not way(wendelin, "master", "tokyo")["is_cut"]
    assert wendelin(*ping).returncode == 1
    wendelin("heal", "paris")
    # Neighbours look for each other first.
    until(lambda: wendelin(*ping).returncode == 0, "paris is reached")


def test_ways_are_slow_lossy_and_narrow(wendelin: Wendelin) -> None:
    wendelin("slow", "paris", "100ms")
    wendelin("slow", "paris", "tokyo", "0.2s")
    wendelin("lose", "paris", "tokyo", "5%")
    wendelin("limit", "paris", "10Mbit")
    assert way(wendelin, "paris", "master") == {
        "between": ["master", "paris"],
        "round_trip": 0.1,
        "loss": 0.0,
        "megabits": 10.0,
        "is_cut": False,
    }
    assert way(wendelin, "paris", "tokyo")["round_trip"] == 0.2
    assert way(wendelin, "paris", "tokyo")["loss"] == 0.05
    assert way(wendelin, "tokyo", "master")["round_trip"] == 0.04


def test_hosts_lose_their_power_and_hang(wendelin: Wendelin) -> None:
    wendelin("off", "paris")
    wendelin("freeze", "tokyo-1")
    assert host_states(wendelin) == {"paris-1": "off", "tokyo-1": "frozen"}
    wendelin("on", "paris")
    wendelin("thaw", "tokyo")
    assert host_states(wendelin) == {"paris-1": "on", "tokyo-1": "on"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cut", "rome"), "no data center 'rome'"),
        (("ssh", "rome-1"), "no host 'rome-1'"),
        (("slow", "paris", "100"), "'100' is not such as 40ms"),
        (("lose", "paris", "150%"), "from 0 to 1, not 1.5"),
        (("slow", "a", "b", "c", "1s"), "name a data center, or two for the way between"),
        (("up",), "there is a lab"),
        (("up", "--hosts", "0"), "'0' hosts: choose 1 to 250"),
        (("up", "--disk", "4"), "'4' is no size of a disk, such as 4GiB"),
    ],
)
def test_a_wrong_word_is_named(wendelin: Wendelin, arguments: tuple[str, ...], words: str) -> None:
    refused = wendelin(*arguments)
    assert refused.returncode in {1, 2}
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
    assert host_states(wendelin) == {"paris-1": "on", "tokyo-1": "on"}


def test_without_a_lab_status_says_how_to_build_one() -> None:
    command = [sys.executable, "-P", "-m", "slapos_wendelin.cli.lab"]
    status = subprocess.run(
        [*command, "--name", "nowhere", "status"], check=False, capture_output=True, text=True
    )
    assert status.returncode == 3
    assert "./wendelin lab up" in status.stdout
