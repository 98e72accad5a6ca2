# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clouds, groups and service levels of every kind, and a plain scan to compare placement with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from slapos_wendelin.master.candidates import COMPUTER_STATES
from slapos_wendelin.master.placement import (
    Candidate,
    Decision,
    Member,
    ServiceLevel,
    natural_order,
    place,
)

SPREAD = ServiceLevel(spread="datacenter", group="storage")

GIB = 2**30

references = st.sampled_from([f"computer-{letter}" for letter in "abcdefghijkl"])
datacenters = st.sampled_from(["paris", "paris", "tokyo", "tokyo", "virginia", ""])
networks = st.sampled_from(["", "net-1", "net-2"])
capabilities = st.sampled_from([(), (), ("gpu",), ("ipv4",), ("gpu", "ipv4")])


def rarely(values: st.SearchStrategy, otherwise: object) -> st.SearchStrategy:
    """Return a strategy that mostly gives one value, so that many things happen together."""
    return st.integers(0, 7).flatmap(lambda number: st.just(otherwise) if number else values)


@st.composite
def computers(draw: st.DrawFn, reference: str) -> Candidate:
    """Return a computer: full, without partitions, closed or open."""
    capacity = draw(st.sampled_from([4, 3, 2, 1, 0]))
    partitions = [f"slappart{index}" for index in draw(st.permutations(range(capacity)))]
    return Candidate(
        reference,
        datacenter=draw(datacenters),
        region=draw(rarely(st.sampled_from(["", "asia"]), "eu")),
        provider=draw(rarely(st.just("here"), "")),
        network=draw(networks),
        labels=draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "group": st.just("blue"),
                    "storage_type": st.sampled_from(["ssd", "hdd"]),
                    "cpu_frequency": st.sampled_from(["2.4GHz", "3000", "fast"]),
                },
            )
        ),
        capacity=capacity,
        free=tuple(partitions[: draw(st.integers(0, capacity))]),
        capabilities=draw(capabilities),
        partition_capabilities={each: draw(capabilities) for each in partitions[:2]},
        cores=draw(st.sampled_from([None, 2, 8])),
        memory=draw(st.sampled_from([None, GIB, 4 * GIB])),
        disk=draw(st.sampled_from([None, 100 * GIB])),
        state=draw(rarely(st.sampled_from(COMPUTER_STATES), "eligible")),
    )


@st.composite
def clouds(draw: st.DrawFn) -> list[Candidate]:
    """Return computers with names of their own."""
    names = draw(st.lists(references, unique=True, max_size=12))
    return [draw(computers(name)) for name in names]


@st.composite
def levels(draw: st.DrawFn) -> ServiceLevel:
    """Return service levels that ask for few or many things."""
    group = draw(st.sampled_from(["", "storage"]))
    instance = draw(rarely(st.just("SOFTINST-1"), ""))
    return ServiceLevel(
        computer_guid=draw(rarely(st.one_of(references, st.just("nowhere")), "")),
        datacenters=tuple(draw(rarely(st.lists(datacenters.filter(bool), max_size=2), []))),
        region=draw(rarely(st.just("eu"), "")),
        provider=draw(rarely(st.just("here"), "")),
        network_guid=draw(rarely(networks, "")),
        instance_guid=instance,
        instance_computer=draw(references) if instance else "",
        group=group,
        spread=draw(st.sampled_from(["", "datacenter"])) if group else "",
        mode=draw(rarely(st.sampled_from(["unique_by_network", "unique_by_computer"]), "")),
        capabilities=draw(rarely(capabilities, ())),
        labels=draw(
            rarely(
                st.sampled_from([(("storage_type", "ssd"),), (("label.group", "blue"),)]),
                (),
            )
        ),
        sizes=draw(
            rarely(
                st.sampled_from(
                    [
                        (("cpu_core", 4),),
                        (("memory_size", 2 * GIB), ("storage_capacity", GIB)),
                        (("cpu_frequency", 2_500_000_000),),
                    ]
                ),
                (),
            )
        ),
    )


@st.composite
def groups(draw: st.DrawFn) -> list[Member]:
    """Return members of a group; a computer may be unknown, or have moved since."""
    return [
        Member(*member)
        for member in draw(st.lists(st.tuples(references, datacenters, networks), max_size=10))
    ]


def with_all(partition: str, computer: Candidate, level: ServiceLevel) -> bool:
    """Return whether a partition has the capabilities that are asked for."""
    own = (*computer.capabilities, *computer.partition_capabilities.get(partition, ()))
    return set(level.capabilities) <= set(own)


def allows(computer: Candidate, members: Sequence[Member], level: ServiceLevel) -> bool:
    """Return whether a service level allows a computer, leaving its partitions aside."""
    frequency = {"2.4GHz": 2_400_000_000, "3000": 3_000_000_000}
    sizes = {
        "cpu_core": computer.cores,
        "cpu_frequency": frequency.get(computer.labels.get("cpu_frequency", "")),
        "memory_size": computer.memory,
        "storage_capacity": computer.disk,
    }
    wrong = [
        level.computer_guid not in {"", computer.reference},
        level.instance_guid and level.instance_computer != computer.reference,
        level.datacenters and computer.datacenter not in level.datacenters,
        level.region not in {"", computer.region},
        level.provider not in {"", computer.provider},
        level.network_guid not in {"", computer.network},
        any(
            computer.labels.get(key.removeprefix("label.")) != value for key, value in level.labels
        ),
        any(sizes[key] is None or sizes[key] < least for key, least in level.sizes),
        level.mode == "unique_by_computer"
        and computer.reference in [member.computer for member in members],
        level.mode == "unique_by_network"
        and computer.network in ["", *(member.network for member in members)],
    ]
    return not any(wrong)


def usable(computer: Candidate, level: ServiceLevel) -> list[str]:
    """Return the free partitions that a request may take, in the order people count."""
    fitting = [each for each in computer.free if with_all(each, computer, level)]
    return sorted(fitting, key=natural_order)


def scan(
    cloud: Iterable[Candidate], members: Sequence[Member], level: ServiceLevel
) -> list[tuple[tuple[int, int, int, str], str]]:
    """Return the score and the partition of each computer that fits, the best first."""
    group = members if level.spread else []
    return sorted(
        (
            (
                sum(member.datacenter == each.datacenter for member in group),
                sum(member.computer == each.reference for member in group),
                -len(each.free),
                each.reference,
            ),
            usable(each, level)[0],
        )
        for each in cloud
        if each.state == "eligible" and allows(each, members, level) and usable(each, level)
    )


def occupy(computer: Candidate, partition: str) -> Candidate:
    """Return a computer with one partition fewer."""
    return replace(computer, free=tuple(each for each in computer.free if each != partition))


def as_member(computer: Candidate) -> Member:
    """Return an instance on a computer."""
    return Member(computer.reference, computer.datacenter, computer.network)


def fill(cloud: Iterable[Candidate], count: int, level: ServiceLevel) -> list[Decision]:
    """Place instances of one group one after another, each seeing those before it."""
    state = {each.reference: each for each in cloud}
    members: list[Member] = []
    decisions = []
    for _ in range(count):
        decision = place(state.values(), members, level)
        decisions.append(decision)
        if decision.computer is None or decision.partition is None:
            break
        chosen = state[decision.computer]
        state[chosen.reference] = occupy(chosen, decision.partition)
        members.append(as_member(chosen))
    return decisions
