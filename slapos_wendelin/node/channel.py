# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the processes of a node agent talk: JSON documents, with open files where they are needed.

Documents that ask somebody else than the parent go over a socket that keeps messages apart. The
agent holds both of its ends: a helper that died and was started again finds what nobody answered.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

Document = dict[str, Any]

#: The longest message; the system refuses longer ones than its own limit, which is above this.
_LONGEST = 200_000


def make_channel() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a socket that keeps messages apart."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LONGEST)
    return ends


def take_channel(descriptor: int) -> socket.socket:
    """Return the end of a channel that this process was started with."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def send(channel: socket.socket, document: Document, *files: int) -> None:
    """Send a document and open files."""
    socket.send_fds(channel, [json.dumps(document).encode()], list(files))


def receive(channel: socket.socket) -> tuple[Document, list[int]] | None:
    """Return the next document and its open files, or None when the other side is gone."""
    data, files, _, _ = socket.recv_fds(channel, _LONGEST, 4)
    if not data:
        return None
    return json.loads(data), files


def ask(channel: socket.socket, document: Document, *files: int) -> socket.socket:
    """Send a document with a new socket for the answer, and return where the answer will arrive."""
    mine, theirs = make_channel()
    with theirs:
        send(channel, document, theirs.fileno(), *files)
    return mine


class Lines:
    """Documents that arrive as lines of a pipe, which is read without waiting."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        #: Whether the other side has closed the pipe.
        self.is_closed = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._descriptor

    def read(self) -> list[Document]:
        """Return the documents that arrived since, once there is something to read."""
        data = os.read(self._descriptor, 1 << 16)
        self.is_closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]


def write_line(descriptor: int, document: Document) -> None:
    """Write a document as one line, whole."""
    data = json.dumps(document).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]
