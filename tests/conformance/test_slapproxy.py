# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapos.core's own tests of a slap master pass on this master.

Cases that do not apply, and those that speak slapproxy's dialect, are named in
slapproxy-differences.toml. Both are strict.
"""

import pytest
from slapproxy_suite import all_cases, cases, expectation, expectations, left_out_classes, run


@pytest.mark.parametrize(
    "slapproxy_case",
    [pytest.param(case, id=case.removeprefix("slapos.tests.")) for case in cases()],
)
def test_case(slapproxy_case: str) -> None:
    outcome = run(slapproxy_case)
    expected = expectation(slapproxy_case)
    assert not outcome.skipped
    if expected.reason:
        assert outcome.error, f"it passes: {expected.reason} is wrong"
        assert expected.detail in outcome.error, outcome.error
        pytest.xfail(expected.reason)
    assert not outcome.error, outcome.error
    assert outcome.adapted == expected.adapted


def test_every_difference_is_about_a_case_or_a_class() -> None:
    names = set(all_cases())
    classes = {name.rpartition(".")[0] for name in names}
    assert set(expectations()) <= names | classes
    assert set(left_out_classes()) <= classes


def test_what_is_left_out_is_run_in_another_class() -> None:
    """Of the classes left out each case is that of a class that is run, but for one."""
    loaded = all_cases()
    run_as = {(type(loaded[name]), name.rpartition(".")[2]) for name in cases()}
    only_there = set()
    for name in set(loaded) - set(cases()):
        method = name.rpartition(".")[2]
        if not any((base, method) in run_as for base in type(loaded[name]).__mro__):
            only_there.add(method)
    assert only_there == {"test_automatic_migration"}
