# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapos.core's own tests of a slap master: their cases, what is expected of each, one run."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import tomllib
import traceback
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slapproxy_master import in_place_of_slapproxy

MODULES = ("slapos.tests.test_slapproxy", "slapos.tests.test_slapproxy_json_rpc")
DIFFERENCES = Path(__file__).with_name("slapproxy-differences.toml")

#: Seconds after which a case is stuck: the stacks of all threads are printed and the process ends.
STUCK = 240


@dataclass(frozen=True)
class Expectation:
    """What is expected of a case that does not simply pass."""

    #: The adaptations without which it would fail; see slapproxy_dialect.
    adapted: frozenset[str]
    #: Why it fails; empty when it passes.
    reason: str
    #: What its error holds.
    detail: str


_PASSES = Expectation(frozenset(), "", "")


@dataclass
class Outcome:
    """How a case ended."""

    #: Empty when it passed.
    error: str
    skipped: str
    adapted: frozenset[str]


class _Result(unittest.TestResult):
    """Keeps the errors of one case."""

    def __init__(self) -> None:
        super().__init__()
        self.errors_of_case: list[str] = []

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: ARG002, N802
        """Keep a failed assertion."""
        self.errors_of_case.append("".join(traceback.format_exception(*err)))

    addError = addFailure  # noqa: N815


def all_cases() -> dict[str, unittest.TestCase]:
    """Return every case of the modules by its name."""
    loader = unittest.TestLoader()
    loaded = [loader.loadTestsFromModule(importlib.import_module(name)) for name in MODULES]
    return {case.id(): case for suite in loaded for case in _flat(suite)}


def _flat(tests: Any) -> Iterator[unittest.TestCase]:
    """Give the cases of a suite."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def left_out_classes() -> dict[str, str]:
    """Return the reason for each class of which no case is run."""
    return {each["id"]: each["reason"] for each in _differences()["left_out"]}


def cases() -> list[str]:
    """Return the names of the cases that are run."""
    left_out = left_out_classes()
    return [name for name in all_cases() if name.rpartition(".")[0] not in left_out]


def expectation(name: str) -> Expectation:
    """Return what slapproxy-differences.toml says of a case."""
    return expectations().get(name) or expectations().get(name.rpartition(".")[0]) or _PASSES


@cache
def expectations() -> dict[str, Expectation]:
    """Return what slapproxy-differences.toml says of cases and classes."""
    differences = _differences()
    failing = {
        each["id"]: Expectation(frozenset(), each["reason"], each.get("detail", ""))
        for each in differences["fails"]
    }
    adapted = {
        name: frozenset(kind for kind, names in differences["adapted"].items() if name in names)
        for names in differences["adapted"].values()
        for name in names
    }
    return failing | {name: Expectation(kinds, "", "") for name, kinds in adapted.items()}


def _differences() -> dict[str, Any]:
    return tomllib.loads(DIFFERENCES.read_text())


def run(name: str) -> Outcome:
    """Run one case on a master of its own."""
    result = _Result()
    folder = Path.cwd()
    faulthandler.dump_traceback_later(STUCK, exit=True)
    try:
        with in_place_of_slapproxy() as adaptations, contextlib.redirect_stderr(None):
            all_cases()[name].run(result)
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.chdir(folder)
    skipped = result.skipped[0][1] if result.skipped else ""
    return Outcome("\n".join(result.errors_of_case), skipped, frozenset(adaptations.used))
