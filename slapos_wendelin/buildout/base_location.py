# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``${:_profile_base_location_}``: the folder or URL of the profile that wrote it."""

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from zc.buildout.buildout import Buildout, SectionKey

#: The option's name.
OPTION = "_profile_base_location_"

_REFERENCE = "${:" + OPTION + "}"

#: What buildout notes as source of an option that no file has set.
_NO_FILE = {"DEFAULT_VALUE", "COMPUTED_VALUE", "COMMAND_LINE_VALUE", "IMPLICIT_VALUE", ""}


def base_location(source: str, directory: str) -> str:
    """Return the folder or URL that holds a profile, without slash at its end.

    :param source: path or URL of the profile, as buildout's annotations give it.
    :param directory: answer for values of the command line, which come from no profile.
    """
    if source in _NO_FILE:
        return directory
    parts = urlsplit(source)
    if parts.scheme == "file":
        return str(Path(unquote(parts.path)).parent.resolve())
    if parts.scheme and parts.netloc:
        path = posixpath.normpath(posixpath.dirname(parts.path) or "/").rstrip("/")
        return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return str(Path(source).parent.resolve())


def bind_base_locations(buildout: "Buildout") -> None:
    """Replace each reference by the base location of the file that wrote it.

    Buildout forgets where an option comes from once sections extend one another with ``<=``, so
    this happens on its raw data, before it makes the sections. A section that used a reference
    also gets the option itself, with which slapos.recipe.build names shared parts independently
    of the place of the profile.
    """
    directory = buildout._buildout_dir  # noqa: SLF001
    for name, section in buildout._annotated.items():  # noqa: SLF001
        raw = buildout._raw[name]  # noqa: SLF001
        for option, key in section.items():
            if _REFERENCE in key.value:
                raw[option] = _bound_text(key, directory)
                raw.setdefault(OPTION, base_location(key.source, directory))


def _bound_text(key: "SectionKey", directory: str) -> str:
    """Replay the history of an option, each piece of text with its own file's base location."""
    lines: list[str] = []
    for item in key.history:
        added = _bind(item, directory).split("\n")
        if item.operation == "ADD":
            lines += added
        elif item.operation == "REMOVE":
            lines = [line for line in lines if line not in added]
        else:
            lines = added
    return "\n".join(lines)


def _bind(item: Any, directory: str) -> str:
    """Replace the references in one piece of text."""
    return item.value.replace(_REFERENCE, base_location(item.source, directory))
