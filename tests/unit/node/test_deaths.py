# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of programs that have died."""

from __future__ import annotations

from typing import Any

from slapos_wendelin.node.deaths import LIFETIME, MOST, Deaths


def test_the_master_is_told_of_programs_as_people_name_them() -> None:
    deaths = Deaths()
    deaths.note("slappart1:storage-on-watch", 10.0)
    deaths.note("slappart1:storage-on-watch", 20.0)
    deaths.note("slappart10-manager:tool", 15.0)
    deaths.note("elsewhere:tool", 15.0)
    assert deaths.report(["slappart1", "slappart10"]) == [
        {"partition": "slappart1", "program": "storage", "count": 2, "last": 20.0},
        {"partition": "slappart10", "program": "tool", "count": 1, "last": 15.0},
    ]


def test_it_is_told_of_the_latest_when_there_are_too_many() -> None:
    deaths = Deaths()
    for number in range(MOST + 5):
        deaths.note(f"slappart0:tool{number}", float(number))
    told = deaths.report(["slappart0"])
    assert len(told) == MOST
    assert told[0]["program"] == f"tool{MOST + 4}"


def test_programs_that_are_gone_and_deaths_of_long_ago_are_forgotten() -> None:
    deaths = Deaths()
    for name, at in (("a:gone", 100.0), ("a:old", 0.0), ("a:new", 100.0)):
        deaths.note(name, at)
    deaths.keep({"a:old", "a:new"}, LIFETIME + 50.0)
    assert list(deaths.told()) == ["a:new"]


def test_what_an_earlier_agent_told_is_counted_on() -> None:
    earlier, later = Deaths(), Deaths()
    earlier.note("a:tool", 1.0)
    later.remember(earlier.told())
    later.note("a:tool", 2.0)
    assert later.told() == {"a:tool": {"count": 2, "last": 2.0}}
    of_another_version: dict[str, Any] = {"a:tool": 3}
    later.remember(of_another_version)
    assert later.told() == {"a:tool": {"count": 2, "last": 2.0}}


def test_whoever_tells_is_woken_by_each_death() -> None:
    woken = []
    deaths = Deaths(lambda: woken.append(1))
    deaths.note("a:tool", 1.0)
    deaths.note("a:tool", 2.0)
    assert woken == [1, 1]
