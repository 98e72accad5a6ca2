# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first certificates that slapos.core's own commands ask for.

``slapos computer token`` gets a token, ``slapos node register`` a computer's certificate for it,
``slapos configure client`` a user's. The key is made here and sent along: these commands make none.
"""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, g, request

from slapos_wendelin.certificates import key_text, make_key, make_request
from slapos_wendelin.master import admission
from slapos_wendelin.master.context import COMPUTER, context
from slapos_wendelin.master.errors import ConflictError, ForbiddenError, InvalidRequestError
from slapos_wendelin.master.handing_out import authority

blueprint = Blueprint("registration", __name__)

#: What begins the reference of a computer that ``slapos node register`` knows: it looks for that in
#: the text of the certificate, up to ``/email``.
PREFIX = "COMP-"

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@blueprint.post("/Person_requestComputer")
def request_computer() -> dict[str, str]:
    """Let in the computer that has a token, under the name given to ``slapos node register``."""
    title = request.form.get("title", "")
    if not _REFERENCE.fullmatch(title):
        raise InvalidRequestError(
            f"the computer's name is {title[:100]!r}", "use letters, digits, dots and hyphens"
        )
    reference = title if title.startswith(PREFIX) else f"{PREFIX}{title}"
    try:
        issued = _admit(COMPUTER, reference)
    except admission.JoinedError as error:
        # The command looks for these words.
        raise ConflictError(f"{error.message}: Certificate still active.", error.remedy) from error
    described = f"Subject: CN={reference}/email\n"
    return {"certificate": described + issued["certificate"], "key": issued["key"]}


@blueprint.post("/Person_getCertificate")
def get_certificate() -> dict[str, str]:
    """Let in the user who has a token."""
    return _admit(admission.USER)


@blueprint.get("/hateoas/computer_module/Base_getComputerToken")
def get_computer_token() -> dict[str, Any]:
    """Give a token with which one computer can join under a name of its own."""
    invitation = admission.Invitation(COMPUTER, "")
    with context().writing() as session:
        text, _ = admission.make_token(session, authority(), invitation, str(g.caller))
    return {"access_token": text}


def _admit(kind: str, name: str = "") -> dict[str, str]:
    """Return a certificate and its key for whoever has the token in the header."""
    token = request.headers.get("X-Access-Token", "")
    if not token:
        raise ForbiddenError("the header X-Access-Token holds no token", "give --token")
    key = make_key()
    with context().database.writing() as session:
        issued = admission.admit(
            session, authority(), token, make_request(key, name or kind), name, kind
        )
    return {"certificate": issued.certificate, "key": key_text(key)}
