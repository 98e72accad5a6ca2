# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server that runs the application."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import psutil
from sqlalchemy.exc import OperationalError

from slapos_wendelin.master import endings
from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.context import EXTENSION, Context
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import ListenError
from slapos_wendelin.master.presence import LOST_AFTER, Presence
from slapos_wendelin.master.tls import HttpServer, ServerContexts, TlsAdapter

#: More than the requests that may wait on the board, so that some threads always answer at once.
_THREADS = 64

#: How long the server waits for a client that sends or reads nothing, in seconds.
_SOCKET_TIMEOUT = 20

_SHUTDOWN_TIMEOUT = 5  # seconds
_HEADER_LIMIT = 64 * 1024  # bytes

_log = logging.getLogger(__name__)


class MasterServer:
    """A master: its database, and the socket on which it answers."""

    def __init__(
        self,
        location: Path | str,
        host: str,
        port: int,
        *,
        authority: Authority | None = None,
        names: Iterable[str] = (),
        plain: bool = False,
        lost_after: float = LOST_AFTER,
        listening: socket.socket | None = None,
    ) -> None:
        """Open the database and bind the socket; requests queue until `serve` runs.

        :param location: the database's path or URL.
        :param host: an address of this machine, or localhost.
        :param port: 0 for any free one; see `address`.
        :param authority: what signs the master's certificate and those of its callers.
        :param names: host names and addresses under which the master is called, beside the host.
        :param plain: listen in clear, where every caller is trusted; on loopback only.
        :param lost_after: how long a computer may be silent before it counts as lost, in seconds.
        :param listening: the socket, when it is there already and others listen on it too; the
            names are all of them then.
        :raises ListenError: when the address cannot be had, or would let strangers in.
        :raises AuthorityError: when a name is neither a host name nor an address.
        :raises DatabaseError: when the database cannot be used.
        """
        adapter = None
        #: All host names and addresses that the master's certificate has.
        self.names = sorted(names if listening else {*default_names(host), *names})
        if plain:
            check_loopback(host)
        else:
            if authority is None:
                raise ListenError(
                    "a master that listens with TLS needs a certificate authority",
                    "name its folder with --authority, or listen in clear on loopback with --plain",
                )
            adapter = TlsAdapter(ServerContexts(authority, self.names))
        self._plain = plain
        self._database = Database(location)
        application = create_application(
            self._database, authority, is_plain=plain, lost_after=lost_after
        )
        self._context: Context = application.extensions[EXTENSION]
        self._server = HttpServer(
            (host, port),
            application,
            numthreads=_THREADS,
            server_name="slapos-wendelin-master",
            timeout=_SOCKET_TIMEOUT,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
            request_queue_size=256,
        )
        self._server.ssl_adapter = adapter
        self._server.listening = listening
        self._server.max_request_header_size = _HEADER_LIMIT
        self._server.error_log = _log_server_error
        try:
            self._server.prepare()
        except OSError as error:
            self._database.close()
            raise _listen_error(host, port, error) from error

    @property
    def presence(self) -> Presence:
        """When each computer last called, as far as this process knows."""
        return self._context.presence

    @property
    def database_name(self) -> str:
        """The database as logs name it, without a password."""
        return self._database.name

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port on which it listens."""
        return self._server.bind_addr[0], self._server.bind_addr[1]

    @property
    def url(self) -> str:
        """The URL at which it answers."""
        host, port = self.address
        scheme = "http" if self._plain else "https"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

    def serve(self) -> None:
        """Answer requests until `stop` is called."""
        _warm(self._context)
        _finish_endings(self._context)
        self._server.serve()

    def stop(self) -> None:
        """Let requests that run end, let those that wait go, close the socket and the database."""
        self._database.board.close()
        self._server.stop()
        self._database.close()

    def hand_over(self) -> socket.socket:
        """Close the database and give the socket away, for other processes to answer on it."""
        self._database.close()
        return self._server.socket


def _warm(context: Context) -> None:
    """Read the fleet, so that the first request does not wait for that while it holds the lock."""
    try:
        with context.database.trying() as session:
            context.fleet.fleet(session)
    except OperationalError as error:
        # It answers what it can, and will say to requests what the matter is.
        _log.warning("database failed at the start error=%s", error.orig)


def _finish_endings(context: Context) -> None:
    """Remove the keys of what ended before a master was killed, or could not write."""
    if context.authority is None:
        return
    try:
        endings.finish(context.database, context.authority)
    except (OSError, OperationalError) as error:
        _log.warning("keys of what is gone stay error=%s", error)


def default_names(host: str) -> set[str]:
    """Return the names under which programs may call a master that listens on a host."""
    names = {host}
    addresses = psutil.net_if_addrs().values()
    if host in ("0.0.0.0", "::"):  # noqa: S104 (the question is whether the operator chose it)
        names = {
            each.address.partition("%")[0]
            for addresses_of_one in addresses
            for each in addresses_of_one
            if each.family in (socket.AF_INET, socket.AF_INET6)
        }
        names |= {socket.gethostname(), "localhost"}
    elif _is_loopback(host):
        names.add("localhost")
    return names


def check_loopback(host: str) -> None:
    """Refuse to listen in clear where others than this machine's programs can call.

    :raises ListenError: when the host is not a loopback address.
    """
    if not _is_loopback(host):
        raise ListenError(
            f"the master will not listen in clear on {host!r}, which is not a loopback address",
            "use 127.0.0.1 or ::1; every caller is trusted",
        )


def _is_loopback(host: str) -> bool:
    """Say whether only programs of this machine can call a host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _listen_error(host: str, port: int, error: OSError) -> ListenError:
    """Return the error that says why the port cannot be had."""
    reason = error.strerror or str(error)
    holder = _listener(port)
    if f"[Errno {errno.EADDRINUSE}]" in str(error) or holder:
        return ListenError(
            f"port {port} of {host} is taken by {holder or 'a program of another user'}",
            f"stop it, or choose another port; `ss -ltnp sport = :{port}` shows it to root",
        )
    return ListenError(
        f"the master cannot listen on port {port} of {host}: {reason}",
        "choose another address or port",
    )


def _listener(port: int) -> str:
    """Return the process that listens on a port; empty when this user may not see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,):
                name = psutil.Process(connection.pid).name() if connection.pid else ""
                return f"process {connection.pid} ({name})" if name else ""
    except psutil.Error:
        return ""
    return ""


def _log_server_error(msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    """Send the server's own messages to the log."""
    _log.log(level, "server message=%s", msg.strip(), exc_info=traceback)
