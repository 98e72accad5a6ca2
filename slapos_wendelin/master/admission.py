# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How computers and users come in: tokens that let in once, and the certificates they get."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin import tokens
from slapos_wendelin.certificates import Subject, key_digest
from slapos_wendelin.master import computers
from slapos_wendelin.master.access import revoke
from slapos_wendelin.master.authority import Authority, Issued
from slapos_wendelin.master.checks import check_name
from slapos_wendelin.master.cluster_certificates import revoke_user
from slapos_wendelin.master.computer_fields import ELIGIBLE, FIELDS, REMOVED
from slapos_wendelin.master.context import COMPUTER, OPERATOR, VIEWER
from slapos_wendelin.master.errors import ConflictError, ForbiddenError, InvalidRequestError
from slapos_wendelin.master.history import WHO
from slapos_wendelin.master.models import Certificate, Token, User
from slapos_wendelin.master.signing_requests import public_key_of

USER = "user"

#: The kinds of callers that a token can let in, and the roles of a user.
KINDS = (COMPUTER, USER)
ROLES = (OPERATOR, VIEWER)

#: How long a token is good for unless somebody says otherwise, and at most, in seconds.
LIFETIME = 3600.0
LONGEST_LIFETIME = 7 * 86400.0

#: How long a token is kept after its end, so that whoever comes late is told so, in seconds.
_MEMORY_OF_TOKENS = 30 * 86400.0

_REMEDY = "ask an operator for a new token"


class JoinedError(ConflictError):
    """A computer wants to join under the name of one that has joined."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Whom a token is to let in."""

    kind: str
    #: Empty for a computer that names itself when it joins.
    name: str
    #: The role of a user; empty for a computer, and for a user who has one.
    role: str = ""
    #: What to keep of the computer that joins, by the names of `FIELDS`.
    values: Mapping[str, Any] = field(default_factory=dict)
    lifetime: float = LIFETIME
    #: Whether a computer that has joined before may join again; what it had is revoked then.
    replace: bool = False


def make_token(
    session: Session, authority: Authority, invitation: Invitation, created_by: str
) -> tuple[str, Token]:
    """Return a new token as it is given out, and what is kept of it.

    :raises InvalidRequestError: for a wrong kind, role or lifetime.
    :raises ConflictError: for a computer that is in already, and a user who has another role.
    """
    _check(invitation)
    role = invitation.role
    if invitation.kind == USER:
        role = _role_of(session, invitation)
    elif not invitation.replace and _good_certificates(session, COMPUTER, invitation.name):
        raise ConflictError(
            f"computer {invitation.name!r} has joined already",
            "choose another reference, or replace it: its certificates are revoked when it joins",
        )
    _forget_old_tokens(session)
    now = time.time()
    # Digits and letters only: an option that begins with a dash would be taken for another.
    secret = secrets.token_hex(32)
    token = Token(
        digest=_digest(secret),
        kind=invitation.kind,
        name=invitation.name,
        role=role,
        labels=dict(invitation.values),
        created_by=created_by,
        created_at=now,
        expires_at=now + invitation.lifetime,
        used_at=None,
    )
    session.add(token)
    return tokens.join(secret, authority.fingerprint), token


def admit(  # noqa: PLR0917 (the last two narrow whom the token may be for)
    session: Session,
    authority: Authority,
    text: str,
    request: str,
    name: str = "",
    kind: str = "",
) -> Issued:
    """Let in whoever has a token: sign a certificate for the key of the request.

    The token works once; but whoever used it gets a certificate for the same key again, in case the
    answer was lost.

    :param name: who the caller believes to be; empty when it leaves that to the token.
    :param kind: what the caller believes to be; empty when it leaves that to the token.
    :raises ForbiddenError: when the token is not known, has ended, was used or is for others.
    :raises InvalidRequestError: when the request cannot be signed; the token stays unused then.
    :raises ConflictError: when the token is for another.
    """
    public_key = key_digest(public_key_of(request))
    token = session.get(Token, _digest(tokens.secret_of(text)))
    if token is None:
        raise ForbiddenError("the token is not known to this master", _REMEDY)
    if kind and kind != token.kind:
        raise ForbiddenError(f"the token is for a {token.kind}, not for a {kind}", _REMEDY)
    if token.name and name and name != token.name:
        raise ConflictError(
            f"the token is for {token.kind} {token.name!r}, not {name!r}",
            f"use that name, or {_REMEDY}",
        )
    _check_unused(session, token, public_key)
    if not token.name:
        token.name = _chosen_name(session, name)
    subject = Subject(token.kind, token.name)
    session.info[WHO] = f"{token.role or token.kind}/{token.name}"
    if token.used_at is None:
        token.used_at = time.time()
        token.public_key = public_key
        _enter(session, token)
    issued = authority.issue_from_request(request, subject)
    record(session, issued)
    return issued


def _chosen_name(session: Session, name: str) -> str:
    """Return the name under which a computer joins whose token names none.

    :raises JoinedError: when another computer has joined under it.
    """
    if not name:
        raise InvalidRequestError(
            "the token is for a computer that names itself", "send the name with the token"
        )
    if _good_certificates(session, COMPUTER, name):
        raise JoinedError(
            f"computer {name!r} has joined already",
            "choose another name, or ask an operator for a token that replaces it",
        )
    return check_name(name, "the computer's name")


def renew(session: Session, authority: Authority, kind: str, name: str, request: str) -> Issued:
    """Sign a new certificate for a caller that has one."""
    subject = Subject(USER if kind in ROLES else kind, name)
    issued = authority.issue_from_request(request, subject)
    record(session, issued)
    return issued


def record(session: Session, issued: Issued) -> None:
    """Keep that a certificate was signed; without this nobody can use it."""
    session.add(
        Certificate(
            serial=issued.serial,
            kind=issued.subject.kind,
            name=issued.subject.name,
            fingerprint=issued.fingerprint,
            issued_at=issued.issued_at,
            not_after=issued.not_after,
            revoked_at=None,
        )
    )


def issue(session: Session, authority: Authority, subject: Subject) -> Issued:
    """Make a key and sign a certificate for it."""
    issued = authority.issue_with_key(subject)
    record(session, issued)
    return issued


def put_user(session: Session, name: str, role: str) -> User:
    """Register a user, or change the role of one.

    :raises InvalidRequestError: for a role that there is not.
    :raises ConflictError: when no operator would be left.
    """
    if role not in ROLES:
        raise InvalidRequestError(f"role is {role!r}", f"use one of {', '.join(ROLES)}")
    user = session.get(User, name)
    if user is None:
        user = User(name=name, role=role, created_at=time.time(), removed_at=None)
        session.add(user)
    elif user.role != role or user.removed_at is not None:
        _check_operator_stays(session, user, role)
        user.role = role
        user.removed_at = None
    return user


def remove_user(session: Session, user: User) -> None:
    """Take a user out: certificates are revoked, tokens do not work any more.

    :raises ConflictError: when no operator would be left.
    """
    if user.removed_at is not None:
        return
    _check_operator_stays(session, user, "")
    user.removed_at = time.time()
    revoke(session, USER, user.name, "the user was removed")
    revoke_user(session, user.name, "the user was removed")
    for token in session.scalars(select(Token).where(Token.kind == USER, Token.name == user.name)):
        session.delete(token)


def _check(invitation: Invitation) -> None:
    """Refuse an invitation that cannot be."""
    if invitation.kind not in KINDS:
        raise InvalidRequestError(f"kind is {invitation.kind!r}", f"use one of {', '.join(KINDS)}")
    if invitation.kind == COMPUTER and invitation.role:
        raise InvalidRequestError("a computer has no role", "leave the role out")
    if invitation.role and invitation.role not in ROLES:
        raise InvalidRequestError(f"role is {invitation.role!r}", f"use one of {', '.join(ROLES)}")
    for name, value in invitation.values.items():
        FIELDS[name](name, value)
    if not 0 < invitation.lifetime <= LONGEST_LIFETIME:
        raise InvalidRequestError(
            f"lifetime is {invitation.lifetime}",
            f"use seconds, {LONGEST_LIFETIME:.0f} (a week) at most",
        )


def _role_of(session: Session, invitation: Invitation) -> str:
    """Return the role that a token gives to a user."""
    user = session.get(User, invitation.name)
    if user is None or user.removed_at is not None:
        if not invitation.role:
            raise InvalidRequestError(
                f"the token for the new user {invitation.name!r} has no role",
                f"say which: {', '.join(ROLES)}",
            )
        return invitation.role
    if invitation.role and invitation.role != user.role:
        raise ConflictError(
            f"user {user.name!r} is {user.role}, not {invitation.role}",
            "change the user's role first, or leave the role out",
        )
    return user.role


def _check_unused(session: Session, token: Token, public_key: str) -> None:
    """Refuse a token that has ended, or that somebody else has used."""
    if token.expires_at <= time.time():
        raise ForbiddenError(f"the token for {token.kind} {token.name!r} has ended", _REMEDY)
    if token.used_at is None:
        return
    # Whoever was put out must not come in again as one whose answer was lost.
    put_out = session.scalar(
        select(Certificate.serial)
        .where(
            Certificate.kind == token.kind,
            Certificate.name == token.name,
            Certificate.issued_at >= int(token.used_at),
            Certificate.revoked_at.is_not(None),
        )
        .limit(1)
    )
    if token.public_key != public_key or put_out is not None:
        raise ForbiddenError(f"the token for {token.kind} {token.name!r} has been used", _REMEDY)


def _enter(session: Session, token: Token) -> None:
    """Register whoever uses a token for the first time."""
    if token.kind == USER:
        put_user(session, token.name, token.role)
        return
    revoke(session, COMPUTER, token.name, "the computer joined again")
    host = computers.put_computer(session, token.name, token.labels)
    if host.state == REMOVED:
        host.state = ELIGIBLE


def _good_certificates(session: Session, kind: str, name: str) -> int:
    """Return how many certificates are good."""
    found = session.scalars(
        select(Certificate.serial).where(
            Certificate.kind == kind,
            Certificate.name == name,
            Certificate.revoked_at.is_(None),
            Certificate.not_after > time.time(),
        )
    )
    return len(found.all())


def _check_operator_stays(session: Session, user: User, role: str) -> None:
    """Refuse to take away the last operator."""
    if user.role != OPERATOR or role == OPERATOR or user.removed_at is not None:
        return
    others = session.scalar(
        select(User.name).where(
            User.role == OPERATOR, User.removed_at.is_(None), User.name != user.name
        )
    )
    if others is None:
        raise ConflictError(
            f"{user.name!r} is the only operator", "make somebody else an operator first"
        )


def _forget_old_tokens(session: Session) -> None:
    """Remove tokens that ended long ago."""
    limit = time.time() - _MEMORY_OF_TOKENS
    for token in session.scalars(select(Token).where(Token.expires_at < limit)):
        session.delete(token)


def _digest(secret: str) -> str:
    """Return what is kept of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
