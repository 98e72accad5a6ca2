# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what a host has: all that it lacks, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from slapos_wendelin.remote.errors import UnfitHostError
from slapos_wendelin.remote.probe import Facts

#: Bytes that the toolkit takes while it is installed, and that releases and data need at least.
TOOLKIT_SIZE, DATA_SIZE = 500 * 2**20, 2 * 2**30
#: Seconds by which a clock may differ: certificates and logs need more or less the same time.
CLOCK_TOLERANCE = 30.0

_MACHINES = ("x86_64", "aarch64")
_DISTRIBUTIONS = frozenset({"debian", "ubuntu"})
_PROGRAMS = {
    "tar": "tar",
    "setpriv": "util-linux",
    "useradd": "passwd",
    "userdel": "passwd",
    "groupadd": "passwd",
    "passwd": "passwd",
    "ip": "iproute2",
}
#: What releases that compile their parts need, too.
_BUILD_PROGRAMS = {"gcc": "gcc libc6-dev", "patch": "patch"}
#: The ports on which the nodes of our releases listen.
_NODE_PORTS = frozenset({8786, 8787, 8788, 8789, 12051, 12052, 12053})
_EVERYWHERE = frozenset({"00000000", "0" * 32})


class Fault(NamedTuple):
    """Something that has to be mended before, or that is to be known."""

    text: str
    remedy: str = ""
    #: Whether the host can be joined all the same.
    is_note: bool = False


@dataclass(frozen=True)
class Wish:
    """What the host is to be."""

    prefix: str
    data: str
    master_url: str
    #: The name asked for; empty for any.
    name: str = ""


def faults(facts: Facts, wish: Wish) -> list[Fault]:
    """Return everything that stands against a host, and what is to be known of it."""
    return [
        *_privileges(facts),
        *_system(facts),
        *_python(facts),
        *_programs(facts),
        *_disk(facts, wish),
        *_master(facts, wish),
        *_former(facts, wish),
        *_ports(facts),
    ]


def require(facts: Facts, wish: Wish, more: tuple[Fault, ...] = ()) -> list[Fault]:
    """Return what is to be known of a host.

    :param more: what others have found.
    :raises UnfitHostError: with all that has to be mended.
    """
    found = [*faults(facts, wish), *more]
    serious = [each for each in found if not each.is_note]
    if serious:
        raise UnfitHostError(
            "; ".join(each.text for each in serious),
            "; ".join(dict.fromkeys(each.remedy for each in serious if each.remedy)),
            tuple(f"{each.text} ({each.remedy})" if each.remedy else each.text for each in serious),
        )
    return [each for each in found if each.is_note]


def _privileges(facts: Facts) -> Iterator[Fault]:
    """Look for root, or sudo that asks nothing."""
    if facts.become == "none":
        yield Fault(
            "you are not root there, and sudo asks for a password or is missing",
            "let this user do everything: NAME ALL=(ALL) NOPASSWD: ALL in /etc/sudoers.d, or log "
            "in as root",
        )


def _system(facts: Facts) -> Iterator[Fault]:
    """Look for a distribution and a kind of machine that the toolkit runs on."""
    if not ({facts.distribution} | facts.likes) & _DISTRIBUTIONS:
        yield Fault(
            f"it runs {facts.distribution_name}",
            "Debian and Ubuntu can be computers, or what is like them",
        )
    if facts.machine not in _MACHINES:
        yield Fault(f"it is a {facts.machine}", f"the toolkit runs on {' and '.join(_MACHINES)}")


def _python(facts: Facts) -> Iterator[Fault]:
    """Look for a Python that the toolkit can be installed with."""
    remedy = "there, as root: apt-get update && apt-get install --yes python3 python3-venv"
    if not facts.python:
        others = f" but {', '.join(facts.other_pythons)}" if facts.other_pythons else ""
        yield Fault(f"it has no Python 3.11 to 3.13{others}", remedy)
    elif not facts.python_facts:
        yield Fault(f"{facts.python} does not work there", "try it there and mend it")
    elif not facts.python_facts["venv"]:
        yield Fault(f"{facts.python} lacks venv or ensurepip", remedy)


def _programs(facts: Facts) -> Iterator[Fault]:
    """Look for what joining and slapformat start; what releases need is worth a note."""
    missing = [name for name in _PROGRAMS if name not in facts.programs]
    if missing:
        packages = " ".join(dict.fromkeys(_PROGRAMS[name] for name in missing))
        yield Fault(
            f"it lacks {', '.join(missing)}",
            f"there, as root: apt-get update && apt-get install --yes {packages}",
        )
    lacking = [name for name in _BUILD_PROGRAMS if name not in facts.programs]
    if facts.python_facts and not facts.python_facts["headers"]:
        lacking.append("Python.h")
    if lacking:
        yield Fault(
            f"it lacks {', '.join(lacking)}: releases that compile something cannot be built there",
            "there, as root: apt-get install --yes gcc libc6-dev patch python3-dev",
            is_note=True,
        )


def _disk(facts: Facts, wish: Wish) -> Iterator[Fault]:
    """Look for room for the toolkit, and for software and data."""
    for folder, free, needed in (
        (wish.prefix, facts.prefix_free, TOOLKIT_SIZE),
        (wish.data, facts.data_free, DATA_SIZE),
    ):
        if free < needed:
            yield Fault(
                f"{folder} has {max(free, 0) / 2**20:.0f} MiB free and needs {needed / 2**20:.0f}",
                "free some space, or name another folder with --prefix or --data",
            )


def _master(facts: Facts, wish: Wish) -> Iterator[Fault]:
    """See whether the host reaches the master, and has the same time."""
    answer = facts.python_facts.get("master", {})
    if not facts.python_facts:
        return
    if "error" in answer:
        yield Fault(
            f"the master at {wish.master_url} cannot be reached from there: {answer['error']}",
            "open the way to it, or name the URL that leads to it from there: --master-url URL",
        )
    elif answer.get("difference") is None:
        yield Fault(
            f"what answers from there at {wish.master_url} is no master",
            "name the URL that leads to it from there: --master-url URL",
        )
    elif abs(answer["difference"]) > CLOCK_TOLERANCE:
        seconds = answer["difference"]
        way = "ahead of" if seconds > 0 else "behind"
        yield Fault(
            f"its clock is {abs(seconds):.0f} s {way} the master's",
            "let it follow a time server: apt-get install --yes systemd-timesyncd",
        )


def _former(facts: Facts, wish: Wish) -> Iterator[Fault]:
    """Look at what is there: ours has to be the same, others' may not be in the way."""
    record = facts.record
    if not record:
        for folder in facts.taken:
            yield Fault(
                f"{folder} holds something that was not put there by this",
                "take it away, or name another folder with --prefix or --data"
                if folder in {wish.prefix, wish.data}
                else "it is a computer of another SlapOS: take that away first",
            )
        for user in facts.users:
            yield Fault(f"there is a user {user} of another origin", f"userdel {user}, there")
        return
    for name, wanted, remedy in (
        ("computer", wish.name, "leave that first: slapos computer leave, or use its name"),
        ("master", wish.master_url, "leave that first: slapos computer leave"),
        ("prefix", wish.prefix, "name the same again with --prefix"),
        ("data", wish.data, "name the same again with --data"),
    ):
        if wanted and record.get(name, wanted) != wanted:
            yield Fault(f"it has joined before with {name} {record[name]}, not {wanted}", remedy)


def _ports(facts: Facts) -> Iterator[Fault]:
    """Look for ports that nodes need and that somebody has on all addresses."""
    if facts.record:
        return
    taken = sorted({port for host, port in facts.listening if host in _EVERYWHERE} & _NODE_PORTS)
    if taken:
        yield Fault(
            f"somebody listens there on {', '.join(map(str, taken))} already",
            "nodes of a cluster that want the same cannot start there: stop that program",
            is_note=True,
        )
