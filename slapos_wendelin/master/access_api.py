# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The /v1 endpoints by which callers come in, stay in and are kept out."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, g, request
from sqlalchemy import select

from slapos_wendelin.certificates import CLIENT, NODE
from slapos_wendelin.master import admission, views
from slapos_wendelin.master.arguments import json_body
from slapos_wendelin.master.authority import Issued
from slapos_wendelin.master.checks import check_name
from slapos_wendelin.master.cluster_certificates import tell_nodes
from slapos_wendelin.master.computer_fields import FIELDS
from slapos_wendelin.master.context import COMPUTER, context
from slapos_wendelin.master.errors import InvalidRequestError, UnknownError
from slapos_wendelin.master.handing_out import authority
from slapos_wendelin.master.models import Certificate, User
from slapos_wendelin.master.signing import Revoked

blueprint = Blueprint("access", __name__, url_prefix="/v1")

_PEM = "application/x-pem-file"

#: What a token can say of the computer that it lets in.
_COMPUTER_KEYS = tuple(FIELDS.keys() - {"label_changes"})


@blueprint.post("/join")
def join() -> dict[str, Any]:
    """Give a certificate to whoever has a token that was not used."""
    body = json_body("token", "request", "name")
    with context().writing() as session:
        issued = admission.admit(
            session,
            authority(),
            _text(body, "token"),
            _text(body, "request"),
            _text(body, "name", ""),
        )
        return _issued_view(issued)


@blueprint.post("/renew")
def renew() -> dict[str, Any]:
    """Give a new certificate to whoever calls with one that is still good."""
    body = json_body("request")
    if not g.caller.serial:
        raise InvalidRequestError(
            "the caller has shown no certificate that could be renewed", "join with a token"
        )
    with context().writing() as session:
        issued = admission.renew(
            session, authority(), g.caller.kind, g.caller.name, _text(body, "request")
        )
        return _issued_view(issued)


@blueprint.post("/tokens")
def post_token() -> dict[str, Any]:
    """Make a token that lets in one computer or user, once."""
    body = json_body("kind", "name", "role", "lifetime", "replace", *_COMPUTER_KEYS)
    lifetime = body.get("lifetime", admission.LIFETIME)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float):
        raise InvalidRequestError(f"lifetime is {lifetime!r}", "send a number of seconds")
    invitation = admission.Invitation(
        kind=_text(body, "kind"),
        name=_invited(body),
        role=_text(body, "role", ""),
        values={key: body[key] for key in _COMPUTER_KEYS if body.get(key) is not None},
        lifetime=lifetime,
        replace=body.get("replace") is True,
    )
    with context().writing() as session:
        text, token = admission.make_token(session, authority(), invitation, str(g.caller))
        return {
            "token": text,
            "kind": token.kind,
            "name": token.name,
            "role": token.role,
            "expires_at": views.timestamp(token.expires_at),
        }


@blueprint.get("/users")
def get_users() -> list[dict[str, Any]]:
    """Give every user, those who were removed too."""
    with context().reading() as session:
        return [_user_view(each) for each in session.scalars(select(User).order_by(User.name))]


@blueprint.post("/users")
def post_user() -> dict[str, Any]:
    """Register a user, or change the role of one."""
    body = json_body("name", "role")
    name = check_name(body.get("name"), "name")
    with context().writing() as session:
        return _user_view(admission.put_user(session, name, _text(body, "role")))


@blueprint.delete("/users/<path:name>")
def delete_user(name: str) -> dict[str, Any]:
    """Take a user out."""
    with context().writing() as session:
        user = session.get(User, name)
        if user is None:
            raise UnknownError(f"there is no user {name!r}", "see `slapos user list`")
        admission.remove_user(session, user)
        return _user_view(user)


@blueprint.get("/certificates")
def get_certificates() -> list[dict[str, Any]]:
    """Give the certificates that were signed, or those of a kind or a name."""
    query = select(Certificate).order_by(Certificate.kind, Certificate.name, Certificate.issued_at)
    for column in (Certificate.kind, Certificate.name):
        if column.key in request.args:
            query = query.where(column == request.args[column.key])
    with context().reading() as session:
        return [_certificate_view(each) for each in session.scalars(query)]


@blueprint.post("/certificates/<serial>/revoke")
def revoke_certificate(serial: str) -> dict[str, Any]:
    """Let a certificate be good no more."""
    reason = json_body("reason").get("reason") or "an operator revoked it"
    reason = check_name(reason, "reason")
    with context().writing() as session:
        found = session.get(Certificate, serial.lower())
        if found is None:
            raise UnknownError(f"there is no certificate {serial!r}", "see GET /v1/certificates")
        if found.revoked_at is None:
            found.revoked_at = time.time()
            found.reason = reason
            if found.kind in {NODE, CLIENT}:
                tell_nodes(session, found.name)
        return _certificate_view(found)


@blueprint.get("/crl")
def get_revoked() -> Response:
    """Give the signed list of revoked certificates, for programs that check it themselves."""
    with context().reading() as session:
        found = session.scalars(
            select(Certificate).where(
                Certificate.kind.not_in((NODE, CLIENT)),
                Certificate.revoked_at.is_not(None),
                Certificate.not_after > time.time(),
            )
        )
        revoked = [Revoked(each.serial, each.revoked_at or 0.0) for each in found]
    return Response(authority().revocation_list(revoked), mimetype=_PEM)


@blueprint.get("/ca")
def get_authority() -> Response:
    """Give the certificate of the master's authority."""
    return Response(authority().certificate, mimetype=_PEM)


def _text(body: dict[str, Any], key: str, default: str | None = None) -> str:
    """Return a text of the body."""
    value = body.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value):
        raise InvalidRequestError(f"{key!r} is missing or no text", f"send {key!r} as a text")
    return value


def _invited(body: dict[str, Any]) -> str:
    """Return whom a token is for; empty for a computer that will name itself."""
    if body.get("kind") == COMPUTER and body.get("name") == "":
        return ""
    return check_name(body.get("name"), "name")


def _issued_view(issued: Issued) -> dict[str, Any]:
    """Return a certificate to its owner."""
    return {
        "kind": issued.subject.kind,
        "name": issued.subject.name,
        "serial": issued.serial,
        "not_after": views.timestamp(issued.not_after),
        "certificate": issued.certificate,
    }


def _user_view(user: User) -> dict[str, Any]:
    """Return a user."""
    return {
        "name": user.name,
        "role": user.role,
        "created_at": views.timestamp(user.created_at),
        "removed_at": views.timestamp(user.removed_at),
    }


def _certificate_view(certificate: Certificate) -> dict[str, Any]:
    """Return what is recorded of a certificate."""
    return {
        "serial": certificate.serial,
        "kind": certificate.kind,
        "name": certificate.name,
        "fingerprint": certificate.fingerprint,
        "issued_at": views.timestamp(certificate.issued_at),
        "not_after": views.timestamp(certificate.not_after),
        "revoked_at": views.timestamp(certificate.revoked_at),
        "reason": certificate.reason,
    }
