# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which partition a request for an instance comes from."""

from __future__ import annotations

import re

from flask import request

from slapos_wendelin.master.errors import InvalidRequestError

#: What the slap library sends in a form for None.
NONE = "None"

_SCHEME = re.compile(r"\s*X-SlapPartition\b(.*)", re.IGNORECASE | re.DOTALL)
_KEYS = ("computer_id", "computer_partition_id")


def requesting_partition() -> tuple[str, str] | None:
    """Return the computer and the partition that the request comes from; None for a user's.

    slapos.core names them in a header, before 1.26 in the form only.

    :raises InvalidRequestError: when one of them is missing, or header and form differ.
    """
    named = [each for each in (_from_header(), _from_form()) if each is not None]
    if len(set(named)) > 1:
        raise InvalidRequestError(
            "the form and the header Authorization name different partitions",
            "name the one that sends the request",
        )
    if not named:
        return None
    if not all(named[0]):
        raise InvalidRequestError(
            f"the request comes from partition {named[0][1]!r} of computer {named[0][0]!r}",
            "send both computer_id and computer_partition_id, or neither",
        )
    return named[0]


def _from_header() -> tuple[str, str] | None:
    """Return what the header says; other schemes are none of this protocol's."""
    match = _SCHEME.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        return None
    values = {}
    for each in match[1].split(","):
        key, _, value = each.partition("=")
        values[key.strip()] = value.strip()
    return values.get(_KEYS[0], ""), values.get(_KEYS[1], "")


def _from_form() -> tuple[str, str] | None:
    """Return what the form says."""
    values = [request.form.get(key, "") for key in _KEYS]
    computer, partition = ("" if value == NONE else value for value in values)
    return (computer, partition) if computer or partition else None
