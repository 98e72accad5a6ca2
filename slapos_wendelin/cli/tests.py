# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's tests with all that they need."""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slapos_wendelin.errors import CommandError


@dataclass(frozen=True)
class Suite:
    """A set of tests that one pytest runs."""

    name: str
    paths: tuple[str, ...]
    #: Whether it runs in the analytics environment, which has numpy and NEO's client.
    analytics: bool = False


#: Suites of one lane run one after another, lanes of about the same length beside each other: they
#: wait for much of their time. The lab is alone at the end: it stops whole data centers and should
#: not have to share the machine.
LANES = (
    (Suite("master", ("tests/unit/master",)),),
    (Suite("conformance", ("tests/conformance",)),),
    (
        Suite("unit", ("tests/unit", "--ignore=tests/unit/master")),
        Suite("analytics", ("tests/analytics",), analytics=True),
    ),
)
LAB = Suite("lab", ("tests/lab",))

#: How hosts come into a cloud and leave it: the half of the tests with many hosts.
JOINING = tuple(
    f"tests/hosts/test_{name}.py" for name in ("join", "join_ipv6", "create", "readme_computers")
)

#: Tests with many hosts, which need root. Labs do not meet each other.
HOST_LANES = (
    (Suite("joining", JOINING),),
    (Suite("hosts", ("tests/hosts", *(f"--ignore={path}" for path in JOINING))),),
)


class TestRun:
    """One run of all tests of the sources in a folder."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.cache = cache
        self.programs = Path(sys.executable).parent
        self.environment = os.environ | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "WENDELIN_CACHE": str(cache),
        }
        self.results: list[tuple[str, bool, float]] = []

    def run(self) -> int:
        """Check style and types, then run every suite; return the exit status."""
        self._note("ruff check", [str(self.programs / "ruff"), "check"])
        self._note("ruff format", [str(self.programs / "ruff"), "format", "--check"])
        pyright = [str(self.programs / "pyright"), "--pythonpath"]
        self._note("pyright", [*pyright, sys.executable])
        analytics = self.analytics_python()
        self._note("pyright neo", [*pyright, analytics, "--project", "slapos_wendelin/neo"])
        self._lanes(LANES, analytics)
        self._suite(LAB, analytics, is_alone=True)
        status = self._summary()
        # Called by root, the script runs them itself: what an ordinary user owns is not for root.
        if not os.environ.get("WENDELIN_HOST_TESTS"):
            print("skipped  hosts        they need root: sudo ./wendelin test tests/hosts")
        return status

    def run_hosts(self) -> int:
        """Run the tests with many hosts; return the exit status."""
        self._lanes(HOST_LANES)
        return self._summary()

    def _lanes(self, lanes: tuple[tuple[Suite, ...], ...], analytics: str = "") -> None:
        """Run lanes beside each other."""
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(lambda lane: [self._suite(suite, analytics) for suite in lane], lanes))

    def _summary(self) -> int:
        """Print how long all took, and return the exit status."""
        for name, well, seconds in self.results:
            print(f"{'passed' if well else 'FAILED'}  {name:<12} {seconds:6.1f} s")
        return int(not all(well for _, well, _ in self.results))

    def pytest(self, arguments: list[str]) -> int:
        """Run pytest with the user's arguments, in the environment that their paths ask for."""
        python = sys.executable
        if any(argument.startswith("tests/analytics") for argument in arguments):
            python = self.analytics_python()
        command = [python, "-m", "pytest", *arguments]
        return subprocess.run(
            command, cwd=self.source, env=self.environment, check=False
        ).returncode

    def analytics_python(self) -> str:
        """Build the environment of the analytics tests, once for the same content."""
        folder = (
            self.cache / "tests" / f"analytics-{sys.version_info.major}.{sys.version_info.minor}"
        )
        (folder / "shared").mkdir(parents=True, exist_ok=True)
        command = [
            str(self.programs / "buildout"),
            f"-c{self.source / 'tests' / 'analytics' / 'buildout.cfg'}",
            f"buildout:directory={folder}",
            f"buildout:shared-part-list={folder / 'shared'}",
        ]
        build = subprocess.run(
            command,
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if build.returncode:
            raise CommandError(
                f"the environment of the analytics tests was not built:\n{build.stdout[-2000:]}",
                "mend that, then ./wendelin test again",
            )
        installed = configparser.RawConfigParser(strict=False)
        installed.read(folder / ".installed.cfg")
        return installed["analytics-tests"]["python"]

    def _suite(self, suite: Suite, analytics: str, *, is_alone: bool = False) -> None:
        """Run one suite; its output is one piece unless it runs alone."""
        python = analytics if suite.analytics else sys.executable
        options = ["-v"] if is_alone else ["-q"]
        command = [python, "-m", "pytest", *options, "--durations=5", *suite.paths]
        self._note(suite.name, command, is_alone=is_alone)

    def _note(self, name: str, command: list[str], *, is_alone: bool = False) -> None:
        """Run a command and remember how it ended; print what it said, at once if it is alone."""
        begin = time.monotonic()
        done = subprocess.run(
            command,
            cwd=self.source,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=None if is_alone else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        seconds = time.monotonic() - begin
        self.results.append((name, done.returncode == 0, seconds))
        output = (done.stdout or b"").decode(errors="replace")
        print(f"==== {name}: {seconds:.1f} s\n{output}", flush=True)


def test(options: argparse.Namespace) -> int:
    """Check style and types, then run the tests; arguments go to pytest."""
    cache = Path(os.environ["WENDELIN_HOME"]) / "cache"
    tests = TestRun(Path(os.environ["WENDELIN_SOURCE"]), cache)
    if options.arguments:
        return tests.pytest(options.arguments)
    return tests.run_hosts() if os.environ.get("WENDELIN_HOST_TESTS") == "all" else tests.run()
