# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what happens to many hosts at once: a table on a terminal, else a line for each step."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slapos_wendelin.remote.target import Target


class HostProgress:
    """What is shown; every host has a listener of its own."""

    def __init__(
        self, targets: Sequence[Target], steps: Mapping[str, str], console: Console
    ) -> None:
        self._steps = steps
        self._console = console
        self._guard = threading.Lock()
        self.lines = [HostLine(self, target) for target in targets]
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._table, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def print(self, line: HostLine, text: str) -> None:
        """Print a line where no table is shown."""
        if self._live is None:
            with self._guard:
                self._console.print(f"{line.name}: {text}", markup=False, soft_wrap=True)

    def words(self, step: str) -> str:
        """Return what a step is for."""
        return self._steps.get(step, step)

    def _table(self) -> Table:
        """Return all hosts with what they are at."""
        table = Table("host", "step", "", "seconds", box=None, pad_edge=False)
        for line in self.lines:
            table.add_row(*(Text(each) for each in line.cells()))
        return table


class HostLine:
    """What is shown of one host."""

    def __init__(self, progress: HostProgress, target: Target) -> None:
        self._progress = progress
        self.name = target.name or str(target.address)
        self._began = time.monotonic()
        self._step = "waits"
        self._text = ""
        self._is_over = False
        self._seconds = 0.0

    def begin(self, step: str) -> None:
        """Hear that a step begins."""
        if self._step == "waits":
            self._began = time.monotonic()
        self._step, self._text = self._progress.words(step), ""

    def say(self, text: str) -> None:
        """Hear what the step is at."""
        self._text = text

    def end(self, step: str, seconds: float, *, kept: bool) -> None:
        """Hear that a step is over."""
        how = "nothing to do" if kept else f"{seconds:.1f} s"
        self._progress.print(self, f"{self._progress.words(step)}: {how}")

    def finish(self, result: str, text: str) -> None:
        """Hear that all is over."""
        self._step, self._text, self._is_over = result, text, True
        self._seconds = time.monotonic() - self._began
        self._progress.print(self, f"{result}{': ' if text else ''}{text}")

    def cells(self) -> tuple[str, str, str, str]:
        """Return the columns of the table."""
        seconds = self._seconds if self._is_over else time.monotonic() - self._began
        shown = "" if self._step == "waits" else f"{seconds:.0f}"
        return self.name, self._step, self._text, shown
