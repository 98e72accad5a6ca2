# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check where builds are to take things from, before any computer is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from slapos_wendelin.build_settings import ALLOWED, CACHE, COMPILE, KEYS, MIRROR, NEVER, is_folder
from slapos_wendelin.compiled.errors import CacheError
from slapos_wendelin.compiled.keys import public_text, read_public_keys
from slapos_wendelin.errors import ParameterError


def check_settings(
    given: Mapping[str, str], called: Callable[[str], str] = str, *, may_hold_password: bool = False
) -> dict[str, str]:
    """Return settings of builds as slapos.cfg has them: files of keys are read.

    :param given: the options that are named; an empty one takes away what was set before.
    :param called: returns what the user calls an option, for errors.
    :param may_hold_password: whether nobody else reads the configuration.
    :raises ParameterError: names the value, its place and what it may be.
    """
    settings = dict(given)
    for option in (CACHE, MIRROR):
        if place := settings.get(option):
            _check_place(place, called(option), may_hold_password=may_hold_password)
    if words := settings.get(KEYS, "").split():
        settings[KEYS] = " ".join(_keys(words, called(KEYS)))
    if (compiling := settings.get(COMPILE)) not in {None, "", NEVER, ALLOWED}:
        raise ParameterError(f"{called(COMPILE)} is {compiling!r}", f"use {NEVER} or {ALLOWED}")
    if compiling == ALLOWED:
        settings[COMPILE] = ""
    if bool(settings.get(CACHE)) != bool(settings.get(KEYS)):
        named, lacking = (CACHE, KEYS) if settings.get(CACHE) else (KEYS, CACHE)
        raise ParameterError(
            f"{called(named)} is given without {called(lacking)}",
            "name the cache and the public keys that may sign what is in it (slapos cache key "
            "prints one), or neither",
        )
    if CACHE in settings:
        settings[KEYS] = settings.get(KEYS, "")
    return settings


def _check_place(place: str, called: str, *, may_hold_password: bool) -> None:
    """Refuse what is neither a folder nor a URL; raises ParameterError."""
    remedy = "name a URL of http or https, or a folder by its absolute path"
    if any(each.isspace() for each in place):
        raise ParameterError(f"{called} is {place!r}, with white space in it", remedy)
    if is_folder(place):
        if not place.startswith("/"):
            raise ParameterError(f"{called} is {place!r}, no absolute path and no URL", remedy)
        return
    if not _is_url(place):
        raise ParameterError(f"{called} is {place!r}, no URL of http or https", remedy)
    if urlsplit(place).username is not None and not may_hold_password:
        raise ParameterError(
            f"{called} holds a user or password, which others on the computer could read",
            "name it without, and put the password into ~/.netrc of the user who builds "
            "(slapsoft) there",
        )


def _is_url(text: str) -> bool:
    """Whether a text is a URL that can be asked."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _keys(words: list[str], called: str) -> list[str]:
    """Return public keys as words; raises ParameterError."""
    try:
        return [public_text(each) for each in read_public_keys(words)]
    except CacheError as error:
        raise ParameterError(f"{called}: {error.message}", error.remedy) from error
