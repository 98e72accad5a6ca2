# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the joining machine sends: messages and long data, in pieces that begin with their size."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

_HEADER = struct.Struct(">cI")

MESSAGE, DATA = b"M", b"D"

#: Begins each line that is an event; what else a host's shell may write is no event.
EVENT_MARK = "\x01"


class Frame(NamedTuple):
    """One piece; an empty one of data ends the data."""

    kind: bytes
    content: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The message that it holds."""
        message: dict[str, Any] = json.loads(self.content)
        return message


def pack(kind: bytes, content: bytes) -> bytes:
    """Return a piece as it is sent."""
    return _HEADER.pack(kind, len(content)) + content


def pack_message(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return pack(MESSAGE, json.dumps(message).encode())


def read(receive: Callable[[int], bytes]) -> Frame | None:
    """Return the next piece, or None at the end.

    :param receive: returns as many bytes as it is asked for, fewer at the end only.
    """
    header = receive(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, size = _HEADER.unpack(header)
    content = receive(size)
    return Frame(kind, content) if len(content) == size else None
