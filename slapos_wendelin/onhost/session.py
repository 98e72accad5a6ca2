# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The side of the host: one session at a time, which ends when the other side is gone."""

from __future__ import annotations

import fcntl
import io
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.onhost import frames

#: Where the session is held that works on this host.
LOCK = Path("/run/slapos-wendelin.lock")
#: Seconds between two signs of life of the other side, and after how many it counts as gone.
BEAT, SILENCE = 2.0, 20.0
_SETPRIV = shutil.which("setpriv") or "/usr/bin/setpriv"
#: Pieces of data that wait at most.
_WAITING = 64
#: Lines of a failed program's output that its error repeats.
_SHOWN_LINES = 3


class BusyHostError(WendelinError):
    """Somebody else works on the host."""


class Session:
    """What the joining machine says, and what is said to it.

    :param exit_now: ends this process when the joining machine is gone.
    """

    def __init__(
        self,
        source: BinaryIO,
        drain: io.TextIOBase | Any,
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        self._exit_now = exit_now
        self._source = source
        self._drain = drain
        self._saying = threading.Lock()
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._data: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._heard = time.monotonic()
        self._is_waiting_for_room = False
        self._is_over = threading.Event()
        #: The program that runs now.
        self.child: subprocess.Popen[str] | None = None
        self.lock = -1
        for work in (self._read, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def say(self, event: str, **values: Any) -> None:
        """Tell the joining machine what happens."""
        line = json.dumps({"event": event, **values})
        with self._saying:
            self._drain.write(f"{frames.EVENT_MARK}{line}\n")
            self._drain.flush()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell that a step begins, and that it was done."""
        self.say("begin", step=name)
        yield
        self.say("done", step=name)

    def ask(self, what: str, **values: Any) -> dict[str, Any]:
        """Ask the joining machine for something and return its answer."""
        self.say("need", what=what, **values)
        answer = self._messages.get()
        if answer is None:
            raise CommandError("the connection was lost", "repeat the command")
        return answer

    def data(self) -> BinaryIO:
        """Return what comes as data after it was asked for, up to its end."""
        return io.BufferedReader(_Data(self._data), 1 << 20)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        doing: str,
        environment: Mapping[str, str] | None = None,
        given: str | None = None,
    ) -> str:
        """Run a program that dies with this one, and return what it wrote.

        :param doing: what it is for; begins the message of the error.
        :param environment: variables that it has besides those of this program.
        :param given: what it reads.
        :raises CommandError: when it fails, with its last lines.
        """
        # The lock is inherited: whatever outlives this program still holds the host.
        self.child = subprocess.Popen(
            [_SETPRIV, "--pdeathsig", "KILL", "--", *map(str, command)],
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | dict(environment or {}),
            start_new_session=True,
            pass_fds=[self.lock] if self.lock >= 0 else [],
        )
        out, _ = self.child.communicate(given)
        status = self.child.returncode
        self.child = None
        if status:
            lines = [line.strip() for line in out.splitlines() if line.strip()]
            said = " | ".join(lines[-_SHOWN_LINES:]) or f"status {status}"
            raise CommandError(f"{doing} failed: {said}", "mend that, then repeat the command")
        return out

    @contextmanager
    def held(self, who: str) -> Iterator[None]:
        """Hold the host: nobody else works on it meanwhile.

        :param who: what others are told.
        :raises BusyHostError: when somebody else does.
        """
        self.lock = _locked(LOCK)
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{who}, process {os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            LOCK.unlink(missing_ok=True)
            os.close(self.lock)
            self.lock = -1

    def _read(self) -> None:
        """Take what the joining machine sends, until it goes away."""
        while (frame := frames.read(self._source.read)) is not None:
            self._heard = time.monotonic()
            if self.lock >= 0:
                # It may be given back right now.
                with suppress(OSError):
                    os.utime(self.lock)
            if frame.kind == frames.DATA:
                self._is_waiting_for_room = True
                self._data.put(frame.content)
                self._is_waiting_for_room = False
                self._heard = time.monotonic()
            elif "beat" not in frame.message:
                self._messages.put(frame.message)
        self._end()

    def _watch(self) -> None:
        """End when the other side is silent for too long: a cut connection may never be closed.

        The other side is given signs of life for the same reason.
        """
        while not self._is_over.wait(BEAT):
            if not self._is_waiting_for_room and time.monotonic() - self._heard > SILENCE:
                self._end()
            with suppress(OSError):
                self.say("beat")

    def _end(self) -> None:
        """End at once, with the program that runs; every step can be repeated."""
        child = self.child
        if child is not None and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        self._is_over.set()
        self._exit_now(3)


class _Data(io.RawIOBase):
    """Pieces of data as one stream."""

    def __init__(self, pieces: queue.Queue[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._is_over = False

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what is there, waiting for it."""
        if not self._rest and not self._is_over:
            piece = self._pieces.get()
            self._is_over = not piece
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _locked(path: Path) -> int:
    """Return the open file by which the host is held.

    :raises BusyHostError: when somebody else holds it.
    """
    begin = time.monotonic()
    last_sign, signs = 0, 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            sign = os.fstat(descriptor).st_mtime_ns
            os.close(descriptor)
            waited = time.monotonic() - begin
            # One whose other side is gone ends by itself; nobody is refused for that. What it had
            # sent before may be still on its way, and comes at once.
            signs += sign != last_sign and waited > BEAT
            last_sign = sign
            if signs > 1 or waited > SILENCE + 2 * BEAT:
                raise BusyHostError(
                    f"somebody else works on this host: {who or 'another session'}",
                    "wait until that ends, then repeat the command",
                ) from None
            time.sleep(BEAT / 4)
            continue
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether an open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def standard() -> Session:
    """Return the session with whoever has started this program."""
    drain = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # What programs write does not get among the events.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Session(sys.stdin.buffer, drain)
