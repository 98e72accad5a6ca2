# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NEO's own tests and ZODB's storage tests pass on the wheel of component/neoppod, on SQLite.

Cases are listed in neo-cases.txt (one a line; refresh it with ``--list`` of neo_runner.py), and
those that do not pass in neo-skips.toml with the reason. Both are strict.
"""

import subprocess
from pathlib import Path

import pytest
from neo_suite import RUNNER, NeoRuns, neo_cases, neo_expectations, neo_modules


@pytest.mark.parametrize("neo_case", [pytest.param(case, id=case[4:]) for case in neo_cases()])
def test_case(neo_case: str, neo_runs: NeoRuns) -> None:
    run = neo_runs.outcome(neo_case)
    expected = neo_expectations().get(neo_case)
    if expected is None:
        assert run["outcome"] == "passed", run["detail"]
        return
    assert run["outcome"] == expected.outcome, f"neo-skips.toml is wrong about it\n{run['detail']}"
    assert expected.detail in run["detail"]
    if expected.outcome == "skipped":
        pytest.skip(expected.reason)
    pytest.xfail(expected.reason)


def test_every_case_of_the_wheel_is_listed(
    neo_python: str, certificates: Path, tmp_path: Path
) -> None:
    listing = subprocess.run(
        [neo_python, RUNNER, "--list", *neo_modules()],
        check=True,
        capture_output=True,
        text=True,
        env={"TEMP": str(tmp_path), "NEO_TESTS_SSL": str(certificates)},
    )
    assert listing.stdout.splitlines() == neo_cases()


def test_every_module_of_the_wheel_is_listed(neo_python: str) -> None:
    code = (
        "import neo.tests, pathlib;"
        "root = pathlib.Path(neo.tests.__file__).parents[2];"
        "[print('.'.join(p.relative_to(root).with_suffix('').parts))"
        " for p in root.glob('neo/tests/**/test*.py')]"
    )
    listing = subprocess.run(
        [neo_python, "-I", "-c", code], check=True, capture_output=True, text=True
    )
    # MySQL needs a server; VersionStorage left ZODB; RecoveryTests never ran; StorageDBTests is
    # the base of the tests of both backends.
    other = {
        "neo.tests.storage.testStorageMySQL",
        "neo.tests.storage.testStorageDBTests",
        "neo.tests.zodb.testVersion",
        "neo.tests.zodb.testRecovery",
    }
    assert set(listing.stdout.split()) - other == set(neo_modules())


def test_every_expectation_is_about_a_case() -> None:
    assert set(neo_expectations()) <= set(neo_cases())
