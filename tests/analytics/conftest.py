# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases and workers for the tests of arrays.

These tests run in the analytics environment: `python -m pytest tests/analytics`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from slapos_wendelin.neo import client
from slapos_wendelin.neo.servers import NeoCluster, ZeoServer
from slapos_wendelin.neo.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

needs_neo = pytest.mark.skipif(
    importlib.util.find_spec("neo") is None, reason="the wheel of component/neoppod is missing"
)


EXAMPLES = Path(__file__).parents[2] / "examples"

# Workers find the examples as this process does.
sys.path.insert(0, str(EXAMPLES))
os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])


def pytest_configure(config: pytest.Config) -> None:
    """Let the threads of NEO's client end as they do, by SystemExit."""
    config.addinivalue_line(
        "filterwarnings",
        "ignore:Exception in thread test-:pytest.PytestUnhandledThreadExceptionWarning",
    )


SERVERS = [pytest.param("zeo"), pytest.param("neo", marks=needs_neo)]


@pytest.fixture
def file_uri(tmp_path: Path) -> Iterator[str]:
    """Address of an empty database in a file."""
    yield f"file://{tmp_path}/data.fs"
    client.close_databases()


@pytest.fixture(params=["file", *SERVERS])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database of each kind."""
    match request.param:
        case "file":
            yield f"file://{tmp_path}/data.fs"
            client.close_databases()
        case "zeo":
            with ZeoServer(tmp_path) as servers:
                yield servers.uri
        case "neo":
            with NeoCluster(tmp_path) as servers:
                yield servers.uri


@pytest.fixture(params=SERVERS)
def server_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty database that several processes can use."""
    with ZeoServer(tmp_path) if request.param == "zeo" else NeoCluster(tmp_path) as servers:
        yield servers.uri


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """Two worker processes."""
    with Workers(None, count=2, memory_limit=2**30) as started:
        yield started
