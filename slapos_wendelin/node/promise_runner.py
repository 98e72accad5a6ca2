# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the promises of a computer's partitions, each in a fork that can harm nobody else.

``python -m slapos_wendelin.node.promise_runner CHANNEL CONFIGURATION``. The agent writes the
partitions to watch on standard input and reads what changed from standard output; who has just
processed a partition asks over the channel. It holds no secret and ends when its input does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import pkgutil
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slapos_wendelin.node import channel, forking, promise_child
from slapos_wendelin.node.partition_files import read_text
from slapos_wendelin.node.promise_child import Promise
from slapos_wendelin.node.promise_environment import is_ours
from slapos_wendelin.node.promise_plan import BANG_INTERVAL, Outcome, PartitionPlan

log = logging.getLogger(__name__)

#: Packages whose modules promises are made of: imported once, before the forks.
PACKAGES = ("slapos_wendelin.promise", "slapos.promise.plugin")
#: How many promises run at once; those that have run this many seconds do not count, so that
#: promises that hang keep nobody waiting.
AT_ONCE, SHORT_TIME = 2 * (os.cpu_count() or 1), 1.0
#: Seconds by which this process may be late before it must have been frozen.
FROZEN_TIME = 2.0
#: Seconds between two looks for promises that came or went while none is due.
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Settings:
    """What all promises of a computer are told."""

    instance_root: str
    master_url: str
    computer_id: str
    certificates: str | None
    time_limit: float

    def arguments(self, partition: str) -> dict[str, Any]:
        """Return what slapgrid passes to every promise of a partition."""
        files = [
            f"{self.certificates}/{partition}.{end}" if self.certificates else ""
            for end in ("crt", "key")
        ]
        return {
            "promise-timeout": self.time_limit,
            "master-url": self.master_url,
            "partition-cert": files[0],
            "partition-key": files[1],
            "partition-id": partition,
            "computer-id": self.computer_id,
        }


@dataclass
class Running:
    """A promise under way."""

    promise: Promise
    pid: int
    output: int
    is_test: bool
    begin: float
    said: bytes = b""


@dataclass
class Partition:
    """A partition and who waits for its promises."""

    folder: Path
    #: The folder of its release.
    release: str = ""
    plan: PartitionPlan = field(default_factory=PartitionPlan)
    found: dict[str, Promise] = field(default_factory=dict)
    answer: socket.socket | None = None
    #: What was told to the agent last.
    told: object = None


class Runner:
    """Runs what is due, and tells what changed."""

    def __init__(self, settings: Settings, tell: Callable[[channel.Document], None]) -> None:
        self.settings = settings
        self.partitions: dict[str, Partition] = {}
        self.running: dict[int, Running] = {}
        self._tell = tell

    def watch(self, software: dict[str, str], now: float) -> None:
        """Take over which partitions to watch.

        :param software: by the name of the partition the folder of its release.
        """
        for name, partition in self.partitions.items():
            partition.plan.is_watched = name in software
        for name, release in software.items():
            known = self.partitions.get(name)
            if known is None or known.release != release:
                known = self._find(name, release, now)
            if not known.plan.is_watched:
                # The agent may have forgotten what it was told before.
                known.plan.is_watched, known.told = True, None
                self._tell_changes(name, known)
        for name, partition in list(self.partitions.items()):
            plan = partition.plan
            if not (plan.is_watched or plan.is_running or plan.test):
                del self.partitions[name]

    def test(
        self, name: str, release: str, patience: float, answer: socket.socket, now: float
    ) -> None:
        """Run all promises of a partition; answer when all are green or the patience has ended."""
        partition = self._find(name, release, now)
        if partition.answer is not None:
            # Who asked before was killed: only one process works on a partition.
            partition.answer.close()
        partition.answer = answer
        partition.plan.begin_test(now, patience)
        if not partition.plan.promises:
            self._end_test(partition, name)

    def _find(self, name: str, release: str, now: float) -> Partition:
        """Return a partition with the promises that it has now."""
        folder = Path(self.settings.instance_root, name)
        partition = self.partitions.setdefault(name, Partition(folder))
        promises = promise_child.find_promises(folder)
        partition.release = release
        is_new = not partition.found
        if is_ours(release, [each for each in promises if each.is_plugin]):
            partition.found = {each.name: each for each in promises}
        else:
            partition.found = {}
            self._tell({"event": "foreign", "partition": name})
        lost = partition.plan.update(partition.found, now)
        if is_new:
            _remember(partition)
        if lost or is_new:
            self._tell_changes(name, partition)
        return partition

    def step(self, now: float) -> None:
        """Start what is due, and end what takes too long."""
        for running in list(self.running.values()):
            if now - running.begin > self.settings.time_limit:
                self._end(running, is_late=True)
        for partition in self.partitions.values():
            if self._free_places(now) <= 0:
                return
            due = partition.plan.due(now)
            if due is not None:
                self._start(partition, *due, now)

    def _free_places(self, now: float) -> int:
        """Return how many more promises may be started."""
        short = [run for run in self.running.values() if now - run.begin < SHORT_TIME]
        return AT_ONCE - len(short)

    def forgive(self, seconds: float) -> None:
        """Do not count the time in which the computer, or this process, was frozen."""
        for running in self.running.values():
            running.begin += seconds

    def next_time(self, now: float) -> float:
        """Return when to step again unless something happens before."""
        ends = [run.begin + self.settings.time_limit for run in self.running.values()]
        times = [now + LONGEST_PAUSE, *ends]
        if self._free_places(now) > 0:
            wanted = (partition.plan.next_time() for partition in self.partitions.values())
            times += [each for each in wanted if each is not None]
        elif self.running:
            times.append(min(run.begin for run in self.running.values()) + SHORT_TIME)
        return min(times)

    def _start(self, partition: Partition, name: str, is_anomaly: bool, now: float) -> None:
        """Fork a promise."""
        promise, plan = partition.found[name], partition.plan
        reading, writing = os.pipe()
        try:
            owner = partition.folder.stat()
        except OSError:
            os.close(reading)
            os.close(writing)
            plan.promises[name].ran(now, None)
            return
        options = {
            "uid": owner.st_uid,
            "gid": owner.st_gid,
            "anomaly": is_anomaly,
            "bang": now >= plan.next_bang,
            "arguments": self.settings.arguments(partition.folder.name),
        }
        pid = os.fork()
        if not pid:
            forking.end_child(lambda: promise_child.run_promise(promise, options, writing))
        os.close(writing)
        plan.is_running = True
        self.running[reading] = Running(promise, pid, reading, not is_anomaly, now)

    def read(self, output: int) -> None:
        """Read what a promise said; it ends when it has said all."""
        running = self.running[output]
        data = os.read(output, 1 << 16)
        running.said += data
        if not data:
            self._end(running)

    def _end(self, running: Running, *, is_late: bool = False) -> None:
        """Note what came of a promise."""
        # What a promise has started and left behind goes with it.
        (forking.kill_tree if is_late else forking.kill_group)(running.pid)
        _, status = os.waitpid(running.pid, 0)
        os.close(running.output)
        del self.running[running.output]
        promise = running.promise
        name = promise.partition.name
        partition = self.partitions[name]
        partition.plan.is_running = False
        told = _parse(running.said)
        fault = told.get("fault")
        if is_late:
            fault = f"the promise timed out after {self.settings.time_limit:g} seconds"
        elif fault is None and "result" not in told:
            fault = f"the promise ended without a result ({_how(status)})"
        if fault is not None:
            _save_fault(promise, fault)
        self._note(partition, running, _outcome(told, fault), told.get("cache") or {})
        self._tell_changes(name, partition)

    def _note(
        self, partition: Partition, run: Running, outcome: Outcome | None, cache: dict[str, Any]
    ) -> None:
        """Take the outcome of a promise into the plan; it may be gone since."""
        now, name = time.monotonic(), run.promise.name
        plan = partition.plan.promises.get(name)
        if plan is None:
            return
        is_red = outcome is not None and outcome.is_red
        if is_red and not run.is_test:
            partition.plan.next_bang = now + BANG_INTERVAL
        minutes = cache.get("periodicity")
        plan.ran(
            now,
            outcome,
            60.0 * minutes if isinstance(minutes, int | float) and minutes > 0 else None,
            is_test=run.is_test,
            is_repeated=cache.get("is_anomaly_detected") is not False,
        )
        test = partition.plan.test
        if test is None or not run.is_test or name not in test.pending:
            return
        if test.ran(name, is_red=is_red, now=now):
            self._end_test(partition, partition.folder.name)

    def _end_test(self, partition: Partition, name: str) -> None:
        """Answer who asked for a test."""
        partition.plan.test = None
        answer, partition.answer = partition.answer, None
        if answer is None:
            return
        red = [[promise, outcome.message] for promise, outcome in partition.plan.red()]
        with answer, contextlib.suppress(OSError):
            foreign = bool(promise_child.find_promises(partition.folder)) and not partition.found
            channel.send(answer, {"partition": name, "red": red, "foreign": foreign})

    def _tell_changes(self, name: str, partition: Partition) -> None:
        """Tell the agent what the promises of a partition say, when that is new."""
        results = {
            promise: {
                "red": plan.outcome.is_red,
                "message": plan.outcome.message,
                "date": plan.outcome.date,
                "period": plan.period,
            }
            for promise, plan in partition.plan.promises.items()
            if plan.outcome is not None
        }
        waits = len(partition.plan.promises) - len(results)
        key = ({p: (r["red"], r["message"]) for p, r in results.items()}, waits)
        if partition.told != key:
            partition.told = key
            self._tell({"event": "promises", "partition": name, "results": results, "waits": waits})


def _parse(said: bytes) -> dict[str, Any]:
    """Return the documents that a promise's process wrote, as one."""
    told: dict[str, Any] = {}
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            told |= json.loads(line)
    return told


def _outcome(told: dict[str, Any], fault: str | None) -> Outcome | None:
    """Return what a promise said, None when it has nothing to say in this mode."""
    if fault is not None:
        return Outcome(
            is_red=True, message=fault, date=time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime())
        )
    result = told["result"]
    if result is None:
        return None
    return Outcome(bool(result["failed"]), result["message"] or "", result["date"])


def _how(status: int) -> str:
    """Tell how a process ended."""
    code = os.waitstatus_to_exitcode(status)
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _save_fault(promise: Promise, fault: str) -> None:
    """Write the result of a promise that could not write it, as the partition's user."""
    try:
        owner = promise.partition.stat()
    except OSError:
        return
    pid = os.fork()
    if not pid:
        forking.end_child(
            lambda: promise_child.save_fault(promise, fault, owner.st_uid, owner.st_gid)
        )
    os.waitpid(pid, 0)


def _remember(partition: Partition) -> None:
    """Take the outcomes that an earlier runner has left."""
    for name, promise in partition.found.items():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            result = json.loads(read_text(promise.result_file))["result"]
            outcome = Outcome(
                bool(result["failed"]), str(result["message"] or ""), str(result["date"])
            )
            partition.plan.promises[name].outcome = outcome


def import_modules() -> None:
    """Import what promises are made of."""
    for package in PACKAGES:
        try:
            found = importlib.import_module(package)
        except ImportError:
            continue
        for module in pkgutil.iter_modules(found.__path__, f"{package}."):
            # A promise that needs what cannot be imported says so.
            with contextlib.suppress(Exception):
                importlib.import_module(module.name)
    # slapos.core reads times back from logs, which prepares itself at its first use.
    datetime.strptime("2000-01-01 00:00:00", "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def serve(runner: Runner, questions: socket.socket) -> None:
    """Serve until standard input ends; what runs then ends too."""
    commands = channel.Lines(0)
    while not commands.is_closed:
        now = time.monotonic()
        runner.step(now)
        poll = select.poll()
        for source in (commands.fileno(), questions.fileno(), *runner.running):
            poll.register(source, select.POLLIN)
        end = max(runner.next_time(now), time.monotonic())
        ready = [descriptor for descriptor, _ in poll.poll(1000 * (end - time.monotonic()) + 1)]
        now = time.monotonic()
        if now - end > FROZEN_TIME:
            runner.forgive(now - end)
        for descriptor in ready:
            if descriptor in runner.running:
                runner.read(descriptor)
            elif descriptor == questions.fileno():
                _take_question(runner, questions, now)
            elif descriptor == commands.fileno():
                for command in commands.read():
                    runner.watch(command["watch"], now)
    for running in runner.running.values():
        forking.kill_tree(running.pid)


def _take_question(runner: Runner, questions: socket.socket, now: float) -> None:
    """Begin the test that somebody asks for."""
    message = channel.receive(questions)
    if message is not None:
        document, (answering,) = message
        answer = socket.socket(fileno=answering)
        runner.test(document["partition"], document["release"], document["patience"], answer, now)


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    questions = channel.take_channel(int(sys.argv[1]))
    settings = Settings(**json.loads(sys.argv[2]))
    import_modules()
    forking.settle()
    serve(Runner(settings, lambda document: channel.write_line(1, document)), questions)


if __name__ == "__main__":
    main()
