# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a keeper does when an operator asks for it, one step at a time.

Each can be begun again by another run of the keeper, and has the same effect then.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neo.lib.protocol import CellStates, NodeStates, uuid_str
from neo.neoctl.neoctl import NeoCTL

from slapos_wendelin.neo.control import (
    Survey,
    cells_by_storage,
    is_running,
    names,
    survey,
    tweak,
)
from slapos_wendelin.neo.errors import OperationError
from slapos_wendelin.neo.state import read_state

Document = dict[str, Any]

#: Seconds that nothing may change while cells are copied, where one of a large database takes long,
#: and that a pack may take.
COPY_PATIENCE, PACK_PATIENCE = 6 * 3600.0, 24 * 3600.0

#: Seconds that a transaction may take to finish, with what clocks may differ.
FINISHING_TIME = 10.0

_SEE_STATUS = "see `slapos cluster status` for what is wrong with it"


@dataclass(frozen=True)
class Access:
    """How clients reach the cluster; without a name nobody packs it."""

    cluster: str = ""
    masters: str = ""
    certificates: Path | None = None


class Task(ABC):
    """Something that was asked for."""

    #: Whether the keeper has to leave the cluster as it is meanwhile.
    is_alone = False

    def __init__(self) -> None:
        #: How far it has come.
        self.progress: Document = {}

    @abstractmethod
    def advance(self, control: NeoCTL) -> Document | None:
        """Do the next step; return the result, or None when that is not all.

        :raises OperationError: when it cannot be done.
        :raises NotReadyException: when the admin has no primary master.
        """

    def stop(self) -> None:  # noqa: B027 - most have nothing to leave off
        """Leave off; what NEO does by itself goes on."""


class Look(Task):
    """Tell how the cluster is."""

    def advance(self, control: NeoCTL) -> Document:
        """Return nodes and partition table."""
        found = read_state(control)
        rows = found.pop("partition-table")
        by_storage: dict[str, list[str]] = {}
        for offset, row in enumerate(rows):
            for storage, state in row:
                by_storage.setdefault(storage, ["."] * len(rows))[offset] = state[0]
        cells = {storage: "".join(letters) for storage, letters in sorted(by_storage.items())}
        return {**found, "partitions": len(rows), "cells": cells}


class Tweak(Task):
    """Spread the cells over the storages, or tell what that would change."""

    def __init__(self, arguments: Document, *, dry_run: bool) -> None:
        super().__init__()
        self._without = list(arguments.get("without", []))
        self._dry_run = dry_run

    def advance(self, control: NeoCTL) -> Document:
        """Tweak once."""
        found = survey(control)
        left_out = _left_out(found, self._without)
        changed, rows = tweak(control, left_out, dry_run=True)
        if changed and not self._dry_run:
            changed, rows = tweak(control, left_out)
        return {
            "changed": changed,
            "partitions": len(rows),
            "before": cells_by_storage(found.rows),
            "after": cells_by_storage(rows) if changed else cells_by_storage(found.rows),
        }


class Balance(Task):
    """Tweak until nothing is left to change and all cells are copied."""

    def __init__(self, arguments: Document) -> None:
        super().__init__()
        self._without = list(arguments.get("without", []))
        self._tweaks = 0
        self._most = self._copied = 0
        self._begun = False
        self._changed_at = time.monotonic()

    def advance(self, control: NeoCTL) -> Document | None:
        """Tweak when nothing is being copied; count the copies that are under way."""
        found = survey(control)
        try:
            left_out = self._find_left_out(found)
        except OperationError as error:
            # What goes away in the middle is likely to come back.
            if not self._begun:
                raise
            self._note(phase=error.message)
            return None
        self._begun = True
        corrupted = found.cells(CellStates.CORRUPTED)
        if corrupted:
            raise OperationError(
                f"{len(corrupted)} cells are CORRUPTED, of NEO partition {corrupted[0][0]} on"
                f" {uuid_str(corrupted[0][1])} and so on",
                "drop that storage, and let the others make a new copy",
            )
        behind = found.cells(CellStates.OUT_OF_DATE) + found.cells(CellStates.FEEDING)
        copying = [each for each in behind if each[1] not in left_out]
        if copying:
            self._most = max(self._most, len(copying))
            self._note(phase="copying", copying=len(copying), most=self._most)
            return None
        self._copied, self._most = self._copied + self._most, 0
        changed, _ = tweak(control, left_out, dry_run=True)
        if not changed:
            return {"tweaks": self._tweaks, "copied": self._copied, "replicas": found.replicas}
        _, rows = tweak(control, left_out)
        self._tweaks += 1
        self._most = sum(
            state == CellStates.OUT_OF_DATE and storage not in left_out
            for row in rows
            for storage, state in row
        )
        self._note(phase="copying", copying=self._most, most=self._most)
        return None

    def _find_left_out(self, found: Survey) -> list[int]:
        """Return the storages that do not count; one that has come back counts again."""
        if self._begun:
            running = {
                uuid_str(each)
                for each, state in found.storages.items()
                if state == NodeStates.RUNNING
            }
            self._without = [each for each in self._without if each not in running]
        return _left_out(found, self._without)

    def _note(self, **progress: Any) -> None:
        """Keep how far it has come; give up when that has been the same for too long."""
        told = {**progress, "tweaks": self._tweaks}
        now = time.monotonic()
        if told != self.progress:
            self.progress, self._changed_at = told, now
        elif now - self._changed_at > COPY_PATIENCE:
            raise OperationError(
                f"nothing has changed for {COPY_PATIENCE / 3600:.0f} hours: {progress['phase']},"
                f" {progress.get('copying', 'no')} cells are left",
                "see the logs of the storages (`neolog`); the cluster copies on, ask again",
            )


class Pack(Task):
    """Forget what objects were before a time, on all storages at once.

    Whatever would copy cells meanwhile waits, and a storage that is away would keep what the
    others forget: replicas would differ. So all have to be there and up to date. They would differ
    too by a transaction before that time that one of them finishes before it packs and another
    after it: transactions get some time to finish.
    """

    is_alone = True

    def __init__(self, arguments: Document, access: Access) -> None:
        super().__init__()
        self._before = float(arguments["before"])
        self._access = access
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is there as long as the task
        self._since: dict[int, Any] = {}
        self._began = time.monotonic()

    def advance(self, control: NeoCTL) -> Document | None:
        """Start a client that packs, and see how it goes."""
        if self._process is None:
            self._since = _all_up_to_date(survey(control)).since
            if time.time() < self._before + FINISHING_TIME:
                self.progress = {"phase": "waiting until transactions under way have finished"}
                return None
            self._process = self._start()
        seconds = time.monotonic() - self._began
        self.progress = {"phase": "packing", "seconds": int(seconds)}
        status = self._process.poll()
        if status is None:
            if seconds > PACK_PATIENCE:
                self.stop()
                raise OperationError(
                    f"packing took longer than {PACK_PATIENCE / 3600:.0f} hours",
                    "the storages go on; ask again, up to an earlier time",
                )
            return None
        if status:
            raise OperationError(f"packing failed: {self._last_line()}", _SEE_STATUS)
        after = survey(control)
        gone = sorted(each for each, at in self._since.items() if after.since.get(each) != at)
        if gone or after.not_running():
            raise OperationError(
                f"{names(gone or after.not_running())} went away while the others packed, and may"
                " have history that they have not",
                "ask again for the same when all storages run",
            )
        return {"before": self._before, "storages": len(self._since), "seconds": int(seconds)}

    def stop(self) -> None:
        """End the client; the storages go on with what they have begun."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the client, which ends with this process."""
        if not self._access.cluster:
            raise OperationError(
                "this keeper does not know the name of its cluster", "upgrade the cluster"
            )
        command = [sys.executable, "-m", "slapos_wendelin.neo.packing"]
        command += ["--cluster", self._access.cluster, "--masters", self._access.masters]
        command += ["--before", repr(self._before)]
        if self._access.certificates:
            command += ["--certificates", str(self._access.certificates)]
        # setpriv of util-linux asks the kernel to kill the client when the keeper has gone.
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        return subprocess.Popen(
            prefix + command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def _last_line(self) -> str:
        """Return the last line that the client wrote."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((each.strip()[:500] for each in reversed(lines) if each.strip()), "no reason")


def make_task(kind: str, arguments: Document, access: Access, *, is_look: bool) -> Task:
    """Return the task of an order.

    :raises OperationError: when this keeper does not know it.
    """
    if is_look:
        makers = {"state": Look, "tweak": lambda: Tweak(arguments, dry_run=True)}
    else:
        makers = {
            "tweak": lambda: Tweak(arguments, dry_run=False),
            "balance": lambda: Balance(arguments),
            "pack": lambda: Pack(arguments, access),
        }
    if kind not in makers:
        raise OperationError(f"this keeper knows no {kind!r}", "upgrade the cluster")
    return makers[kind]()


def _left_out(found: Survey, without: list[str]) -> list[int]:
    """Return the storages that do not count.

    :raises OperationError: when one of them runs, or one that is away is not among them.
    """
    if not is_running(found):
        raise OperationError(f"the cluster is {found.state}, not RUNNING", _SEE_STATUS)
    known = {uuid_str(each): each for each in found.storages}
    for name in without:
        if name not in known:
            raise OperationError(
                f"the cluster has no storage {name}", "see `slapos cluster neo nodes`"
            )
        if found.storages[known[name]] == NodeStates.RUNNING:
            raise OperationError(
                f"storage {name} runs, so the keeper spreads the cells over it too",
                "take it away first: `slapos cluster move` or `slapos computer drain`",
            )
    left_out = [known[name] for name in without]
    missing = [each for each in found.not_running() if each not in left_out]
    if missing:
        raise OperationError(
            f"{names(missing)} is {found.storages[missing[0]]}",
            "wait until it is back, or leave it out with --without: the others then copy what it"
            " has",
        )
    return left_out


def _all_up_to_date(found: Survey) -> Survey:
    """Return a survey of a cluster that can be packed.

    :raises OperationError: when a storage is away or a cell is not up to date.
    """
    if not is_running(found):
        raise OperationError(f"the cluster is {found.state}, not RUNNING", _SEE_STATUS)
    away = sorted(each for each, state in found.storages.items() if state != NodeStates.RUNNING)
    if away:
        raise OperationError(
            f"{names(away)} is {found.storages[away[0]]}, and would keep history that the others"
            " forget",
            "pack when all storages run",
        )
    behind = sum(state != CellStates.UP_TO_DATE for row in found.rows for _, state in row)
    if behind:
        raise OperationError(
            f"{behind} cells are not up to date",
            "pack when all copies are there: `slapos cluster neo balance` waits for them",
        )
    return found
