# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a keeper does what operators ask for, between its own steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neo.neoctl.neoctl import NeoCTL, NotReadyException

from slapos_wendelin.neo.errors import OperationError
from slapos_wendelin.neo.tasks import Access, Document, Task, make_task

if TYPE_CHECKING:
    from slapos_wendelin.neo.channel import Channel, Order

#: Seconds between two reports of what goes on, when nothing changes.
_HEARTBEAT = 10.0

#: Seconds that a task waits for a primary master before it fails, and a longer one does.
_NOT_READY_PATIENCE, _LONG_PATIENCE = 10.0, 600.0


@dataclass
class _Work:
    """A task under way."""

    order: Order
    task: Task
    ready_at: float = field(default_factory=time.monotonic)
    told: Document = field(default_factory=dict)
    told_at: float = 0.0


class Desk:
    """The orders of a channel, done one step at a time and told of."""

    def __init__(self, channel: Channel, access: Access) -> None:
        self._channel = channel
        self._access = access
        self._works: list[_Work] = []

    @property
    def is_alone(self) -> bool:
        """Whether the keeper has to leave the cluster as it is for now."""
        return any(each.task.is_alone for each in self._works)

    @property
    def is_busy(self) -> bool:
        """Whether something that was asked for is not done yet."""
        return bool(self._works)

    def work(self, control: NeoCTL) -> None:
        """Do the next step of everything that was asked for.

        :raises NotReadyException: when the admin has no primary master.
        """
        for order in self._channel.take():
            self._begin(order)
        not_ready: NotReadyException | None = None
        for work in list(self._works):
            if self._channel.is_ended(work.order.number):
                work.task.stop()
                self._works.remove(work)
                continue
            try:
                self._advance(work, control)
            except NotReadyException as error:
                not_ready = error
        if not_ready is not None:
            raise not_ready

    def stop(self) -> None:
        """Leave off everything; another run of the keeper takes it up."""
        for work in self._works:
            work.task.stop()

    def _begin(self, order: Order) -> None:
        """Take up an order."""
        try:
            task = make_task(order.kind, order.arguments, self._access, is_look=order.is_look)
        except OperationError as error:
            self._fail(order, error)
        else:
            self._works.append(_Work(order, task))

    def _advance(self, work: _Work, control: NeoCTL) -> None:
        """Do one step of a task and tell how it goes."""
        try:
            result = work.task.advance(control)
        except NotReadyException as error:
            self._wait(work, error)
            raise
        except OperationError as error:
            self._end(work, error)
            return
        except RuntimeError as error:
            self._end(work, OperationError(f"NEO's master refuses: {error}"))
            return
        work.ready_at = time.monotonic()
        if result is None:
            self._tell(work)
            return
        self._channel.report(work.order.number, "done", result=result, progress=work.task.progress)
        self._works.remove(work)

    def _wait(self, work: _Work, error: NotReadyException) -> None:
        """Let a task wait for a primary master, but not for ever."""
        waited = time.monotonic() - work.ready_at
        is_brief = work.order.is_look or not work.told
        if waited > (_NOT_READY_PATIENCE if is_brief else _LONG_PATIENCE):
            self._end(
                work,
                OperationError(
                    f"the admin of the cluster has had no primary master for {waited:.0f} s:"
                    f" {error}",
                    "see what is wrong with its masters: `slapos cluster status`",
                ),
            )
        elif not is_brief:
            work.task.progress = {**work.task.progress, "phase": "waits for a primary master"}
            self._tell(work)

    def _tell(self, work: _Work) -> None:
        """Tell how far a task has come, when that is news or nothing was told for some time."""
        now = time.monotonic()
        progress = work.task.progress
        if work.order.is_look or (progress == work.told and now - work.told_at < _HEARTBEAT):
            return
        work.told, work.told_at = dict(progress), now
        self._channel.report(work.order.number, "running", progress=progress)

    def _end(self, work: _Work, error: OperationError) -> None:
        """Tell that a task has failed, and forget it."""
        work.task.stop()
        self._fail(work.order, error)
        self._works.remove(work)

    def _fail(self, order: Order, error: OperationError) -> None:
        """Tell that an order cannot be done."""
        self._channel.report(
            order.number, "failed", error=error.message[:2000], remedy=error.remedy[:2000]
        )
