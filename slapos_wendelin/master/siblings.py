# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the worker processes of one master tell each other at once.

Each could learn it from the database a little later, so what gets lost does no harm: a worker that
does not read what it is told is not waited for.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)


class Siblings:
    """The pipes between one worker and the others."""

    def __init__(self, inbox: int, outboxes: Sequence[int]) -> None:
        """Take the pipes.

        :param inbox: the descriptor of what this worker is told.
        :param outboxes: those of what the others are told; they do not block.
        """
        self._inbox = inbox
        self._outboxes = outboxes
        self._hearers: dict[str, Callable[..., None]] = {}

    def hear(self, kind: str, hearer: Callable[..., None]) -> None:
        """Say what is to be called with the values of each message of a kind."""
        self._hearers[kind] = hearer

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._listen, name="siblings", daemon=True).start()

    def tell(self, kind: str, *values: str | float) -> None:
        """Tell the others something."""
        line = json.dumps([kind, *values]).encode() + b"\n"
        if len(line) > select.PIPE_BUF:
            # Longer ones could mix with those of others.
            return
        for outbox in self._outboxes:
            try:
                os.write(outbox, line)
            except BlockingIOError:
                _log.debug("not told worker=%d", outbox)

    def _listen(self) -> None:
        """Pass on what the others tell."""
        with os.fdopen(self._inbox, "rb") as stream:
            for line in stream:
                try:
                    kind, *values = json.loads(line)
                    hearer = self._hearers[kind]
                except (ValueError, KeyError):
                    # The process before this one may have read the beginning of it.
                    continue
                hearer(*values)
