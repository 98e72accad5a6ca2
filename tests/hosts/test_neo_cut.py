# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network is cut while clients of NEO write: one side goes on, and nothing promised is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from compiled_mariadb import find_compiled
from neo_history import MariaDB, NeoOverHosts, check_history, check_replicas, running_neo
from neo_suite import build_environment

from slapos_wendelin.lab import Lab

Report = Callable[[str], None]

#: Seconds after a cut, until those that are cut off stop for sure. See LEASE in neo.master.quorum.
LEASE = 6


@dataclass(frozen=True)
class Engine:
    """What storages run on: a Python that has NEO, and a MariaDB unless it is SQLite."""

    python: Path
    mariadb: MariaDB | None = None


@pytest.fixture(scope="module", params=["sqlite", "innodb"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Return each engine; that of MariaDB only where it is compiled."""
    if request.param == "sqlite":
        return Engine(Path(build_environment()))
    compiled = find_compiled(tmp_path_factory.mktemp("buildout"))
    if isinstance(compiled, str):
        pytest.skip(compiled)
    python = build_environment("-mariadb", (compiled.wheel,))
    return Engine(Path(python), MariaDB(compiled.mariadb))


@pytest.fixture
def neo(lab: Lab, engine: Engine, tmp_path: Path) -> Iterator[NeoOverHosts]:
    """Yield a cluster over three data centers, with a client that writes in each."""
    with running_neo(lab, engine.python, tmp_path, mariadb=engine.mariadb) as running:
        running.write_from_everywhere()
        yield running


def finish(neo: NeoOverHosts, what: str, report: Report, gone: str = "") -> None:
    """Wait until all is whole again while clients write, and check what they were promised.

    :param gone: the host whose client has ended.
    """
    neo.wait_for_commits(*(name for name in neo.writers if name != gone))
    neo.stop_writing()
    check_history(neo)
    check_replicas(neo)
    pauses = ", ".join(f"{name} {each.longest_pause():.1f} s" for name, each in neo.writers.items())
    total = sum(len(each.acknowledged()) for each in neo.writers.values())
    report(f"{what}: {total} commits acknowledged and found; longest pauses: {pauses}")


@pytest.mark.parametrize("which", ["of the primary master", "of another master"])
def test_a_data_center_that_is_cut_off_stops_and_the_majority_goes_on(
    lab: Lab, neo: NeoOverHosts, report: Report, which: str
) -> None:
    primary = neo.primary()
    names = sorted(neo.hosts)
    lost = primary if which == "of the primary master" else next(n for n in names if n != primary)
    others = neo.others(lost)
    center = lab.data_center(neo.hosts[lost].data_center)
    cut_at = time.monotonic()
    center.cut()
    neo.wait_for_commits(*others)
    # A few seconds more, in which the others commit and those that are cut off must not.
    while time.monotonic() < cut_at + 3 * LEASE:
        neo.wait_for_commits(*others)
    healed_at = time.monotonic()
    center.heal()
    assert not neo.writers[lost].acknowledged(cut_at + LEASE, healed_at)
    finish(neo, f"data center {which} cut off for {healed_at - cut_at:.0f} s", report)


def test_two_data_centers_that_cannot_see_each_other_do_not_both_go_on(
    lab: Lab, neo: NeoOverHosts, report: Report
) -> None:
    primary = neo.primary()
    other = next(name for name in sorted(neo.hosts) if name != primary)
    link = lab.link(neo.hosts[primary].data_center, neo.hosts[other].data_center)
    cut_at = time.monotonic()
    link.cut()
    neo.wait_for_commits(primary, count=30)
    while time.monotonic() < cut_at + 2 * LEASE:
        neo.wait_for_commits(primary)
    link.heal()
    finish(neo, "way to the primary master cut", report)


def test_a_host_that_loses_its_power_comes_back_with_all_that_was_promised(
    neo: NeoOverHosts, report: Report
) -> None:
    lost = neo.hosts[neo.primary()]
    others = neo.others(lost.name)
    lost.power_off()
    neo.wait_for_commits(*others)
    lost.power_on()
    neo.start_nodes(lost)
    neo.wait_for_commits(*others)
    finish(neo, "host of the primary master without power", report, gone=lost.name)


def test_a_host_that_hangs_is_left_and_follows_when_it_goes_on(
    neo: NeoOverHosts, report: Report
) -> None:
    hung = neo.hosts[neo.primary()]
    others = neo.others(hung.name)
    hung.freeze()
    neo.wait_for_commits(*others)
    hung.thaw()
    finish(neo, "host of the primary master hung", report)
