# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the master writes its log: one line for each record, for people or for programs."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

TEXT, JSON = "text", "json"

#: A key and its value in the template of a message, such as ``path=%s``.
_PAIR = re.compile(r"(\w+)=%[-+ #0-9.]*[a-zA-Z]")


def configure(level: str, form: str = TEXT) -> None:
    """Send the log to standard error.

    :param level: debug, info, warning or error.
    :param form: text or json.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == JSON else OneLineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class OneLineFormatter(logging.Formatter):
    """Writes a record, its traceback included, on one line: time in UTC, level, logger, text."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s event=%(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's one line."""
        return (
            super().format(record).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        )


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object, with the pairs of its message as keys of their own."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's one line."""
        event, pairs = _parts(record)
        document = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            **{key: value for key, value in pairs.items() if key not in _OWN_KEYS},
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


_OWN_KEYS = frozenset({"time", "level", "logger", "event", "traceback"})


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Return what happened and the values of a message; the whole text when it has no pairs."""
    template, values = str(record.msg), record.args or ()
    first = _PAIR.search(template)
    if first is None or not isinstance(values, tuple) or "%" in template[: first.start()]:
        return record.getMessage(), {}
    keys = [match[1] for match in _PAIR.finditer(template)]
    if len(keys) != len(values) or template.count("%") != len(keys):
        return record.getMessage(), {}
    plain = (value if isinstance(value, int | float) else str(value) for value in values)
    return template[: first.start()].strip(), dict(zip(keys, plain, strict=True))
