# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command line asks for: a request that is complete and checked before it is sent."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from slapos.cli.request import parse_option_dict
from slapos.util import SoftwareReleaseSerialisation

from slapos_wendelin.cli.parameters_file import ParametersFile
from slapos_wendelin.cli.release import Release, absolute
from slapos_wendelin.differences import Difference, differences
from slapos_wendelin.errors import CommandError, ParameterError
from slapos_wendelin.master.client import Document, MasterClient, NotFoundError
from slapos_wendelin.parameters import FaultyParametersError

#: What stock clients write before the name of a product.
_PRODUCT_PREFIX = "product."

STATES = ("started", "stopped", "destroyed")

_JSON = SoftwareReleaseSerialisation.JsonInXml


@dataclass(frozen=True)
class Asked:
    """A request for an instance, and the instance as it stands."""

    reference: str
    release_url: str
    software_type: str
    state: str | None
    #: As people read them.
    parameters: dict[str, Any]
    sla: dict[str, Any] = field(default_factory=dict)
    shared: bool = False
    serialisation: SoftwareReleaseSerialisation = _JSON
    #: What the instance is expected to request; None when only it knows.
    children: list[Document] | None = None
    #: The instance of the /v1 API, None when there is none.
    current: Document | None = None
    #: What the user must know of the values that are asked for.
    cautions: list[str] = field(default_factory=list)
    #: The parameters as they were sent once, to be sent the same; None for those above.
    exact_texts: dict[str, str] | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The parameters as they are sent. The order of keys says nothing, so it is always one."""
        if self.exact_texts is not None:
            return self.exact_texts
        if self.serialisation is _JSON:
            return {"_": json.dumps(self.parameters, sort_keys=True)}
        return {key: _text(value) for key, value in self.parameters.items()}

    @property
    def request(self) -> Document:
        """The request as the master takes it."""
        return {
            "reference": self.reference,
            "release_url": self.release_url,
            "software_type": self.software_type,
            "state": self.state,
            "parameters": self.texts,
            "sla": self.sla,
            "shared": self.shared,
        }

    @property
    def document(self) -> Document:
        """The request as the master's plans take it."""
        return {**self.request, "children": self.children}

    def changes(self) -> list[Difference]:
        """Return what the request changes of an instance that exists."""
        if self.current is None:
            return []
        keys = ("release_url", "software_type", "parameters", "sla")
        wanted: Document = {key: getattr(self, key) for key in keys}
        present = {key: self.current[key] for key in keys}
        if self.state is not None:
            wanted["state"], present["state"] = self.state, self.current["requested_state"]
        return list(differences(present, wanted))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments and options that say what is asked for."""
    parser.add_argument("reference", nargs="?", help="name of the instance")
    parser.add_argument(
        "software_url",
        nargs="?",
        metavar="software",
        help="URL of a release or name of a product"
        " (default: the product of the instance's name, or what the instance has)",
    )
    parser.add_argument(
        "--node", nargs="+", metavar="KEY=VALUE", help="where it may go, such as datacenter=paris"
    )
    parser.add_argument("--type", help="software type")
    parser.add_argument("--state", choices=STATES, help="state (default: as it is)")
    parser.add_argument("--slave", action="store_true", help="ask for a shared instance")
    parser.add_argument(
        "--force-serialisation",
        choices=[each.value for each in SoftwareReleaseSerialisation],
        help="how parameters are sent (default: as the release says)",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--parameters", nargs="+", metavar="KEY=VALUE", help="change these parameters only"
    )
    given.add_argument(
        "--parameters-file", type=Path, help="all parameters, in a file in YAML, JSON or XML"
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="do not read the release: parameters are checked only when the instance runs",
    )


def ask(master: MasterClient, args: argparse.Namespace) -> Asked:
    """Return what the command line asks for.

    :raises ParameterError: when something given is wrong; it names every fault.
    :raises CommandError: when the release is unknown or cannot be read.
    """
    if not args.reference:
        raise ParameterError("no instance is named", "give its name after the command")
    current = current_instance(master, args.reference)
    if args.state == "destroyed":
        return _destruction(args, current)
    product, release_url = _find_software(master, args, current)
    known = current or product
    software_type = args.type or known.get("software_type") or "default"
    release = Release(release_url, software_type)
    if not args.unchecked:
        release.check()
    serialisation = _serialisation(args, release)
    file = None if args.parameters_file is None else ParametersFile(args.parameters_file)
    wanted = _wanted(args, file, current, product, serialisation)
    asked = Asked(
        reference=args.reference,
        release_url=release_url,
        software_type=release.software_type,
        state=args.state,
        parameters=wanted,
        sla=_options(args.node) if args.node else (current or {}).get("sla", {}),
        shared=args.slave or (current or {}).get("shared", False),
        serialisation=serialisation,
        current=current,
    )
    return asked if args.unchecked else checked(master, asked, release, file)


def checked(
    master: MasterClient, asked: Asked, release: Release, file: ParametersFile | None = None
) -> Asked:
    """Return a request whose parameters the release's schema allows, with what follows from it.

    :raises ParameterError: which names every fault.
    """
    previous = None if asked.current is None else asked.current["parameters"]
    try:
        complete = release.complete(asked.parameters, previous)
    except FaultyParametersError as error:
        if file is None:
            raise
        faults = [f"{file.place(fault.path)}: {fault}" for fault in error.faults]
        raise ParameterError("\n  ".join(["wrong parameters:", *faults]), error.remedy) from error

    def data_centers() -> set[str]:
        known = [each for each in master.computers() if each["state"] != "removed"]
        return {each["datacenter"] for each in known} - {""}

    asked = replace(asked, cautions=release.cautions(complete, data_centers))
    if release.topology is None or asked.shared:
        return asked
    return replace(asked, children=release.topology(complete, asked.reference))


def current_instance(master: MasterClient, reference: str) -> Document | None:
    """Return the instance as it stands, or None when there is none."""
    try:
        return master.instance(reference)
    except NotFoundError:
        return None


def _destruction(args: argparse.Namespace, current: Document | None) -> Asked:
    """Return the request that an instance goes, for which nothing else need be known."""
    known = current or {}
    return Asked(
        reference=args.reference,
        # The master keeps what the instance has; there must be some text.
        release_url=known.get("release_url") or args.software_url or "unknown",
        software_type=known.get("software_type") or "default",
        state=args.state,
        parameters=known.get("parameters", {}),
        sla=known.get("sla", {}),
        shared=args.slave or known.get("shared", False),
        current=current,
    )


def _find_software(
    master: MasterClient, args: argparse.Namespace, current: Document | None
) -> tuple[Document, str]:
    """Return the product that is asked for, empty when it is none, and the release's URL.

    A URL or a path is taken as it is; anything else is a product of the master's catalog. When
    nothing is said it is the product of the instance's name, or what the instance has.
    """
    software = args.software_url or args.reference
    if args.software_url and "/" in software:
        return {}, absolute(software)
    name = software.removeprefix(_PRODUCT_PREFIX)
    try:
        product = master.product(name)
    except NotFoundError as error:
        if not args.software_url and current is not None:
            return {}, str(current["release_url"])
        names = ", ".join(each["name"] for each in master.products()) or "none"
        raise CommandError(
            f"the master's catalog has no product {name!r}",
            f"give the URL of a release after the reference, or one of the products: {names}",
        ) from error
    return product, str(product["release_url"])


def _serialisation(args: argparse.Namespace, release: Release) -> SoftwareReleaseSerialisation:
    """Return how the parameters are sent."""
    if args.force_serialisation:
        return SoftwareReleaseSerialisation(args.force_serialisation)
    return _JSON if args.unchecked else release.serialisation


def _wanted(
    args: argparse.Namespace,
    file: ParametersFile | None,
    current: Document | None,
    product: Mapping[str, Any],
    serialisation: SoftwareReleaseSerialisation,
) -> dict[str, Any]:
    """Return the parameters to request.

    A file says all of them, over the product's defaults. Single ones on the command line change
    what is there, as does nothing.
    """
    defaults = product.get("defaults", {})
    if file is not None:
        return {**defaults, **file.values}
    base = defaults if current is None else current["parameters"]
    given = _options(args.parameters)
    if serialisation is not _JSON:
        return {**base, **given}
    return {**base, **{key: _value(key, text) for key, text in given.items()}}


def _value(key: str, text: str) -> Any:
    """Return a value of the command line, which is written as in YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(
            f"{key}: {text!r} cannot be read: {' '.join(str(error).split())}",
            "write the value as in YAML, a text with special characters in quotes",
        ) from error


def _text(value: object) -> str:
    """Return a value as one text, for releases whose parameters are texts."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _options(pairs: list[str] | None) -> dict[str, str]:
    """Read key=value pairs of the command line."""
    for pair in pairs or []:
        if "=" not in pair:
            raise ParameterError(f"{pair!r} is no pair of key and value", "write key=value")
    try:
        options: dict[str, str] = parse_option_dict(pairs)  # pyright: ignore (its comment is wrong)
    except ValueError as error:
        raise ParameterError(str(error), "give each key once") from error
    return options
