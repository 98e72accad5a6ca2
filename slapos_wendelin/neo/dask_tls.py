# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A preload of dask's programs: they follow the files of the partition's certificate.

dask reads the files when it starts. A certificate is renewed while it runs, and others are revoked:
new connections use the newest files, and open ones end when the other side has been revoked.
Started with ``--preload slapos_wendelin.neo.dask_tls``, and in a nanny also ``--preload-nanny``.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakSet

from neo.lib.revocation import getIdentity, getRevoked
from tornado.ioloop import PeriodicCallback

#: Milliseconds between two looks at the files.
INTERVAL = 2000

log = logging.getLogger("distributed.tls")


class FollowedSocket(ssl.SSLSocket):
    """The socket of a connection, which can be ended when the other side is revoked."""

    #: Those that are in use.
    used: ClassVar[WeakSet[FollowedSocket]] = WeakSet()

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Make a socket as Python's library does, which calls no other method of this class."""
        made = super().__new__(cls, *arguments, **options)
        cls.used.add(made)
        return made

    def end_if_in(self, revoked: set[tuple[bytes, bytes]]) -> None:
        """End the connection when the certificate of the other side is among those revoked."""
        # A socket that is closed, or before the end of its handshake, has no certificate.
        with suppress(OSError, ValueError, AttributeError):
            certificate = self.getpeercert(binary_form=True)
            if certificate and getIdentity(certificate) in revoked:
                log.warning("the certificate of %s is revoked", self.getpeername())
                # Not the method of the class, which would go on without TLS.
                socket.socket.shutdown(self, socket.SHUT_RDWR)


# dask imports this before it listens, and calls it after that: somebody may be there by then.
ssl.SSLContext.sslsocket_class = FollowedSocket


class Watch:
    """Puts the files into the contexts of a server each time that they have changed."""

    def __init__(self, server: Any) -> None:
        tls = server.security.get_tls_config_for_role(_role(server))
        self.files = [Path(tls[name]) for name in ("ca_file", "cert", "key")]
        self.server = server
        self.stamps: list[tuple[int, int]] = []
        self.revoked: set[tuple[bytes, bytes]] = set()
        #: Of the web page, where dask itself lets everybody in.
        self.page: ssl.SSLContext | None = None
        page = getattr(getattr(server, "http_server", None), "ssl_options", None)
        if isinstance(page, ssl.SSLContext):
            page.verify_mode = ssl.CERT_REQUIRED
            self.page = page

    def look(self) -> None:
        """Load the files when they are others than before, and end connections of the revoked."""
        try:
            stamps = [(each.st_ino, each.st_mtime_ns) for each in map(Path.stat, self.files)]
            if stamps != self.stamps:
                for context in self._contexts():
                    self._load(context)
                self.revoked = getRevoked(self.files[0].read_bytes())
                self.stamps = stamps
        except (OSError, ValueError, LookupError) as error:
            log.warning("the files of the certificate cannot be loaded: %s", error)
        if self.revoked:
            # Each time: a handshake that began before the files changed may have ended since.
            for each in list(FollowedSocket.used):
                each.end_if_in(self.revoked)

    def _load(self, context: ssl.SSLContext) -> None:
        """Load the files into one context."""
        authority, certificate, key = self.files
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(authority)
        if context.cert_store_stats()["crl"]:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF

    def _contexts(self) -> Iterator[ssl.SSLContext]:
        """Yield the contexts of connections that the server makes, and of those that it takes."""
        yield self.server.connection_args["ssl_context"]
        for listener in self.server.listeners:
            yield listener.server_args["ssl_options"]
        if self.page is not None:
            yield self.page


def _role(server: Any) -> str:
    """Return what dask calls a server in its settings of TLS."""
    return "scheduler" if type(server).__name__ == "Scheduler" else "worker"


def dask_setup(server: Any) -> None:
    """Begin to watch; dask calls this once the server listens."""
    if not server.connection_args.get("ssl_context"):
        return
    watch = Watch(server)
    watch.look()
    server.periodic_callbacks["certificate"] = callback = PeriodicCallback(watch.look, INTERVAL)
    callback.start()
