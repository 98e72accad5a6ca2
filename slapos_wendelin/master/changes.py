# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading history: what was changed, by whom and when, in the words of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, or_, select
from sqlalchemy.orm import Session

from slapos_wendelin.master.checks import shown
from slapos_wendelin.master.errors import ConflictError, UnknownError
from slapos_wendelin.master.history import ADDED, CHANGED, REMOVED
from slapos_wendelin.master.models import GUID_PREFIX, Change, Computer, Instance, Partition
from slapos_wendelin.master.views import decoded, timestamp

Document = dict[str, Any]

#: What the API calls the columns of an instance.
_NAMES = {
    "software_release": "release_url",
    "partition_id": "place",
    "requester_id": "requester",
    "provider_id": "provider",
}

#: The columns that hold parameters as the slap protocol sends them.
_SERIALISED = ("parameters", "connection")

#: What a request for an instance says, by the name of the column.
_REQUESTED = ("software_release", "software_type", "parameters", "sla", "requested_state", "shared")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which changes to read; what is empty selects nothing by itself, all empty selects all."""

    #: A root by its name (also one that is destroyed), or an instance by its guid.
    instance: str = ""
    computer: str = ""
    software: str = ""
    product: str = ""
    #: Seconds since the epoch.
    since: float = 0.0
    limit: int = 100


def read(session: Session, selection: Selection) -> tuple[list[Document], bool]:
    """Return the newest changes that are selected, oldest first, and whether there are older ones.

    :raises UnknownError: when there never was such an instance.
    """
    found = session.scalars(
        select(Change)
        .where(_condition(session, selection), Change.at >= selection.since)
        .order_by(Change.id.desc())
        .limit(selection.limit + 1)
    ).all()
    kept = found[: selection.limit][::-1]
    names = Names(session)
    names.learn(kept)
    documents = [
        {
            "id": each.id,
            "number": each.number,
            "at": timestamp(each.at),
            "who": each.who,
            **names.document(each.kind, each.subject, each.action, each.before, each.after),
        }
        for each in kept
    ]
    return documents, len(found) > selection.limit


def newest(session: Session) -> int:
    """Return the row of the newest change, 0 when there is none."""
    session.flush()
    return session.scalar(select(func.max(Change.id))) or 0


def since(session: Session, newest_before: int) -> list[Document]:
    """Return what the session's transaction changed after a change, one document for each row.

    Several changes of one row are one; what is at last as it was is none.
    """
    session.flush()
    rows = session.scalars(
        select(Change).where(Change.id > newest_before).order_by(Change.id)
    ).all()
    merged: dict[tuple[str, str], _Merged] = {}
    for each in rows:
        merged.setdefault((each.kind, each.subject), _Merged()).add(each)
    names = Names(session)
    names.learn(rows)
    return [
        names.document(kind, subject, each.action, each.before, each.after)
        for (kind, subject), each in merged.items()
        if each.action
    ]


def roots_named(session: Session, reference: str) -> list[Instance]:
    """Return all roots that have a name, the oldest first: those that are destroyed have theirs."""
    return list(
        session.scalars(
            select(Instance)
            .where(Instance.tree_id == 0, Instance.reference == reference)
            .order_by(Instance.id)
        )
    )


def requested_at(session: Session, reference: str, change: int) -> tuple[Instance, Document]:
    """Return a root and what was requested of it just after the transaction of a change.

    :param reference: the root's name.
    :param change: the row of a change of a transaction that changed something in its tree.
    :returns: the root that had the name at that time, and the columns of the request.
    :raises UnknownError: when there is no such root or change.
    :raises ConflictError: when the change is of something else.
    """
    roots = roots_named(session, reference)
    if not roots:
        raise UnknownError(
            f"there never was an instance {shown(reference)}", "see `slapos cluster history --all`"
        )
    row = session.get(Change, change)
    if row is None:
        raise UnknownError(
            f"there is no change {change}", "see `slapos cluster history` of the instance"
        )
    trees = set(session.scalars(select(Change.tree_id).where(Change.number == row.number)))
    root = next((each for each in reversed(roots) if each.id in trees), None)
    if root is None:
        raise ConflictError(
            f"change {change} is not of {shown(reference)} but of {row.kind} {row.subject}",
            "see `slapos cluster history` of the instance for its changes",
        )
    state = {column: getattr(root, column) for column in _REQUESTED}
    later = session.scalars(
        select(Change)
        .where(
            Change.kind == Instance.__tablename__,
            Change.subject == root.guid,
            Change.number > row.number,
        )
        .order_by(Change.id.desc())
    )
    for each in later:
        state |= {column: each.before[column] for column in _REQUESTED if column in each.before}
    return root, state


@dataclass(slots=True)
class _Merged:
    """Several changes of one row as one."""

    #: Empty when nothing differs in the end.
    action: str = ""
    before: Document = field(default_factory=dict)
    after: Document = field(default_factory=dict)
    _first: str = ""

    def add(self, change: Change) -> None:
        """Take over a later change."""
        self._first = self._first or change.action
        self.before = change.before | self.before
        self.after |= change.after
        if change.action == REMOVED:
            self.action = "" if self._first == ADDED else REMOVED
            self.after = {}
        elif self._first == ADDED:
            self.action = ADDED
            self.before = {}
        else:
            for column in [each for each in self.after if self.after[each] == self.before[each]]:
                del self.before[column], self.after[column]
            self.action = CHANGED if self.after else ""


class Names:
    """The names of the rows that changes speak of by number."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._instances: dict[int, str] = {}
        self._places: dict[int, str] = {}

    def learn(self, changes: Iterable[Change]) -> None:
        """Look up all names that the changes need, in few questions to the database."""
        instances: set[int | None] = set()
        places: set[int | None] = set()
        for each in changes:
            if each.kind != Instance.__tablename__:
                continue
            instances.add(_row(each.subject))
            for values in (each.before, each.after):
                instances |= {values.get("requester_id"), values.get("provider_id")}
                places.add(values.get("partition_id"))
        self._learn_instances(instances - {None})
        self._places |= {
            row: f"{computer}/{partition}"
            for row, computer, partition in self._session.execute(
                select(Partition.id, Computer.reference, Partition.reference)
                .join(Computer)
                .where(Partition.id.in_(places - {None}))
            )
        }

    def document(
        self, kind: str, subject: str, action: str, before: Document, after: Document
    ) -> Document:
        """Return a change in the words of the API."""
        document = {"kind": kind, "subject": subject, "name": subject, "action": action}
        if kind == Instance.__tablename__:
            document["name"] = self._instances.get(_row(subject), subject)
            before, after = self._values(before), self._values(after)
            for key in _SERIALISED:
                _decode(before, after, key)
        return document | {"before": dict(before), "after": dict(after)}

    def _learn_instances(self, rows: set[int | None]) -> None:
        """Keep the names of instances: the root's, or the root's and the instance's own."""
        found = {
            row: (tree, reference)
            for row, tree, reference in self._session.execute(
                select(Instance.id, Instance.tree_id, Instance.reference).where(
                    Instance.id.in_(rows)
                )
            )
        }
        roots = dict(
            self._session.execute(
                select(Instance.id, Instance.reference).where(
                    Instance.id.in_({tree for tree, _ in found.values() if tree})
                )
            ).all()
        )
        self._instances |= {
            row: f"{roots.get(tree, '?')}/{reference}" if tree else reference
            for row, (tree, reference) in found.items()
        }

    def _values(self, values: Mapping[str, Any]) -> Document:
        """Return the columns of an instance with the names of the API and of other rows."""
        translated: Document = {}
        for column, value in values.items():
            if column in {"requester_id", "provider_id"} and value is not None:
                translated[_NAMES[column]] = self._instances.get(value, f"{GUID_PREFIX}{value}")
            elif column == "partition_id" and value is not None:
                translated["place"] = self._places.get(value, "a partition that is gone")
            elif column == "destroyed_at":
                translated[column] = timestamp(value)
            else:
                translated[_NAMES.get(column, column)] = value
        return translated


def _decode(before: Document, after: Document, key: str) -> None:
    """Show serialised parameters as people read them, unless only how they are written differs."""
    old, new = before.get(key), after.get(key)
    readable = [None if each is None else decoded(each) for each in (old, new)]
    if old != new and readable[0] == readable[1]:
        return
    for values, value in zip((before, after), readable, strict=True):
        if value is not None:
            values[key] = value


def _row(guid: str) -> int:
    """Return the row of an instance by its guid."""
    return int(guid.removeprefix(GUID_PREFIX))


def _condition(session: Session, selection: Selection) -> ColumnElement[bool]:
    """Return the condition that selects changes by what they are of."""
    conditions: list[ColumnElement[bool]] = []
    if selection.instance:
        conditions.append(_of_instance(session, selection.instance))
    if selection.computer:
        conditions.append(_of_computer(selection.computer))
    if selection.software:
        url = selection.software
        conditions.append(
            and_(Change.kind == "software", Change.subject.endswith(f" {url}", autoescape=True))
        )
    if selection.product:
        conditions.append(and_(Change.kind == "product", Change.subject == selection.product))
    return or_(false(), *conditions) if conditions else Change.id > 0


def _of_computer(name: str) -> ColumnElement[bool]:
    """Return the condition for a computer, its partitions and its software."""
    subject = Change.subject
    return or_(
        and_(Change.kind == "computer", subject == name),
        and_(Change.kind == "partition", subject.startswith(f"{name}/", autoescape=True)),
        and_(Change.kind == "software", subject.startswith(f"{name} ", autoescape=True)),
    )


def _of_instance(session: Session, reference: str) -> ColumnElement[bool]:
    """Return the condition for the trees of a name, or for one instance by its guid.

    :raises UnknownError: when there never was such an instance.
    """
    roots = [each.id for each in roots_named(session, reference)]
    if not roots and reference.startswith(GUID_PREFIX):
        digits = reference.removeprefix(GUID_PREFIX)
        # A row's number has 18 digits at most in every database.
        row = int(digits) if digits.isdecimal() and len(digits) <= 18 else 0  # noqa: PLR2004
        instance = session.get(Instance, row)
        if instance is not None and instance.is_root:
            roots = [instance.id]
        elif instance is not None:
            return and_(Change.kind == Instance.__tablename__, Change.subject == reference)
    if not roots:
        raise UnknownError(
            f"there never was an instance {shown(reference)}",
            "give the name of a root or a guid; `slapos cluster history --all` shows all changes",
        )
    return Change.tree_id.in_(roots)
