# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that the slap protocol has the master hand out together with their keys."""

from __future__ import annotations

from sqlalchemy.orm import Session

from slapos_wendelin.certificates import Subject, is_near_end, serial_of
from slapos_wendelin.master import registry
from slapos_wendelin.master.admission import issue
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.context import COMPUTER, PARTITION, context
from slapos_wendelin.master.errors import NotSupportedError
from slapos_wendelin.master.models import Certificate


def authority() -> Authority:
    """Return what signs certificates.

    :raises NotSupportedError: for a master that has nothing to sign with.
    """
    found = context().authority
    if found is None:
        raise NotSupportedError(
            "this master listens in clear and signs no certificates",
            "start it with --authority FOLDER",
        )
    return found


def partition_certificate(guid: str | None) -> dict[str, str]:
    """Return certificate and key of an instance, the same until they are near their end.

    Its computer writes both into the files that the instance's recipes use. Both are empty when
    there is no instance, or nothing to sign with.
    """
    signer = context().authority
    if signer is None or guid is None:
        return {"certificate": "", "key": ""}
    subject = Subject(PARTITION, guid)
    with context().reading() as session:
        kept = _kept(session, signer, subject)
    if kept is not None:
        return kept
    with context().writing() as session:
        registry.instance(session, guid)
        # Somebody may have been faster.
        kept = _kept(session, signer, subject)
        if kept is not None:
            return kept
        issued = issue(session, signer, subject)
        # When the record is not kept after all, the next caller finds a certificate without one.
        signer.keep(issued)
    return {"certificate": issued.certificate, "key": issued.key}


def computer_certificate(reference: str) -> dict[str, str]:
    """Return a new certificate and key for a computer; both are empty without an authority."""
    signer = context().authority
    with context().writing() as session:
        host = registry.computer(session, reference)
        if signer is None:
            return {"certificate": "", "key": ""}
        issued = issue(session, signer, Subject(COMPUTER, host.reference))
    return {"certificate": issued.certificate, "key": issued.key}


def _kept(session: Session, signer: Authority, subject: Subject) -> dict[str, str] | None:
    """Return certificate and key that were handed out before; None when new ones are needed."""
    kept = signer.kept(subject)
    if kept is None or is_near_end(kept.certificate):
        return None
    recorded = session.get(Certificate, serial_of(kept.certificate))
    if recorded is None or recorded.revoked_at is not None:
        return None
    return {"certificate": kept.text, "key": kept.key}
