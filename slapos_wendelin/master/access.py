# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of certificates."""

from __future__ import annotations

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.certificates import CLIENT, NODE
from slapos_wendelin.master.models import Certificate, Instance


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
    revoke(session, NODE, f"{instance.root_guid}/{instance.guid}", reason)


def revoke_cluster(session: Session, root: str, reason: str) -> None:
    """Revoke what nodes and users still have of a cluster.

    :param root: the guid of the root of its tree.
    """
    names = session.execute(
        select(Certificate.kind, Certificate.name)
        .where(
            Certificate.kind.in_((NODE, CLIENT)),
            Certificate.name.startswith(f"{root}/", autoescape=True),
            Certificate.revoked_at.is_(None),
        )
        .distinct()
    )
    for kind, name in names.all():
        revoke(session, kind, name, reason)
