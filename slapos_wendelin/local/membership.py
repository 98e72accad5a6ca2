# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the user and the computers of the environment in, with certificates of its own authority."""

from __future__ import annotations

import getpass
import time

from slapos_wendelin.certificates import CertificateError, end_of, read_certificates
from slapos_wendelin.joining import join, renew_near_end
from slapos_wendelin.local.home import DATA_CENTERS, Home, Member
from slapos_wendelin.master.admission import Invitation, make_token
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import MasterAnswerError, MasterClient
from slapos_wendelin.master.database import Database


def connect(home: Home) -> MasterClient:
    """Return a client of the environment's master that calls as its user."""
    user = home.user
    return MasterClient(
        home.master_url, ca_file=home.authority, certificate=user.certificate, key=user.key
    )


def check_master(home: Home) -> None:
    """Raise MasterUnreachableError while the master does not answer."""
    with MasterClient(home.master_url, ca_file=home.authority) as stranger:
        try:
            stranger.health()
        except MasterAnswerError:
            return  # it refuses strangers


def let_user_in(home: Home) -> None:
    """Make whoever runs this an operator of the master, unless that is done. Safe to repeat."""
    if _is_in(home, home.user):
        return
    # Whoever may write to the master's database needs no operator to be let in.
    database = Database(home.database)
    try:
        with database.writing() as session:
            invitation = Invitation("user", getpass.getuser(), "operator")
            token, _ = make_token(session, Authority(home.authority.parent), invitation, "master")
    finally:
        database.close()
    _join(home, home.user, token)


def let_computers_in(home: Home, master: MasterClient) -> None:
    """Give each computer its certificate, unless it has one. Safe to repeat."""
    for name, region in DATA_CENTERS.items():
        member = home.member(name)
        if not _is_in(home, member):
            token = master.make_token(
                "computer", name, replace=True, datacenter=name, region=region
            )["token"]
            _join(home, member, token)


def _is_in(home: Home, member: Member) -> bool:
    """Say whether a member has a certificate that the master takes, after renewing an old one."""
    url, authority = home.master_url, home.authority
    certificate, key = member.certificate, member.key
    try:
        if not _is_usable(home, member):
            return False
        renew_near_end(url, certificate=certificate, key=key, ca_file=authority)
        with MasterClient(url, ca_file=authority, certificate=certificate, key=key) as master:
            master.health()
    except (CertificateError, MasterAnswerError):
        return False
    return True


def _is_usable(home: Home, member: Member) -> bool:
    """Say whether a certificate has not ended and is of the authority that the master has now."""
    own, issuer = read_certificates(member.certificate)
    return issuer == read_certificates(home.authority)[0] and end_of(own) > time.time()


def _join(home: Home, member: Member, token: str) -> None:
    """Get a certificate with a token."""
    member.certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    join(
        home.master_url,
        token,
        certificate=member.certificate,
        key=member.key,
        ca_file=home.authority,
    )
