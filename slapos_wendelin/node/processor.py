# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Process partitions and build software with slapos.core, each in a fork.

``python -m slapos_wendelin.node.processor CONFIGURATION BUILDOUTS PROMISES``. The agent writes what
to do on standard input and reads from standard output what came of it. It ends when its input does,
and all its forks with it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import slapos.grid.slapgrid as stock
from requests.exceptions import RequestException
from slapos.grid.exception import BuildoutFailedError
from slapos.grid.promise import PromiseError
from slapos.slap.exception import ConnectionError as SlapConnectionError
from slapos.slap.slap import NotFoundError, ServerError

from slapos_wendelin import build_settings
from slapos_wendelin.build_progress import Progress, fault_of
from slapos_wendelin.disk_space import with_remedy
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.node import channel, durable, forking
from slapos_wendelin.node.grid import Grid, make_grid
from slapos_wendelin.node.newest import Moments, Newest, OutdatedError

log = logging.getLogger(__name__)

#: The errors that mean that the master is away.
AWAY = (RequestException, SlapConnectionError, ServerError)


@dataclass
class Fork:
    """A process that works on something, and what it has told so far."""

    pid: int
    output: channel.Lines
    #: The event that tells of its end.
    event: channel.Document


class Processor:
    """Does what the agent says."""

    def __init__(
        self, grid: Grid, configuration: Path, tell: Callable[[channel.Document], None]
    ) -> None:
        """Make a processor.

        :param configuration: the computer's slapos.cfg.
        :param tell: is called with each event.
        """
        self.grid = grid
        self._configuration = configuration
        self.forks: dict[int, Fork] = {}
        self._tell = tell
        self._partitions: dict[str, Any] = {}
        self._moments = Moments()
        #: Whether what is being processed is the newest, by the partition.
        self._newest: dict[str, Newest] = {}

    def do(self, command: channel.Document) -> None:
        """Do one thing, or begin it."""
        name, partition = command["do"], command.get("partition")
        if name == "fetch":
            self._fetch()
        elif name == "prepare":
            self._fork({"event": "prepared"}, lambda _: self.grid.prepare())
        elif name == "build":
            self._fork({"event": "built"}, self._build)
        elif partition not in self._partitions:
            # The agent has asked an earlier process for it, or it is free by now.
            self._tell({"event": "processed", "partition": partition, "outcome": "unknown"})
        elif name == "process":
            self._fork({"event": "processed", "partition": partition}, self._process(partition))
        elif name == "report":
            self._report(partition, command["error"])
        elif name == "look":
            found = self._partitions[partition]
            self._fork({"event": "looked", "partition": partition}, lambda _: self.grid.look(found))

    def _fetch(self) -> None:
        """Ask the master for everything and tell the agent what it needs to know of it."""
        before = self._partitions
        try:
            with self._moments.alone(fcntl.LOCK_EX):
                partitions = self.grid.fetch()
                self._partitions = {each.getId(): each for each in partitions}
                for name, newest in self._newest.items():
                    if _mark(before.get(name)) != _mark(self._partitions.get(name)):
                        newest.end()
            software = self.grid.computer.getSoftwareReleaseList()
        except (*AWAY, NotFoundError, OSError) as error:
            self._tell({"event": "away", "error": brief(error)})
            return
        self._tell(
            {
                "event": "fetched",
                "partitions": [self._partition(each) for each in partitions],
                "software": [self._software(each) for each in software],
                "left": {name: each.told() for name, each in self.grid.left.items()},
            }
        )

    def _partition(self, partition: Any) -> channel.Document:
        """Return what the agent needs to know of a partition."""
        parameters = partition.getInstanceParameterDict()
        try:
            release = partition.getSoftwareRelease().getURI()
        except NotFoundError:
            release = ""
        return {
            "name": partition.getId(),
            "instance": parameters.get("instance_title", ""),
            "state": partition.getState(),
            "release": release,
            "software": self.grid.software_path(release),
            "timestamp": str(parameters.get("timestamp", "")),
            "is_due": self.grid.is_due(partition),
            "has_error": has_error(partition),
        }

    def _software(self, software: Any) -> channel.Document:
        """Return what the agent needs to know of a release."""
        folder = Path(self.grid.software_path(software.getURI()))
        state = software.getState()
        is_built = (folder / durable.COMPLETE).exists() and not self.grid.develop
        return {
            "url": software.getURI(),
            "state": state,
            "is_due": state == "destroyed" or (state == "available" and not is_built),
        }

    def _report(self, name: str, error: str) -> None:
        """Tell the master what a partition's promises say."""
        partition = self._partitions[name]
        faults = Faults()
        try:
            if error:
                partition.error(error, logger=faults)
            elif not self.grid.is_due(partition):
                # Of one with a newer change its processing will tell.
                partition.started()
        except (*AWAY, NotFoundError, OSError) as problem:
            faults.error = problem
        if faults.error is not None and not isinstance(faults.error, NotFoundError):
            self._tell({"event": "unreported", "partition": name, "error": brief(faults.error)})

    def _process(self, name: str) -> Callable[[int], None]:
        """Return what the fork that processes a partition does."""
        newest = self._newest[name] = Newest()

        def work(output: int) -> None:
            # Lines of several partitions meet in the agent's log.
            for handler in logging.getLogger().handlers:
                handler.setFormatter(logging.Formatter(f"%(asctime)s {name} %(message)s"))
            self.grid.installed = lambda: channel.write_line(
                output, {"event": "installed", "partition": name}
            )
            partition = self._partitions[name]
            for report in ("started", "stopped"):
                guarded = self._moments.guard(getattr(partition, report), newest)
                setattr(partition, report, guarded)
            try:
                self.grid.process(partition)
                newest.check()
            except (*AWAY, OutdatedError):
                raise
            except Exception as error:
                if not isinstance(error, BuildoutFailedError | PromiseError | WendelinError):
                    # A failed buildout has told what it had to tell.
                    log.exception("processing %s failed", name)
                partition.error(str(error) or repr(error), logger=self.grid.logger)
                raise

        return work

    def _build(self, output: int) -> None:
        """Build and remove releases; tell of each that fails, why."""
        os.environ.update(build_settings.environment(build_settings.read(self._configuration)))
        listener = _BuildListener(output)
        self.grid.logger.addHandler(listener)
        for release in self.grid.computer.getSoftwareReleaseList():
            release.building = listener.following(release)
            release.error = self._telling(release, output)
        if self.grid.processSoftwareReleaseList() != stock.SLAPGRID_SUCCESS:
            raise WendelinError("a release could not be built or removed", "see its error")

    @staticmethod
    def _telling(release: Any, output: int) -> Callable[..., None]:
        """Return what tells the master and the agent why a release was not built."""
        tell_master = release.error

        def tell(error: Any, **options: Any) -> None:
            text = str(error).strip()
            reason = with_remedy((fault_of(text) or "no reason was given")[:1000], text)
            event = {"event": "unbuilt", "url": release.getURI(), "error": reason}
            channel.write_line(output, event)
            tell_master(error, **options)

        return tell

    def _fork(self, event: channel.Document, work: Callable[[int], None]) -> None:
        """Do some work in a fork, at whose end an event tells how it went."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            channels = (self.grid.promises, self.grid.buildouts, self._moments)
            kept = [writing, *(each.fileno() for each in channels)]
            forking.end_child(lambda: _work(work, writing, kept))
        os.close(writing)
        self.forks[reading] = Fork(pid, channel.Lines(reading), event)

    def read(self, output: int) -> None:
        """Pass on what a fork tells, and how it ended."""
        fork = self.forks[output]
        for document in fork.output.read():
            if "event" in document:
                self._tell(document)
            else:
                fork.event |= document
        if not fork.output.is_closed:
            return
        del self.forks[output]
        os.close(output)
        if fork.event["event"] == "processed":
            self._newest.pop(fork.event["partition"], None)
        _, status = os.waitpid(fork.pid, 0)
        ended = {"outcome": "failed", "error": f"the process ended with status {status}"}
        self._tell(ended | fork.event)


def _work(work: Callable[[int], None], output: int, kept: list[int]) -> int:
    """Be a fork: work, and tell what came of it."""
    os.dup2(2, 1)
    forking.begin_child(kept)
    try:
        work(output)
    except BaseException as error:
        channel.write_line(output, {"outcome": outcome(error), "error": brief(error)})
        return 1
    channel.write_line(output, {"outcome": "well", "error": ""})
    return 0


class _BuildListener(logging.Handler):
    """Hears what buildout says, line by line, and tells the agent how far a build is."""

    def __init__(self, output: int) -> None:
        super().__init__(logging.INFO)
        self._output = output
        self._url = ""
        self._progress = Progress()

    def following(self, release: Any) -> Callable[[], None]:
        """Return what tells the master that a release is being built, and follows its build."""
        tell_master = release.building

        def begin() -> None:
            self._url, self._progress = release.getURI(), Progress()
            self._tell()
            tell_master()

        return begin

    def emit(self, record: logging.LogRecord) -> None:
        """Hear one line."""
        progress = self._progress.after(record.getMessage())
        if self._url and progress != self._progress:
            self._progress = progress
            self._tell()

    def _tell(self) -> None:
        """Tell where the build is."""
        event = {"event": "building", "url": self._url, **asdict(self._progress)}
        channel.write_line(self._output, event)


class Faults:
    """Takes the error that the slap library only logs."""

    error: BaseException | None = None

    def exception(self, *_: object) -> None:
        """Keep the error that is being handled."""
        self.error = sys.exc_info()[1]


def _mark(partition: Any) -> tuple[str, str] | None:
    """Return by what a change of a partition is known."""
    if partition is None:
        return None
    return partition.getState(), str(partition.getInstanceParameterDict().get("timestamp", ""))


def outcome(error: BaseException) -> str:
    """Return what kind of an end an error is."""
    if isinstance(error, AWAY):
        return "away"
    if isinstance(error, OutdatedError):
        return "unknown"
    return "red" if isinstance(error, PromiseError) else "failed"


def brief(error: BaseException) -> str:
    """Return the line of an error that says most: for a buildout its last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if isinstance(error, BuildoutFailedError) else 0][:1000]


def has_error(partition: Any) -> bool | None:
    """Return whether the master has an error of a partition; None when it has heard nothing."""
    status = partition.getAccessStatus()
    return None if status is None else status.startswith("#error")


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    configuration = Path(sys.argv[1])
    buildouts, promises = (channel.take_channel(int(each)) for each in sys.argv[2:4])
    grid = make_grid(configuration, buildouts, promises)
    forking.settle()
    serve(Processor(grid, configuration, lambda document: channel.write_line(1, document)))


def serve(processor: Processor) -> None:
    """Serve until standard input ends; what is under way then ends too."""
    commands = channel.Lines(0)
    while not commands.is_closed:
        poll = select.poll()
        for source in (commands.fileno(), *processor.forks):
            poll.register(source, select.POLLIN)
        for descriptor, _ in poll.poll():
            if descriptor in processor.forks:
                processor.read(descriptor)
            elif descriptor == commands.fileno():
                for command in commands.read():
                    processor.do(command)
    for fork in processor.forks.values():
        forking.kill_tree(fork.pid)


if __name__ == "__main__":
    main()
