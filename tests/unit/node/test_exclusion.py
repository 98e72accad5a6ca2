# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who keeps the agent from working, and who only seems to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from slapos_wendelin.node.exclusion import holder_of

#: Tells the number of a thread and waits for the end of its input.
PROGRAM = """\
import sys, threading
thread = threading.Thread(target=sys.stdin.read)
thread.start()
print(thread.native_id, flush=True)
"""


class Slapgrid(NamedTuple):
    """A process whose command is like that of ``slapos node``, and a thread of it."""

    process: subprocess.Popen[str]
    thread: int


@pytest.fixture
def slapgrid() -> Iterator[Slapgrid]:
    """Yield a process that has its command: a new one is there before its command can be read."""
    command = [sys.executable, "-c", PROGRAM, "slapos", "node", "software"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield Slapgrid(process, int(process.stdout.readline()))


def test_the_process_that_has_written_the_file_holds_it(slapgrid: Slapgrid, tmp_path: Path) -> None:
    pid_file = tmp_path / "software.pid"
    assert holder_of(pid_file) is None
    pid_file.write_text(str(slapgrid.process.pid))
    assert holder_of(pid_file) == slapgrid.process.pid
    slapgrid.process.communicate()
    assert holder_of(pid_file) is None


def test_a_later_process_of_the_same_number_does_not_hold_it(
    slapgrid: Slapgrid, tmp_path: Path
) -> None:
    pid_file = tmp_path / "software.pid"
    pid_file.write_text(str(slapgrid.process.pid))
    before = pid_file.stat().st_mtime - 60
    os.utime(pid_file, (before, before))
    assert holder_of(pid_file) is None


def test_a_thread_of_the_same_number_does_not_hold_it(slapgrid: Slapgrid, tmp_path: Path) -> None:
    pid_file = tmp_path / "software.pid"
    pid_file.write_text(str(slapgrid.thread))
    assert holder_of(pid_file) is None
