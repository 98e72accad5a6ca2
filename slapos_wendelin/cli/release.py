# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a software release says of itself: schemas, serialisation, what its instances request."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
from slapos.util import SoftwareReleaseSerialisation

from slapos_wendelin import parameters, topology
from slapos_wendelin.errors import CommandError, ParameterError, innermost

Document = dict[str, Any]

#: From the complete parameters of a root instance and its name to what it will request.
Topology = Callable[[Mapping[str, Any], str], list[Document]]

#: What a release may name as ``x-topology``. A release is data: it cannot name other functions.
TOPOLOGIES: Mapping[str, Topology] = {
    "slapos_wendelin.topology:cluster_requests": topology.cluster_requests,
}

#: The name that the default software type had in older clients.
_OLD_DEFAULT = "RootSoftwareInstance"

_TIMEOUT = 30.0  # seconds

_TELL = "tell those who made the release"


class MissingFileError(CommandError):
    """A file of a release is not there."""


class Release:
    """A software release, as its URL and the JSON file beside it tell; read when needed."""

    def __init__(self, url: str, software_type: str = "default") -> None:
        self.url = url
        self.software_type = "default" if software_type == _OLD_DEFAULT else software_type

    def check(self) -> None:
        """Refuse a release that cannot be read, or that does not know the software type.

        :raises CommandError: which says why.
        """
        if self._description is None:
            _read(self.url, "the release")
        self._type_description  # noqa: B018 (reading it checks it)

    @cached_property
    def schema(self) -> Document | None:
        """The JSON schema of the parameters, or None when the release has none."""
        name = self._type_description.get("request")
        if not name:
            return None
        # A path has no scheme to join to, but its folder.
        url = urljoin(self.url, name)
        schema = _json(_read(url, "the release's schema"), url)
        if not isinstance(schema, dict):
            raise CommandError(f"the release's schema {url} is no JSON object", _TELL)
        return {"$id": _as_url(url)} | schema

    @cached_property
    def serialisation(self) -> SoftwareReleaseSerialisation:
        """How parameters are sent: each as a text, or all as one JSON text."""
        named = self._type_description.get("serialisation") or (self._description or {}).get(
            "serialisation"
        )
        try:
            return SoftwareReleaseSerialisation(named or "json-in-xml")
        except ValueError as error:
            raise CommandError(
                f"the release {self.url} names an unknown serialisation {named!r}", _TELL
            ) from error

    @property
    def topology(self) -> Topology | None:
        """The function that tells what an instance requests, or None when only itself knows."""
        return TOPOLOGIES.get(str(self._type_description.get("x-topology")))

    def complete(self, values: Mapping[str, Any], previous: Mapping[str, Any] | None) -> Document:
        """Return parameters with the schema's defaults.

        :param previous: the parameters of the instance as it stands, where there is one.
        :raises ParameterError: which names every fault.
        """
        if self.schema is None:
            return dict(values)
        return parameters.check(self.schema, values, previous, _read_json)

    def cautions(
        self, complete: Mapping[str, Any], data_centers: Callable[[], Collection[str]]
    ) -> list[str]:
        """Return what users must know of complete parameters.

        :param data_centers: returns those that there are, and is called when it matters.
        """
        found = [] if self.schema is None else parameters.cautions(self.schema, complete)
        if self.topology is not None:
            found += topology.cluster_cautions(complete, data_centers)
        return found

    @cached_property
    def _description(self) -> Document | None:
        """The JSON file beside the release, or None when there is none."""
        url = f"{self.url}.json"
        try:
            text = _read(url, "the release")
        except MissingFileError:
            return None
        description = _json(text, url)
        if not isinstance(description, dict):
            raise CommandError(f"the release's description {url} is no JSON object", _TELL)
        return description

    @cached_property
    def _type_description(self) -> Document:
        """What the description says of the software type; empty when there is no description."""
        types = (self._description or {}).get("software-type")
        if not isinstance(types, dict):
            return {}
        if self.software_type not in types:
            close = get_close_matches(self.software_type, types, 1)
            raise ParameterError(
                f"the release {self.url} has no software type {self.software_type!r}"
                + (f", did you mean {close[0]}?" if close else ""),
                f"use --type with one of: {', '.join(sorted(types))}",
            )
        found = types[self.software_type]
        return found if isinstance(found, dict) else {}


def absolute(url: str) -> str:
    """Return the URL of a release, a relative path as an absolute one: computers need that."""
    if urlsplit(url).scheme or not Path(url).exists():
        return url
    return str(Path(url).absolute())


def _read_json(url: str) -> Any:
    """Return the document at a URL."""
    return _json(_read(url, "the release's schema"), url)


def _json(text: str, url: str) -> Any:
    """Return the document that a text holds."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"{url} is no JSON: {error}", _TELL) from error


def _read(url: str, what: str) -> str:
    """Return the text at a URL or a path.

    :raises CommandError: when it cannot be read.
    """
    parts = urlsplit(url)
    remedy = "correct the URL, or add --unchecked when only the computers can read it"
    try:
        if parts.scheme in {"http", "https"}:
            answer = requests.get(url, timeout=_TIMEOUT)
            if answer.status_code in {requests.codes.not_found, requests.codes.gone}:
                raise MissingFileError(f"{what} {url} does not exist", remedy)
            answer.raise_for_status()
            return answer.text
        path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(url)
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{what} {url} does not exist", remedy) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{what} {url} cannot be read: {_reason(error)}", remedy) from error


def _reason(error: BaseException) -> str:
    """Return the innermost cause of a failure in a few words."""
    cause = innermost(error)
    return getattr(cause, "strerror", None) or " ".join(str(cause).split())


def _as_url(url: str) -> str:
    """Return a path as a URL, to which references can be joined."""
    return url if urlsplit(url).scheme else Path(url).absolute().as_uri()
