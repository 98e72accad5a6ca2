# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a long command does, step by step, with times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

#: Seconds between two lines about one step where no terminal shows a changing line.
LINE_INTERVAL = 10.0


class Say(Protocol):
    """Tells what a step is at."""

    def __call__(self, text: str) -> None:
        """Show *text*, one line, instead of what was shown before."""


class Progress:
    """Prints one line for each step: what it was and how long it took."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Say]:
        """Run one step; yields a function that tells what it is at."""
        begin = time.monotonic()
        with self._changing_line(title) as say:
            try:
                yield say
            except BaseException:
                self._print("✗", title, begin)
                raise
        self._print("✓", title, begin)

    def _print(self, mark: str, title: str, begin: float) -> None:
        """Print the outcome of a step that began at *begin*."""
        seconds = time.monotonic() - begin
        self.console.print(f"{mark} {title:<46} {seconds:6.1f} s", markup=False)

    @contextmanager
    def _changing_line(self, title: str) -> Iterator[Say]:
        """Show the step on a line that changes in place, or now and then on a new line."""
        if self.console.is_terminal:
            with self.console.status(title) as status:
                yield lambda text: status.update(f"{title}: {text}")
            return
        last = time.monotonic()
        shown = ""

        def say(text: str) -> None:
            nonlocal last, shown
            if text != shown and time.monotonic() - last >= LINE_INTERVAL:
                last, shown = time.monotonic(), text
                self.console.print(f"  {title}: {text}", markup=False)

        yield say
