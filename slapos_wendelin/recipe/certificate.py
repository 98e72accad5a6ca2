# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recipe that keeps the certificate of a partition in its cluster good."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from zc.buildout import UserError

from slapos_wendelin import cluster_identity
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import Document, MasterAnswerError, MasterClient, NotFoundError
from slapos_wendelin.neo.certificates import AUTHORITY_FILE

#: The HTTP status with which a master that listens in clear says that it signs nothing.
_NOT_SUPPORTED = 501


class Recipe:
    """Keep a key, which is made here, its certificate and what is trusted in a folder.

    Options, as for slapos.cookbook:slapconfiguration: ``url``, ``key``, ``cert``, ``computer`` and
    ``partition``; ``folder``. Gives ``location``, the folder, and ``cluster``, the name that no
    other cluster has; both are empty when the master signs no certificates. A partition that has a
    certificate refuses such a master: it would have the node speak in clear.

    The certificate is renewed by the first run in the last third of its life, or when it does not
    name all addresses of the partition. The folder is none to be uninstalled: a program that runs
    reads it at any time.
    """

    def __init__(self, _buildout: Any, _name: str, options: Any) -> None:
        """Ask the master what is trusted.

        :raises UserError: when it does not answer, or signs nothing although it has once.
        """
        self.options = options
        self.folder = Path(options["folder"])
        self.trusted: Document | None = None
        try:
            with self._master() as master:
                self.trusted = master.cluster(options["computer"], options["partition"])
        except MasterAnswerError as error:
            # Without an endpoint it is another master than that of slapos_wendelin.
            if not isinstance(error, NotFoundError) and error.status != _NOT_SUPPORTED:
                raise UserError(str(error)) from error
            self._check_that_there_never_was_one(error)
        except WendelinError as error:
            raise UserError(str(error)) from error
        options["cluster"] = self.trusted["name"] if self.trusted else ""
        options["location"] = str(self.folder) if self.trusted else ""

    def install(self) -> list[str]:
        """Get a certificate if need be."""
        if self.trusted is None:
            return []
        try:
            with self._master() as master:
                place = self.options["computer"], self.options["partition"]
                certify = partial(master.certify_node, *place)
                # Masters of earlier releases tell no addresses, and name none in certificates.
                addresses = self.trusted.get("addresses", ())
                cluster_identity.keep(self.folder, self.trusted["authority"], certify, addresses)
        except WendelinError as error:
            raise UserError(str(error)) from error
        return []

    update = install

    def _check_that_there_never_was_one(self, answer: MasterAnswerError) -> None:
        """Refuse to give up TLS because of what the master answers.

        :raises UserError: when the partition has a certificate.
        """
        if (self.folder / AUTHORITY_FILE).exists():
            raise UserError(
                f"the master at {self.options['url']} signs nothing for this cluster ({answer}),"
                f" and without the certificate that {self.folder} has from before, the node would"
                " speak in clear: let the master listen with TLS again; to speak in clear from"
                " now on, remove that folder in every partition of the cluster"
            ) from answer

    def _master(self) -> MasterClient:
        """Return a client of the master that calls as the partition."""
        return MasterClient(
            self.options["url"],
            certificate=self.options.get("cert") or None,
            key=self.options.get("key") or None,
        )
