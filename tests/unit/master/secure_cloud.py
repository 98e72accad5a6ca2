# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running master with TLS, and callers of every kind."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
import slapos.slap
from slapos.util import dumps
from sqlalchemy import select

from slapos_wendelin.certificates import Subject
from slapos_wendelin.master import admission
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.models import Change

RELEASE = "https://example.org/software/neo/software.cfg"


class Caller:
    """Somebody with a certificate, or without one."""

    def __init__(self, url: str, authority: Path, certificate: Path | None) -> None:
        self.url = url
        self.authority = authority
        self.certificate = certificate
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(authority)
        self.session.cert = None if certificate is None else str(certificate)
        self.client = MasterClient(url, ca_file=authority, certificate=certificate, key=certificate)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request."""
        return self.session.request(method, f"{self.url}{path}", timeout=60, **options)

    @property
    def slap(self) -> slapos.slap.slap:
        """The slap library with this certificate."""
        library = slapos.slap.slap()
        library.initializeConnection(
            self.url,
            key_file=str(self.certificate),
            cert_file=str(self.certificate),
            master_ca_file=str(self.authority),
        )
        return library

    def close(self) -> None:
        self.session.close()
        self.client.close()


class SecureCloud:
    """A running master with an operator, a viewer and somebody without a certificate."""

    def __init__(self, url: str, database: Database, authority: Authority, folder: Path) -> None:
        self.url = url
        self.database = database
        self.authority = authority
        self.folder = folder
        self._stack = ExitStack()
        self._count = 0
        self.operator = self.user("alice", "operator")
        self.viewer = self.user("victor", "viewer")
        self.stranger = self.caller(None)

    def caller(self, certificate: Path | None) -> Caller:
        """Return a caller with a certificate and its key in one file, or without."""
        caller = Caller(self.url, self.authority.certificate_file, certificate)
        self._stack.callback(caller.close)
        return caller

    def user(self, name: str, role: str) -> Caller:
        """Register a user and return a caller with its certificate."""
        with self.database.writing() as session:
            admission.put_user(session, name, role)
        return self.holder("user", name)

    def holder(self, kind: str, name: str) -> Caller:
        """Return a caller with a new certificate."""
        with self.database.writing() as session:
            issued = admission.issue(session, self.authority, Subject(kind, name))
        self._count += 1
        path = self.folder / f"{self._count}.pem"
        path.write_text(issued.key + issued.certificate)
        return self.caller(path)

    def add_computer(self, reference: str, partitions: int = 2) -> Caller:
        """Register and format a computer; return a caller with its certificate."""
        self.operator.client.put_computer(reference)
        caller = self.holder("computer", reference)
        names = [f"slappart{index}" for index in range(partitions)]
        caller.slap.registerComputer(reference).updateConfiguration(
            dumps(configuration(reference, names))
        )
        return caller

    def request(self, reference: str, **options: Any):
        """Request an instance as an operator."""
        return self.operator.slap.registerOpenOrder().request(RELEASE, reference, **options)

    def history(self) -> set[str]:
        """Return everybody who has changed something."""
        with self.database.reading() as session:
            return set(session.scalars(select(Change.who)))

    def close(self) -> None:
        self._stack.close()


def configuration(reference: str, partitions: list[str]) -> dict[str, Any]:
    """Return what format sends."""
    return {
        "reference": reference,
        "address": "127.0.0.1",
        "netmask": "255.0.0.0",
        "partition_list": [
            {
                "reference": name,
                "address_list": [{"addr": f"10.0.0.{index}", "netmask": "255.0.0.0"}],
                "tap": {"name": f"tap{index}"},
            }
            for index, name in enumerate(partitions)
        ],
    }
