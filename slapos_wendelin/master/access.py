# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of certificates."""

from __future__ import annotations

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.certificates import NODE
from slapos_wendelin.master.models import GUID_PREFIX, Certificate, Instance


def revoke(session: Session, kind: str, name: str, reason: str) -> int:
    """Revoke every certificate of a user, a computer or a partition; return how many.

    :param kind: user, computer or partition; in a cluster node or client.
    :param name: of the certificate's subject.
    """
    valid = session.scalars(
        select(Certificate).where(
            Certificate.kind == kind, Certificate.name == name, Certificate.revoked_at.is_(None)
        )
    ).all()
    for certificate in valid:
        certificate.revoked_at = time.time()
        certificate.reason = reason
    return len(valid)


def revoke_instance(session: Session, instance: Instance, reason: str) -> None:
    """Revoke every certificate of an instance: for the master, and as a node of its cluster.

    Its keys go with its partition, so nobody has to hurry to tell the other nodes.
    """
    revoke(session, "partition", instance.guid, reason)
    revoke(session, NODE, f"{GUID_PREFIX}{instance.root_id}/{instance.guid}", reason)
