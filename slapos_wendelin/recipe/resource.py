# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that profiles name: patches, locks."""

import os
from pathlib import Path
from typing import Any

from zc.buildout.download import Download

from slapos_wendelin.buildout.errors import ProfileError


def read_resource(section: Any, reference: str) -> bytes:
    """Return the bytes of a file.

    :param section: the ``[buildout]`` section.
    :param reference: ``PATH``, ``PATH#MD5`` or ``URL#MD5``.
    :raises ProfileError: it cannot be read, its checksum differs, or a URL has no checksum.
    """
    url, _, md5sum = reference.partition("#")
    if "://" in url and not md5sum:
        raise ProfileError(f"{url} has no checksum", f"write {url}#MD5")
    if "://" not in url and not Path(url).is_file():
        raise ProfileError(f"there is no file {url}", "correct the path in the profile")
    path, is_temporary = Download(section, hash_name=True)(url, md5sum or None)
    try:
        return Path(path).read_bytes()
    finally:
        if is_temporary:
            os.unlink(path)  # noqa: PTH108


def option_lines(text: str) -> list[str]:
    """Return the lines of an option that are not empty."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def option_variables(options: Any, name: str) -> dict[str, str]:
    """Read an option of ``NAME = VALUE`` lines."""
    variables: dict[str, str] = {}
    for line in option_lines(options.get(name, "")):
        variable, equals, value = line.partition("=")
        if not equals or not variable.strip().isidentifier():
            raise ProfileError(f"[{options.name}] {name}: {line!r} is not of the form NAME = VALUE")
        variables[variable.strip()] = value.strip()
    return variables


def option_is_true(options: Any, name: str, *, default: bool) -> bool:
    """Read a ``true`` or ``false`` option."""
    text = options.get(name, "true" if default else "false")
    if text not in {"true", "false"}:
        raise ProfileError(f"[{options.name}] {name}: {text!r} is neither true nor false")
    return text == "true"
