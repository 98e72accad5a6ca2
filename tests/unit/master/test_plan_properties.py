# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""After any sequence of requests: a plan is what happens, and the past is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planning import (
    apply,
    carry_out,
    copy_of,
    explain,
    keep,
    picture,
    play_children,
    real_difference,
    refusal_of,
    requested,
    told,
    writing,
)

from slapos_wendelin.master import changes
from slapos_wendelin.master.checks import INSTANCE_STATES
from slapos_wendelin.master.errors import ConflictError, MasterError, NoCapacityError
from slapos_wendelin.master.plans import ChildRequest, PlannedRequest
from slapos_wendelin.master.requests import (
    InstanceRequest,
    request_instance,
)

SLAS = st.sampled_from(
    [
        {},
        {"datacenter": "tokyo"},
        {"computer_guid": "paris-2"},
        {"group": "g", "spread": "datacenter"},
    ]
)
PARAMETERS = st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 2), max_size=2)
CHILDREN = st.lists(
    st.builds(
        ChildRequest,
        reference=st.sampled_from(["x", "y", "z"]),
        software_type=st.sampled_from(["one", "two"]),
        parameters=PARAMETERS,
        sla=SLAS,
    ),
    max_size=3,
    unique_by=lambda child: child.reference,
).map(tuple)
REQUESTS = st.builds(
    PlannedRequest,
    wanted=st.builds(
        InstanceRequest,
        reference=st.sampled_from(["cluster", "other", "third"]),
        software_release=st.sampled_from(["r1", "r2"]),
        software_type=st.sampled_from(["default", "small"]),
        state=st.none() | st.sampled_from(INSTANCE_STATES),
        parameters=PARAMETERS.map(lambda values: {"_": json.dumps(values)}),
        sla=SLAS,
        shared=st.sampled_from([False, False, True]),
    ),
    children=st.none() | CHILDREN,
)


@given(sequence=st.lists(REQUESTS, min_size=1, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_applying_a_plan_does_exactly_what_it_said(
    three_computers: Path, sequence: list[PlannedRequest]
):
    with copy_of(three_computers) as database:
        for planned in sequence:
            untouched = picture(database)
            refusal = refusal_of(explain, database, planned)
            if refusal:
                assert refusal_of(carry_out, database, planned) == refusal
                assert picture(database) == untouched
                continue
            effects = explain(database, planned)
            assert picture(database) == untouched
            number = keep(database, planned, effects)
            if effects["refusals"]:
                # The root is requested all the same; its nodes are refused when it runs.
                carry_out(database, planned)
            else:
                apply(database, number)
            applied = picture(database)
            assert told(effects["changes"]) == real_difference(untouched, applied)
            if effects["later"] is None:
                continue
            refused = play_children(database, planned.wanted.reference, planned.children or ())
            assert refused == [each["reason"] for each in effects["refusals"]]
            assert told(effects["later"]) == real_difference(applied, picture(database))


@given(sequence=st.lists(REQUESTS, min_size=2, max_size=7), data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_requested_at_a_change_is_known_after_any_sequence(
    three_computers: Path, sequence: list[PlannedRequest], data: st.DataObject
):
    with copy_of(three_computers) as database:
        known: dict[int, tuple[str, dict[str, Any]]] = {}
        for planned in sequence:
            reference = planned.wanted.reference
            try:
                with writing(database) as session:
                    before = changes.newest(session)
                    root = request_instance(session, planned.wanted, None)
                    session.flush()
                    state, is_live = requested(root), bool(root.live)
            except MasterError:
                continue
            with database.reading() as session:
                change = changes.newest(session)
            if planned.children and is_live:
                play_children(database, reference, planned.children)
            if change > before:
                known[change] = (reference, state)
        if not known:
            return
        change = data.draw(st.sampled_from(sorted(known)))
        reference, state = known[change]
        with database.reading() as session:
            _, found = changes.requested_at(session, reference, change)
        assert found == state
        with writing(database) as session:
            try:
                again = request_instance(
                    session,
                    InstanceRequest(
                        reference=reference,
                        state=found["requested_state"],
                        **{key: found[key] for key in found if key != "requested_state"},
                    ),
                    None,
                )
            except (NoCapacityError, ConflictError):
                return
            session.flush()
            same = by_value(requested(again)) == by_value(state)
            assert same or state["requested_state"] == "destroyed"


def by_value(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state with parameters as values, however their JSON is written."""
    return state | {"parameters": json.loads(state["parameters"]["_"])}
