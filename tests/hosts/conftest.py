# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts on one machine. Tests share a lab and leave it well, or build one of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from operators import Operator, made_operator
from reports import report, write_reports

from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.requirements import require

__all__ = ["report"]

FOLDER = Path(__file__).parent
#: How long the shared lab took to stand and to fall, in seconds.
times = pytest.StashKey[dict[str, float]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip without root, which a lab needs: one line for each file says so."""
    if os.geteuid() != 0:
        reason = "many hosts on one machine need root: sudo ./wendelin test tests/hosts"
        for item in items:
            if FOLDER in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """Fail where something else than root is missing."""
    require()


@pytest.fixture(scope="session")
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Yield three data centers of two hosts each."""
    took = request.config.stash.setdefault(times, {})
    begin = time.monotonic()
    with Lab.build({"paris": 2, "tokyo": 2, "virginia": 2}) as lab:
        took["stood after"] = time.monotonic() - begin
        yield lab
        begin = time.monotonic()
    took["was gone after"] = time.monotonic() - begin


@pytest.fixture(scope="session")
def computer_of_root(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Operator, Host]]:
    """Yield the operator of a cloud of one computer, and the computer."""
    with Lab.build({"paris": 1}) as lab:
        operator = made_operator(lab, tmp_path_factory)
        host = lab.host("paris-1")
        assert operator.join(host, "--partitions", "8")["result"] == "joined"
        yield operator, host
        operator.stop_master()


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """Yield the shared lab, with nothing cut or slow, before and after the test."""
    yield shared_lab
    for center in shared_lab.data_centers.values():
        center.heal()
        for link in center.links:
            link.heal()
            link.slow_down(0)
            link.lose(0)
            link.limit(0)
    for host in shared_lab.hosts.values():
        host.thaw()
        host.power_on()
        host.heal()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how long the shared lab took, and what tests have measured."""
    for what, seconds in config.stash.get(times, {}).items():
        terminalreporter.write_line(f"the lab of 3 data centers x 2 hosts {what} {seconds:.2f} s")
    write_reports(terminalreporter, config)
