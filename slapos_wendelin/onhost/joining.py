# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a computer of this host, step by step; each step may be repeated at any time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slapos_wendelin import build_settings
from slapos_wendelin.errors import CommandError, ParameterError
from slapos_wendelin.files import sync_file_systems
from slapos_wendelin.onhost.agent import Agent
from slapos_wendelin.onhost.configuration import Computer
from slapos_wendelin.onhost.record import Record
from slapos_wendelin.onhost.session import Session
from slapos_wendelin.onhost.toolkit import Toolkit

#: Partitions of a computer unless somebody says otherwise.
PARTITIONS = 20
#: What the programs that make users leave behind.
_SIDE_EFFECTS = (
    "/etc/.pwd.lock",
    *(f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")),
)
#: The exit status of the toolkit when it lacks a token.
NEEDS_TOKEN = 3


class Joining:
    """One joining of this host.

    :param order: what the joining machine wants: ``name``, ``master``, ``prefix``, ``data``,
        ``partitions``, ``addresses``, ``builds``, ``python`` and ``toolkit``.
    """

    def __init__(self, session: Session, order: dict[str, Any]) -> None:
        self._session = session
        self._order = order
        self._record = Record()
        self._prefix, data = Path(order["prefix"]), Path(order["data"])
        before = self._record.values
        self._computer = Computer(
            name=order["name"],
            master=order["master"],
            data=data,
            partitions=order["partitions"] or before.get("partitions", PARTITIONS),
            block=order["addresses"] or before.get("addresses", ""),
            builds=build_settings.changed(before.get("builds", {}), order["builds"]),
        )
        self._toolkit = Toolkit(self._prefix, order["python"], order["toolkit"])
        self._agent = Agent(session, self._prefix, data, self._computer.settings)
        self._token = self._computer.folder / "ssl" / ".token"

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; return what is to be known."""
        self._begin()
        self._do("toolkit", self._order["toolkit"], self._install, self._is_installed)
        self._session.say("begin", step="certificate")
        entered = self._enter()
        self._record.note(entered=self._computer.name)
        self._session.say("done" if entered else "kept", step="certificate")
        texts = self._computer.texts()
        identity = _digest([self._computer.data.name, *texts.values()])
        self._do(
            "configuration", identity, lambda: self._computer.write(texts), self._is_configured
        )
        self._do("format", identity, self._format, self._is_formatted)
        agent = self._agent.identity(self._order["toolkit"])
        self._do("agent", _digest([agent, identity]), self._start, self._agent.is_running)
        with self._session.step("report"):
            self._call("wait", doing="waiting until the master has heard of the service")
        self._toolkit.remove_others(self._computer.data / "soft")
        return {
            "comes_back": self._record.values["comes_back"],
            "partitions": self._computer.partitions,
        }

    def _begin(self) -> None:
        """Note what is wanted; refuse what cannot be."""
        _check_folders(self._order["builds"])
        before = self._record.values.get("partitions", 0)
        if not self._record.values:
            self._record.note(made=traces(self._prefix, self._computer.data, self._computer.folder))
        if self._computer.partitions < before:
            raise ParameterError(
                f"the computer has {before} partitions, and cannot be given"
                f" {self._computer.partitions}",
                "leave and join again to have fewer",
            )
        (self._computer.data / "home").mkdir(mode=0o755, parents=True, exist_ok=True)
        self._record.note(
            computer=self._computer.name,
            master=self._computer.master,
            prefix=str(self._prefix),
            data=str(self._computer.data),
            partitions=self._computer.partitions,
            addresses=self._computer.block or None,
            builds=dict(self._computer.builds) or None,
        )

    def _do(
        self, step: str, identity: str, act: Callable[[], object], is_there: Callable[[], bool]
    ) -> None:
        """Do a step unless it was done in the same way and what came of it is still there."""
        self._session.say("begin", step=step)
        if self._record.is_done(step, identity) and is_there():
            self._session.say("kept", step=step)
            return
        self._record.note_step(step, None)
        act()
        # A step that is noted as done is done after a loss of power too.
        sync_file_systems([self._computer.data, self._computer.folder, self._prefix])
        self._record.note_step(step, identity)
        self._session.say("done", step=step)

    def _install(self) -> None:
        """Install the toolkit."""
        self._toolkit.install(self._session)

    def _is_installed(self) -> bool:
        """Say whether the toolkit is there."""
        return self._toolkit.is_installed()

    def _enter(self) -> bool:
        """Get a certificate from the master unless it takes the one that is there; say if so."""
        self._token.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        # A token that was used lets in again with the same key: the answer may have been lost.
        token = self._token.read_text() if self._token.exists() else ""
        if not token and self._call("enter") == 0:
            return False
        if token and self._call("enter", token=token) == 0:
            self._token.unlink()
            return True
        token = self._session.ask("token")["token"]
        descriptor = os.open(self._token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(token)
            os.fsync(stream.fileno())
        self._call("enter", token=token, doing="joining the master")
        self._token.unlink()
        return True

    def _call(self, action: str, token: str = "", doing: str = "") -> int:
        """Let the toolkit speak with the master; return 0, or NEEDS_TOKEN when it cannot enter.

        :param doing: what it is for, where it has to succeed.
        """
        given = {
            "action": action,
            "url": self._computer.master,
            "name": self._computer.name,
            "token": token,
            "certificate": str(self._computer.certificate),
            "partitions": self._computer.partitions,
        }
        program = [self._toolkit.current / "bin" / "python", "-m", "slapos_wendelin.node.entering"]
        out = self._session.run(
            program, doing=doing or "asking the master", given=json.dumps(given)
        )
        # Whatever else it says, as warnings, is no document.
        answer = json.loads(next(each for each in out.splitlines() if each.startswith("{")))
        if "error" in answer and (doing or not answer["may_enter"]):
            raise CommandError(answer["error"], answer["remedy"])
        return NEEDS_TOKEN if "error" in answer else 0

    def _is_configured(self) -> bool:
        """Say whether the configuration is there as it is to be."""
        return all(
            path.exists() and path.read_text() == text
            for path, text in self._computer.texts().items()
        )

    def _format(self) -> None:
        """Let slapformat make users and partitions and tell the master; then what it leaves out."""
        python = self._toolkit.current / "bin" / "python"
        settings = self._computer.settings
        self._session.run(
            [python, "-m", "slapos_wendelin.node.addresses", settings],
            doing="giving the host the addresses of its partitions",
        )
        slapos = self._toolkit.current / "bin" / "slapos"
        self._session.run(
            [slapos, "node", "format", "--now", "--cfg", settings],
            doing="slapos node format",
        )
        # Releases are built by their own user, what they share too.
        shared = self._computer.data / "shared"
        shared.mkdir(mode=0o755, exist_ok=True)
        shutil.chown(shared, "slapsoft", "slapsoft")

    def _is_formatted(self) -> bool:
        """Say whether the partitions are there."""
        root = self._computer.data / "inst"
        return all((root / f"slappart{each}").is_dir() for each in range(self._computer.partitions))

    def _start(self) -> None:
        """Start the service."""
        self._record.note(comes_back=self._agent.start())


def traces(*folders: Path) -> list[str]:
    """Return what is not on this host yet and comes with the joining, besides the folders."""
    parents = [parent for each in folders for parent in each.parents]
    return [str(each) for each in (*parents, *map(Path, _SIDE_EFFECTS)) if not each.exists()]


def _check_folders(builds: Mapping[str, str]) -> None:
    """Refuse folders to build from that this host does not have."""
    for option in (build_settings.CACHE, build_settings.MIRROR):
        place = builds.get(option, "")
        if place and build_settings.is_folder(place) and not Path(place).is_dir():
            raise ParameterError(
                f"{option} is {place}, and the host has no such folder",
                "put it there, or name another folder of the host, or a URL",
            )


def _digest(values: list[str]) -> str:
    """Return what some texts are recognised by."""
    return hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]
