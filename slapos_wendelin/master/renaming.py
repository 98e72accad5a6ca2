# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Giving an instance another name."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master.due import touch_instance
from slapos_wendelin.master.errors import ConflictError
from slapos_wendelin.master.models import Instance
from slapos_wendelin.master.reports import bang_tree


def rename(session: Session, instance: Instance, name: str) -> None:
    """Give an instance another name, under which it has to be requested from now on.

    :raises ConflictError: when it is being destroyed, or another one has that name.
    """
    if instance.reference == name:
        return
    if not instance.live:
        raise ConflictError(f"{instance.guid} is being destroyed", "request a new one by that name")
    other = session.scalar(
        select(Instance).where(
            Instance.tree_id == instance.tree_id,
            Instance.reference == name,
            Instance.live.is_(True),
        )
    )
    if other is not None:
        raise ConflictError(f"{other.guid} has the name {name!r}", "choose another name")
    instance.reference = name
    session.flush()
    touch_instance(session, instance)
    if instance.is_root:
        # Its name is among the parameters of the whole tree.
        bang_tree(session, instance)
