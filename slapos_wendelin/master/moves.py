# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place an instance anew, when somebody asks for it.

The instance keeps its row, its guid, its parameters and those below it. The partition that it
leaves is held by a row of its own, an instance that is to be destroyed, until its computer has
wiped it.
"""

from __future__ import annotations

import time
from dataclasses import replace

from sqlalchemy import null
from sqlalchemy.orm import Session

from slapos_wendelin.master import placing, registry
from slapos_wendelin.master.access import revoke_instance
from slapos_wendelin.master.checks import DESTROYED
from slapos_wendelin.master.due import touch_instance
from slapos_wendelin.master.errors import ConflictError
from slapos_wendelin.master.models import Instance, Partition
from slapos_wendelin.master.placement import ServiceLevel
from slapos_wendelin.master.shared import timestamp_text
from slapos_wendelin.protocol_words import LEFT_AT, LEFT_BY


def move(session: Session, instance: Instance, target: str | None) -> None:
    """Move an instance to another partition; what is in its partition is not copied.

    :param target: the computer to move to, which may be the one where it is; None for the best
        other one.
    :raises ConflictError: when it is shared or being destroyed, or its SLA forbids the target.
    :raises NoCapacityError: when no computer can host it.
    :raises UnknownError: when there is no such computer.
    """
    _check_movable(instance)
    left = placing.home(instance)
    place, explanation = placing.find_place(
        session,
        instance.reference,
        instance.tree_id,
        _level(session, instance, target),
        moving=instance,
        leave=target is None,
    )
    instance.partition = place
    instance.placement = explanation
    _forget_run(session, instance)
    # The partition has to be free in the table before another row takes it.
    session.flush()
    session.refresh(left)
    _hold(session, instance, left)
    revoke_instance(session, instance, "the instance was moved")
    registry.supply(session, place.computer, instance.software_release)
    touch_instance(session, instance)


def _check_movable(instance: Instance) -> None:
    """Refuse to move what has no place of its own, or is about to go."""
    if instance.state == DESTROYED:
        raise ConflictError(
            f"{instance.reference!r} ({instance.guid}) is destroyed or being destroyed",
            "move instances that are to stay",
        )
    if instance.shared:
        provider = "another instance" if instance.provider is None else instance.provider.guid
        raise ConflictError(
            f"{instance.reference!r} ({instance.guid}) is a shared instance of {provider}",
            "move that one: what it hosts goes with it",
        )


def _level(session: Session, instance: Instance, target: str | None) -> ServiceLevel:
    """Return where the instance may go."""
    level = ServiceLevel.parse(instance.sla)
    if target is None:
        return level
    host = registry.computer(session, target)
    if level.computer_guid not in {"", host.reference}:
        raise ConflictError(
            f"the SLA of {instance.reference!r} asks for computer {level.computer_guid!r}",
            "request it with another SLA first, then move it",
        )
    return replace(level, computer_guid=host.reference)


def _forget_run(session: Session, instance: Instance) -> None:
    """Forget what was reported and published from the old place, and tell those who read it.

    What it hosts for others has left with it.
    """
    for each in (instance, *instance.shared_instances):
        each.reported_state = ""
        each.reported_at = None
        each.reported_number = 0
        each.error = ""
        each.error_at = None
        each.connection = {}
        if each.requester is not None:
            touch_instance(session, each.requester)


def _hold(session: Session, instance: Instance, place: Partition) -> None:
    """Let a row that is to be destroyed hold the partition that an instance has left."""
    leftover = Instance(
        reference=instance.reference,
        tree_id=instance.tree_id,
        # None alone would be the column's default.
        live=null(),
        requester=instance.requester,
        software_release=instance.software_release,
        software_type=instance.software_type,
        parameters={LEFT_BY: instance.guid, LEFT_AT: timestamp_text(instance.number)},
        sla=instance.sla,
        requested_state=DESTROYED,
        state=DESTROYED,
        partition=place,
        created_at=time.time(),
    )
    session.add(leftover)
    session.flush()
    touch_instance(session, leftover)
