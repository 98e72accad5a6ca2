# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a partition for an instance: from the tables to placement, and back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master import fleet_cache, registry, shared, views
from slapos_wendelin.master.errors import NoCapacityError, UnknownError
from slapos_wendelin.master.models import Computer, Instance, Partition
from slapos_wendelin.master.placement import Decision, Member, ServiceLevel, place
from slapos_wendelin.master.service_level import kept_apart_as

#: How many computers a refusal names.
_EXPLAINED_COMPUTERS = 12


def find_place(
    session: Session,
    reference: str,
    tree: int,
    level: ServiceLevel,
    *,
    moving: Instance | None = None,
    leave: bool = False,
) -> tuple[Partition, list[dict[str, Any]]]:
    """Return a free partition for an instance, and why each computer was or was not chosen.

    :param reference: the instance's name, for the error's text.
    :param tree: the row of the root of its tree; 0 for a root.
    :param moving: the instance itself when it has a place already.
    :param leave: whether it shall leave the computer on which it is.
    :raises NoCapacityError: when no computer can host it.
    :raises UnknownError: when the instance beside which it shall be is not there.
    """
    if level.instance_guid:
        beside = shared.place_of(views.find_instance(session, level.instance_guid))
        if beside is None:
            raise UnknownError(
                f"instance {level.instance_guid!r}, which the SLA names, is on no computer"
            )
        level = level.beside(beside.computer.reference)
    present = home(moving).computer.reference if leave and moving is not None else ""
    with fleet_cache.timing(session):
        members = group_members(session, tree, level.group, moving) if level.keeps_apart else []
        fleet = fleet_cache.fleet_of(session)
        with fleet_cache.without(fleet, present, "it is there now"):
            decision = place(fleet, members, level)
    return _partition(session, decision, reference), explanation(decision)


def group_members(
    session: Session, tree: int, group: str, apart_from: Instance | None = None
) -> list[Member]:
    """Return the placed instances of a group: of one tree, or of the roots.

    Without a group they are all those of the tree, with its root.

    :param apart_from: an instance that does not count.
    """
    inside = Instance.tree_id == tree
    if not group:
        if not tree:
            return []
        inside |= Instance.id == tree
    placed = session.execute(
        select(Instance.id, Instance.sla, Computer.reference, Computer.datacenter, Computer.network)
        .join(Partition, Instance.partition_id == Partition.id)
        .join(Computer, Partition.computer_id == Computer.id)
        .where(inside, Instance.live.is_(True))
    )
    ignored = None if apart_from is None else apart_from.id
    return [
        Member(computer, datacenter, network)
        for row, sla, computer, datacenter, network in placed
        if row != ignored and (not group or kept_apart_as(sla) == group)
    ]


def explanation(decision: Decision) -> list[dict[str, Any]]:
    """Return why computers were or were not chosen, as an instance keeps it."""
    return [
        {
            "computer": verdict.computer,
            "chosen": verdict.computer == decision.computer,
            "score": list(verdict.score),
            "explanation": verdict.explanation,
        }
        for verdict in decision.verdicts
    ]


def home(instance: Instance) -> Partition:
    """Return the partition of an instance that is not destroyed yet.

    :raises UnknownError: when it has none.
    """
    if instance.partition is None:
        raise UnknownError(f"{instance.reference!r} has no partition")
    return instance.partition


def _partition(session: Session, decision: Decision, reference: str) -> Partition:
    """Return the row of the partition that placement chose."""
    if decision.computer is None or decision.partition is None:
        first = decision.first_verdicts(_EXPLAINED_COMPUTERS)
        reasons = [f"{each.computer}: {each.explanation}" for each in first]
        if decision.computers > len(first):
            reasons.append(f"and {decision.computers - len(first)} more computers")
        raise NoCapacityError(
            f"no computer can host {reference!r}: " + ("; ".join(reasons) or "none is registered"),
            "add a computer or partitions, change the SLA, or destroy an instance",
        )
    return registry.partition(session, decision.computer, decision.partition)
