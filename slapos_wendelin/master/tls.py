# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS for the HTTP server: certificates of both sides, and handshakes that nobody waits for.

cheroot would shake hands where it accepts, and give each new connection to a worker at once: one
silent client would stop the first, a few dozen all of the second. Here the thread that waits for
all connections does each handshake in steps as its bytes come, and a worker gets a connection when
there is something to read.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cheroot.makefile import StreamReader, StreamWriter
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.wsgi import Server as CherootServer
from cryptography import x509

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.authority import Authority

#: The key of the WSGI environment that holds the caller's certificate; absent when it has none.
CERTIFICATE = "wendelin.certificate"

#: How often the master looks whether its own certificate is to be renewed, in seconds.
RENEWAL_INTERVAL = 60.0

#: How many callers without a certificate are served at the same time, so that they cannot hold all
#: workers with requests that they do not finish.
ANONYMOUS_LIMIT = 8

#: How much of a request may be left when it is answered for the connection to go on, in bytes.
_UNREAD_LIMIT = 65_536

_PLAIN_ANSWER = b"""\
HTTP/1.1 400 Bad Request\r
Content-Type: text/plain\r
Content-Length: 32\r
Connection: close\r
\r
use https: to call this master.\n"""

_log = logging.getLogger(__name__)


class ServerContexts:
    """The settings of TLS for new connections, always with a certificate that is good."""

    def __init__(self, authority: Authority, names: Iterable[str]) -> None:
        """Make the master's certificate if need be.

        :param names: host names and addresses under which the master is called.
        """
        self._authority = authority
        self._names = tuple(names)
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._file = authority.server_certificate(self._names)
        self._version = _version_of(self._file)
        self._context = self._make()

    def current(self) -> ssl.SSLContext:
        """Return the settings for a new connection."""
        with self._lock:
            if time.monotonic() - self._looked_at >= RENEWAL_INTERVAL:
                self._looked_at = time.monotonic()
                try:
                    self._renew()
                except (WendelinError, OSError) as error:
                    # The certificate at hand is still good for a while.
                    _log.error("certificate not renewed error=%s", error)
            return self._context

    def _renew(self) -> None:
        """Take over a new certificate, whichever process of the master made it."""
        path = self._authority.server_certificate(self._names)
        version = _version_of(path)
        if version != self._version:
            self._context = self._make()
            self._version = version
            _log.info("certificate renewed file=%s", path)

    def _make(self) -> ssl.SSLContext:
        """Return settings with the certificate that is in the file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self._authority.certificate)
        context.load_cert_chain(self._file)
        return context


class TlsAdapter:
    """Gives cheroot's new connections TLS, without shaking hands yet."""

    def __init__(self, contexts: ServerContexts) -> None:
        self._contexts = contexts

    def bind(self, sock: socket.socket) -> socket.socket:
        """Return the socket that listens, as it is."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        """Return the socket with TLS; what the handshake tells is not known yet."""
        wrapped = self._contexts.current().wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, {}

    def environment(self, sock: ssl.SSLSocket) -> dict[str, Any]:
        """Return what the application is told of a connection after its handshake."""
        encoded = sock.getpeercert(binary_form=True)
        told: dict[str, Any] = {"wsgi.url_scheme": "https"}
        if encoded:
            told[CERTIFICATE] = x509.load_der_x509_certificate(encoded)
        return told

    def makefile(
        self, sock: ssl.SSLSocket, mode: str = "r", bufsize: int = -1
    ) -> StreamReader | StreamWriter:
        """Return a file to read from the connection or to write to it."""
        return _Reader(sock, mode, bufsize) if "r" in mode else StreamWriter(sock, mode, bufsize)


class _Reader(StreamReader):
    """Reads from a connection, and knows of bytes that are decrypted but not read yet."""

    def __init__(self, sock: ssl.SSLSocket, mode: str, size: int) -> None:
        super().__init__(sock, mode, size)
        self._socket = sock

    def has_data(self) -> bool:
        """Say whether bytes wait of which the socket itself shows nothing."""
        return super().has_data() or self._socket.pending() > 0


class Request(HTTPRequest):
    """A request to the master."""

    def send_headers(self) -> None:
        """Send the head of the answer; close when much of the request was not read.

        cheroot would read all of it first, into memory.
        """
        if getattr(self.rfile, "remaining", 0) > _UNREAD_LIMIT:
            self.close_connection = True
        super().send_headers()


class Connection(HTTPConnection):
    """A connection to the master."""

    RequestHandlerClass = Request

    #: Whether the handshake is over; at once when there is none.
    greeted = False

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller uses TLS and has shown no certificate."""
        return self.server.ssl_adapter is not None and CERTIFICATE not in (self.ssl_env or {})

    def communicate(self) -> bool:
        """Answer one request; return whether the connection is to stay."""
        if not self.is_anonymous:
            return super().communicate()
        if not self.server.anonymous.acquire(blocking=False):
            _log.warning("too many callers without a certificate caller=%s", self.remote_addr)
            return False
        try:
            return super().communicate()
        finally:
            self.server.anonymous.release()


class HttpServer(CherootServer):
    """cheroot's server, in which no client can make the others wait."""

    ConnectionClass = Connection

    #: cheroot's own, made when the server is prepared.
    _connections: Any

    #: A socket that listens already, which this process shares with others.
    listening: socket.socket | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.anonymous = threading.BoundedSemaphore(ANONYMOUS_LIMIT)
        self.keep_alive_conn_limit = _connection_limit()

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002
        """Bind the socket, or take the one that is there."""
        if self.listening is None:
            return super().bind(family, type, proto)
        self.socket = self.listening
        self.bind_addr = self.resolve_real_bind_addr(self.listening)
        return self.listening

    def prepare(self) -> None:
        """Get ready to serve."""
        super().prepare()
        if self.listening is not None:
            # All processes see a new connection; those who come late must not wait for the next.
            self.listening.settimeout(0)

    def process_conn(self, conn: Connection) -> None:
        """Bring a connection forward: new ones to the end of the handshake, others to a worker."""
        if conn.greeted:
            super().process_conn(conn)
        elif not self.ready:
            conn.close()
        elif not self.can_add_keepalive_connection:
            _log.warning("too many connections caller=%s", conn.remote_addr)
            conn.close()
        else:
            if conn.last_used is None:
                # From now on the server's timeout counts, however often bytes trickle in.
                conn.last_used = time.time()
            self._greet(conn)

    def _greet(self, conn: Connection) -> None:
        """Do the next step of the handshake, as far as possible without waiting."""
        if self.ssl_adapter is not None:
            try:
                conn.socket.settimeout(0)
                conn.socket.do_handshake()
            except ssl.SSLWantReadError:
                return self._wait_for(conn, selectors.EVENT_READ)
            except ssl.SSLWantWriteError:
                return self._wait_for(conn, selectors.EVENT_WRITE)
            except OSError as error:
                return _refuse(conn, error)
            conn.socket.settimeout(self.timeout)
            conn.ssl_env = self.ssl_adapter.environment(conn.socket)
        conn.greeted = True
        self.put_conn(conn)
        return None

    def _wait_for(self, conn: Connection, event: int) -> None:
        """Let the handshake go on when the client is ready; it is dropped after the timeout."""
        self._connections._selector.register(conn.socket.fileno(), event, conn)  # noqa: SLF001


def _refuse(conn: Connection, error: OSError) -> None:
    """Drop a connection whose handshake failed; tell a client that did not try one."""
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    _log.info("handshake failed caller=%s reason=%s", conn.remote_addr, reason)
    if reason == "HTTP_REQUEST":
        with contextlib.suppress(OSError):
            # Below TLS, which has no session to write through.
            socket.socket.send(conn.socket, _PLAIN_ANSWER)
    conn.close()


def _connection_limit() -> int:
    """Return how many connections may wait, which leaves half of all files to other uses."""
    return max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _version_of(path: Path) -> tuple[int, int]:
    """Return what changes when another file takes a file's place."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
