# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing the slap protocol's XML: what ``slapos.util.dumps`` writes, byte for byte, in less time.

A computer with a thousand partitions is told two megabytes at each change. xml_marshaller makes an
element in memory of each value and takes a third of a second for that, during which the master does
nothing else.
"""

from __future__ import annotations

import re
from functools import cmp_to_key
from operator import itemgetter
from typing import Any

from slapos.slap.slap import Computer, ComputerPartition, SoftwareInstance, SoftwareRelease

#: What has to be written otherwise, or cannot be written at all.
_SPECIAL = re.compile(r"[&<>\r]|[^\t\n\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")

#: The format escapes a text once itself and once as XML.
_ESCAPES = {"&": "&amp;amp;", "<": "&amp;lt;", ">": "&amp;gt;", "\r": "&#13;"}

#: Where the format changes the element of an integer.
_LONG = 1e24

_DOCUMENTS = Computer | ComputerPartition | SoftwareInstance | SoftwareRelease


def dump(value: object) -> bytes:
    """Return the XML of a plain value or of a document of the slap library.

    :raises ValueError: when a text holds a character that XML cannot hold.
    :raises TypeError: when it holds anything else.
    """
    writer = _Writer()
    writer.write(value)
    return f"<marshal>{''.join(writer.pieces)}</marshal>".encode("ascii", "xmlcharrefreplace")


class _Writer:
    """Writes one document."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        #: The number of each list, dictionary and object that was written, by identity. They
        #: are kept alive, as an identity may be given again after the end of what had it.
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []

    def write(self, value: object) -> None:
        """Write one value."""
        if isinstance(value, str):
            self.pieces.append(f"<string>{_escaped(value)}</string>")
        elif isinstance(value, dict | list | _DOCUMENTS):
            self._write_once(value)
        elif value is None:
            self.pieces.append("<none/>")
        elif isinstance(value, tuple):
            self._write_all("tuple", "", value)
        else:
            self._write_number(value)

    def _write_number(self, value: object) -> None:
        """Write a number or a truth."""
        if isinstance(value, bool):
            self.pieces.append(f"<bool>{int(value)}</bool>")
        elif isinstance(value, int):
            tag = "int" if -_LONG < value < _LONG else "long"
            self.pieces.append(f"<{tag}>{value}</{tag}>")
        elif isinstance(value, float):
            self.pieces.append(f"<float>{value}</float>")
        else:
            raise TypeError(f"{type(value).__name__} cannot be written as slap XML")

    def _write_once(self, value: Any) -> None:
        """Write a list, a dictionary or an object, or a reference to it when it came before."""
        number = self._numbers.get(id(value))
        if number is not None:
            self.pieces.append(f'<reference id="i{number}"/>')
            return
        # The format counts from 2.
        number = self._numbers[id(value)] = len(self._numbers) + 2
        self._kept.append(value)
        if isinstance(value, list):
            self._write_all("list", f' id="i{number}"', value)
        elif isinstance(value, dict):
            flat = [each for pair in _in_order(value) for each in pair]
            self._write_all("dictionary", f' id="i{number}"', flat)
        else:
            self._write_object(value, number)

    def _write_object(self, value: Any, number: int) -> None:
        """Write a document: the arguments of its class and its attributes."""
        kind = type(value)
        arguments = value.__getinitargs__() if hasattr(value, "__getinitargs__") else ()
        self.pieces.append(
            f'<object id="i{number}" module="{kind.__module__}" class="{kind.__name__}">'
        )
        self.write(arguments)
        self.write(value.__getstate__())
        self.pieces.append("</object>")

    def _write_all(self, tag: str, attributes: str, values: Any) -> None:
        """Write a collection."""
        if not values:
            self.pieces.append(f"<{tag}{attributes}/>")
            return
        self.pieces.append(f"<{tag}{attributes}>")
        for each in values:
            self.write(each)
        self.pieces.append(f"</{tag}>")


def _escaped(text: str) -> str:
    """Return a text as it stands in the XML."""
    return _SPECIAL.sub(_escape, text) if _SPECIAL.search(text) else text


def _escape(match: re.Match[str]) -> str:
    """Return what is written for a special character."""
    escape = _ESCAPES.get(match[0])
    if escape is None:
        raise ValueError(f"XML cannot hold the character {match[0]!r}")
    return escape


def _in_order(dictionary: dict[Any, object]) -> list[tuple[Any, object]]:
    """Return the pairs of a dictionary in the order of the format."""
    try:
        return sorted(dictionary.items(), key=itemgetter(0))
    except TypeError:
        return sorted(dictionary.items(), key=cmp_to_key(_compare))


def _compare(one: tuple[Any, object], other: tuple[Any, object]) -> int:
    """Compare two pairs by their keys, by how these look if they are of different kinds."""
    a, b = one[0], other[0]
    try:
        return (a > b) - (a < b)
    except TypeError:
        return (repr(a) > repr(b)) - (repr(a) < repr(b))
