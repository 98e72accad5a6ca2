# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ends with an instance: its certificates and its key.

With the last one of a tree the authority of its cluster ends. Certificates end in the transaction
in which the instance goes; the record of who had what stays. Keys are files: they are removed when
that is on the disk, by a master that was killed before at its next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from slapos_wendelin.certificates import Subject
from slapos_wendelin.master.access import revoke_cluster, revoke_instance
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.cluster_authority import (
    known_clusters,
    remove_authority,
    remove_remains,
)
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.models import GUID_PREFIX, Instance

#: The key in ``Session.info`` of the guids of instances that ended, and of their roots.
_ENDED = "wendelin.ended"

#: How many guids one query names.
_BATCH = 500

_log = logging.getLogger(__name__)


def end_instance(session: Session, instance: Instance) -> None:
    """Keep that nothing is left of an instance, and revoke what it had."""
    instance.destroyed_at = time.time()
    revoke_instance(session, instance, "the instance is gone")
    session.flush()
    session.info.setdefault(_ENDED, set()).update((instance.guid, instance.root_guid))
    if is_gone(session, instance.root_id):
        revoke_cluster(session, instance.root_guid, "the cluster is gone")


def is_gone(session: Session, root: int) -> bool:
    """Say whether nothing is left of a tree.

    :param root: the row of its root.
    """
    left = (
        select(Instance.id)
        .where(or_(Instance.id == root, Instance.tree_id == root), Instance.destroyed_at.is_(None))
        .limit(1)
    )
    return session.scalar(left) is None


def follow(database: Database, authority: Authority) -> None:
    """Remove the keys of all that ends, once it is on the disk that it has."""

    def remove_ended(session: Session) -> None:
        ended = session.info.pop(_ENDED, None)
        if ended:
            _remove(database, authority, instances=ended, clusters=ended)

    database.followers.append(remove_ended)


def finish(database: Database, authority: Authority) -> None:
    """Remove the keys of what has ended before; a master was killed, or could not write."""
    _remove(
        database,
        authority,
        instances=authority.keepers("partition"),
        clusters=known_clusters(authority),
    )


def _remove(
    database: Database,
    authority: Authority,
    *,
    instances: Collection[str],
    clusters: Collection[str],
) -> None:
    """Remove the keys of those instances and clusters that are gone.

    What the database does not know is left alone: a backup may be about to be put back.

    :param clusters: the guids of the roots of their trees.
    """
    with database.reading() as session:
        gone = _gone(session, {*instances, *clusters})
        trees = [guid for guid, row in gone.items() if guid in clusters and is_gone(session, row)]
    try:
        for guid in gone:
            authority.forget(Subject("partition", guid))
        for guid in trees:
            remove_authority(authority, guid)
        remove_remains(authority)
    except OSError as error:
        # What was to end has ended. The next start of the master tries again.
        _log.error("keys of what is gone stay error=%s", error)


def _gone(session: Session, guids: Collection[str]) -> dict[str, int]:
    """Return those of some instances that are gone, with their rows."""
    numbers = [each.removeprefix(GUID_PREFIX) for each in sorted(guids)]
    rows = [int(each) for each in numbers if each.isdecimal()]
    found: dict[str, int] = {}
    for batch in (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)):
        gone = select(Instance.id).where(Instance.id.in_(batch), Instance.destroyed_at.is_not(None))
        found |= {f"{GUID_PREFIX}{row}": row for row in session.scalars(gone)}
    return found
