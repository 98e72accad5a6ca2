# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three simulated computers under fire, with the real thing on them.

Most tests share one environment. Each leaves it well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Cluster
from environment import Environment, new_environment
from reports import report, write_reports

__all__ = ["report"]


def pytest_configure() -> None:
    """Refuse root: what the tests start is not to be trusted with the machine."""
    if os.getuid() == 0:
        pytest.exit("tests/lab wants an ordinary user: ./wendelin test tests/lab", 1)


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    """Yield an environment that ``./wendelin up`` has brought up, with its proof."""
    with new_environment() as made:
        made.up()
        yield made


@pytest.fixture
def cluster(environment: Environment) -> Iterator[Cluster]:
    """Yield the cluster of the environment, well before and after the test."""
    environment.cluster.wait_until_well()
    yield environment.cluster
    environment.cluster.wait_until_well()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what tests have measured."""
    write_reports(terminalreporter, config)
