# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computers with agents."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from computer import Computer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what no partition of root's could do."""
    if os.geteuid() != 0:
        return
    reason = (
        "partitions must not belong to root: run this as an ordinary user, as ./wendelin test does"
    )
    for item in items:
        if {"computer", "shared"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def computer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    """A computer of one test; its agent does not run yet."""
    made = Computer(tmp_path_factory.mktemp("c"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    """A computer of all tests of a module, with a running agent and the release built."""
    folder = tmp_path_factory.mktemp("c")
    with Computer.running(folder, partitions=20, promise_time=10.0) as made:
        yield made
