# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NEO's own tests and ZODB's storage tests pass on MariaDB too, with InnoDB and with RocksDB.

    ./wendelin test tests/conformance/test_neo_mariadb.py

They need a compiled MariaDB (./wendelin build component/mysqlclient, or a cache of compiled parts);
without one they are skipped. What does not pass is in neo-skips.toml and neo-skips-mariadb.toml,
with the reason. Both are strict.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compiled_mariadb import Compiled
from neo_mariadb import ENGINES, Server, mariadb_cases, running_server, variables
from neo_suite import (
    RUNNER,
    Expectation,
    NeoRuns,
    build_environment,
    neo_cases,
    neo_expectations,
    neo_modules,
    submitted,
)


@pytest.fixture(scope="session")
def python(compiled: Compiled) -> str:
    """A Python that has the wheels of component/neoppod and component/mysqlclient."""
    return build_environment("-mariadb", (compiled.wheel,))


@pytest.fixture(scope="session")
def server(compiled: Compiled) -> Iterator[Server]:
    """A server that has both engines."""
    with running_server(compiled.mariadb) as found:
        yield found


@pytest.fixture(scope="session", params=ENGINES)
def runs(
    request: pytest.FixtureRequest,
    python: str,
    server: Server,
    certificates: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[NeoRuns]:
    """Runs of the modules whose cases are selected for an engine, all queued at once."""
    engine = request.param
    folder = tmp_path_factory.mktemp(engine)
    found = NeoRuns(python, certificates, folder, variables(server, engine))

    def case_of(parameters: dict[str, object]) -> str | None:
        return parameters["case"] if parameters.get("runs") == engine else None

    yield from submitted(request, found, case_of)


def expectations(engine: str) -> dict[str, Expectation]:
    """Return what does not pass on an engine."""
    return neo_expectations() | neo_expectations("neo-skips-mariadb.toml", engine)


@pytest.mark.parametrize("case", [pytest.param(case, id=case[4:]) for case in mariadb_cases()])
def test_case(runs: NeoRuns, case: str, request: pytest.FixtureRequest) -> None:
    run = runs.outcome(case)
    expected = expectations(request.node.callspec.params["runs"]).get(case)
    if expected is None or expected.outcome == "passed":
        assert run["outcome"] == "passed", run["detail"]
        return
    assert run["outcome"] == expected.outcome, f"the files are wrong about it\n{run['detail']}"
    assert expected.detail in run["detail"]
    if expected.outcome == "skipped":
        pytest.skip(expected.reason)
    pytest.xfail(expected.reason)


def test_every_case_of_mariadb_is_listed(python: str, tmp_path: Path) -> None:
    own = neo_cases("neo-cases-mariadb.txt")
    listing = subprocess.run(
        [python, RUNNER, "--list", *neo_modules(own)],
        check=True,
        capture_output=True,
        text=True,
        env={"TEMP": str(tmp_path)},
    )
    assert listing.stdout.splitlines() == own


@pytest.mark.parametrize("engine", ENGINES)
def test_every_expectation_is_about_a_case(engine: str) -> None:
    found = neo_expectations("neo-skips-mariadb.toml", engine)
    assert set(found) <= set(mariadb_cases())
