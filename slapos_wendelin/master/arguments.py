# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request to the /v1 API carries: its JSON body and the arguments of its query."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from flask import request
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from slapos_wendelin.master.errors import InvalidRequestError

_Number = TypeVar("_Number", int, float)


def json_body(*known: str) -> dict[str, Any]:
    """Return the JSON object of the request's body, which has no other keys than the known.

    :raises InvalidRequestError: when it is not one, or has another key.
    """
    try:
        body = request.get_json()
    except (BadRequest, UnsupportedMediaType, RecursionError) as error:
        raise InvalidRequestError(
            "the body is not JSON that can be read", "send a JSON object as application/json"
        ) from error
    if not isinstance(body, dict):
        raise InvalidRequestError("the body is not a JSON object", "send a JSON object")
    for key in body:
        if key not in known:
            raise InvalidRequestError(
                f"unknown key {key!r}", f"the known ones are {', '.join(known)}"
            )
    return body


def number(name: str, kind: Callable[[str], _Number], default: _Number) -> _Number:
    """Return a number from the query.

    :raises InvalidRequestError: when it is none.
    """
    text = request.args.get(name)
    if text is None:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or math.isnan(value):
        raise InvalidRequestError(f"{name} is {text[:80]!r}", "send a number")
    return value
