# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service level asks of one computer, each with the reason that it gives when unmet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from slapos_wendelin.master.candidates import SIZES, Candidate, Member, partitions_with
from slapos_wendelin.master.quantities import show_bytes, show_frequency
from slapos_wendelin.master.service_level import (
    UNIQUE_BY_COMPUTER,
    UNIQUE_BY_NETWORK,
    ServiceLevel,
    label_name,
)

_SHOW: dict[str, Callable[[int], str]] = {
    "cpu_core": str,
    "cpu_frequency": show_frequency,
    "memory_size": show_bytes,
    "storage_capacity": show_bytes,
}


class Requirement(NamedTuple):
    """One thing that is asked of a computer."""

    is_met: Callable[[Candidate], bool]
    #: Why a computer does not meet it.
    reason: Callable[[Candidate], str]


def requirements(level: ServiceLevel, members: Sequence[Member]) -> list[Requirement]:
    """Return everything that a service level asks of a computer but the capabilities.

    Those are asked of a partition; :func:`lacking_partition` and :func:`lacking_capability` see to
    them.
    """
    return [
        *_identity(level),
        *_location(level),
        *_labels(level),
        *_sizes(level),
        *_uniqueness(level, members),
    ]


def lacking_partition(candidate: Candidate, level: ServiceLevel) -> str:
    """Return the reason why no partition of the computer can take a new instance, or nothing."""
    if not candidate.capacity:
        return "no partitions (slapos node format has not run there)"
    if not candidate.free:
        return f"full ({candidate.capacity} of {candidate.capacity} partitions in use)"
    if not level.capabilities or free_partitions(candidate, level):
        return ""
    own = candidate.partition_capabilities
    if partitions_with(candidate, level.capabilities, own):
        return f"no free partition with {_capabilities(level.capabilities)}"
    known = {*candidate.capabilities}.union(*own.values())
    missing = [each for each in level.capabilities if each not in known]
    return f"lacks {_capabilities(missing or level.capabilities)}"


def lacking_capability(candidate: Candidate, level: ServiceLevel, partition: str) -> str:
    """Return the reason why a partition has not all that is asked for, or nothing."""
    missing = [
        each for each in level.capabilities if not partitions_with(candidate, (each,), (partition,))
    ]
    return f"{partition} lacks {_capabilities(missing)}" if missing else ""


def free_partitions(candidate: Candidate, level: ServiceLevel) -> Sequence[str]:
    """Return the free partitions that have what the service level asks of one."""
    if not level.capabilities:
        return candidate.free
    return partitions_with(candidate, level.capabilities, candidate.free)


def _identity(level: ServiceLevel) -> Iterator[Requirement]:
    """Ask for one computer, by its name or by an instance on it."""
    guid = level.computer_guid
    if guid:
        yield Requirement(
            lambda each: each.reference == guid, lambda _: f"asked for computer {guid}"
        )
    beside, instance = level.instance_computer, level.instance_guid
    if instance:
        where = f"which is on {beside}" if beside else "which is on no computer"
        yield Requirement(
            lambda each: each.reference == beside,
            lambda _: f"asked for the computer of {instance}, {where}",
        )


def _location(level: ServiceLevel) -> Iterator[Requirement]:
    """Ask for data centers, a region, a provider, a network."""
    if level.datacenters:
        datacenters = frozenset(level.datacenters)
        several = " or ".join(level.datacenters)
        yield Requirement(
            lambda each: each.datacenter in datacenters,
            lambda each: _differs("data center", each.datacenter, several),
        )
    if level.region:
        yield Requirement(
            lambda each: each.region == level.region,
            lambda each: _differs("region", each.region, level.region),
        )
    if level.provider:
        yield Requirement(
            lambda each: each.provider == level.provider,
            lambda each: _differs("provider", each.provider, level.provider),
        )
    if level.network_guid:
        yield Requirement(
            lambda each: each.network == level.network_guid,
            lambda each: _differs("network", each.network, level.network_guid),
        )


def _labels(level: ServiceLevel) -> Iterator[Requirement]:
    """Ask for labels."""
    for key, value in level.labels:
        yield _label(key, label_name(key), value)


def _label(key: str, name: str, value: str) -> Requirement:
    """Ask for a label."""

    def reason(candidate: Candidate) -> str:
        found = candidate.labels.get(name)
        return f"lacks {key}={value}" + ("" if found is None else f" (has {found})")

    return Requirement(lambda each: each.labels.get(name) == value, reason)


def _sizes(level: ServiceLevel) -> Iterator[Requirement]:
    """Ask for at least so much."""
    for key, least in level.sizes:
        yield _size(key, least)


def _size(key: str, least: int) -> Requirement:
    """Ask for at least so much of one kind."""
    size_of, show = SIZES[key], _SHOW[key]

    def reason(candidate: Candidate) -> str:
        size = size_of(candidate)
        found = "not known" if size is None else show(size)
        return f"{key} is {found}, asked for at least {show(least)}"

    return Requirement(lambda each: (size_of(each) or 0) >= least, reason)


def _uniqueness(level: ServiceLevel, members: Sequence[Member]) -> Iterator[Requirement]:
    """Ask for a computer or a network that none of the others is on."""
    others = f"an instance of group {level.group}" if level.group else "an instance of this tree"
    if level.mode == UNIQUE_BY_COMPUTER:
        computers = frozenset(member.computer for member in members)
        yield Requirement(
            lambda each: each.reference not in computers,
            lambda _: f"hosts {others} already ({level.mode})",
        )
    elif level.mode == UNIQUE_BY_NETWORK:
        networks = frozenset(member.network for member in members)
        yield Requirement(
            lambda each: bool(each.network) and each.network not in networks,
            lambda each: (
                f"its network {each.network} has {others} already ({level.mode})"
                if each.network
                else f"its network is not known ({level.mode})"
            ),
        )


def _differs(what: str, found: str, asked: str) -> str:
    """Say that a computer is elsewhere."""
    return f"{what} is {found or '(none)'}, asked for {asked}"


def _capabilities(names: Sequence[str]) -> str:
    """Return capabilities as a request writes them."""
    return f"capability={','.join(names)}"
