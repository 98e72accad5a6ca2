# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a keeper tells of the operations of its cluster."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from slapos_wendelin.master.errors import ConflictError, InvalidRequestError
from slapos_wendelin.master.models import Operation
from slapos_wendelin.master.operations import (
    CANCELLED,
    DONE,
    FAILED,
    OPEN,
    REPORTED_WITHIN,
    RUNNING,
    WAITING,
    fate,
)

#: The largest result and the largest progress, in bytes of JSON; the longest text, in characters.
_RESULT_LIMIT, _PROGRESS_LIMIT, _TEXT_LIMIT = 2 * 1024 * 1024, 4096, 2000


@dataclass(frozen=True, slots=True)
class Report:
    """How an operation goes."""

    #: Which run of the keeper tells.
    keeper: str
    #: running, done or failed.
    state: str
    #: Whether it takes the operation: it waits, or was taken by a run that is over.
    take: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    remedy: str = ""


def read_report(body: dict[str, Any]) -> Report:
    """Return the report of a request's body.

    :raises InvalidRequestError: when a value is none that it can be, or too large.
    """
    if body.get("state") not in {RUNNING, DONE, FAILED}:
        raise InvalidRequestError(
            f"state is {body.get('state')!r:.80}", f"use {RUNNING}, {DONE} or {FAILED}"
        )
    if not isinstance(body.get("take", False), bool):
        raise InvalidRequestError("take is no boolean", "use true or false")
    keeper = _text(body, "keeper", 64)
    if not keeper:
        raise InvalidRequestError("keeper is missing", "say which run of the keeper it is")
    return Report(
        keeper=keeper,
        state=body["state"],
        take=body.get("take", False),
        progress=_object(body, "progress", _PROGRESS_LIMIT),
        result=_object(body, "result", _RESULT_LIMIT),
        error=_text(body, "error", _TEXT_LIMIT),
        remedy=_text(body, "remedy", _TEXT_LIMIT),
    )


def keep(operation: Operation, report: Report) -> None:
    """Keep what a keeper tells; the same may be told twice.

    :raises ConflictError: when the operation is over, or another run of the keeper does it.
    """
    now = time.time()
    is_said = (operation.state, operation.keeper) == (report.state, report.keeper)
    if operation.state not in OPEN and is_said:
        return
    # Of a keeper that was late it is better to hear than not; but what was not taken in time must
    # not be begun.
    begins = report.take or operation.state == WAITING
    is_late = begins and fate(operation, now).state not in OPEN
    if operation.state not in OPEN or is_late:
        raise ConflictError(
            f"operation {operation.id} is over: {operation.state if not is_late else FAILED}",
            "leave it" if operation.state != CANCELLED else "end it: an operator wants that",
        )
    if report.take or (operation.is_look and operation.state == WAITING):
        operation.keeper = report.keeper
        operation.taken_at = now
    elif operation.keeper != report.keeper:
        raise ConflictError(
            f"another run of the keeper does operation {operation.id}", "take it, or leave it"
        )
    operation.state = report.state
    operation.expires_at = now + REPORTED_WITHIN
    operation.progress = report.progress
    if report.state != RUNNING:
        operation.ended_at = now
        operation.result, operation.error = report.result, report.error
        operation.remedy = report.remedy


def _text(body: dict[str, Any], key: str, limit: int) -> str:
    """Return a text of a body, empty when it is missing."""
    value = body.get(key, "")
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidRequestError(f"{key} is no text of {limit} characters at most", "send one")
    return value


def _object(body: dict[str, Any], key: str, limit: int) -> dict[str, Any]:
    """Return an object of a body, empty when it is missing."""
    value = body.get(key, {})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{key} is no JSON object", "send one")
    if len(json.dumps(value)) > limit:
        raise InvalidRequestError(f"{key} is larger than {limit} bytes", "send less")
    return value
