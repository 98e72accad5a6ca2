# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators ask of the NEO of a cluster: kept here, done by the cluster's keeper.

The keeper runs beside the NEO admin. It waits at the master, takes what is asked for, and tells how
it goes. A keeper that is started anew takes over what the one before it had taken, so whatever can
be asked for has the same effect when it is done twice.

Nobody looks after what a keeper does not take, or stops telling of: it has failed when its time is
over, which whoever reads it sees by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from slapos_wendelin.master.due import touch_operation
from slapos_wendelin.master.errors import ConflictError, ForbiddenError, UnknownError
from slapos_wendelin.master.history import WHO
from slapos_wendelin.master.models import Instance, Operation

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"

#: The states of what is not over.
OPEN = (WAITING, RUNNING)

#: The software type of the instance whose keeper does it.
KEEPER_TYPE = "neo-admin"

#: In how many seconds a keeper has to take what is asked for, and to tell how it goes.
TAKEN_WITHIN, REPORTED_WITHIN = 20.0, 60.0

#: How many looks at one cluster may wait at once.
_MOST_LOOKS = 20

#: How many are kept of one cluster that are over: of looks, and of others.
_KEPT_LOOKS, _KEPT = 10, 50

_SEE_KEEPER = (
    "see the promises neo-keeper-runs and cluster-is-running of its NEO admin"
    " (`slapos cluster status`) and the log of neo-keeper there"
)


@dataclass(frozen=True, slots=True)
class Fate:
    """How an operation stands, and why."""

    state: str
    error: str = ""
    remedy: str = ""


def fate(operation: Operation, now: float) -> Fate:
    """Return how an operation stands at a time: it has failed when its keeper is too late."""
    if operation.state not in OPEN or now <= operation.expires_at:
        return Fate(operation.state, operation.error, operation.remedy)
    if operation.state == WAITING:
        return Fate(
            FAILED,
            f"the keeper of the cluster did not take it in {TAKEN_WITHIN:.0f} s",
            f"{_SEE_KEEPER}, then ask again",
        )
    return Fate(
        FAILED,
        f"the keeper of the cluster has told nothing of it for {REPORTED_WITHIN:.0f} s",
        f"{_SEE_KEEPER}; NEO may have gone on by itself",
    )


def ask(
    session: Session, root: Instance, kind: str, arguments: dict[str, Any], *, is_look: bool
) -> Operation:
    """Ask the keeper of a cluster for something; return it, or what is the same and not over.

    :raises ConflictError: when the cluster has no keeper, or is busy with something else.
    """
    _require_keeper(session, root)
    now = time.time()
    _conclude(session, root.id, now)
    busy = _open(session, root.id, is_look=is_look)
    if is_look and len(busy) >= _MOST_LOOKS:
        raise ConflictError(f"{len(busy)} others look at {root.reference!r} now", "try again")
    for other in () if is_look else busy:
        if (other.kind, other.arguments) == (kind, arguments):
            return other
        raise ConflictError(
            f"{other.created_by.partition('/')[2] or other.created_by} has asked for"
            f" {other.kind} already (operation {other.id}), which is not over",
            f"wait for it (`slapos cluster neo follow {root.reference} {other.id}`) or end it"
            f" (`slapos cluster neo cancel {root.reference} {other.id}`)",
        )
    operation = Operation(
        tree_id=root.id,
        kind=kind,
        is_look=is_look,
        arguments=arguments,
        created_by=str(session.info.get(WHO, "")),
        created_at=now,
        state=WAITING,
        expires_at=now + TAKEN_WITHIN,
    )
    session.add(operation)
    touch_operation(session, operation)
    session.flush()
    _forget(session, root.id, is_look=is_look)
    return operation


def cancel(session: Session, operation: Operation) -> None:
    """End an operation before its time; what NEO has begun may go on.

    :raises ConflictError: when it is over.
    """
    if fate(operation, time.time()).state not in OPEN:
        raise ConflictError(f"operation {operation.id} is over", "there is nothing to end")
    operation.state = CANCELLED
    operation.ended_at = time.time()
    touch_operation(session, operation)


def find(session: Session, root: Instance, number: int) -> Operation:
    """Return an operation of a cluster.

    :raises UnknownError: when the cluster has none of that number.
    """
    operation = session.get(Operation, number)
    if operation is None or operation.tree_id != root.id:
        raise UnknownError(
            f"{root.reference!r} has no operation {number}",
            f"see `slapos cluster neo operations {root.reference}`; only the last {_KEPT} are kept",
        )
    return operation


def recent(session: Session, root: Instance) -> Sequence[Operation]:
    """Return what was asked of a cluster lately, the oldest first; looks are left out."""
    return session.scalars(
        select(Operation)
        .where(Operation.tree_id == root.id, Operation.is_look.is_(False))
        .order_by(Operation.id)
    ).all()


def root_of(session: Session, instance: Instance) -> Instance:
    """Return the root of an instance's tree."""
    return instance if instance.is_root else session.get_one(Instance, instance.tree_id)


def check_keeper(instance: Instance) -> None:
    """Refuse an instance beside which no keeper runs.

    :raises ForbiddenError: with what it is.
    """
    if instance.software_type != KEEPER_TYPE:
        raise ForbiddenError(
            f"instance {instance.guid} is a {instance.software_type}: only the keeper of a cluster"
            " does what is asked of it",
            f"call from the partition of the {KEEPER_TYPE}",
        )


def newest_number(session: Session, tree: int) -> int:
    """Return the number of the newest change of a tree's operations; 0 when there is none."""
    newest = session.scalar(select(func.max(Operation.number)).where(Operation.tree_id == tree))
    return newest or 0


def offered(session: Session, tree: int, keeper: str) -> list[Operation]:
    """Return what a run of a tree's keeper has to do, or does: looks first, then the oldest."""
    now = time.time()
    found = [*_open(session, tree, is_look=True), *_open(session, tree, is_look=False)]
    return [each for each in found if each.keeper == keeper or fate(each, now).state in OPEN]


def _open(session: Session, tree: int, *, is_look: bool) -> list[Operation]:
    """Return a tree's operations that are not over, the oldest first."""
    return list(
        session.scalars(
            select(Operation)
            .where(
                Operation.tree_id == tree,
                Operation.is_look.is_(is_look),
                Operation.state.in_(OPEN),
            )
            .order_by(Operation.id)
        )
    )


def _require_keeper(session: Session, root: Instance) -> None:
    """Refuse what nobody would do.

    :raises ConflictError: when the tree has no instance with a keeper.
    """
    keeper = session.scalar(
        select(Instance.id).where(
            or_(Instance.id == root.id, Instance.tree_id == root.id),
            Instance.software_type == KEEPER_TYPE,
            Instance.live.is_(True),
        )
    )
    if keeper is None:
        raise ConflictError(
            f"{root.reference!r} has no instance of type {KEEPER_TYPE}, whose keeper would do it",
            "name the root of a cluster that has one (`slapos cluster status`)",
        )


def _conclude(session: Session, tree: int, now: float) -> None:
    """Write down what has failed because its time was over."""
    for operation in session.scalars(
        select(Operation).where(
            Operation.tree_id == tree, Operation.state.in_(OPEN), Operation.expires_at < now
        )
    ):
        end = fate(operation, now)
        operation.state, operation.error, operation.remedy = end.state, end.error, end.remedy
        operation.ended_at = operation.expires_at
        touch_operation(session, operation)


def _forget(session: Session, tree: int, *, is_look: bool) -> None:
    """Remove the oldest of what is over, past the session: of that there is no history."""
    connection = session.connection()
    same = (Operation.tree_id == tree, Operation.is_look.is_(is_look))
    over = (
        select(Operation.id)
        .where(*same, Operation.state.not_in(OPEN))
        .order_by(Operation.id.desc())
        .offset(_KEPT_LOOKS if is_look else _KEPT)
        .limit(1000)
    )
    old = list(connection.scalars(over))
    if old:
        connection.execute(delete(Operation).where(Operation.id.in_(old)))
