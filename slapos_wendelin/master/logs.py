# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the master writes its log: one line for each record, for people or for programs."""

from __future__ import annotations

import argparse
import json
import logging
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

TEXT, JSON = "text", "json"

#: A key and its value in the template of a message, such as ``path=%s``.
_PAIR = re.compile(r"(\w+)=%[-+ #0-9.]*[a-zA-Z]")


def configure(level: str, form: str = TEXT, worker: int | None = None) -> None:
    """Send the log to standard error.

    :param level: debug, info, warning or error.
    :param form: text or json.
    :param worker: the number of the process among those of its master, which each line names.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(worker) if form == JSON else OneLineFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is logged and how."""
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="the least that is logged (default: info)",
    )
    parser.add_argument(
        "--log-format",
        default=TEXT,
        choices=(TEXT, JSON),
        help="lines for people or for programs (default: text)",
    )


def words_of(options: argparse.Namespace) -> list[str]:
    """Return the words of a command line that let another program log in the same way."""
    return ["--log-level", options.log_level, "--log-format", options.log_format]


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


class OneLineFormatter(logging.Formatter):
    """Writes a record, its traceback included, on one line: time in UTC, level, logger, text."""

    converter = time.gmtime

    def __init__(self, worker: int | None = None) -> None:
        head = "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s"
        named = "" if worker is None else f" worker={worker}"
        super().__init__(f"{head}{named} event=%(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's one line."""
        return (
            super().format(record).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        )


class JsonFormatter(logging.Formatter):
    """Writes each record as one JSON object on one line.

    Its keys are ``time`` (UTC), ``level``, ``logger``, ``worker`` where there are several, and
    ``event``, then those of the event or the pairs of the message, and ``exception`` with a
    traceback.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._common = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        event, pairs = _parts(record)
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **self._common,
            "event": event,
        }
        document |= {key: value for key, value in pairs.items() if key not in document}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            document["stack"] = self.formatStack(record.stack_info)
        return json.dumps(document, default=str, ensure_ascii=False)


def _parts(record: logging.LogRecord) -> tuple[str, Mapping[str, Any]]:
    """Return what happened and the values of a message; the whole text when it has no pairs."""
    if isinstance(record.msg, Event):
        return record.msg.name, record.msg.fields
    template, values = str(record.msg), record.args or ()
    first = _PAIR.search(template)
    if first is None or not isinstance(values, tuple) or "%" in template[: first.start()]:
        return record.getMessage(), {}
    keys = [match[1] for match in _PAIR.finditer(template)]
    if len(keys) != len(values) or template.count("%") != len(keys):
        return record.getMessage(), {}
    plain = (value if isinstance(value, int | float) else str(value) for value in values)
    return template[: first.start()].strip(), dict(zip(keys, plain, strict=True))


def _plain(value: Any) -> str:
    """Return a value as it stands in text: in quotation marks where it could be misread."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    is_clear = text and text.isprintable() and not any(each in text for each in ' "=\\')
    return text if is_clear else json.dumps(text)
