# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users say of where the builds of a computer take things from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from slapos_wendelin.build_checks import check_settings
from slapos_wendelin.build_settings import ALLOWED, CACHE, COMPILE, KEYS, MIRROR, NEVER

#: The names of the options among the arguments of a command.
ARGUMENTS = ("compiled_cache", "compiled_key", "compile", "source_mirror")

#: What is said in an inventory, by the same options.
SCHEMA: Mapping[str, Any] = {
    CACHE: {"type": "string"},
    KEYS: {"type": "array", "items": {"type": "string"}},
    COMPILE: {"enum": [NEVER, ALLOWED]},
    MIRROR: {"type": "string"},
}

_CALLED = {
    CACHE: "--compiled-cache",
    KEYS: "--compiled-key",
    COMPILE: "--compile",
    MIRROR: "--source-mirror",
}


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Take where builds take things from; what is not given stays as it is."""
    add = parser.add_argument
    add(
        "--compiled-cache",
        metavar="URL|FOLDER",
        help="cache of compiled parts that its builds take from; '' for none",
    )
    add(
        "--compiled-key",
        action="append",
        metavar="ed25519:...|FILE",
        help="public key that is trusted with the cache, or a file of them (may be repeated)",
    )
    add(
        "--compile",
        choices=(NEVER, ALLOWED),
        help="whether it may compile what the cache lacks (default: allowed)",
    )
    add(
        "--source-mirror",
        metavar="URL|FOLDER",
        help="mirror that its builds take all sources from; '' for the network",
    )


def builds_of(args: argparse.Namespace) -> dict[str, str]:
    """Return what the options say; raises ParameterError."""
    keys = args.compiled_key
    given = {
        CACHE: args.compiled_cache,
        KEYS: None if keys is None else " ".join(keys),
        COMPILE: args.compile,
        MIRROR: args.source_mirror,
    }
    known = {option: value for option, value in given.items() if value is not None}
    return check_settings(known, lambda option: _CALLED[option])


def builds_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what an inventory says of a host; raises ParameterError."""
    given = {option: values[option] for option in SCHEMA if option in values}
    if KEYS in given:
        # A host without the cache of the others needs no keys either.
        given[KEYS] = " ".join(given[KEYS]) if given.get(CACHE) != "" else ""
    return check_settings(given)
