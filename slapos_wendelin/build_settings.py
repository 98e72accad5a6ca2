# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the builds of a computer take things from: options of its slapos.cfg, in ``[builds]``.

::

    compiled-cache        folder or URL of a cache of compiled parts
    compiled-cache-keys   the public keys that are trusted with it
    compile               never, where nothing may be compiled
    source-mirror         folder or URL of a mirror of all sources, in place of the network

Recipes read the same from environment variables, which is how builds are told.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

SECTION = "builds"

CACHE, KEYS, COMPILE, MIRROR = "compiled-cache", "compiled-cache-keys", "compile", "source-mirror"

#: The environment variable of each option.
VARIABLES = {
    CACHE: "WENDELIN_COMPILED",
    KEYS: "WENDELIN_COMPILED_KEYS",
    COMPILE: "WENDELIN_COMPILE",
    MIRROR: "WENDELIN_MIRROR",
}

#: What the option ``compile`` may be: programs are taken from the cache only, or compiled too.
NEVER, ALLOWED = "never", "allowed"

#: The Python index of a mirror, as a folder or URL below the mirror's, and uv's variable for it.
PYTHON_INDEX = "python/simple"
INDEX_VARIABLE = "UV_DEFAULT_INDEX"


def changed(known: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return settings after a change: what is not given stays, what is given empty goes."""
    return {option: value for option, value in {**known, **given}.items() if value}


def section(settings: Mapping[str, str]) -> str:
    """Return the section of slapos.cfg; empty when nothing is set."""
    if not settings:
        return ""
    lines = (f"{option} = {settings[option]}\n" for option in VARIABLES if settings.get(option))
    return f"\n[{SECTION}]\n{''.join(lines)}"


def read(configuration: Path) -> dict[str, str]:
    """Return the settings in a slapos.cfg; none when it cannot be read."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(configuration)
    except configparser.Error:
        return {}
    found = parser[SECTION] if parser.has_section(SECTION) else {}
    return {option: found[option] for option in VARIABLES if found.get(option)}


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables by which builds follow the settings."""
    variables = {VARIABLES[option]: value for option, value in settings.items() if value}
    if mirror := settings.get(MIRROR):
        variables[INDEX_VARIABLE] = python_index(mirror)
    return variables


def python_index(mirror: str) -> str:
    """Return the URL of a mirror's Python index."""
    place = mirror.rstrip("/")
    return (
        f"file://{quote(place)}/{PYTHON_INDEX}" if is_folder(mirror) else f"{place}/{PYTHON_INDEX}"
    )


def is_folder(place: str) -> bool:
    """Say whether a place is a folder rather than a URL."""
    return "://" not in place
