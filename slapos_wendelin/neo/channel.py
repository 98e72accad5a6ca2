# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a keeper learns at the master what operators ask for, and tells how it goes.

Two threads talk with the master, so that one that is slow or away does not hold up the cluster. A
master that knows nothing of this, such as slapproxy, is asked again now and then.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal

from slapos_wendelin.neo.errors import ChannelError
from slapos_wendelin.neo.master_line import Document, MasterLine, Place

log = logging.getLogger("neo-keeper")

#: Seconds that the master may hold a request for orders.
LONGEST_WAIT = 30.0

#: Seconds before the next request when the master cannot let this one wait.
_PAUSE = 2.0

#: Seconds before the next one after a failure: the first, the longest, and where the master knows
#: nothing of orders.
_FIRST_RETRY, _LONGEST_RETRY, _UNKNOWN_RETRY = 1.0, 15.0, 60.0

#: How many orders that are over are remembered.
_REMEMBERED = 1000

_NOT_FOUND, _REFUSALS = 404, (400, 404, 409, 413)


@dataclass(frozen=True)
class Order:
    """What the keeper shall do."""

    number: int
    kind: str
    #: Whether it changes nothing.
    is_look: bool
    arguments: Document


class Channel:
    """Orders from the master, and reports to it."""

    def __init__(self, place: Place) -> None:
        """Say where; `start` begins."""
        self._place = place
        #: Which run of the keeper this is.
        self._keeper = secrets.token_hex(16)
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._known: set[int] = set()
        self._ended: set[int] = set()
        self._news = threading.Condition()
        self._reports: dict[int, Document] = {}
        self._reports_changed = threading.Condition()
        self._said = ""

    def start(self) -> None:
        """Begin to wait for orders."""
        for work in (self._listen, self._tell):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Return when there is an order, or after some seconds."""
        with self._news:
            self._news.wait_for(lambda: not self._orders.empty(), seconds)

    def take(self) -> list[Order]:
        """Return the orders that came since the last call."""
        found: list[Order] = []
        while True:
            try:
                found.append(self._orders.get_nowait())
            except queue.Empty:
                return found

    def is_ended(self, number: int) -> bool:
        """Say whether the master does not want an order done any more."""
        return number in self._ended

    def report(
        self,
        number: int,
        state: Literal["running", "done", "failed"],
        **values: Any,
    ) -> None:
        """Let the master know how an order goes; only the last report of each is told.

        :param values: ``progress``, ``result``, ``error``, ``remedy``.
        """
        with self._reports_changed:
            self._reports[number] = {"state": state, **values}
            self._reports_changed.notify_all()

    def _listen(self) -> None:
        """Ask for orders again and again."""
        line, after, retry = MasterLine(self._place), 0, _FIRST_RETRY
        while True:
            began = time.monotonic()
            try:
                newest = self._ask(line, after)
                retry, self._said = _FIRST_RETRY, ""
            except (ChannelError, OSError, LookupError, TypeError, ValueError) as error:
                # Among them answers that are no answers: nothing of the master may end this.
                retry = self._failed(error, retry)
                continue
            if newest == after and time.monotonic() - began < _PAUSE:
                time.sleep(_PAUSE)
            after = newest

    def _ask(self, line: MasterLine, after: int) -> int:
        """Ask for orders and take them; return the number after which to ask next."""
        answer = line.call(
            "GET",
            "cluster/operations",
            query={
                **self._place.names,
                "keeper": self._keeper,
                "after": after,
                "timeout": LONGEST_WAIT,
            },
            timeout=LONGEST_WAIT + 15.0,
        )
        offered: dict[int, Document] = {
            each["operation"]: each for each in answer.get("operations", [])
        }
        self._end(self._known - offered.keys())
        self._known &= offered.keys()
        for number in offered.keys() - self._known:
            # Its number is known first: it may be over before the next request.
            self._known.add(number)
            self._accept(line, Order(number, *_described(offered[number])))
        return int(answer.get("number", after))

    def _accept(self, line: MasterLine, order: Order) -> None:
        """Take an order, unless it is over or another keeper has been faster."""
        if not order.is_look:
            try:
                self._put(line, order.number, {"state": "running", "take": True})
            except ChannelError as error:
                if error.status in _REFUSALS:
                    return
                self._known.discard(order.number)
                raise
            log.info("operation %d: %s %s", order.number, order.kind, order.arguments)
        with self._news:
            self._orders.put(order)
            self._news.notify_all()

    def _end(self, numbers: set[int]) -> None:
        """Note orders that are not to be done any more; of old ones nobody asks."""
        self._ended = {*sorted(self._ended)[-_REMEMBERED:], *numbers}

    def _failed(self, error: Exception, retry: float) -> float:
        """Say what went wrong, once; wait; return how long to wait next time."""
        said = str(error)
        is_unknown = isinstance(error, ChannelError) and error.status == _NOT_FOUND
        if is_unknown:
            said = "the master lets nobody ask something of NEO through it"
        if said != self._said:
            log.info("%s", said)
            self._said = said
        time.sleep(_UNKNOWN_RETRY if is_unknown else retry)
        return min(2 * retry, _LONGEST_RETRY)

    def _tell(self) -> None:
        """Tell the reports, each until the master has it or refuses it."""
        line, retry = MasterLine(self._place), _FIRST_RETRY
        while True:
            with self._reports_changed:
                self._reports_changed.wait_for(lambda: bool(self._reports))
                number, report = next(iter(self._reports.items()))
            try:
                self._put(line, number, report)
                retry = _FIRST_RETRY
            except ChannelError as error:
                if error.status not in _REFUSALS:
                    time.sleep(retry)
                    retry = min(2 * retry, _LONGEST_RETRY)
                    continue
                log.info("operation %d: the master refused a report: %s", number, error)
                self._end({number})
            except OSError:
                time.sleep(retry)
                continue
            with self._reports_changed:
                if self._reports[number] is report:
                    del self._reports[number]

    def _put(self, line: MasterLine, number: int, report: Document) -> None:
        """Send one report."""
        body = {**self._place.names, "keeper": self._keeper, **report}
        line.call("PUT", f"cluster/operations/{number}", body=body)


def _described(document: Document) -> tuple[str, bool, Document]:
    """Return kind, whether it is a look, and arguments of an operation of the master."""
    return str(document["kind"]), bool(document["look"]), dict(document["arguments"])
