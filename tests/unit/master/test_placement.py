# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where placement puts an instance, and how it explains itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.placement import (
    Candidate,
    Decision,
    Member,
    ServiceLevel,
    natural_order,
    place,
)

SPREAD = ServiceLevel(spread="datacenter", group="storage")

datacenters = st.sampled_from(["paris", "tokyo", "virginia"])


@st.composite
def clouds(draw: st.DrawFn) -> list[Candidate]:
    """Return computers with names of their own, some full, some without partitions."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8))
    cloud = []
    for name in names:
        capacity = draw(st.integers(0, 4))
        free = draw(st.integers(0, capacity))
        cloud.append(
            Candidate(
                reference=name,
                datacenter=draw(datacenters),
                region=draw(st.sampled_from(["", "eu", "asia"])),
                capacity=capacity,
                free=tuple(f"slappart{index}" for index in range(free)),
            )
        )
    return cloud


@st.composite
def levels(draw: st.DrawFn) -> ServiceLevel:
    """Return service levels of every kind."""
    group = draw(st.sampled_from(["", "storage"]))
    return ServiceLevel(
        computer_guid=draw(st.sampled_from(["", "", "", "a", "nowhere"])),
        datacenters=tuple(draw(st.lists(datacenters, max_size=2))),
        region=draw(st.sampled_from(["", "", "eu"])),
        group=group,
        spread=draw(st.sampled_from(["", "datacenter"])) if group else "",
    )


@st.composite
def groups(draw: st.DrawFn) -> list[Member]:
    """Return members of a group in the data centers."""
    return [
        Member(name, datacenter)
        for name, datacenter in draw(
            st.lists(st.tuples(st.sampled_from("abcdefgh"), datacenters), max_size=6)
        )
    ]


def fill(cloud: list[Candidate], count: int, level: ServiceLevel) -> list[Decision]:
    """Place instances of one group one after another, each seeing those before it."""
    state = {each.reference: each for each in cloud}
    members: list[Member] = []
    decisions = []
    for _ in range(count):
        decision = place(state.values(), members, level)
        decisions.append(decision)
        if decision.computer is None:
            break
        chosen = state[decision.computer]
        left = tuple(name for name in chosen.free if name != decision.partition)
        state[chosen.reference] = Candidate(
            chosen.reference, chosen.datacenter, chosen.region, {}, chosen.capacity, left
        )
        members.append(Member(chosen.reference, chosen.datacenter))
    return decisions


@given(clouds(), groups(), levels())
def test_a_chosen_place_is_free_and_allowed(cloud, members, level):
    decision = place(cloud, members, level)
    if decision.computer is None:
        assert decision.partition is None
        return
    chosen = next(each for each in cloud if each.reference == decision.computer)
    assert decision.partition in chosen.free
    assert level.computer_guid in {"", chosen.reference}
    assert not level.datacenters or chosen.datacenter in level.datacenters
    assert level.region in {"", chosen.region}


@given(clouds(), groups(), levels())
def test_a_refusal_means_that_no_computer_is_both_allowed_and_free(cloud, members, level):
    if place(cloud, members, level).computer is None:
        for each in cloud:
            assert (
                not each.free
                or level.computer_guid not in {"", each.reference}
                or (level.datacenters and each.datacenter not in level.datacenters)
                or level.region not in {"", each.region}
            )


@given(clouds(), groups(), levels(), st.randoms())
def test_the_order_of_the_computers_and_members_has_no_influence(cloud, members, level, random):
    before = place(cloud, members, level)
    random.shuffle(cloud)
    random.shuffle(members)
    assert place(cloud, members, level) == before


@given(clouds(), groups(), levels())
def test_every_computer_is_explained(cloud, members, level):
    decision = place(cloud, members, level)
    assert {verdict.computer for verdict in decision.verdicts} == {c.reference for c in cloud}
    assert all(verdict.explanation for verdict in decision.verdicts)
    assert all(bool(verdict.score) == verdict.eligible for verdict in decision.verdicts)


@given(clouds(), st.integers(1, 30))
def test_a_cloud_is_filled_to_its_capacity_and_never_over(cloud, count):
    room = sum(len(each.free) for each in cloud)
    placed = [
        (decision.computer, decision.partition)
        for decision in fill(cloud, count, SPREAD)
        if decision.computer
    ]
    assert len(placed) == min(count, room)
    assert len(set(placed)) == len(placed)


@given(clouds(), st.integers(1, 12))
def test_no_two_of_a_group_share_a_data_center_while_another_without_one_has_room(cloud, count):
    home = {each.reference: each.datacenter for each in cloud}
    open_datacenters = {each.datacenter for each in cloud if each.free}
    chosen = [home[each.computer] for each in fill(cloud, count, SPREAD) if each.computer]
    first = chosen[: len(open_datacenters)]
    assert len(set(first)) == len(first)


@given(clouds(), groups(), levels(), datacenters)
def test_adding_a_computer_changes_nothing_but_in_its_own_favour(cloud, members, level, datacenter):
    before = place(cloud, members, level)
    new = Candidate("new", datacenter, "eu", capacity=1, free=("slappart0",))
    after = place([*cloud, new], members, level)
    assert after.computer in {before.computer, "new"}
    if after.computer == before.computer:
        assert after.partition == before.partition


def test_spreading_counts_data_center_then_computer_then_room_then_name():
    members = [Member("paris-1", "paris"), Member("tokyo-1", "tokyo")]
    one, two = ("slappart0",), ("slappart0", "slappart1")
    busy = Candidate("paris-1", "paris", capacity=2, free=two)
    idle = Candidate("paris-2", "paris", capacity=2, free=one)
    assert place([busy, idle], members, SPREAD).computer == "paris-2"
    other = Candidate("virginia-1", "virginia", capacity=2, free=one)
    assert place([busy, idle, other], members, SPREAD).computer == "virginia-1"
    roomy = Candidate("virginia-2", "virginia", capacity=2, free=two)
    assert place([busy, idle, other, roomy], members, SPREAD).computer == "virginia-2"
    twin = Candidate("virginia-0", "virginia", capacity=2, free=two)
    assert place([other, roomy, twin], members, SPREAD).computer == "virginia-0"


def test_without_spread_a_group_has_no_influence():
    members = [Member("a", "paris")] * 3
    cloud = [
        Candidate("a", "paris", capacity=2, free=("slappart0", "slappart1")),
        Candidate("b", "tokyo", capacity=2, free=("slappart0",)),
    ]
    assert place(cloud, members, ServiceLevel(group="storage")).computer == "a"


def test_explanations_say_what_was_asked_and_what_is():
    cloud = [
        Candidate("paris", "paris", capacity=8, free=()),
        Candidate("tokyo", "tokyo", capacity=1, free=("slappart0",)),
        Candidate("berlin", "paris"),
    ]
    verdicts = place(cloud, [], ServiceLevel(datacenters=("paris",))).verdicts
    assert {verdict.computer: verdict.explanation for verdict in verdicts} == {
        "paris": "full (8 of 8 partitions in use)",
        "tokyo": "data center is tokyo, asked for paris",
        "berlin": "no partitions (slapos node format has not run there)",
    }


def test_partitions_are_taken_in_the_order_people_count():
    cloud = [Candidate("a", capacity=11, free=("slappart10", "slappart2", "slappart9"))]
    assert place(cloud, [], ServiceLevel()).partition == "slappart2"


@given(st.lists(st.text(max_size=8)))
def test_any_names_can_be_ordered(names):
    assert sorted(sorted(names, key=natural_order)) == sorted(names)


@pytest.mark.parametrize(
    ("sla", "expected"),
    [
        ({}, ServiceLevel()),
        ({"datacenter": "paris"}, ServiceLevel(datacenters=("paris",))),
        ({"datacenter": "paris, tokyo"}, ServiceLevel(datacenters=("paris", "tokyo"))),
        ({"datacenter": ["paris", "tokyo"]}, ServiceLevel(datacenters=("paris", "tokyo"))),
        ({"spread": "datacenter", "group": "storage"}, SPREAD),
    ],
)
def test_service_levels_are_read(sla, expected):
    assert ServiceLevel.parse(sla) == expected


@pytest.mark.parametrize(
    ("sla", "message"),
    [
        (
            {"network_guid": "x"},
            r"'network_guid' \(the known ones are computer_guid, datacenter, group",
        ),
        ({"spread": "rack", "group": "a"}, "'spread' is 'rack'"),
        ({"spread": "datacenter"}, "there is no 'group'"),
        ({"region": ["eu"]}, "'region' is"),
        ({"datacenter": [1]}, "'datacenter' is"),
    ],
)
def test_a_wrong_service_level_is_named(sla, message):
    with pytest.raises(InvalidRequestError, match=message):
        ServiceLevel.parse(sla)
