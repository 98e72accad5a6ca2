# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints of requests, plans and history."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from sqlalchemy.orm import Session

from slapos_wendelin.master import changes, plans, views
from slapos_wendelin.master.arguments import json_body, number
from slapos_wendelin.master.checks import INSTANCE_STATES, check_name, check_state, check_url
from slapos_wendelin.master.context import context
from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.models import Instance, Plan
from slapos_wendelin.master.plans import ChildRequest, PlannedRequest
from slapos_wendelin.master.requests import InstanceRequest, request_instance

blueprint = Blueprint("plan_api", __name__, url_prefix="/v1")

#: How many changes one answer has at most.
_MOST_CHANGES = 10_000

#: The keys of a request, of one that is planned, and of what is expected to follow.
_REQUEST_KEYS = (
    *("reference", "release_url", "software_type", "state", "parameters", "sla", "shared"),
)
_PLAN_KEYS = (*_REQUEST_KEYS, "children", "keep")
_CHILD_KEYS = ("reference", "software_type", "parameters", "run_time", "sla")


@blueprint.post("/requests")
def post_request() -> Response:
    """Do what a user requests; give the instance, or null when there is none any more."""
    wanted = _wanted(json_body(*_REQUEST_KEYS))
    with context().writing() as session:
        return _instance(session, request_instance(session, wanted, None))


@blueprint.post("/plans")
def post_plan() -> dict[str, Any]:
    """Say what a request would do, and keep that under a number."""
    body = json_body(*_PLAN_KEYS)
    planned = PlannedRequest(_wanted(body), _children(body.get("children")))
    with context().trying() as session:
        effects = plans.explain(session, planned)
    keep = body.get("keep", True) and plans.does_something(effects) and not effects["refusals"]
    if not keep:
        return _view(None, asdict(planned), effects)
    with context().writing() as session:
        plan = Plan(
            created_at=time.time(),
            created_by=str(g.caller),
            request=asdict(planned),
            effects=effects,
        )
        session.add(plan)
        session.flush()
        return _view(plan, plan.request, plan.effects)


@blueprint.get("/plans/<int:plan_number>")
def get_plan(plan_number: int) -> dict[str, Any]:
    """Give a plan as it was shown."""
    with context().reading() as session:
        plan = plans.find(session, plan_number)
        return _view(plan, plan.request, plan.effects)


@blueprint.post("/plans/<int:plan_number>/apply")
def apply_plan(plan_number: int) -> Response:
    """Do what a plan showed, or say how that would differ now."""
    try:
        with context().writing() as session:
            return _instance(session, plans.apply(session, plans.find(session, plan_number)))
    except plans.StalePlanError as error:
        answer = jsonify({"error": error.message, "remedy": error.remedy, "details": error.details})
        answer.status_code = error.status
        return answer


@blueprint.get("/history")
def get_history() -> dict[str, Any]:
    """Give the newest changes that the query selects, oldest first."""
    selection = changes.Selection(
        **{
            key: request.args[key]
            for key in ("instance", "computer", "software", "product")
            if key in request.args
        },
        since=number("since", float, 0.0),
        limit=min(max(number("limit", int, 100), 1), _MOST_CHANGES),
    )
    with context().reading() as session:
        found, more = changes.read(session, selection)
        return {"changes": found, "more": more}


@blueprint.get("/history/<int:change>/request/<path:reference>")
def get_request_of_the_past(change: int, reference: str) -> dict[str, Any]:
    """Give what was requested of a root just after a change."""
    with context().reading() as session:
        root, state = changes.requested_at(session, reference, change)
        return {
            "guid": root.guid,
            "live": bool(root.live),
            "reference": reference,
            "release_url": state["software_release"],
            "software_type": state["software_type"],
            "state": state["requested_state"],
            "parameters": state["parameters"],
            "sla": state["sla"],
            "shared": state["shared"],
        }


def _instance(session: Session, instance: Instance | None) -> Response:
    """Return an instance as the answer to a request for it."""
    session.flush()
    return jsonify(None if instance is None else views.instance_view(instance))


def _view(plan: Plan | None, planned: dict[str, Any], effects: dict[str, Any]) -> dict[str, Any]:
    """Return a plan, or what a request would do that is not kept."""
    wanted = planned["wanted"]
    return {
        "plan": None if plan is None else plan.id,
        "created_at": None if plan is None else views.timestamp(plan.created_at),
        "created_by": None if plan is None else plan.created_by,
        "applied_at": None if plan is None else views.timestamp(plan.applied_at),
        "request": {
            "reference": wanted["reference"],
            "release_url": wanted["software_release"],
            "software_type": wanted["software_type"],
            "state": wanted["state"],
            "parameters": views.decoded(wanted["parameters"]),
            "sla": wanted["sla"],
            "shared": wanted["shared"],
        },
        "effects": effects,
    }


def _wanted(body: dict[str, Any]) -> InstanceRequest:
    """Return the request of a body, which is that of the slap protocol in JSON."""
    state = body.get("state")
    return InstanceRequest(
        reference=check_name(body.get("reference"), "the instance's reference"),
        software_release=check_url(body.get("release_url"), "the software release"),
        software_type=check_name(body.get("software_type") or "default", "the software type"),
        state=None if state is None else check_state(state, INSTANCE_STATES),
        parameters=_texts(body, "parameters"),
        sla=_object(body, "sla"),
        shared=bool(body.get("shared")),
    )


def _children(value: object) -> tuple[ChildRequest, ...] | None:
    """Return what the instance is expected to request; None when only it knows."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise InvalidRequestError("children is not a list", "send a list of requests, or null")
    return tuple(_child(each) for each in value)


def _child(value: object) -> ChildRequest:
    """Return one request that the instance is expected to send."""
    if not isinstance(value, dict) or set(value) - set(_CHILD_KEYS):
        raise InvalidRequestError(
            "a child is not a request", f"send objects with the keys {', '.join(_CHILD_KEYS)}"
        )
    run_time = value.get("run_time") or []
    if not isinstance(run_time, list) or not all(isinstance(each, str) for each in run_time):
        raise InvalidRequestError("run_time of a child is no list of names", "send a list")
    return ChildRequest(
        reference=check_name(value.get("reference"), "a child's reference"),
        software_type=check_name(value.get("software_type") or "default", "the software type"),
        parameters=_object(value, "parameters"),
        run_time=tuple(run_time),
        sla=_object(value, "sla"),
    )


def _object(body: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a value that is an object; empty when it is not there."""
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{key} is not an object", "send an object")
    return value


def _texts(body: dict[str, Any], key: str) -> dict[str, str]:
    """Return a value that is an object of texts."""
    values = _object(body, key)
    for name, value in values.items():
        if not isinstance(value, str):
            raise InvalidRequestError(
                f"{key}: {name!r} is no text",
                "send values as texts, nested ones as one JSON text under the key '_'",
            )
    return values
