# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every transaction leaves behind: who changed what, and which computers it concerns.

At each flush a `HistorySession` compares the rows with what they were, adds a `Change` for each row
that differs, and gives the computers concerned a new revision. So nobody has to remember to keep
history, and what was made from a computer's rows is good as long as its revision stays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, event, insert, inspect, select, update
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction, attributes

from slapos_wendelin.master.computer_fields import DECISIVE
from slapos_wendelin.master.due import has_touched, next_number, take_news, take_touched
from slapos_wendelin.master.models import (
    GUID_PREFIX,
    Base,
    Certificate,
    Change,
    Computer,
    Instance,
    Operation,
    Partition,
    Product,
    Software,
    User,
)

ADDED, CHANGED, REMOVED = "added", "changed", "removed"

#: The key in ``Session.info`` of who writes: kind and name of the caller.
WHO = "wendelin_who"

#: The key in ``Session.info`` of the number that all changes of the session's transaction have.
_NUMBER = "wendelin_transaction"

#: The key in ``Session.info`` of how the transaction's changes concern computers.
_EFFECTS = "wendelin_effects"

#: The columns of which history is kept. What only says how far a computer has come is left out: it
#: changes at every pass.
TRACKED: Mapping[type[Base], tuple[str, ...]] = {
    Instance: (
        "reference",
        "requester_id",
        "shared",
        "provider_id",
        "software_release",
        "software_type",
        "parameters",
        "sla",
        "connection",
        "requested_state",
        "state",
        "reported_state",
        "error",
        "partition_id",
        "destroyed_at",
    ),
    Computer: (
        "reference",
        "datacenter",
        "region",
        "provider",
        "network",
        "coordinates",
        "labels",
        "address",
        "state",
    ),
    Partition: ("addresses", "offered"),
    Software: ("requested_state", "reported_state", "error"),
    Product: ("release_url", "software_type", "version", "defaults"),
    User: ("role", "removed_at"),
    Certificate: ("revoked_at", "reason"),
    Operation: ("kind", "arguments", "state", "error"),
}

#: The columns of which computers are told nothing: that something called, and how far it has come.
QUIET: Mapping[type[Base], frozenset[str]] = {
    Instance: frozenset({"reported_at", "reported_number", "error_at", "placement"}),
    Computer: frozenset({"contacted_at", "fetched_number", "revision"}),
    Software: frozenset({"reported_at"}),
}

#: How much of an error is kept in history, in characters; its end says most.
_ERROR_LENGTH = 2000

_REVISE = (
    update(Computer)
    .where(Computer.id.in_(bindparam("computers", expanding=True)))
    .values(revision=bindparam("present"))
)
_REVISE_AND_TOUCH = (
    update(Computer)
    .where(Computer.id == bindparam("row"))
    .values(revision=bindparam("present"), number=bindparam("newest"))
)


@dataclass(frozen=True, slots=True)
class Effects:
    """How the changes of a transaction concern what computers offer."""

    #: The partitions that new instances have filled.
    filled: list[Partition] = field(default_factory=list)
    #: The rows of the computers that have changed otherwise.
    changed: set[int] = field(default_factory=set)


class HistorySession(Session):
    """A session that keeps history of what it writes; `WHO` in its info says for whom."""


def _refuse_bulk_changes(state: ORMExecuteState) -> None:
    """Refuse statements that change rows past the session: no history would be kept."""
    if state.is_update or state.is_delete or state.is_insert:
        raise TypeError("change rows one by one: history is kept of objects only")


def _after_flush(session: Session, _context: UOWTransaction) -> None:
    """Write the changes of a flush and the new revisions."""
    changes = []
    concerned: set[int] = set()
    for action, rows in (
        (ADDED, list(session.new)),
        (CHANGED, list(session.dirty)),
        (REMOVED, list(session.deleted)),
    ):
        for row in rows:
            change, here = _seen(session, row, action)
            changes += change
            concerned |= here
    _keep(session, changes, concerned)


def keep_added(session: Session, row: Base) -> None:
    """Keep what a flush would have kept of a row that was written past it."""
    changes, concerned = _seen(session, row, ADDED)
    _keep(session, changes, concerned)


def _keep(session: Session, changes: list[dict[str, Any]], concerned: set[int]) -> None:
    """Write changes and the new revisions of the computers that they concern."""
    if not changes and not concerned:
        return
    number = _number(session)
    if changes:
        now = time.time()
        for change in changes:
            change |= {"number": number, "at": now}
        session.connection().execute(insert(Change), changes)
    _revise(session, concerned, number)


def _number(session: Session) -> int:
    """Return the number that all changes of the session have."""
    if _NUMBER not in session.info:
        session.info[_NUMBER] = next_number(session)
    number: int = session.info[_NUMBER]
    return number


def _seen(session: Session, row: Base, action: str) -> tuple[list[dict[str, Any]], set[int]]:
    """Return the change of a row that history keeps, if any, and the computers concerned."""
    columns = TRACKED.get(type(row))
    if columns is None or (isinstance(row, Operation) and row.is_look):
        return [], set()
    changes, concerned = [], set()
    before, after = _differences(row, columns, action)
    is_told = action != CHANGED or bool(before or after)
    if is_told:
        changes.append(_change(session, row, action, before, after))
    if action != CHANGED or _is_news(row):
        concerned = _computers(session, row, before)
        _note_effect(session, row, action, concerned, is_told=is_told)
    return changes, concerned


def effects(session: Session) -> Effects:
    """Return how the session's flushes until now concern what computers offer."""
    found: Effects = session.info.setdefault(_EFFECTS, Effects())
    return found


def forget_changes(session: Session) -> None:
    """Let a session know nothing of what it has loaded and of changes that were undone."""
    session.expunge_all()
    session.info.pop(_EFFECTS, None)
    take_touched(session)
    take_news(session)


def number_of(session: Session) -> int | None:
    """Return the number of the session's changes; None when there are none."""
    number: int | None = session.info.get(_NUMBER)
    return number


def _note_effect(
    session: Session, row: Base, action: str, concerned: set[int], *, is_told: bool
) -> None:
    """Note how one changed row concerns what computers offer.

    :param is_told: whether something of which history is kept has changed.
    """
    if isinstance(row, Instance) and action == ADDED:
        if row.partition is not None:
            effects(session).filled.append(row.partition)
    elif not isinstance(row, Software) and (is_told or _is_measured_otherwise(row)):
        effects(session).changed.update(concerned)


def _differences(
    row: Base, columns: tuple[str, ...], action: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of the columns that a flush changed, before and after it."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    state = inspect(row)
    if action == ADDED:
        return {}, {column: _kept(column, state.dict.get(column)) for column in columns}
    if action == REMOVED:
        return {column: _kept(column, state.dict.get(column)) for column in columns}, {}
    for column in columns:
        history = state.attrs[column].history
        if not history.has_changes():
            continue
        old = history.deleted[0] if history.deleted else None
        new = history.added[0] if history.added else None
        if column == "error" and old and new:
            continue  # a new text of the same fault, at each pass
        before[column] = _kept(column, old)
        after[column] = _kept(column, new)
    return before, after


def _kept(column: str, value: Any) -> Any:
    """Return a value as history keeps it."""
    return value[-_ERROR_LENGTH:] if column == "error" and value else value


def _change(
    session: Session, row: Base, action: str, before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """Return the columns of a `Change`."""
    tree = row.root_id if isinstance(row, Instance) else 0
    if isinstance(row, Operation):
        tree = row.tree_id
    return {
        "who": session.info.get(WHO, "master"),
        "kind": row.__tablename__,
        "subject": _subject(row),
        "tree_id": tree,
        "action": action,
        "before": before,
        "after": after,
    }


def _subject(row: Base) -> str:
    """Return the name of a row."""
    if isinstance(row, Instance):
        return row.guid
    if isinstance(row, Partition):
        return f"{row.computer.reference}/{row.reference}"
    if isinstance(row, Software):
        return f"{row.computer.reference} {row.url}"
    if isinstance(row, Operation):
        return f"{GUID_PREFIX}{row.tree_id}/{row.id}"
    if isinstance(row, Computer | Certificate):
        return row.reference if isinstance(row, Computer) else row.serial
    return str(getattr(row, "name", ""))


def _computers(session: Session, row: Base, before: Mapping[str, Any]) -> set[int]:
    """Return the computers that a changed row concerns: where it is, and where it was."""
    if isinstance(row, Computer):
        return {row.id}
    if isinstance(row, Partition | Software):
        return {row.computer_id}
    if not isinstance(row, Instance):
        return set()
    found = _computers_of_tree(session, row.root_id) if "reference" in before else set()
    places = {row.partition_id, before.get("partition_id")}
    hosts = {row.provider_id, before.get("provider_id")} - {None}
    if hosts:
        places |= set(
            session.connection().scalars(
                select(Instance.partition_id).where(Instance.id.in_(hosts))
            )
        )
    return found | _computers_of_partitions(session, places - {None})


def _is_news(row: Base) -> bool:
    """Return whether a flush changed more than what nobody is told."""
    quiet = QUIET.get(type(row), frozenset())
    if isinstance(row, Computer) and not _is_measured_otherwise(row):
        quiet |= {"measured"}
    return any(each.history.has_changes() for each in inspect(row).attrs if each.key not in quiet)


def _is_measured_otherwise(row: Base) -> bool:
    """Return whether a row is of a computer that was measured and has other sizes than before."""
    if not isinstance(row, Computer):
        return False
    history = inspect(row).attrs.measured.history
    old = history.deleted[0] if history.deleted else {}
    new = history.added[0] if history.added else {}
    return any(old.get(name) != new.get(name) for name in DECISIVE)


def _computers_of_partitions(session: Session, places: set[Any]) -> set[int]:
    """Return the computers that have the partitions."""
    found: set[int] = set()
    unknown = []
    for place in places:
        loaded = session.identity_map.get(session.identity_key(Partition, place))
        if loaded is None:
            unknown.append(place)
        else:
            found.add(loaded.computer_id)
    if unknown:
        found |= set(
            session.connection().scalars(
                select(Partition.computer_id).where(Partition.id.in_(unknown))
            )
        )
    return found


def _computers_of_tree(session: Session, root: int) -> set[int]:
    """Return the computers that have instances of a tree: they are told the names in it."""
    return set(
        session.connection().scalars(
            select(Partition.computer_id)
            .join(Instance, Instance.partition_id == Partition.id)
            .where((Instance.id == root) | (Instance.tree_id == root))
        )
    )


def _revise(session: Session, computers: set[int], number: int) -> None:
    """Give computers a new revision, in the database and in what the session has loaded.

    The numbers of those that have got new work are written too.
    """
    touched = take_touched(session)
    connection = session.connection()
    if touched:
        rows = [
            {"row": row, "newest": newest, "present": number} for row, newest in touched.items()
        ]
        connection.execute(_REVISE_AND_TOUCH, rows)
    others = computers - touched.keys()
    if others:
        connection.execute(_REVISE, {"computers": list(others), "present": number})
    for computer in computers | touched.keys():
        loaded = session.identity_map.get(session.identity_key(Computer, computer))
        if loaded is not None:
            attributes.set_committed_value(loaded, "revision", number)


def _before_commit(session: Session) -> None:
    """Write the numbers of computers that got new work after the last flush."""
    if has_touched(session):
        _revise(session, set(), _number(session))


event.listen(HistorySession, "after_flush", _after_flush)
event.listen(HistorySession, "before_commit", _before_commit)
event.listen(HistorySession, "do_orm_execute", _refuse_bulk_changes)
