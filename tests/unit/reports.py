# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines that tests have measured something for, to be shown at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_KEY = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what keeps a line for the end of the run."""
    return request.config.stash.setdefault(_KEY, []).append


def write_reports(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the lines that were kept."""
    for line in config.stash.get(_KEY, []):
        reporter.write_line(line)
