# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of single values that come from outside."""

from __future__ import annotations

from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.models import NAME_LENGTH, URL_LENGTH

STARTED = "started"
STOPPED = "stopped"
DESTROYED = "destroyed"

#: The states of an instance, the milder first.
INSTANCE_STATES = (STARTED, STOPPED, DESTROYED)

AVAILABLE = "available"
BUILDING = "building"

#: The states that a software release can be asked to be in.
SOFTWARE_STATES = (AVAILABLE, DESTROYED)


def check_name(value: object, what: str) -> str:
    """Return the value when it can name something.

    :raises InvalidRequestError: when it is not text, empty, longer than 255 characters, or holds
        control characters or outer spaces.
    """
    return _check_text(value, what, NAME_LENGTH)


def check_url(value: object, what: str) -> str:
    """Return the value when it can be a release URL or a path.

    :raises InvalidRequestError: when it is not text, empty, longer than 700 characters or holds
        spaces.
    """
    url = _check_text(value, what, URL_LENGTH)
    if any(character.isspace() for character in url):
        raise InvalidRequestError(
            f"{what} {url!r} holds a space", "use a URL or a path without spaces"
        )
    return url


def check_state(value: object, states: tuple[str, ...]) -> str:
    """Return the value when it is one of the states.

    :raises InvalidRequestError: when it is not.
    """
    if value not in states:
        raise InvalidRequestError(f"state is {shown(value)}", f"use one of {', '.join(states)}")
    return str(value)


def _check_text(value: object, what: str, limit: int) -> str:
    """Return the value when it is one line of text of a fair length."""
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{what} is {shown(value)}", "give it as text")
    if len(value) > limit:
        raise InvalidRequestError(
            f"{what} has {len(value)} characters: {shown(value)}", f"use {limit} at most"
        )
    if not value.isprintable() or value.strip() != value:
        raise InvalidRequestError(
            f"{what} is {shown(value)}", "use one line without control characters or outer spaces"
        )
    return value


def shown(value: object) -> str:
    """Return the value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 (a line of a terminal)
