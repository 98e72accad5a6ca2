# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When which promise is run: pure bookkeeping, in seconds of a monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

#: Seconds between two looks at a promise that has not said how often it wants to be run.
PERIOD = 120.0
#: Seconds before a red promise is looked at again, doubled each time up to its own period.
FIRST_RETRY = 2.0
#: Seconds before the promises of a partition that was just started are looked at again.
FIRST_PAUSE, LAST_PAUSE = 0.1, 1.0
#: Seconds between two bangs of a partition.
BANG_INTERVAL = 60.0


@dataclass
class Outcome:
    """What a promise said last."""

    is_red: bool
    message: str
    #: When, as slapos.core writes it.
    date: str = ""


@dataclass
class PromisePlan:
    """When a promise is due, and what it said."""

    next_run: float
    period: float = PERIOD
    retry: float = FIRST_RETRY
    outcome: Outcome | None = None

    def ran(
        self,
        now: float,
        outcome: Outcome | None,
        period: float | None = None,
        *,
        is_test: bool = False,
        is_repeated: bool = True,
    ) -> None:
        """Note that it ran.

        :param outcome: None when it has nothing to say in this mode.
        :param period: how often it wants to be run; None when it could not say.
        :param is_test: whether it ran in a test, in which red promises are repeated quickly.
        :param is_repeated: whether it wants to be run again without another test.
        """
        self.outcome = outcome or self.outcome
        self.period = period or self.period
        if not is_repeated:
            self.next_run = math.inf
        elif outcome is not None and outcome.is_red:
            self.next_run = now + min(self.retry, self.period)
            self.retry = FIRST_RETRY if is_test else 2 * self.retry
        else:
            self.retry = FIRST_RETRY
            self.next_run = now + self.period


@dataclass
class Test:
    """All promises of a partition that was just processed, until they are green or time is up."""

    deadline: float
    pending: list[str]
    not_before: float = 0.0
    pause: float = FIRST_PAUSE
    red: list[str] = field(default_factory=list)

    def next(self, now: float) -> str | None:
        """Return the promise to run now."""
        return self.pending[0] if self.pending and now >= self.not_before else None

    def ran(self, name: str, *, is_red: bool, now: float) -> bool:
        """Note that a promise ran; return whether the test is over."""
        self.pending.remove(name)
        if is_red:
            self.red.append(name)
        if self.pending:
            return False
        if not self.red or now >= self.deadline:
            return True
        self.pending, self.red = self.red, []
        self.not_before = now + self.pause
        self.pause = min(2 * self.pause, LAST_PAUSE)
        return False


@dataclass
class PartitionPlan:
    """The promises of one partition, of which one runs at a time."""

    promises: dict[str, PromisePlan] = field(default_factory=dict)
    test: Test | None = None
    is_running: bool = False
    #: Whether they are looked at again and again; else only when they are tested.
    is_watched: bool = False
    next_bang: float = 0.0

    def update(self, names: Iterable[str], now: float) -> bool:
        """Take over the promises that are there now; return whether one with an outcome went."""
        names = set(names)
        gone = [name for name in self.promises if name not in names]
        lost = any(self.promises.pop(name).outcome is not None for name in gone)
        for name in sorted(names):
            self.promises.setdefault(name, PromisePlan(next_run=now))
        if self.test is not None:
            self.test.pending = [name for name in self.test.pending if name in names]
        return lost

    def begin_test(self, now: float, patience: float) -> None:
        """Run all promises now, and the red ones again for *patience* seconds."""
        self.test = Test(now + patience, list(self.promises))

    def due(self, now: float) -> tuple[str, bool] | None:
        """Return the promise to run now and whether it looks for an anomaly (else it tests)."""
        if self.is_running:
            return None
        if self.test is not None:
            name = self.test.next(now)
            return None if name is None else (name, False)
        if not self.is_watched or not self.promises:
            return None
        name, plan = min(self.promises.items(), key=lambda item: item[1].next_run)
        return (name, True) if plan.next_run <= now else None

    def next_time(self) -> float | None:
        """Return when the next promise is due; None when nothing is to be waited for."""
        if self.is_running:
            return None
        if self.test is not None:
            return self.test.not_before
        if not self.is_watched:
            return None
        return min((plan.next_run for plan in self.promises.values()), default=None)

    def red(self) -> Iterator[tuple[str, Outcome]]:
        """Return the promises that are red, in the order of their names."""
        for name, plan in sorted(self.promises.items()):
            if plan.outcome is not None and plan.outcome.is_red:
                yield name, plan.outcome
