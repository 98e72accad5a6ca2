# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NEO's own test suite: its cases, those that may not pass, and the runs that give outcomes."""

import configparser
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
RUNNER = HERE / "neo_runner.py"

#: Seconds that the cases of one module may take together, on a slow machine.
MODULE_TIMEOUT = 900


def neo_cases(name: str = "neo-cases.txt") -> list[str]:
    """Return the names of all cases in a file."""
    lines = (HERE / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def neo_modules(cases: list[str] | None = None) -> list[str]:
    """Return the modules of cases, those of the file unless given, in their order."""
    return list({case.rsplit(".", 2)[0]: None for case in cases or neo_cases()})


@dataclass(frozen=True)
class Expectation:
    """A case that is not expected to pass."""

    outcome: str
    reason: str
    detail: str


def neo_expectations(name: str = "neo-skips.toml", engine: str = "") -> dict[str, Expectation]:
    """Return what a file says, for the user that runs the tests and an engine of MariaDB."""
    root = os.geteuid() == 0
    entries = tomllib.loads((HERE / name).read_text()).get("case", [])
    return {
        entry["id"]: Expectation(entry["outcome"], entry["reason"], entry.get("detail", ""))
        for entry in entries
        if (root or entry.get("user") != "root") and entry.get("engine", engine) == engine
    }


def build_environment(kind: str = "", wheels: tuple[Path, ...] = ()) -> str:
    """Build wheel and environment like a software release does; nothing is done twice.

    :param kind: names an environment that has more wheels.
    """
    cache = os.environ.get("WENDELIN_CACHE") or Path.home() / ".cache" / "wendelin"
    version = f"{sys.version_info.major}.{sys.version_info.minor}{kind}"
    folder = Path(cache) / "conformance" / version
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            Path(sys.executable).with_name("buildout"),
            f"-c{HERE / 'buildout.cfg'}",
            f"buildout:directory={folder}",
            f"buildout:shared-part-list={folder / 'shared'}",
            *(f"neo-tests:partial-wheels={wheel}" for wheel in wheels),
        ],
        check=True,
        cwd=folder,
    )
    installed = configparser.RawConfigParser(strict=False)
    installed.read(folder / ".installed.cfg")
    return installed["neo-tests"]["python"]


class NeoRuns:
    """Runs modules of NEO's tests, at most two at a time, and keeps the outcome of each case.

    Modules that start processes run one after another: their ports are chosen before they start.
    """

    def __init__(
        self,
        python: str,
        certificates: Path,
        temporary: Path,
        variables: Callable[[str], dict[str, str]] = lambda _: {"NEO_TESTS_ADAPTER": "SQLite"},
    ) -> None:
        """Run nothing yet.

        :param variables: those that say, for each module, where its databases are.
        """
        self.python = python
        self.temporary = temporary
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        } | {"NEO_TESTS_SSL": str(certificates)}
        self.variables = variables
        self._pools = {False: ThreadPoolExecutor(1), True: ThreadPoolExecutor(1)}
        self._futures: dict[str, Future[dict[str, dict[str, str]]]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def submit(self, module: str, selected: list[str]) -> None:
        """Queue the given cases of a module."""
        pool = self._pools[".functional." in module]
        self._futures[module] = pool.submit(self._run, module, selected)

    def outcome(self, case: str) -> dict[str, str]:
        """Wait for the outcome of a case."""
        result = self._futures[case.rsplit(".", 2)[0]].result()
        return result.get(case) or {
            "outcome": "failed",
            "detail": f"the case was not run to its end\n{result['output']['detail']}",
        }

    def _run(self, module: str, selected: list[str]) -> dict[str, dict[str, str]]:
        folder = self.temporary / module.removeprefix("neo.tests.")
        folder.mkdir()
        report = folder / "report.jsonl"
        report.touch()
        options = [f"--case={case}" for case in selected]
        command = [self.python, "-X", "faulthandler", RUNNER, f"--report={report}", *options]
        with (folder / "output.txt").open("wb") as output, self._lock:
            if self._stopped:
                return {"output": {"outcome": "failed", "detail": "interrupted"}}
            process = subprocess.Popen(
                [*command, module],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment | self.variables(module) | {"TEMP": str(folder)},
                cwd=folder,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(MODULE_TIMEOUT)
        finally:
            self._kill(process)
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        tail = (folder / "output.txt").read_text(errors="replace")[-4000:]
        return {line["case"]: line for line in lines} | {
            "output": {"outcome": "failed", "detail": tail}
        }

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a run with all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._running.discard(process)

    def close(self) -> None:
        """End what still runs."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                self._kill(process)
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)


def submitted(
    request: pytest.FixtureRequest,
    runs: NeoRuns,
    case_of: Callable[[Mapping[str, Any]], str | None],
) -> Iterator[NeoRuns]:
    """Queue the cases of the selected tests, then yield the runs.

    :param case_of: returns the case of a test with such parameters, None when it has none.
    """
    selected: dict[str, list[str]] = {}
    for item in request.session.items:
        parameters = getattr(item, "callspec", None) and item.callspec.params
        case = case_of(parameters or {})
        if case:
            selected.setdefault(case.rsplit(".", 2)[0], []).append(case)
    try:
        for module, cases in selected.items():
            runs.submit(module, cases)
        yield runs
    finally:
        runs.close()
