# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others' tests need: the environment of NEO's, and their runs."""

import os
import sys
import tempfile
import unittest.mock
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import write_certificates
from compiled_mariadb import compiled
from neo_kept import Kept, kept_cluster
from neo_suite import NeoRuns, build_environment, submitted

__all__ = ["compiled"]

# slapos.core's tests import the package of that name, which became unittest.mock long ago.
sys.modules.setdefault("mock", unittest.mock)


@pytest.fixture(scope="session")
def neo_python() -> str:
    """A Python that has the wheel of component/neoppod."""
    return os.environ.get("WENDELIN_NEO_PYTHON") or build_environment()


@pytest.fixture(scope="session")
def certificates() -> Iterator[Path]:
    """Folder with ca.crt, node.crt and node.key, that nobody else may read."""
    with tempfile.TemporaryDirectory() as folder:
        write_certificates(Path(folder))
        yield Path(folder)


@pytest.fixture(scope="session")
def neo_runs(
    request: pytest.FixtureRequest,
    neo_python: str,
    certificates: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[NeoRuns]:
    """Runs of the modules whose cases are selected, all queued at once."""
    runs = NeoRuns(neo_python, certificates, tmp_path_factory.mktemp("neo"))
    yield from submitted(request, runs, lambda parameters: parameters.get("neo_case"))


@pytest.fixture
def kept(neo_python: str, tmp_path: Path) -> Iterator[Kept]:
    """A cluster whose keeper does what is asked for, and nothing by itself."""
    with kept_cluster(Path(neo_python).parent, tmp_path) as started:
        yield started
