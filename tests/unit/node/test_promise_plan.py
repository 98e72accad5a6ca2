# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When which promise is run, decided without running any."""

from __future__ import annotations

import math

from slapos_wendelin.node.promise_plan import (
    FIRST_PAUSE,
    FIRST_RETRY,
    PERIOD,
    Outcome,
    PartitionPlan,
    PromisePlan,
)

GREEN, RED = Outcome(False, "runs"), Outcome(True, "dead")


def watched(*names: str) -> PartitionPlan:
    """Return the plan of a partition that is watched from the time 0 on."""
    plan = PartitionPlan(is_watched=True)
    plan.update(names, 0.0)
    return plan


def test_a_promise_is_run_as_often_as_it_wants() -> None:
    plan = PromisePlan(next_run=0.0)
    plan.ran(10.0, GREEN)
    assert plan.next_run == 10.0 + PERIOD
    plan.ran(200.0, GREEN, 3.0)
    assert plan.next_run == 203.0


def test_a_red_promise_is_looked_at_again_soon_and_then_more_rarely() -> None:
    plan, pauses = PromisePlan(next_run=0.0), []
    for _ in range(8):
        plan.ran(0.0, RED, 60.0)
        pauses.append(plan.next_run)
    assert pauses[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert pauses[-1] == 60.0


def test_a_promise_that_only_tests_is_not_repeated() -> None:
    plan = PromisePlan(next_run=0.0)
    plan.ran(0.0, GREEN, is_test=True, is_repeated=False)
    assert plan.next_run == math.inf
    plan.ran(0.0, None)
    assert plan.outcome is GREEN


def test_one_promise_of_a_partition_runs_at_a_time() -> None:
    plan = watched("a", "b")
    assert plan.due(0.0) == ("a", True)
    plan.is_running = True
    assert plan.due(0.0) is None
    assert plan.next_time() is None


def test_a_test_runs_all_and_repeats_the_red_ones_until_they_are_green() -> None:
    plan = watched("a", "b")
    plan.begin_test(0.0, 3.0)
    assert plan.due(0.0) == ("a", False)
    assert not plan.test.ran("a", is_red=True, now=0.0)
    assert plan.due(0.0) == ("b", False)
    assert not plan.test.ran("b", is_red=False, now=0.0)
    assert plan.due(0.0) is None
    assert plan.next_time() == FIRST_PAUSE
    assert plan.due(FIRST_PAUSE) == ("a", False)
    assert plan.test.ran("a", is_red=False, now=FIRST_PAUSE)


def test_a_test_ends_when_time_is_up() -> None:
    plan = watched("a")
    plan.begin_test(0.0, 3.0)
    assert not plan.test.ran("a", is_red=True, now=2.9)
    assert plan.test.ran("a", is_red=True, now=3.1)


def test_promises_that_went_are_forgotten() -> None:
    plan = watched("a", "b")
    plan.promises["a"].ran(0.0, RED)
    assert dict(plan.red()) == {"a": RED}
    assert plan.update(["b"], 1.0)
    assert not dict(plan.red())


def test_a_partition_that_is_not_watched_is_only_tested() -> None:
    plan = PartitionPlan()
    plan.update(["a"], 0.0)
    assert plan.due(0.0) is None
    plan.begin_test(0.0, 1.0)
    assert plan.due(0.0) == ("a", False)
