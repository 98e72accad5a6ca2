# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan shows what a request would do, and is applied as it was shown or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from planning import (
    apply,
    carry_out,
    copy_of,
    explain,
    picture,
    plan,
    play_children,
    wanted,
)
from sqlalchemy import select

from slapos_wendelin.master import plans
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import ConflictError
from slapos_wendelin.master.models import (
    Software,
)
from slapos_wendelin.master.plans import ChildRequest, PlannedRequest, StalePlanError


@pytest.fixture
def database(three_computers: Path) -> Iterator[Database]:
    with copy_of(three_computers) as made:
        yield made


def test_a_plan_says_what_is_added_where_and_why_and_what_is_built_first(database: Database):
    effects = explain(
        database,
        PlannedRequest(
            wanted(sla={"datacenter": "tokyo"}),
            (ChildRequest("storage", "neo", {"size": 1}, ("masters",)),),
        ),
    )
    found = {each["kind"]: each for each in effects["changes"]}
    root, software = found.pop("instance"), found.pop("software")
    assert not found
    assert (root["name"], root["action"], root["after"]["place"]) == (
        "cluster",
        "added",
        "tokyo-1/slappart0",
    )
    assert (software["kind"], software["name"]) == ("software", "tokyo-1 r1")
    (child,) = [each for each in effects["later"] if each["kind"] == "instance"]
    assert (child["name"], child["after"]["parameters"]) == ("cluster/storage", {"size": 1})
    assert child["after"]["requester"] == "cluster"
    assert effects["reasons"] == {
        "cluster": "2 of 2 partitions free",
        "cluster/storage": "2 of 2 partitions free",
    }
    assert effects["builds"] == [
        {"computer": "paris-1", "url": "r1", "state": ""},
        {"computer": "tokyo-1", "url": "r1", "state": ""},
    ]


def test_software_that_is_there_is_not_to_be_built(database: Database):
    carry_out(database, PlannedRequest(wanted()))
    with database.writing() as session:
        session.scalars(select(Software)).one().reported_state = "available"
    effects = explain(database, PlannedRequest(wanted(parameters={"_": '{"size": 2}'})))
    assert effects["builds"] == []
    (change,) = effects["changes"]
    assert (change["before"], change["after"]) == (
        {"parameters": {}},
        {"parameters": {"size": 2}},
    )


def test_what_is_known_only_at_run_time_stays_as_it_is(database: Database):
    child = ChildRequest("storage", "neo", {"size": 1}, ("masters",))
    carry_out(database, PlannedRequest(wanted()))
    with_address = ChildRequest("storage", "neo", {"size": 1, "masters": "10.0.0.1"})
    play_children(database, "cluster", (with_address,))
    assert explain(database, PlannedRequest(wanted(), (child,)))["later"] == []
    larger = ChildRequest("storage", "neo", {"size": 2}, ("masters",))
    (change,) = explain(database, PlannedRequest(wanted(), (larger,)))["later"]
    assert change["after"] == {"parameters": {"masters": "10.0.0.1", "size": 2}}


def test_a_request_that_changes_nothing_does_nothing(database: Database):
    planned = PlannedRequest(wanted(), (ChildRequest("storage", "neo"),))
    carry_out(database, planned)
    play_children(database, "cluster", planned.children or ())
    assert not plans.does_something(explain(database, planned))


def test_a_node_without_a_place_is_told_with_the_reasons(database: Database):
    children = tuple(ChildRequest(f"storage-{index}", "neo") for index in range(6))
    effects = explain(database, PlannedRequest(wanted(), children))
    (refusal,) = effects["refusals"]
    assert refusal["name"] == "cluster/storage-5"
    assert "paris-1: full (2 of 2 partitions in use)" in refusal["reason"]


def test_a_plan_is_applied_once(database: Database):
    number = plan(database, PlannedRequest(wanted()))
    apply(database, number)
    after = picture(database)
    with pytest.raises(ConflictError, match=f"plan {number} was applied already, at 20"):
        apply(database, number)
    assert picture(database) == after


def test_a_plan_is_refused_when_it_would_do_something_else_now(database: Database):
    number = plan(database, PlannedRequest(wanted(sla={"datacenter": "tokyo"})))
    carry_out(database, PlannedRequest(wanted("other", sla={"datacenter": "tokyo"})))
    before = picture(database)
    with pytest.raises(StalePlanError, match="would do something else now") as caught:
        apply(database, number)
    assert sorted(caught.value.details) == [
        "instance cluster: after.place is tokyo-1/slappart0 in the plan, tokyo-1/slappart1 now",
        "software tokyo-1 r1: added in the plan, unchanged now",
    ]
    assert picture(database) == before


def test_a_plan_is_refused_when_what_follows_from_it_would_differ(database: Database):
    child = ChildRequest("storage", "neo", sla={"datacenter": "tokyo"})
    number = plan(database, PlannedRequest(wanted(sla={"datacenter": "paris"}), (child,)))
    for name in ("one", "two"):
        carry_out(database, PlannedRequest(wanted(name, sla={"datacenter": "tokyo"})))
    with pytest.raises(StalePlanError) as caught:
        apply(database, number)
    assert any(
        "cluster/storage would be refused: no computer" in line for line in caught.value.details
    )


def test_a_plan_is_refused_when_the_instance_was_changed_otherwise(database: Database):
    carry_out(database, PlannedRequest(wanted()))
    number = plan(database, PlannedRequest(wanted(parameters={"_": '{"size": 2}'})))
    carry_out(database, PlannedRequest(wanted(parameters={"_": '{"size": 3}'})))
    with pytest.raises(StalePlanError) as caught:
        apply(database, number)
    assert caught.value.details == [
        "instance cluster: before.parameters.size is (none) in the plan, 3 now"
    ]


def test_no_computer_is_woken_for_what_a_plan_only_tried(database: Database):
    number = plan(
        database,
        PlannedRequest(
            wanted(sla={"datacenter": "tokyo"}),
            (ChildRequest("storage", "neo", sla={"computer_guid": "paris-1"}),),
        ),
    )
    apply(database, number)
    assert database.board.wait("paris-1", 0, 0, 0) == 0
    assert database.board.wait("tokyo-1", 0, 0, 0) > 0
