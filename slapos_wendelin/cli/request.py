# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos request`` that knows the master's catalog and checks parameters before it asks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from slapos.cli.config import ConfigError
from slapos.cli.request import RequestCommand as StockRequestCommand
from slapos.cli.request import getParametersFromFile, parse_option_dict
from slapos.slap import ResourceNotReady, slap
from slapos.slap.slap import NotFoundError as SlapNotFoundError
from slapos.slap.slap import ServerError
from slapos.util import SoftwareReleaseSchema, SoftwareReleaseSerialisation

from slapos_wendelin import parameters
from slapos_wendelin.cli.connection import client_settings, connect
from slapos_wendelin.errors import CommandError, ParameterError, WendelinError
from slapos_wendelin.master.client import MasterClient, NotFoundError

#: A file's values are taken as they are; they are serialised when they are sent.
PLAIN = SoftwareReleaseSerialisation.Xml
#: Exit status while the master has accepted the request but the instance has no place yet.
NOT_READY = 2


class RequestCommand(StockRequestCommand):
    """request an instance, or change it, and show what it publishes."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the stock options; the software may be a product of the catalog or left out."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        for action in parser._actions:  # noqa: SLF001 (argparse has no other way)
            if action.dest == "software_url":
                action.nargs = "?"
                action.required = False
                action.metavar = "software"
                action.help = "URL of a release or name of a product (default: the reference)"
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (stock exits instead)
        """Request and print; an error is one line and a remedy."""
        try:
            return self._request(args)
        except (WendelinError, ConfigError, ServerError) as error:
            message = error.message if isinstance(error, WendelinError) else str(error)
            print(f"slapos request: {message}", file=sys.stderr)
            if isinstance(error, WendelinError) and error.remedy:
                print(f"  remedy: {error.remedy}", file=sys.stderr)
            return 1

    def _request(self, args: argparse.Namespace) -> int:
        configuration = client_settings(args, self.fetch_config(args))
        master = connect(configuration)
        release_url, software_type, defaults = _find_release(master, args)
        previous = _current_parameters(master, args.reference)
        schema = _schema(release_url, software_type)
        wanted = _wanted_parameters(args, previous, defaults)
        if schema is not None:
            parameters.check(schema, wanted, previous)
        for line in _changes(previous, wanted):
            print(line)
        connection = slap()
        connection.initializeConnection(
            configuration.master_url, configuration.key_file, configuration.cert_file
        )
        try:
            instance = connection.registerOpenOrder().request(
                software_release=release_url,
                partition_reference=args.reference,
                partition_parameter_kw={"_": json.dumps(wanted)},
                software_type=software_type,
                filter_kw=_options(args.node),
                state=args.state,
                shared=args.slave,
            )
            print(f"{args.reference} is requested, its state is {instance.getState()}.")
            for key, value in _published(instance.getConnectionParameterDict()).items():
                print(f"  {key:<16} {value}")
        except (ResourceNotReady, SlapNotFoundError):
            print(f"{args.reference} is requested; the master looks for a place.")
            return NOT_READY
        return 0


def _find_release(
    master: MasterClient, args: argparse.Namespace
) -> tuple[str, str, Mapping[str, Any]]:
    """Return release URL, software type and default parameters of what is requested.

    A URL or a path is taken as it is; anything else is a product of the master's catalog.
    """
    software = args.software_url or args.reference
    if "/" in software:
        return software, args.type or "default", {}
    try:
        product = master.product(software)
    except NotFoundError as error:
        names = ", ".join(product["name"] for product in master.products()) or "none"
        raise CommandError(
            f"the master's catalog has no product {software!r}",
            f"give the URL of a release after the reference, or one of the products: {names}",
        ) from error
    return product["release_url"], args.type or product["software_type"], product["defaults"]


def _current_parameters(master: MasterClient, reference: str) -> dict[str, Any] | None:
    """Return the parameters of the instance as it stands, or None when there is none."""
    try:
        current: dict[str, Any] = master.instance(reference)["parameters"]
    except NotFoundError:
        return None
    return current


def _schema(release_url: str, software_type: str) -> dict[str, Any] | None:
    """Return the JSON schema that the release has for the type, or None when it has none."""
    try:
        schema: dict[str, Any] | None = SoftwareReleaseSchema(
            release_url, software_type
        ).getInstanceRequestParameterSchema()
    except Exception as error:
        raise CommandError(
            f"the release {release_url} has no readable schema for the software type "
            f"{software_type!r}: {error}",
            "check the URL and the type",
        ) from error
    return schema


def _wanted_parameters(
    args: argparse.Namespace, previous: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters to request.

    A file says all of them. Single ones on the command line change what is there, as does nothing.
    """
    if args.parameters_file:
        try:
            given: object = getParametersFromFile(args.parameters_file, PLAIN)
        except (ValueError, yaml.YAMLError) as error:
            raise ParameterError(
                f"{args.parameters_file.name} cannot be read: {' '.join(str(error).split())}",
                "write it as YAML or JSON",
            ) from error
        if not isinstance(given, dict):
            raise ParameterError(
                f"{args.parameters_file.name} holds no parameters but {given!r}",
                "write it as a mapping of names to values",
            )
        return given
    base = dict(defaults if previous is None else previous)
    return base | {key: yaml.safe_load(value) for key, value in _options(args.parameters).items()}


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


def _changes(previous: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> list[str]:
    """Describe what the request changes on an instance that exists."""
    if previous is None:
        return []
    return [
        f"  {key}: {previous.get(key, '(default)')} -> {wanted.get(key, '(default)')}"
        for key in sorted({*previous, *wanted})
        if previous.get(key) != wanted.get(key)
    ]


def _published(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an instance publishes, whether serialised in JSON or not."""
    if "_" in connection:
        values: dict[str, Any] = json.loads(connection["_"])
        return values
    return dict(connection)
