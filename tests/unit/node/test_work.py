# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an agent does next, decided without doing it."""

from __future__ import annotations

import math
from typing import Any

from slapos_wendelin.node.work import (
    AWAY_RETRY,
    ERROR_INTERVAL,
    FIRST_RED_RETRY,
    FIRST_RETRY,
    LAST_RETRY,
    LOOK_INTERVAL,
    REMOVAL_RETRY,
    Phase,
    Report,
    Work,
)

URL = "https://example.org/software.cfg"


def told(name: str = "p0", **values: Any) -> dict[str, Any]:
    """Return what the master wants of a partition."""
    return {
        "name": name,
        "instance": "cluster",
        "state": "started",
        "release": URL,
        "software": "/soft",
        "timestamp": "1",
        "is_due": True,
        "has_error": None,
    } | values


def software(**values: Any) -> dict[str, Any]:
    """Return what the master wants of the release."""
    return {"url": URL, "state": "available", "is_due": True} | values


def promise(message: str, *, red: bool) -> dict[str, dict[str, Any]]:
    """Return what the only promise of a partition says."""
    return {"it-runs.py": {"red": red, "message": message, "date": "", "period": 60.0}}


def work_on(*partitions: dict[str, Any], software: list[dict[str, Any]] | None = None) -> Work:
    """Return work that has learnt something at the time 0."""
    work = Work()
    work.learn(partitions, software or [], 0.0)
    return work


def settled(**values: Any) -> Work:
    """Return work with one partition where all is well, and the master knows it."""
    return work_on(told(is_due=False, has_error=False, **values))


def test_what_is_due_is_processed_once() -> None:
    work = work_on(told(), told("p1", is_due=False))
    assert work.next_partition(0.0).name == "p0"
    assert work.next_partition(0.0) is None
    work.learn([told(), told("p1", is_due=False)], [], 1.0)
    assert work.next_partition(1.0) is None
    work.processed("p0", "well", "", 2.0)
    assert work.partitions["p0"].phase is Phase.SETTLED
    assert work.next_time(2.0, has_place=True) == math.inf


def test_a_change_during_the_processing_leads_to_another_one_after_it() -> None:
    work = work_on(told())
    work.next_partition(0.0)
    work.learn([told(timestamp="2")], [], 1.0)
    assert work.next_partition(1.0) is None
    work.processed("p0", "well", "", 2.0)
    assert work.next_partition(2.0).name == "p0"


def test_failures_are_retried_more_and_more_rarely_and_a_change_at_once() -> None:
    work, now, pauses = work_on(told()), 0.0, []
    for _ in range(8):
        assert work.next_partition(now).name == "p0"
        work.processed("p0", "failed", "no disk", now)
        assert work.next_partition(now) is None
        pauses.append(work.next_time(now, has_place=True) - now)
        now += pauses[-1]
    assert pauses[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert pauses[-1] == LAST_RETRY
    work.next_partition(now)
    work.processed("p0", "failed", "no disk", now)
    work.learn([told(timestamp="2")], [], now)
    assert work.next_partition(now).name == "p0"


def test_an_absent_master_is_no_failure() -> None:
    work = work_on(told())
    work.next_partition(0.0)
    work.processed("p0", "away", "", 0.0)
    assert work.next_time(0.0, has_place=True) == AWAY_RETRY


def test_red_promises_lead_to_another_processing_late_or_as_soon_as_they_are_green() -> None:
    work = work_on(told())
    work.next_partition(0.0)
    work.processed("p0", "red", "Promise 'it-runs.py' failed with output: no", 0.0)
    assert work.next_time(0.0, has_place=True) == FIRST_RED_RETRY
    assert work.partitions["p0"].is_watched
    work.said("p0", promise("no", red=True), 0, 1.0)
    assert work.next_partition(1.0) is None
    assert work.report(1.0) is None
    work.said("p0", promise("yes", red=False), 0, 2.0)
    assert work.next_partition(2.0).name == "p0"


def test_the_master_is_told_when_promises_change_and_not_twice() -> None:
    work = settled()
    work.said("p0", promise("runs", red=False), 0, 0.0)
    assert work.report(0.0) is None
    work.said("p0", promise("dead", red=True), 0, 1.0)
    error = "Promise 'it-runs.py' failed with output: dead"
    assert work.report(1.0) == Report("p0", error)
    assert work.report(1.0) is None
    work.said("p0", promise("runs", red=False), 0, 2.0)
    assert work.report(2.0) == Report("p0", "")


def test_changing_words_of_a_red_promise_are_told_now_and_then() -> None:
    work = settled()
    work.said("p0", promise("1", red=True), 0, 0.0)
    assert work.report(0.0).error.endswith(": 1")
    work.said("p0", promise("2", red=True), 0, 1.0)
    assert work.report(1.0).error.endswith(": 2")
    work.said("p0", promise("3", red=True), 0, 2.0)
    assert work.report(2.0) is None
    assert work.next_time(2.0, has_place=True) == 1.0 + ERROR_INTERVAL
    assert work.report(1.0 + ERROR_INTERVAL).error.endswith(": 3")


def test_what_the_master_could_not_be_told_is_told_again() -> None:
    work = settled()
    work.said("p0", promise("dead", red=True), 0, 0.0)
    assert work.report(0.0) is not None
    work.unreported("p0", 0.0)
    assert work.report(0.0) is None
    assert work.next_time(0.0, has_place=True) == AWAY_RETRY
    assert work.report(AWAY_RETRY) is not None


def test_a_new_agent_tells_a_master_that_knows_an_older_error() -> None:
    for has_error in (True, None):
        work = work_on(told(is_due=False, has_error=has_error))
        assert work.report(0.0) is None
        work.said("p0", promise("runs", red=False), 0, 0.0)
        assert work.report(0.0) == Report("p0", "")


def test_nothing_is_told_before_all_promises_have_run() -> None:
    work = settled()
    work.said("p0", promise("dead", red=True), 1, 0.0)
    assert work.report(0.0) is None


def test_a_partition_waits_for_its_release_until_that_was_tried() -> None:
    work = work_on(told(), software=[software()])
    assert work.next_partition(0.0) is None
    assert work.build(0.0)
    assert not work.build(0.0)
    work.built(1.0, well=False)
    work.learn([told()], [software()], 1.0)
    # Its processing says what is missing.
    assert work.next_partition(1.0).name == "p0"
    assert not work.build(1.0)
    assert work.build(1.0 + FIRST_RETRY)


def test_a_release_asked_for_while_another_fails_is_built_at_once() -> None:
    work = work_on(software=[software()])
    work.build(0.0)
    work.built(0.0, well=False)
    work.learn([], [software(), software(url="https://example.org/other.cfg")], 0.5)
    assert work.build(0.5)


def test_a_partition_that_is_not_empty_yet_is_emptied_again_later() -> None:
    work = work_on(told(state="destroyed"))
    work.next_partition(0.0)
    work.processed("p0", "well", "", 0.0)
    work.learn([told(state="destroyed")], [], 1.0)
    assert work.next_partition(1.0) is None
    assert work.next_time(1.0, has_place=True) == REMOVAL_RETRY
    work.learn([], [], 2.0)
    assert not work.partitions


def test_promises_that_only_slapgrid_can_run_are_looked_at_by_it() -> None:
    work = settled()
    work.partitions["p0"].is_foreign = True
    assert work.look(0.0).name == "p0"
    assert work.look(0.0) is None
    work.looked("p0", "red", "Promise 'x.py' failed with output: no")
    assert work.report(0.0) is not None
    assert work.next_time(0.0, has_place=True) == LOOK_INTERVAL


def test_waiting_partitions_do_not_wake_an_agent_that_has_no_place_for_them() -> None:
    work = work_on(told())
    assert work.next_time(0.0, has_place=False) == math.inf
    assert work.places(1, 4) == 1
    work.next_partition(0.0)
    assert work.places(1, 4) == 0
    work.installed("p0")
    assert work.places(1, 4) == 1
