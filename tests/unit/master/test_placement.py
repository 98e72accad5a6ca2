# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where placement puts an instance, and how it explains itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placement_clouds import GIB, SPREAD

from slapos_wendelin.master.placement import (
    EXPLAINED,
    Candidate,
    Fleet,
    Member,
    ServiceLevel,
    natural_order,
    place,
    unmet,
)

ONE, TWO = ("slappart0",), ("slappart0", "slappart1")


def level(**sla: object) -> ServiceLevel:
    """Read an SLA; ``__`` stands for a dot."""
    return ServiceLevel.parse({key.replace("__", "."): value for key, value in sla.items()})


def reason(computer: Candidate, wanted: ServiceLevel, members: tuple[Member, ...] = ()) -> str:
    """Return why a computer is refused."""
    decision = place([computer], members, wanted)
    assert decision.computer is None
    (verdict,) = decision.verdicts
    return verdict.explanation


def test_spreading_counts_data_center_then_computer_then_room_then_name():
    members = [Member("paris-1", "paris"), Member("tokyo-1", "tokyo")]
    busy = Candidate("paris-1", "paris", capacity=2, free=TWO)
    idle = Candidate("paris-2", "paris", capacity=2, free=ONE)
    assert place([busy, idle], members, SPREAD).computer == "paris-2"
    other = Candidate("virginia-1", "virginia", capacity=2, free=ONE)
    assert place([busy, idle, other], members, SPREAD).computer == "virginia-1"
    roomy = Candidate("virginia-2", "virginia", capacity=2, free=TWO)
    assert place([busy, idle, other, roomy], members, SPREAD).computer == "virginia-2"
    twin = Candidate("virginia-0", "virginia", capacity=2, free=TWO)
    assert place([other, roomy, twin], members, SPREAD).computer == "virginia-0"


def test_where_each_computer_hosts_some_of_the_group_the_one_with_the_fewest_is_next():
    members = [Member(name, "paris") for name in ("a", "a", "b", "c", "gone")]
    cloud = [
        Candidate("a", "paris", capacity=4, free=("slappart0", "slappart1", "slappart2")),
        Candidate("b", "paris", capacity=4, free=ONE),
        Candidate("c", "paris", capacity=4, free=TWO),
    ]
    verdicts = place(cloud, members, SPREAD).verdicts
    assert [(each.computer, each.score) for each in verdicts] == [
        ("c", (5, 1, -2)),
        ("b", (5, 1, -1)),
        ("a", (5, 2, -3)),
    ]


def test_two_share_a_data_center_only_when_no_other_one_has_room():
    cloud = [Candidate("paris-1", "paris", capacity=2, free=ONE), Candidate("tokyo-1", "tokyo")]
    decision = place(cloud, [Member("paris-2", "paris")], SPREAD)
    assert decision.computer == "paris-1"
    assert decision.verdicts[0].explanation == (
        "data center paris has 1 of group storage, the computer 0; 1 of 2 partitions free"
    )


def test_without_spread_the_members_have_no_influence():
    members = [Member("a", "paris")] * 3
    cloud = [
        Candidate("a", "paris", capacity=2, free=TWO),
        Candidate("b", "tokyo", capacity=2, free=ONE),
    ]
    assert place(cloud, members, ServiceLevel(group="storage")).computer == "a"


def test_partitions_are_taken_in_the_order_people_count():
    cloud = [Candidate("a", capacity=11, free=("slappart10", "slappart2", "slappart9"))]
    assert place(cloud, [], ServiceLevel()).partition == "slappart2"


@given(st.lists(st.text(max_size=8)))
def test_any_names_can_be_ordered(names):
    assert sorted(sorted(names, key=natural_order)) == sorted(names)


@pytest.mark.parametrize(
    ("computer", "wanted", "expected"),
    [
        ({"free": ()}, {}, "full (8 of 8 partitions in use)"),
        (
            {"capacity": 0, "free": ()},
            {},
            "no partitions (slapos node format has not run there)",
        ),
        ({"state": "cordoned"}, {}, "cordoned"),
        ({"state": "lost", "free": ()}, {}, "lost and full (8 of 8 partitions in use)"),
        ({}, {"computer_guid": "paris-2"}, "asked for computer paris-2"),
        (
            {},
            {"instance_guid": "SOFTINST-1"},
            "asked for the computer of SOFTINST-1, which is on no computer",
        ),
        (
            {"datacenter": "tokyo"},
            {"datacenter": "paris,lyon"},
            "data center is tokyo, asked for paris or lyon",
        ),
        ({}, {"region": "eu"}, "region is (none), asked for eu"),
        ({"provider": "there"}, {"provider": "here"}, "provider is there, asked for here"),
        ({"network": "net-1"}, {"network_guid": "net-2"}, "network is net-1, asked for net-2"),
        ({}, {"storage_type": "ssd"}, "lacks storage_type=ssd"),
        (
            {"labels": {"storage_type": "hdd"}},
            {"storage_type": "ssd"},
            "lacks storage_type=ssd (has hdd)",
        ),
        ({"labels": {"rack": "6"}}, {"label__rack": "7"}, "lacks label.rack=7 (has 6)"),
        ({}, {"group": "blue"}, "lacks group=blue"),
        (
            {"memory": 2 * GIB},
            {"memory_size": "4GiB"},
            "memory_size is 2 GiB, asked for at least 4 GiB",
        ),
        (
            {},
            {"storage_capacity": "1TiB"},
            "storage_capacity is not known, asked for at least 1 TiB",
        ),
        ({"cores": 2}, {"cpu_core": 4}, "cpu_core is 2, asked for at least 4"),
        (
            {"labels": {"cpu_frequency": "2.4GHz"}},
            {"cpu_frequency": "3000"},
            "cpu_frequency is 2400 MHz, asked for at least 3000 MHz",
        ),
        (
            {"capabilities": ("gpu",)},
            {"capability": "gpu,ipv4"},
            "lacks capability=ipv4",
        ),
        (
            {"partition_capabilities": {"slappart7": ("ipv4",)}},
            {"capability": "ipv4"},
            "no free partition with capability=ipv4",
        ),
        (
            {"datacenter": "tokyo", "free": ()},
            {"datacenter": "paris"},
            "data center is tokyo, asked for paris and full (8 of 8 partitions in use)",
        ),
    ],
)
def test_a_refused_computer_is_told_why(computer, wanted, expected):
    candidate = replace(Candidate("it", capacity=8, free=TWO), **computer)
    assert reason(candidate, level(**wanted)) == expected


def test_computers_that_have_what_is_asked_for_are_taken():
    rich = Candidate(
        "rich",
        "paris",
        "eu",
        {"storage_type": "ssd", "rack": "7", "group": "blue", "cpu_frequency": "3.2GHz"},
        capacity=2,
        free=TWO,
        provider="here",
        network="net-1",
        capabilities=("gpu",),
        partition_capabilities={"slappart1": ("ipv4",)},
        cores=8,
        memory=16 * GIB,
        disk=500 * GIB,
    )
    poor = [Candidate(f"poor-{number}", capacity=2, free=TWO) for number in range(3)]
    wanted = level(
        datacenter=["paris", "tokyo"],
        region="eu",
        provider="here",
        network_guid="net-1",
        group="blue",
        storage_type="ssd",
        label__rack="7",
        capability="gpu,ipv4",
        cpu_core=8,
        cpu_frequency=3200,
        memory_size="16GiB",
        storage_capacity="500 GB",
    )
    decision = place([*poor, rich], [], wanted)
    assert (decision.computer, decision.partition) == ("rich", "slappart1")


def test_a_computer_that_changes_is_found_by_what_it_has_now():
    cloud = [
        Candidate(name, capacity=1, free=ONE, memory=size * GIB, labels={"rack": name})
        for name, size in (("a", 1), ("b", 2), ("c", 4))
    ]
    fleet = Fleet(cloud)
    fleet.put(replace(cloud[1], memory=8 * GIB, labels={"rack": "d"}))
    assert place(fleet, [], level(memory_size="8GiB")).computer == "b"
    assert place(fleet, [], level(memory_size="1GiB")).computer == "a"
    assert place(fleet, [], level(label__rack="d")).computer == "b"
    assert place(fleet, [], level(label__rack="b")).computer is None
    fleet.remove("b")
    assert place(fleet, [], level(memory_size="8GiB")).computer is None
    assert place(fleet, [], level(memory_size="4GiB")).computer == "c"
    assert "b" not in fleet


def test_an_instance_goes_beside_another_one():
    cloud = [Candidate(name, capacity=1, free=ONE) for name in ("a", "b", "c")]
    beside = level(instance_guid="SOFTINST-1").beside("b")
    assert place(cloud, [], beside).computer == "b"
    assert reason(cloud[0], beside) == "asked for the computer of SOFTINST-1, which is on b"


def test_a_mode_is_kept_even_when_there_is_no_other_place():
    members = (Member("a", "paris", "net-1"),)
    here = Candidate("a", "paris", capacity=2, free=ONE, network="net-1")
    beside = replace(here, reference="b")
    by_computer = level(mode="unique_by_computer", group="storage")
    by_network = level(mode="unique_by_network")
    assert place([here, beside], members, by_computer).computer == "b"
    assert reason(here, by_computer, members) == (
        "hosts an instance of group storage already (unique_by_computer)"
    )
    assert reason(beside, by_network, members) == (
        "its network net-1 has an instance of this tree already (unique_by_network)"
    )
    assert reason(replace(beside, network=""), by_network, members) == (
        "its network is not known (unique_by_network)"
    )


def test_a_decision_among_many_explains_the_chosen_and_the_next_best():
    cloud = [
        Candidate(f"computer-{number}", capacity=50, free=tuple(map(str, range(number))))
        for number in range(50)
    ]
    decision = place(Fleet(cloud), [], ServiceLevel())
    assert decision.computers == 50
    assert [each.computer for each in decision.verdicts] == [
        f"computer-{number}" for number in range(49, 49 - EXPLAINED, -1)
    ]
    assert decision.verdicts[0].score == (0, 0, -49)
    assert decision.verdicts[0].explanation == "49 of 50 partitions free"


def test_a_refusal_among_many_explains_each_as_it_was_then():
    cloud = [Candidate(f"computer-{number:02}", capacity=4) for number in range(50)]
    fleet = Fleet(cloud)
    decision = place(fleet, [], ServiceLevel())
    fleet.put(replace(cloud[7], free=ONE))
    fleet.remove("computer-08")
    assert decision.computer is None
    assert {each.computer: each.explanation for each in decision.verdicts} == {
        each.reference: "full (4 of 4 partitions in use)" for each in cloud
    }


def test_a_place_stays_right_while_a_computer_is_full_or_takes_nothing_new():
    for state in ("eligible", "cordoned"):
        full = Candidate("a", "paris", capacity=2, state=state)
        assert unmet(full, "slappart0", [], level(datacenter="paris")) == ()


def test_a_place_is_wrong_on_a_computer_that_goes_or_no_longer_has_what_was_asked_for():
    computer = Candidate(
        "a", "paris", capacity=2, capabilities=("gpu",), memory=2 * GIB, state="draining"
    )
    wanted = level(datacenter="tokyo", memory_size="4GiB", capability="ipv4,gpu")
    assert unmet(computer, "slappart0", [], wanted) == (
        "draining",
        "data center is paris, asked for tokyo",
        "memory_size is 2 GiB, asked for at least 4 GiB",
        "slappart0 lacks capability=ipv4",
    )


def test_a_place_beside_another_of_the_group_is_wrong_once_another_data_center_has_room():
    here = Candidate("paris-1", "paris", capacity=2)
    others = [Member("paris-2", "paris"), Member("tokyo-1", "tokyo")]
    fleet = Fleet([here, Candidate("tokyo-1", "tokyo", capacity=2, free=ONE)])
    assert unmet(here, "slappart0", others, SPREAD, fleet) == ()
    fleet.put(Candidate("virginia-1", "virginia", capacity=2))
    assert unmet(here, "slappart0", others, SPREAD, fleet) == ()
    fleet.put(Candidate("virginia-1", "virginia", capacity=2, free=ONE))
    assert unmet(here, "slappart0", others, SPREAD, fleet) == (
        "data center paris has 1 more of group storage, virginia has 0 and room",
    )
    pinned = replace(SPREAD, computer_guid="paris-1")
    assert unmet(here, "slappart0", others, pinned, fleet) == ()
