# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request for an instance does: create, change, stop, destroy, place."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload

from slapos_wendelin.differences import differences
from slapos_wendelin.master import placing, registry, shared
from slapos_wendelin.master.checks import DESTROYED, INSTANCE_STATES, STARTED
from slapos_wendelin.master.due import expect_changes, touch_instance
from slapos_wendelin.master.errors import ConflictError, InvalidRequestError
from slapos_wendelin.master.inserting import add_instance
from slapos_wendelin.master.models import Instance, Partition
from slapos_wendelin.master.placement import ServiceLevel
from slapos_wendelin.master.views import decoded

_LIVE = select(Instance.id).where(
    Instance.tree_id == bindparam("tree"),
    Instance.reference == bindparam("reference"),
    Instance.live.is_(True),
)

#: Loads with an instance what is looked at in every request for it.
_WITH_PLACE = (
    select(Instance)
    .where(Instance.id == bindparam("row"))
    .options(joinedload(Instance.partition).joinedload(Partition.computer))
)


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """What a user or an instance asks for."""

    reference: str
    software_release: str
    software_type: str = "default"
    #: started, stopped, destroyed, or None for "as it is", which is started for a new one.
    state: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    sla: dict[str, object] = field(default_factory=dict)
    #: Whether another instance shall host it.
    shared: bool = False


def request_instance(
    session: Session, request: InstanceRequest, requester: Instance | None
) -> Instance | None:
    """Create or change the instance that a request names and return it.

    :param requester: the instance that asks; None for a user, whose instance becomes a root.
    :returns: None when a requester wants an instance destroyed that never was.
    :raises InvalidRequestError: for an unknown SLA key, an instance that would request itself or
        its requester, or a user who destroys what never was.
    :raises NoCapacityError: when a new instance has no place; nothing is changed then.
    """
    level = (shared.service_level if request.shared else ServiceLevel.parse)(request.sla)
    instance = find_instance_of(session, request.reference, requester)
    _check_kind(request, instance)
    if request.state == DESTROYED:
        return _request_destruction(session, request, requester, instance)
    if instance is None:
        return _create(session, request, requester, level)
    _change(session, instance, request, requester)
    if not instance.shared:
        registry.ensure_software(
            session, placing.home(instance).computer, instance.software_release
        )
    return instance


def requester_of(session: Session, computer: str, partition: str) -> Instance:
    """Return the instance in a partition that sends a request.

    :raises UnknownError: when there is none.
    :raises ConflictError: when it is being destroyed and may ask for nothing.
    """
    instance = registry.instance_in(session, computer, partition)
    if instance.state == DESTROYED:
        raise ConflictError(
            f"{instance.reference!r} in {partition} of {computer} is being destroyed",
            "request from an instance that is to stay",
        )
    return instance


def collect_children(session: Session, instance: Instance, references: Collection[str]) -> None:
    """Destroy the children that the instance did not request in its last run.

    One that hosts shared instances of others stays until they have gone.

    :param references: the names of those that it did request.
    """
    for child in instance.children:
        given_up = child.live and child.reference not in references
        if given_up and not shared.users_from_elsewhere(child):
            destroy(session, child)


def destroy(session: Session, instance: Instance) -> None:
    """Ask for the destruction of an instance and of everything that it requested.

    :raises ConflictError: when it hosts shared instances of others.
    """
    shared.check_unused(instance)
    instance.requested_state = DESTROYED
    _settle(session, instance)


def find_instance_of(
    session: Session, reference: str, requester: Instance | None
) -> Instance | None:
    """Return the live instance of that name among the roots, or in the requester's tree."""
    tree = 0 if requester is None else requester.root_id
    # Rows are looked up first: most of what is looked for in vain is asked for by new requests.
    session.flush()
    row = session.connection().scalar(_LIVE, {"tree": tree, "reference": reference})
    return None if row is None else session.scalars(_WITH_PLACE, {"row": row}).one()


def _check_kind(request: InstanceRequest, instance: Instance | None) -> None:
    """Refuse to make a shared instance of one that is not, and the reverse."""
    if instance is not None and instance.shared != request.shared:
        raise ConflictError(
            f"{request.reference!r} is {'' if instance.shared else 'not '}a shared instance",
            "request it as it is, or give the new one another name",
        )


def _request_destruction(
    session: Session,
    request: InstanceRequest,
    requester: Instance | None,
    instance: Instance | None,
) -> Instance | None:
    """Destroy the instance, or find the one of that name that went last."""
    if instance is not None:
        _check_no_cycle(instance, requester)
        destroy(session, instance)
        return instance
    tree = 0 if requester is None else requester.root_id
    gone = session.scalar(
        select(Instance)
        .where(Instance.tree_id == tree, Instance.reference == request.reference)
        .order_by(Instance.id.desc())
        .limit(1)
    )
    if gone is None and requester is None:
        raise InvalidRequestError(
            f"there is no instance {request.reference!r} to destroy",
            "see `slapos service list` for those that exist",
        )
    return gone


def _create(
    session: Session, request: InstanceRequest, requester: Instance | None, level: ServiceLevel
) -> Instance:
    """Place a new instance."""
    expect_changes(session)
    tree = 0 if requester is None else requester.root_id
    partition = provider = None
    if request.shared:
        provider, placement = shared.choose_provider(
            session, request.software_release, request.software_type, request.sla
        )
    else:
        partition, placement = placing.find_place(session, request.reference, tree, level)
        registry.ensure_software(session, partition.computer, request.software_release)
    requested_state = request.state or STARTED
    instance = Instance(
        reference=request.reference,
        tree_id=tree,
        software_release=request.software_release,
        software_type=request.software_type,
        parameters=request.parameters,
        sla=request.sla,
        requested_state=requested_state,
        state=_severest(requested_state, requester),
        shared=request.shared,
        placement=placement,
        created_at=time.time(),
    )
    add_instance(session, instance, requester=requester, partition=partition, provider=provider)
    return instance


def _change(
    session: Session, instance: Instance, request: InstanceRequest, requester: Instance | None
) -> None:
    """Bring an existing instance to what the request says; it stays where it is."""
    _check_no_cycle(instance, requester)
    # What is set to what it is would make the session look for changes.
    if instance.requester_id != (None if requester is None else requester.id):
        instance.requester = requester
    if instance.sla != request.sla:
        instance.sla = request.sla
    wanted = {
        "software_release": request.software_release,
        "software_type": request.software_type,
        "parameters": request.parameters,
    }
    changed = {name: value for name, value in wanted.items() if getattr(instance, name) != value}
    if "parameters" in changed and _say_the_same(instance.parameters, request.parameters):
        del changed["parameters"]
    for name, value in changed.items():
        setattr(instance, name, value)
    if changed:
        touch_instance(session, instance)
    if request.state is not None and request.state != instance.requested_state:
        instance.requested_state = request.state
    _settle(session, instance)


def _say_the_same(old: dict[str, str], new: dict[str, str]) -> bool:
    """Return whether parameters are the same values, however their JSON is written."""
    return next(differences(decoded(old), decoded(new)), None) is None


def _check_no_cycle(instance: Instance, requester: Instance | None) -> None:
    """Refuse that an instance requests itself or one that requested it."""
    above = requester
    while above is not None:
        if above is instance:
            raise InvalidRequestError(
                f"{requester.reference if requester else ''!r} requests {instance.reference!r},"
                " which is itself or requested it",
                "give the requested instance a name of its own",
            )
        above = above.requester


def _settle(session: Session, instance: Instance) -> None:
    """Work out the state that the instance and those below it shall have."""
    state = _severest(instance.requested_state, instance.requester)
    if state == instance.state:
        return
    instance.state = state
    if state == DESTROYED:
        instance.requested_state = DESTROYED
        instance.live = None
    touch_instance(session, instance)
    if instance.shared and state == DESTROYED:
        shared.leave_provider(session, instance)
    for child in instance.children:
        if child.destroyed_at is None:
            _settle(session, child)


def _severest(requested: str, requester: Instance | None) -> str:
    """Return the state of an instance: what was asked for, or that of its requester."""
    states = [requested] if requester is None else [requested, requester.state]
    return max(states, key=INSTANCE_STATES.index)
