# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log records with keys and values, as text on one line or as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


class Event:
    """What happened: its name, and values under keys that stay the same.

    It is logged as the message of a record: ``log.info(Event("started", url=url))``. As text it
    reads ``started url=...``, values with spaces in quotation marks.
    """

    __slots__ = ("fields", "name")

    def __init__(self, name: str, **fields: Any) -> None:
        """Describe an event; a value None is left out."""
        self.name = name
        self.fields: Mapping[str, Any] = {
            key: value for key, value in fields.items() if value is not None
        }

    def __str__(self) -> str:
        """Return the event as text."""
        pairs = (f"{key}={_plain(value)}" for key, value in self.fields.items())
        return " ".join([self.name, *pairs])


class JsonFormatter(logging.Formatter):
    """Writes each record as one JSON object on one line.

    Its keys are ``time`` (UTC), ``level``, ``logger`` and ``event``, then those of the event, and
    ``exception`` with a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if isinstance(record.msg, Event):
            document["event"] = record.msg.name
            document |= {
                key: value for key, value in record.msg.fields.items() if key not in document
            }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            document["stack"] = self.formatStack(record.stack_info)
        return json.dumps(document, default=str, ensure_ascii=False)


def _plain(value: Any) -> str:
    """Return a value as it stands in text: in quotation marks where it could be misread."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    is_clear = text and text.isprintable() and not any(each in text for each in ' "=\\')
    return text if is_clear else json.dumps(text)
