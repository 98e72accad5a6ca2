# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What always holds of placement, whatever the cloud and the request."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placement_clouds import (
    SPREAD,
    allows,
    as_member,
    clouds,
    computers,
    fill,
    groups,
    levels,
    occupy,
    references,
    scan,
    usable,
    with_all,
)

from slapos_wendelin.master import placement
from slapos_wendelin.master.placement import (
    Fleet,
    Member,
    ServiceLevel,
    explain,
    place,
    unmet,
)

#: Whether few computers are looked at one by one or none are: both must find the same.
ways = pytest.mark.parametrize("scanned", [0, placement.SCANNED])


def check_against_scan(found, cloud, members, level):
    """Compare a decision with what looking at each computer gives."""
    expected = scan(cloud, members, level)
    if not expected:
        assert (found.computer, found.partition) == (None, None)
        assert [each.computer for each in found.verdicts] == sorted(c.reference for c in cloud)
        return
    (*_, computer), partition = expected[0]
    assert (found.computer, found.partition) == (computer, partition)
    eligible = [(*each.score, each.computer) for each in found.verdicts if each.eligible]
    assert eligible == [score for score, _ in expected[: placement.EXPLAINED]]


@ways
@given(cloud=clouds(), members=groups(), level=levels())
def test_the_index_finds_what_a_plain_scan_finds(scanned, cloud, members, level):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "SCANNED", scanned)
        check_against_scan(place(Fleet(cloud), members, level), cloud, members, level)


@ways
@given(data=st.data())
def test_the_index_follows_every_change(scanned, data):
    cloud = data.draw(clouds())
    fleet = Fleet(cloud)
    known = {each.reference: each for each in cloud}
    for _ in range(data.draw(st.integers(1, 12))):
        reference = data.draw(references)
        action = data.draw(st.sampled_from(["take", "put", "remove"]))
        if action == "put":
            known[reference] = data.draw(computers(reference))
            fleet.put(known[reference])
        elif action == "remove":
            known.pop(reference, None)
            fleet.remove(reference)
        elif reference in known and known[reference].free:
            known[reference] = occupy(known[reference], known[reference].free[0])
            fleet.put(known[reference])
    assert vars(fleet) == vars(Fleet(known.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "SCANNED", scanned)
        members, level = data.draw(groups()), data.draw(levels())
        check_against_scan(place(fleet, members, level), known.values(), members, level)
    for reference in known:
        fleet.remove(reference)
    assert vars(fleet) == vars(Fleet())


@given(clouds(), groups(), levels(), st.randoms())
def test_the_order_of_the_computers_and_members_has_no_influence(cloud, members, level, random):
    before = place(cloud, members, level)
    random.shuffle(cloud)
    random.shuffle(members)
    after = place(cloud, members, level)
    assert (after.computer, after.partition) == (before.computer, before.partition)
    assert after.verdicts == before.verdicts


@given(clouds(), groups(), levels())
def test_every_computer_is_explained_when_refused_and_the_best_when_placed(cloud, members, level):
    decision = place(cloud, members, level)
    everything = explain(cloud, members, level)
    assert sorted(each.computer for each in everything) == sorted(c.reference for c in cloud)
    assert all(each.explanation for each in everything)
    assert all(bool(each.score) == each.eligible for each in everything)
    assert decision.first_verdicts(3) == everything[:3]
    fitting = {reference for (*_, reference), _ in scan(cloud, members, level)}
    assert {each.computer for each in everything if each.eligible} == fitting
    if decision.computer is None:
        assert decision.verdicts == everything
        assert not any(each.eligible for each in everything)
    else:
        assert decision.verdicts == everything[: placement.EXPLAINED]
        assert decision.verdicts[0].computer == decision.computer


@given(clouds(), st.integers(1, 30))
def test_a_cloud_is_filled_to_its_capacity_and_never_over(cloud, count):
    room = sum(len(each.free) for each in cloud if each.state == "eligible")
    placed = [
        (decision.computer, decision.partition)
        for decision in fill(cloud, count, SPREAD)
        if decision.computer
    ]
    assert len(placed) == min(count, room)
    assert len(set(placed)) == len(placed)


@given(clouds(), levels(), st.integers(1, 15))
def test_no_partition_is_given_twice_whatever_is_asked_for(cloud, level, count):
    placed = [
        (decision.computer, decision.partition)
        for decision in fill(cloud, count, level)
        if decision.computer
    ]
    offered = {(each.reference, partition) for each in cloud for partition in each.free}
    assert max(Counter(placed).values(), default=1) == 1
    assert set(placed) <= offered


@given(clouds(), levels(), st.integers(1, 12))
def test_no_two_of_a_group_share_a_data_center_while_another_without_one_has_room(
    cloud, level, count
):
    level = replace(level, spread="datacenter", group="storage", mode="")
    home = {each.reference: each.datacenter for each in cloud}
    roomy = {
        each.datacenter
        for each in cloud
        if each.state == "eligible" and allows(each, [], level) and usable(each, level)
    }
    chosen = [home[each.computer] for each in fill(cloud, count, level) if each.computer]
    assert len(set(chosen[: len(roomy)])) == min(count, len(roomy))


@given(clouds(), levels(), st.integers(1, 12))
def test_a_mode_is_never_broken(cloud, level, count):
    network = {each.reference: each.network for each in cloud}
    for mode, places in (
        ("unique_by_computer", lambda name: name),
        ("unique_by_network", network.get),
    ):
        found = fill(cloud, count, replace(level, mode=mode))
        used = [places(each.computer) for each in found if each.computer]
        assert len(set(used)) == len(used)


@given(clouds(), groups(), levels(), st.data())
def test_a_new_computer_changes_nothing_but_in_its_own_favour(cloud, members, level, data):
    before = place(cloud, members, level)
    new = data.draw(computers("new"))
    after = place([*cloud, new], members, level)
    assert after.computer in {before.computer, "new"}
    if after.computer == before.computer:
        assert after.partition == before.partition


@given(clouds(), st.lists(levels(), min_size=1, max_size=8), st.data())
def test_a_growing_cloud_never_takes_a_place_away_nor_makes_it_wrong(cloud, asked, data):
    fleet = Fleet(cloud)
    placed: dict[tuple[str, str], tuple[list[Member], ServiceLevel]] = {}
    members: list[Member] = []
    for number, level in enumerate(asked):
        decision = place(fleet, members, level)
        if decision.computer and decision.partition:
            assert (decision.computer, decision.partition) not in placed
            placed[decision.computer, decision.partition] = (list(members), level)
            chosen = fleet[decision.computer]
            fleet.put(occupy(chosen, decision.partition))
            members.append(as_member(chosen))
        fleet.put(data.draw(computers(f"new-{number}")))
        for (computer, partition), (others, wanted) in placed.items():
            assert partition not in fleet[computer].free
            assert not unmet(fleet[computer], partition, others, wanted)


@given(clouds(), groups(), levels())
def test_a_place_is_right_exactly_when_the_service_level_allows_it(cloud, members, level):
    for computer in cloud:
        for partition in (*computer.free, *list(computer.partition_capabilities)[:1]):
            right = (
                computer.state in {"eligible", "cordoned"}
                and allows(computer, members, level)
                and with_all(partition, computer, level)
            )
            assert bool(unmet(computer, partition, members, level)) != right
