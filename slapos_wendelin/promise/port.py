# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: addresses take connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from slapos_wendelin.disk_space import ROOM_FOR_DATABASE, fault_of
from slapos_wendelin.neo.certificates import files_in
from slapos_wendelin.promise.base import BrokenPromiseError, Promise

#: Seconds that a program which was just started may take to listen.
START_TIME = 5.0
#: Seconds that one connection may take, and its greeting: who is silent for longer is busy.
ANSWER_TIME = 5.0

#: As many bytes of an answer are looked at.
_FIRST_WORDS = 128


class RunPromise(Promise):
    """Green while every one of ``addresses`` (host:port, separated by spaces) takes connections.

    With ``certificates``, the folder of the partition's certificate in its cluster, the programs
    there have to show a good one and to accept the partition's. That one is silent for long is no
    fault: it can be busy. With ``page``, the path of a web page, they have to have that. With
    ``elsewhere`` they belong to other computers: a closed port is then no reason to redo this
    partition. With ``data``, the folder of the program's data, it says when the disk of that is
    full: the program is not started then.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        if self.getConfig("elsewhere"):
            self.setTestLess()

    def check(self) -> str:
        """Connect to each address."""
        data = self.getConfig("data")
        try:
            return check_addresses(
                self.getConfig("addresses").split(),
                self.getConfig("certificates"),
                self.getConfig("page"),
            )
        except BrokenPromiseError as error:
            full = data and fault_of(Path(data), ROOM_FOR_DATABASE)
            raise explained(error, full) from None


def explained(error: BrokenPromiseError, reason: str) -> BrokenPromiseError:
    """Return an error with its reason, if there is one."""
    return BrokenPromiseError(f"{error}; {reason}") if reason else error


def check_addresses(addresses: list[str], certificates: str | None, page: str | None = None) -> str:
    """Connect to each address, and say that all listen; raises BrokenPromiseError.

    :param certificates: the folder of the partition's certificate, nothing to connect in clear.
    :param page: path of a web page, where a program waits to be asked.
    """
    context = _context(Path(certificates)) if certificates else None
    deadline = time.monotonic() + START_TIME
    faults = {address: _fault(address, deadline, context, page) for address in addresses}
    closed = [address for address, fault in faults.items() if fault]
    if closed:
        has_more = context is not None or page
        said = "; ".join(
            f"{address}: {fault}" for address, fault in faults.items() if fault and has_more
        )
        raise BrokenPromiseError(
            f"nothing listens at {', '.join(closed)}{said and f' as it should ({said})'}"
        )
    return f"{', '.join(addresses)} listens"


def _context(folder: Path) -> ssl.SSLContext:
    """Return what connects with a certificate to who has one of the same cluster."""
    authority, certificate, key = files_in(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The authority of the cluster says who is a node, whatever its address is.
    context.check_hostname = False
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context


def _fault(address: str, deadline: float, context: ssl.SSLContext | None, page: str | None) -> str:
    """Return why no connection is taken before *deadline* (monotonic seconds), or nothing."""
    host, port = address.rsplit(":", 1)
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIME) as connection:
                question = f"GET {page} HTTP/1.1\r\nHost: {address}\r\n\r\n" if page else ""
                if context is not None or question:
                    _greet(connection, context, question)
                return ""
        except OSError as error:
            if time.monotonic() >= deadline:
                return str(error)
            time.sleep(0.2)


def _greet(connection: socket.socket, context: ssl.SSLContext | None, question: str) -> None:
    """Shake hands, ask and wait for a word: a certificate is refused after the handshake only."""
    with (
        contextlib.suppress(TimeoutError),
        context.wrap_socket(connection) if context else connection as greeted,
    ):
        greeted.sendall(question.encode())
        answer = greeted.recv(_FIRST_WORDS)
        if not answer:
            raise ConnectionError("it closes the connection")
        if question and not answer.startswith(b"HTTP/1.1 200 "):
            first = answer.partition(b"\r\n")[0].decode(errors="replace")
            raise ConnectionError(f"it answers {first}")
