# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a new instance with one statement.

SQLAlchemy's unit of work finds out what depends on what, which costs several times as much as the
statement; of a new instance everything is known.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from slapos_wendelin.master.due import touch_instance
from slapos_wendelin.master.history import keep_added
from slapos_wendelin.master.models import Instance, Partition

#: The columns that the database fills in.
_GIVEN = frozenset({"id"})

_COLUMNS = [column.key for column in Instance.__table__.columns if column.key not in _GIVEN]

_INSERT = insert(Instance)

#: What a new instance has in columns that nobody has set.
_START: dict[str, Any] = {
    "live": True,
    "reported_state": "",
    "reported_at": None,
    "reported_number": 0,
    "error": "",
    "error_at": None,
    "destroyed_at": None,
}


def add_instance(
    session: Session,
    instance: Instance,
    *,
    requester: Instance | None,
    partition: Partition | None,
    provider: Instance | None,
) -> None:
    """Write a new instance with its history, make its computer due, and put it into the session.

    :param instance: what is known of it but its relations.
    :param partition: where it is, which was found free; None for a shared instance.
    :param provider: the instance that hosts a shared one.
    """
    # What it refers to, and what was changed before it, comes first.
    session.flush()
    relations = {"requester": requester, "partition": partition, "provider": provider}
    start = _START | {"connection": {}, "children": [], "shared_instances": []}
    for name, related in relations.items():
        start[name] = related
        start[f"{name}_id"] = None if related is None else related.id
    for name, value in start.items():
        set_committed_value(instance, name, value)
    touch_instance(session, instance)
    row = {column: getattr(instance, column) for column in _COLUMNS}
    (number,) = session.connection().execute(_INSERT, row).inserted_primary_key or (None,)
    set_committed_value(instance, "id", number)
    make_transient_to_detached(instance)
    session.add(instance)
    _relate(instance)
    keep_added(session, instance)


def _relate(instance: Instance) -> None:
    """Let what the instance refers to know of it, as far as that has been read."""
    if instance.partition is not None:
        set_committed_value(instance.partition, "instance", instance)
    for related, name in (
        (instance.requester, "children"),
        (instance.provider, "shared_instances"),
    ):
        known = None if related is None else related.__dict__.get(name)
        if known is not None:
            set_committed_value(related, name, [*known, instance])
