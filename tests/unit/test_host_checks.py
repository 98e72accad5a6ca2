# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has is read and judged: all that it lacks is said at once."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from slapos_wendelin.remote.checks import Wish, faults, require
from slapos_wendelin.remote.errors import HostError, UnfitHostError
from slapos_wendelin.remote.probe import Facts, parse_facts, script_for

WISH = Wish("/opt/slapos-wendelin", "/srv/slapos-wendelin", "https://master:5000", "paris-1")
PYTHON: dict[str, Any] = {
    "version": [3, 11, 2],
    "venv": True,
    "headers": True,
    "machine": "x86_64",
    "glibc": "2.36",
    "master": {"difference": 0.4},
    "index": {"error": "timed out"},
    "address": "192.0.2.1",
    "hostname": "paris-1.example.org",
}
FIT = Facts(
    become="sudo -n --",
    uid=0,
    distribution="debian",
    distribution_name="Debian GNU/Linux 12",
    likes=frozenset(),
    machine="x86_64",
    programs=frozenset(
        ["tar", "setpriv", "useradd", "userdel", "groupadd", "passwd", "ip", "gcc", "patch"]
    ),
    prefix_free=10 * 2**30,
    data_free=10 * 2**30,
    taken=(),
    users=(),
    has_systemd=True,
    listening=(("00000000", 22),),
    python="/usr/bin/python3",
    python_facts=PYTHON,
)
JOINED = {
    "computer": "paris-1",
    "master": WISH.master_url,
    "prefix": WISH.prefix,
    "data": WISH.data,
}


def changed(**values: Any) -> Facts:
    return replace(FIT, **values)


def with_python(**values: Any) -> Facts:
    return changed(python_facts=PYTHON | values)


def test_a_host_that_has_everything_is_fit() -> None:
    assert faults(FIT, WISH) == []
    assert FIT.hostname == "paris-1"


@pytest.mark.parametrize(
    ("facts", "fault", "remedy"),
    [
        (changed(become="none"), "you are not root there", "NOPASSWD"),
        (changed(distribution="fedora", distribution_name="Fedora 40"), "runs Fedora 40", "Debian"),
        (changed(machine="riscv64"), "is a riscv64", "x86_64 and aarch64"),
        (changed(python="", python_facts={}), "no Python 3.11 to 3.13", "apt-get install"),
        (
            changed(python="", python_facts={}, other_pythons=("Python 3.9.2",)),
            "but Python 3.9.2",
            "python3-venv",
        ),
        (with_python(venv=False), "lacks venv or ensurepip", "python3-venv"),
        (
            changed(programs=FIT.programs - {"useradd", "ip"}),
            "lacks useradd, ip",
            "passwd iproute2",
        ),
        (changed(prefix_free=2**20), "has 1 MiB free and needs 500", "--prefix"),
        (
            with_python(master={"error": "refused"}),
            "cannot be reached from there: refused",
            "--master-url",
        ),
        (with_python(master={"difference": None}), "is no master", "--master-url"),
        (
            with_python(master={"difference": 90.0}),
            "clock is 90 s ahead of the master's",
            "time server",
        ),
        (
            with_python(master={"difference": -90.0}),
            "clock is 90 s behind the master's",
            "time server",
        ),
        (changed(taken=("/etc/opt/slapos",)), "/etc/opt/slapos holds something", "another SlapOS"),
        (changed(taken=(WISH.prefix,)), f"{WISH.prefix} holds something", "--prefix"),
        (changed(users=("slapsoft",)), "a user slapsoft of another origin", "userdel slapsoft"),
        (
            changed(record=JOINED | {"computer": "tokyo-1"}),
            "joined before with computer tokyo-1, not paris-1",
            "slapos computer leave",
        ),
        (
            changed(record=JOINED | {"master": "https://other"}),
            "joined before with master https://other",
            "slapos computer leave",
        ),
    ],
)
def test_what_a_host_lacks_is_said_with_what_to_do(facts: Facts, fault: str, remedy: str) -> None:
    with pytest.raises(UnfitHostError) as caught:
        require(facts, WISH)
    assert fault in caught.value.message
    assert remedy in caught.value.remedy


def test_all_that_a_host_lacks_is_said_at_once() -> None:
    facts = replace(with_python(venv=False), become="none", data_free=0)
    with pytest.raises(UnfitHostError) as caught:
        require(facts, WISH)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        (changed(programs=FIT.programs - {"gcc"}), "cannot be built there"),
        (with_python(headers=False), "lacks Python.h"),
        (changed(listening=(("00000000", 8787), ("0100007F", 8786))), "on 8787 already"),
    ],
)
def test_what_only_releases_need_is_a_note(facts: Facts, note: str) -> None:
    (found,) = require(facts, WISH)
    assert note in found.text


def test_what_an_earlier_join_left_is_no_fault() -> None:
    facts = changed(record=JOINED, taken=(WISH.prefix, "/etc/opt/slapos"), users=("slapsoft",))
    assert faults(facts, WISH) == []


def test_the_script_says_on_this_machine_what_the_parser_reads() -> None:
    script = script_for(
        prefix="/nowhere/opt",
        data="/nowhere/srv",
        master_url="https://127.0.0.1:9",
        ask_index=False,
    )
    said = subprocess.run(
        ["sh", "-s"], input=script, capture_output=True, text=True, check=True
    ).stdout
    facts = parse_facts(f"a banner\n@@become=\n{said}", "here")
    assert facts.become == ""
    assert facts.prefix_free > 0
    assert "tar" in facts.programs
    assert facts.taken == ()
    if facts.python:
        assert facts.python_facts["master"] == {"error": "Connection refused"}


def test_values_of_several_lines_and_noise_are_told_apart() -> None:
    record = json.dumps({"computer": "paris-1"}, indent=2)
    facts = parse_facts(f"Welcome!\n@@uid=0\n@@record={record}\n@@end=yes\n", "there")
    assert facts.record == {"computer": "paris-1"}
    assert facts.uid == 0


def test_a_host_that_does_not_say_all_is_refused_with_what_it_said() -> None:
    with pytest.raises(HostError, match="admin@host: sudo: a password is required"):
        parse_facts("@@uid=1000\n", "admin@host: sudo: a password is required")
