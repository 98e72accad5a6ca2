# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the slap protocol's XML from callers that may lie.

The format is that of xml_marshaller. Its own reader, even as slapos.util restricts it, calls the
constructors of four slap classes with arguments from the document, sets their attributes, knows a
``code`` element for marshalled byte code, and lets the XML parser expand entities. A caller needs
none of that: this reader makes plain values only and refuses document type declarations, in which
entities are defined.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import unescape

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue] (a compiled module)

from slapos_wendelin.master.errors import InvalidRequestError

_Element = Any  # lxml's element class has no public name

_SCALARS: dict[str, Callable[[str], object]] = {
    "int": int,
    "long": int,
    "float": float,
    # The writer escapes the text once itself and once as XML.
    "string": unescape,
    "unicode": unescape,
    "bool": lambda text: bool(int(text)),
    "none": lambda _: None,
}

#: The characters that no XML document can hold.
NOT_FOR_XML = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")

_COLLECTIONS = frozenset({"dictionary", "list", "tuple"})


def load(xml: str, field: str) -> Any:
    """Return the plain value that a document holds.

    :param field: the form field that the document came in, for the error's text.
    :raises InvalidRequestError: when it is not well-formed, has a document type declaration, or
        holds anything but numbers, texts, booleans, nothing, lists, tuples and dictionaries.
    """
    root = parse_xml(xml, field, "send it as slapos.util.dumps writes it")
    if root.tag != "marshal" or len(root) != 1:
        raise InvalidRequestError(
            f"{field} is not one value in a <marshal> element",
            "send it as slapos.util.dumps writes it",
        )
    return _Reader(field).read(root[0])


def parse_xml(xml: str, field: str, remedy: str) -> _Element:
    """Return the outermost element of a document, in which nothing is expanded or fetched.

    :param field: the form field that the document came in, for the error's text.
    :raises InvalidRequestError: when it is not well-formed or has a document type declaration.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
    )
    try:
        root = etree.fromstring(xml.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InvalidRequestError(f"{field} is not well-formed XML: {error}", remedy) from error
    if root.getroottree().docinfo.doctype:
        raise InvalidRequestError(
            f"{field} has a document type declaration", "send XML without <!DOCTYPE>"
        )
    return root


def load_dictionary(xml: str, field: str) -> dict[str, Any]:
    """Return the dictionary with text keys that a document holds.

    :raises InvalidRequestError: as `load`, and when it is not such a dictionary.
    """
    value = load(xml, field)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidRequestError(
            f"{field} is not a dictionary with text keys", "send a dictionary"
        )
    return value


def load_texts(xml: str, field: str) -> dict[str, str]:
    """Return the dictionary of texts that a document holds; numbers and booleans become text.

    :raises InvalidRequestError: as `load_dictionary`, and as `texts`.
    """
    return texts(load_dictionary(xml, field), field)


def texts(values: Mapping[str, Any], field: str) -> dict[str, str]:
    """Return values as texts: numbers and booleans become text, nothing becomes an empty one.

    :raises InvalidRequestError: when a value is a list or a dictionary, or a text holds what XML
        cannot: every client reads it as XML.
    """
    result = {}
    for key, value in values.items():
        if isinstance(value, list | tuple | dict):
            raise InvalidRequestError(
                f"{field}: {key!r} is a {type(value).__name__}",
                "send nested values as one JSON text under the key '_'",
            )
        text = "" if value is None else str(value)
        if wrong := NOT_FOR_XML.search(key) or NOT_FOR_XML.search(text):
            raise InvalidRequestError(
                f"{field}: {key!r} holds the character {wrong[0]!r}",
                "send text without control characters",
            )
        result[key] = text
    return result


class _Reader:
    """Reads the elements of one document."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._known: dict[str, object] = {}

    def read(self, element: _Element) -> object:
        """Return the value of an element."""
        tag = element.tag
        if tag == "reference":
            return self._follow(element)
        if tag in _COLLECTIONS:
            return self._collect(element)
        if tag not in _SCALARS:
            raise InvalidRequestError(
                f"{self._field} holds a <{tag}> element",
                "send texts, numbers, booleans, lists and dictionaries only",
            )
        if len(element):
            raise InvalidRequestError(
                f"{self._field} has elements inside <{tag}>", "send text there"
            )
        try:
            return _SCALARS[tag](element.text or "")
        except ValueError as error:
            raise InvalidRequestError(
                f"{self._field}: <{tag}> holds {(element.text or '')[:80]!r}", "send a number there"
            ) from error

    def _collect(self, element: _Element) -> object:
        """Return a list, a tuple or a dictionary."""
        values = [self.read(child) for child in element]
        result: object = values
        if element.tag == "tuple":
            result = tuple(values)
        elif element.tag == "dictionary":
            if len(values) % 2:
                raise InvalidRequestError(f"{self._field}: a key has no value", "send pairs")
            try:
                result = dict(zip(values[::2], values[1::2], strict=True))
            except TypeError as error:
                raise InvalidRequestError(
                    f"{self._field}: a key is a list or a dictionary", "send text keys"
                ) from error
        if identifier := element.get("id"):
            self._known[identifier] = result
        return result

    def _follow(self, element: _Element) -> object:
        """Return an earlier collection again, if empty: a full one could be doubled without end."""
        value = self._known.get(element.get("id"), "")
        if value not in ([], {}, ()):
            raise InvalidRequestError(
                f"{self._field} refers to one list or dictionary twice, or to none",
                "send each one written out",
            )
        return value
