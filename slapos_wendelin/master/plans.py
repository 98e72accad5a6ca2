# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request would do, found by doing it and taking it back; and doing it as it was shown.

There is no second implementation that could disagree: the same functions that answer a request run
in a transaction that is rolled back, and history says what they changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from slapos_wendelin.differences import differences, shown
from slapos_wendelin.master import changes, registry
from slapos_wendelin.master.checks import AVAILABLE, DESTROYED, STARTED, STOPPED
from slapos_wendelin.master.errors import ConflictError, MasterError, UnknownError
from slapos_wendelin.master.history import ADDED, forget_changes
from slapos_wendelin.master.models import Instance, Plan
from slapos_wendelin.master.requests import (
    InstanceRequest,
    collect_children,
    find_instance_of,
    request_instance,
)
from slapos_wendelin.master.views import decoded, timestamp

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """What an instance is expected to request when it runs."""

    reference: str
    software_type: str
    #: The parameters that are known before it runs.
    parameters: dict[str, Any] = field(default_factory=dict)
    #: The names of those that are known only then, such as addresses.
    run_time: tuple[str, ...] = ()
    sla: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A user's request and what is expected to follow from it."""

    wanted: InstanceRequest
    #: In the order of the requests; None when only the instance itself knows.
    children: tuple[ChildRequest, ...] | None = None


class StalePlanError(ConflictError):
    """The plan would do something else now than was shown.

    :param details: what differs, one line each.
    """

    def __init__(self, message: str, remedy: str, details: list[str]) -> None:
        super().__init__(message, remedy)
        self.details = details


def explain(session: Session, planned: PlannedRequest) -> Document:
    """Do what a request asks for and what is expected to follow; return what that changes.

    The caller rolls the session back. The document has ``changes``, those of the request itself;
    ``later``, those of the requests that follow from it, or None when only the instance knows them;
    ``refusals`` of the latter; ``reasons`` for the places chosen; ``builds``, the software that is
    not ready where it is needed.

    :raises MasterError: when the request itself is refused.
    """
    before = changes.newest(session)
    root = request_instance(session, planned.wanted, None)
    effects: Document = {
        "changes": changes.since(session, before),
        "later": None,
        "refusals": [],
        "reasons": {},
        "builds": [],
    }
    touched = [] if root is None else [root]
    if root is not None and root.live and planned.children is not None:
        before = changes.newest(session)
        children, effects["refusals"] = _request_children(session, root, planned.children)
        touched += children
        effects["later"] = changes.since(session, before)
    effects["reasons"] = _reasons(touched)
    effects["builds"] = _builds(session, touched)
    return effects


def does_something(effects: Mapping[str, Any]) -> bool:
    """Say whether a request changes anything, itself or by what follows."""
    return bool(effects["changes"] or effects["later"] or effects["refusals"])


def apply(session: Session, plan: Plan) -> Instance | None:
    """Do what a plan showed, exactly that, in a writing session in which nothing else was done.

    What the session has loaded is loaded anew.

    :raises ConflictError: when it was applied already.
    :raises StalePlanError: when it would do something else now.
    :raises MasterError: when the request is refused now.
    """
    number, promised = plan.id, plan.effects
    if plan.applied_at is not None:
        raise ConflictError(
            f"plan {number} was applied already, at {timestamp(plan.applied_at)}",
            "make a new plan with `slapos cluster plan`",
        )
    planned = parse(plan.request)
    with session.begin_nested() as trial:
        now = explain(session, planned)
        trial.rollback()
    forget_changes(session)
    plan = find(session, number)
    details = [
        *_compare(promised["changes"], now["changes"]),
        *_compare(promised["later"] or [], now["later"] or []),
        *(f"{each['name']} would be refused: {each['reason']}" for each in now["refusals"]),
    ]
    if details:
        raise StalePlanError(
            f"plan {number} would do something else now than it showed",
            "look at a new plan with `slapos cluster plan`, then apply that",
            details,
        )
    plan.applied_at = time.time()
    return request_instance(session, planned.wanted, None)


def parse(document: Mapping[str, Any]) -> PlannedRequest:
    """Return the request that a plan keeps."""
    children = document["children"]
    return PlannedRequest(
        InstanceRequest(**document["wanted"]),
        None
        if children is None
        else tuple(
            ChildRequest(**{**each, "run_time": tuple(each["run_time"])}) for each in children
        ),
    )


def find(session: Session, number: int) -> Plan:
    """Return a plan.

    :raises UnknownError: when there is none of that number.
    """
    plan = session.get(Plan, number)
    if plan is None:
        raise UnknownError(f"there is no plan {number}", "make one with `slapos cluster plan`")
    return plan


def _request_children(
    session: Session, root: Instance, children: Iterable[ChildRequest]
) -> tuple[list[Instance], list[Document]]:
    """Request what an instance is expected to request, and give up what it no longer does.

    Return the instances, and why each of the others has no place.
    """
    found: list[Instance] = []
    refusals: list[Document] = []
    names = set()
    for child in children:
        names.add(child.reference)
        try:
            instance = request_instance(session, _as_sent(session, root, child), root)
        except MasterError as error:
            refusals.append(
                {"name": f"{root.reference}/{child.reference}", "reason": error.message}
            )
            continue
        if instance is not None:
            found.append(instance)
    collect_children(session, root, names)
    return found, refusals


def _as_sent(session: Session, root: Instance, child: ChildRequest) -> InstanceRequest:
    """Return the request as the instance's recipe would send it.

    What is known only at run time stays as it is now, or is left out of a new instance.
    """
    existing = find_instance_of(session, child.reference, root)
    present = {} if existing is None else decoded(existing.parameters)
    values = child.parameters | {key: present[key] for key in child.run_time if key in present}
    parameters = {"_": json.dumps(values, sort_keys=True)}
    if existing is not None and values == present:
        parameters = existing.parameters
    return InstanceRequest(
        reference=child.reference,
        software_release=root.software_release,
        software_type=child.software_type,
        # slapos.cookbook's recipe asks for the state that the requester has.
        state=STOPPED if root.state == STOPPED else STARTED,
        parameters=parameters,
        sla=child.sla,
    )


def _reasons(instances: Iterable[Instance]) -> dict[str, str]:
    """Return why each instance is where it is, by its name."""
    reasons = {}
    for each in instances:
        for verdict in each.placement:
            if verdict["chosen"]:
                name = each.reference
                if each.requester is not None:
                    name = f"{each.requester.reference}/{name}"
                reasons[name] = verdict["explanation"]
    return reasons


def _builds(session: Session, instances: Iterable[Instance]) -> list[Document]:
    """Return the software that is not ready yet on the computers where it is needed."""
    needed = {
        (each.partition.computer.reference, each.software_release): each.partition.computer
        for each in instances
        if each.partition is not None and each.state != DESTROYED
    }
    builds = []
    for (reference, url), host in sorted(needed.items(), key=lambda item: item[0]):
        software = registry.find_software(session, host, url)
        state = "" if software is None else software.reported_state
        if state != AVAILABLE:
            builds.append({"computer": reference, "url": url, "state": state})
    return builds


def _compare(promised: list[Document], now: list[Document]) -> list[str]:
    """Return how the changes of now differ from those that were promised, one line each."""
    old = {_identity(each): _anonymous(each) for each in promised}
    new = {_identity(each): _anonymous(each) for each in now}
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        name = " ".join(key[:2])
        if key not in new:
            lines.append(f"{name}: {old[key]['action']} in the plan, unchanged now")
        elif key not in old:
            lines.append(f"{name}: unchanged in the plan, {new[key]['action']} now")
        else:
            lines += [
                f"{name}: {each.path} is {shown(each.before)} in the plan, {shown(each.after)} now"
                for each in differences(old[key], new[key])
            ]
    return lines


def _identity(change: Document) -> tuple[str, str, str]:
    """Return what tells a change from the others of one request."""
    return change["kind"], change["name"], _anonymous(change)["subject"]


def _anonymous(change: Document) -> Document:
    """Return a change without what differs each time: a new instance's guid, the time of its end.

    A number that a trial took may be lost, and a shared instance is gone when it is destroyed.
    """
    if change["kind"] != Instance.__tablename__:
        return change
    after = {key: value for key, value in change["after"].items() if key != "destroyed_at"}
    subject = "" if change["action"] == ADDED else change["subject"]
    return change | {"subject": subject, "after": after}
