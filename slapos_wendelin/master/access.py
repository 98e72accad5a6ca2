# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of certificates."""

from __future__ import annotations

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.master.models import Certificate


def revoke(session: Session, kind: str, name: str, reason: str) -> int:
    """Revoke every certificate of a user, a computer or a partition; return how many.

    :param kind: user, computer or partition.
    :param name: the user, the computer's reference or the instance's guid.
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
