# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Join one host: look at it, refuse what cannot be, then let it make a computer of itself."""

from __future__ import annotations

import getpass
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import Document, MasterClient, NotFoundError
from slapos_wendelin.remote.checks import Fault, Wish, require
from slapos_wendelin.remote.errors import HostError
from slapos_wendelin.remote.fleet import Names
from slapos_wendelin.remote.host_program import Answer, HostProgram, pieces_of
from slapos_wendelin.remote.probe import Facts, look
from slapos_wendelin.remote.ssh import Access, Connection, connected
from slapos_wendelin.remote.target import Target, check_name
from slapos_wendelin.remote.wheelhouse import Platform, Wheelhouse

_log = logging.getLogger(__name__)

#: Where the toolkit goes, and where software and partitions, unless somebody says otherwise.
PREFIX, DATA = "/opt/slapos-wendelin", "/srv/slapos-wendelin"

#: The steps of a joining and what each is for, in their order.
STEPS = {
    "connect": "connect and check the host's key",
    "check": "check what the host has",
    "toolkit": "install the toolkit",
    "certificate": "get a certificate from the master",
    "configuration": "write the configuration",
    "format": "make users and partitions",
    "agent": "start the service",
    "report": "wait until the master has heard of it",
}

#: The labels by which a computer is found again by SSH.
ADDRESS_LABEL, JUMP_LABEL = "ssh", "ssh_jump"


class Listener(Protocol):
    """Is told what happens to a host."""

    def begin(self, step: str) -> None:
        """Hear that a step begins."""

    def say(self, text: str) -> None:
        """Hear what the step is at."""

    def end(self, step: str, seconds: float, *, kept: bool) -> None:
        """Hear that a step is over; kept when there was nothing to do."""


@dataclass(frozen=True)
class Settings:
    """What is the same for all hosts of one command."""

    #: The master's URL as hosts reach it.
    master_url: str
    access: Access
    #: Makes a client of the master that calls as the operator; None when there is a token.
    connect: Callable[[], MasterClient] | None
    prefix: str = PREFIX
    data: str = DATA
    #: A token that an operator has made, for one host.
    token: str = ""
    #: Let a host take the place of a computer that has joined under the name before.
    replace: bool = False
    dry_run: bool = False
    #: Send the wheels even where the host reaches the index.
    offline: bool = False


@dataclass
class Outcome:
    """What came of one host."""

    target: Target
    name: str = ""
    #: joined, unchanged, fit (of a dry run) or failed.
    result: str = "failed"
    error: str = ""
    remedy: str = ""
    #: What is to be known of the host, all the same.
    notes: list[str] = field(default_factory=list)
    #: The steps that are over, with their seconds; kept ones had nothing to do.
    steps: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def document(self) -> Document:
        """The outcome for programs."""
        return {
            "host": self.target.address.url,
            "computer": self.name,
            "datacenter": self.target.datacenter,
            "result": self.result,
            "error": self.error,
            "remedy": self.remedy,
            "notes": self.notes,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
        }


class HostJoining:
    """The joining of one host."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        wheelhouse: Wheelhouse,
        listener: Listener,
        names: Names,
    ) -> None:
        self._names = names
        self._target = target
        self._settings = settings
        self._wheelhouse = wheelhouse
        self._listener = listener
        self.outcome = Outcome(target, target.name)
        self._began = 0.0

    def run(self) -> Outcome:
        """Join the host; what goes wrong is in the outcome."""
        began = time.monotonic()
        try:
            self._run()
        except WendelinError as error:
            self.outcome.error, self.outcome.remedy = error.message, error.remedy
        except Exception as error:
            # A fault of ours with one host is no reason to leave the others half-done.
            _log.exception("joining %s", self._target.address)
            self.outcome.error = f"{type(error).__name__}: {error}"
            self.outcome.remedy = "tell those who make this program, with the lines above"
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def _run(self) -> None:
        """Join the host, or raise WendelinError."""
        self._begin("connect")
        target, settings = self._target, self._settings
        with connected(target.address, target.jumps, settings.access) as connection:
            self._end("connect")
            with self._step("check"):
                facts = look(
                    connection,
                    prefix=settings.prefix,
                    data=settings.data,
                    master_url=settings.master_url,
                    ask_index=not settings.offline,
                )
                self._check(facts)
            if settings.dry_run:
                self._plan(facts)
                return
            self._join(connection, facts)
            self._tell_master()
        kept = all(each["kept"] for each in self.outcome.steps if each["step"] in _CHANGING)
        self.outcome.result = "unchanged" if kept else "joined"

    def _check(self, facts: Facts) -> None:
        """Refuse a host that cannot be joined; note what is to be known."""
        settings = self._settings
        record = facts.record
        name = self._target.name or record.get("computer", "") or facts.hostname
        wish = Wish(settings.prefix, settings.data, settings.master_url, self._target.name)
        notes = require(facts, wish, tuple(self._taken(name, facts)))
        self._names.take(check_name(name), self._target.address)
        self.outcome.name = name
        self.outcome.notes += [f"{each.text} ({each.remedy})" for each in notes]

    def _taken(self, name: str, facts: Facts) -> Iterator[Fault]:
        """Yield what the master says against the name."""
        if self._settings.connect is None or self._settings.replace or not name:
            return
        with self._settings.connect() as master:
            try:
                computer = master.computer(name)
            except NotFoundError:
                return
            certificates = master.certificates("computer", name)
        if not any(each["revoked_at"] is None for each in certificates):
            return
        own = facts.python_facts.get("address")
        is_same = facts.record.get("computer") == name
        if is_same and (computer["lost"] or computer["address"] in {None, "", own}):
            return
        where = f" in {computer['datacenter']}" if computer["datacenter"] else ""
        at = f" at {computer['address']}" if computer["address"] else ""
        yield Fault(
            f"the master has a computer {name} already{where}{at}, and this host is not it",
            "choose another name with --name, or take that one's place with --replace",
        )

    def _plan(self, facts: Facts) -> None:
        """Say what a joining would do."""
        self.outcome.result = "fit"
        done = facts.record.get("steps", {})
        python = f"{facts.python} {'.'.join(map(str, facts.python_version))}"
        way = "from the network" if self._from_index(facts) else "from this machine"
        service = "systemd" if facts.has_systemd else "supervisord (no systemd runs there)"
        details = {"toolkit": f"{self._settings.prefix}, with {python}, {way}", "agent": service}
        for step in [each for each in STEPS if each in _CHANGING]:
            again = " (done before; again where it has changed)" if step in done else ""
            detail = f": {details[step]}" if step in details else ""
            self.outcome.notes.append(f"would {STEPS[step]}{detail}{again}")

    def _join(self, connection: Connection, facts: Facts) -> None:
        """Let the host do it."""
        target, settings = self._target, self._settings
        minor = str(facts.python_facts.get("glibc", "")).partition(".")[2]
        platform = Platform(facts.python_version[:2], facts.machine, int(minor or 0))
        program = HostProgram(
            connection,
            become=facts.become,
            python=facts.python,
            tell=self._hear,
            answer=lambda what: self._answer(what, platform, facts),
        )
        if self._needs_toolkit(facts, platform):
            # What cannot be had is known before the host is changed.
            self._wheelhouse.bundle(platform, from_index=self._from_index(facts))
        result = program.run(
            {
                "action": "join",
                "who": f"{getpass.getuser()} on {socket.gethostname()}",
                "name": self.outcome.name,
                "master": settings.master_url,
                "prefix": settings.prefix,
                "data": settings.data,
                "python": facts.python,
                "partitions": target.partitions,
                "addresses": target.addresses,
                "builds": dict(target.builds),
                "toolkit": self._wheelhouse.identity(platform),
            }
        )
        self.outcome.notes.append(result["comes_back"])

    def _needs_toolkit(self, facts: Facts, platform: Platform) -> bool:
        """Say whether the host may lack the toolkit, so that its wheels are to be at hand."""
        done = facts.record.get("steps", {}).get("toolkit")
        return done != self._wheelhouse.identity(platform)

    def _from_index(self, facts: Facts) -> bool:
        """Say whether the host gets wheels from the network itself."""
        answer = facts.python_facts.get("index", {})
        return not self._settings.offline and "difference" in answer

    def _answer(self, what: str, platform: Platform, facts: Facts) -> Answer:
        """Return what the host needs."""
        if what == "wheels":
            bundle = self._wheelhouse.bundle(platform, from_index=self._from_index(facts))
            size = bundle.archive.stat().st_size
            self._listener.say(f"sending {size / 2**20:.0f} MiB of wheels")
            return Answer(bundle.order, pieces_of(bundle.archive))
        if what == "token":
            return Answer({"token": self._token(facts)})
        raise HostError(f"the host asks for {what!r}", "use the same version everywhere")

    def _token(self, facts: Facts) -> str:
        """Return a token for the computer."""
        if self._settings.connect is None:
            return self._settings.token
        # One that has lost its certificate is still the same; any other host is not.
        was_in = self.outcome.name == facts.record.get("entered")
        values: dict[str, Any] = {**self._target.place, "labels": self._labels()}
        with self._settings.connect() as master:
            if self._settings.replace:
                # The master refuses that another machine formats under the name otherwise.
                address = facts.python_facts.get("address") or None
                master.put_computer(self.outcome.name, address=address)
            answer = master.make_token(
                "computer",
                self.outcome.name,
                replace=self._settings.replace or was_in,
                **values,
            )
        return str(answer["token"])

    def _labels(self) -> dict[str, str]:
        """Return the labels of the computer, and those by which it is found again."""
        jumps = ",".join(map(str, self._target.jumps))
        found = {ADDRESS_LABEL: str(self._target.address)} | ({JUMP_LABEL: jumps} if jumps else {})
        return {**found, **self._target.labels}

    def _tell_master(self) -> None:
        """Change what the master knows of a computer that was in already, where it differs."""
        if self._settings.connect is None:
            return
        with self._settings.connect() as master:
            known = master.computer(self.outcome.name)
            values: dict[str, Any] = {
                key: value for key, value in self._target.place.items() if known[key] != value
            }
            labels = {
                key: value
                for key, value in self._labels().items()
                if known["labels"].get(key) != value
            }
            if labels:
                values["label_changes"] = labels
            if values:
                master.put_computer(self.outcome.name, **values)

    def _hear(self, kind: str, event: dict[str, Any]) -> None:
        """Pass on what the host says."""
        if kind == "say":
            self._listener.say(event["text"])
        elif kind == "begin":
            self._begin(event["step"])
        else:
            self._end(event["step"], kept=kind == "kept")

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Tell of a step that is done here."""
        self._begin(name)
        yield
        self._end(name)

    def _begin(self, step: str) -> None:
        """Tell that a step begins."""
        self._began = time.monotonic()
        self._listener.begin(step)

    def _end(self, step: str, *, kept: bool = False) -> None:
        """Tell that a step is over, and remember it."""
        seconds = time.monotonic() - self._began
        self.outcome.steps.append({"step": step, "seconds": round(seconds, 2), "kept": kept})
        self._listener.end(step, seconds, kept=kept)


#: The steps that change the host.
_CHANGING = frozenset({"toolkit", "certificate", "configuration", "format", "agent"})
