# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that follow the files of their partition's certificate while they run.

A certificate is renewed, and others are revoked: new connections use the newest files, and open
ones end when the other side has been revoked.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakSet

from neo.lib.revocation import getIdentity, getRevoked

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterable

#: Milliseconds between two looks at the files.
INTERVAL = 2000


class FollowedSocket(ssl.SSLSocket):
    """The socket of a connection, which can be ended when the other side is revoked.

    Contexts make it whose ``sslsocket_class`` it is.
    """

    #: Those that are in use.
    used: ClassVar[WeakSet[FollowedSocket]] = WeakSet()

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Make a socket as Python's library does, which calls no other method of this class."""
        made = super().__new__(cls, *arguments, **options)
        cls.used.add(made)
        return made

    def end_if_in(self, revoked: set[tuple[bytes, bytes]], log: logging.Logger) -> None:
        """End the connection when the certificate of the other side is among those revoked."""
        # A socket that is closed, or before the end of its handshake, has no certificate.
        with suppress(OSError, ValueError, AttributeError):
            certificate = self.getpeercert(binary_form=True)
            if certificate and getIdentity(certificate) in revoked:
                log.warning("the certificate of %s is revoked", self.getpeername())
                # Not the method of the class, which would go on without TLS.
                socket.socket.shutdown(self, socket.SHUT_RDWR)


class FollowedFiles:
    """Puts the files of a certificate into TLS contexts each time that they have changed.

    :param files: what is trusted, the certificate, its key.
    :param contexts: gives the contexts that use them at that time.
    :param log: is told of connections that were ended, and of files that cannot be loaded.
    """

    def __init__(
        self,
        files: Iterable[Path],
        contexts: Callable[[], Iterable[ssl.SSLContext]],
        log: logging.Logger,
    ) -> None:
        self.files = list(files)
        self.contexts = contexts
        self.log = log
        self.stamps: list[tuple[int, int]] = []
        self.revoked: set[tuple[bytes, bytes]] = set()

    def look(self) -> None:
        """Load the files when they are others than before, and end connections of the revoked."""
        try:
            self.load()
        except (OSError, ValueError, LookupError) as error:
            self.log.warning("the files of the certificate cannot be loaded: %s", error)
        if self.revoked:
            # Each time: a handshake that began before the files changed may have ended since.
            for each in list(FollowedSocket.used):
                each.end_if_in(self.revoked, self.log)

    def load(self) -> None:
        """Load the files when they are others than before."""
        stamps = [(each.st_ino, each.st_mtime_ns) for each in map(Path.stat, self.files)]
        if stamps == self.stamps:
            return
        for context in self.contexts():
            self._put_into(context)
        self.revoked = getRevoked(self.files[0].read_bytes())
        self.stamps = stamps

    def _put_into(self, context: ssl.SSLContext) -> None:
        """Load the files into one context."""
        authority, certificate, key = self.files
        # Who takes up an earlier session again is not asked whether the certificate is still good.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.options |= ssl.OP_NO_TICKET
        if context.protocol is ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        if context.cert_store_stats()["crl"]:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
