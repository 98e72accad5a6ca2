# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notice what other master processes write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from slapos_wendelin.master.due import LAST_NUMBER, Board, operations_of
from slapos_wendelin.master.models import Computer, Operation, Property

#: How often the database is asked while somebody waits, in seconds.
_INTERVAL = 0.2

_log = logging.getLogger(__name__)


class Watcher:
    """Puts on the board the numbers that other processes gave to computers and operations.

    It asks the database only while somebody waits.
    """

    def __init__(
        self, reading: Callable[[], AbstractContextManager[Session]], board: Board
    ) -> None:
        self._reading = reading
        self._board = board
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        """Watch until closed."""
        seen = 0
        while not self._closed.is_set():
            if not self._board.wait_for_waiters(_INTERVAL):
                continue
            try:
                seen = self._publish_news(seen)
            except SQLAlchemyError as error:
                _log.warning("database not watched error=%s", error)
            self._closed.wait(_INTERVAL)

    def _publish_news(self, seen: int) -> int:
        """Publish the numbers larger than one; return the last number of the database."""
        with self._reading() as session:
            last = session.scalar(select(Property.value).where(Property.name == LAST_NUMBER)) or 0
            if last == seen:
                return seen
            news = session.execute(
                select(Computer.reference, Computer.number).where(Computer.number > seen)
            ).all()
            asked = session.execute(
                select(Operation.tree_id, func.max(Operation.number))
                .where(Operation.number > seen)
                .group_by(Operation.tree_id)
            ).all()
            self._board.publish({each.reference: each.number for each in news})
            self._board.publish({operations_of(tree): number for tree, number in asked})
        return last
