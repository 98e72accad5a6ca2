# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run buildouts in forks of a process that has imported all they need.

``python -m slapos_wendelin.node.buildout_server CHANNEL``. It holds no secret and calls nobody;
each fork becomes the user of its partition before it reads a line of a profile. It ends when its
input does.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import signal
import socket
import sys
import warnings
from dataclasses import dataclass

from slapos_wendelin.node import channel, distributions, forking

log = logging.getLogger(__name__)

#: What a buildout of an instance imports: itself, our extension, recipes that most profiles name.
#: A recipe that is in buildout's own environment comes from there, whatever eggs a release has.
MODULES = (
    "zc.buildout.buildout",
    "slapos_wendelin.buildout",
    "slapos_wendelin.recipe.cluster",
    "slapos.slap",
    "slapos.recipe.mkdirectory",
    "slapos.recipe.promise_plugin",
    "slapos.recipe.publish",
    "slapos.recipe.request",
    "slapos.recipe.slapconfiguration",
    "slapos.recipe.template",
    "slapos.recipe.wrapper",
    "slapos.recipe.build",
)
#: Recipes that take from buildout, when they are imported, what only our extension gives it. They
#: are there for profiles with the extension, once it has done its work, and for no others.
EXTENDED_MODULES = (
    "slapos.recipe.switch_softwaretype",
    "slapos.recipe.template.jinja2_template",
)


@dataclass
class Run:
    """A buildout under way."""

    pid: int
    #: Where the asker waits for the exit status; when that side is closed nobody wants the rest.
    answer: socket.socket


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    questions = channel.take_channel(int(sys.argv[1]))
    import_modules()
    forking.settle()
    Server(questions).serve()


def import_modules() -> None:
    """Import what buildouts need, and read what they ask of the installed distributions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MODULES:
            _import(name)
        _prepare_extended()
    from zc.buildout import easy_install  # noqa: PLC0415 (after what it takes long to import)

    distributions.remember(easy_install.pkg_resources)


def _import(name: str) -> None:
    """Import a module, if it can be."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        log.info("buildouts import %s themselves: %s", name, error)


def _prepare_extended() -> None:
    """Import the recipes that need our extension, and let the extension give them out."""
    from zc.buildout import buildout  # noqa: PLC0415 (imported before)

    from slapos_wendelin.buildout import patches, values  # noqa: PLC0415

    given = {"dumps": values.dumps, "loads": values.loads}
    for name, value in given.items():
        setattr(buildout, name, value)
    for name in EXTENDED_MODULES:
        _import(name)
    for name in given:
        delattr(buildout, name)
    kept = {name: sys.modules.pop(name) for name in EXTENDED_MODULES if name in sys.modules}
    for name in kept:
        package, _, attribute = name.rpartition(".")
        delattr(sys.modules[package], attribute)
    apply = patches.apply

    def apply_and_give() -> None:
        apply()
        for name, module in kept.items():
            package, _, attribute = name.rpartition(".")
            sys.modules[name] = module
            setattr(sys.modules[package], attribute, module)

    patches.apply = apply_and_give  # pyright: ignore[reportAttributeAccessIssue]


class Server:
    """Forks buildouts and tells how they ended."""

    def __init__(self, questions: socket.socket) -> None:
        self._questions = questions
        self._runs: dict[int, Run] = {}

    def serve(self) -> None:
        """Serve until standard input ends; what runs then ends too."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        while True:
            poll = select.poll()
            for source in (0, wake, self._questions.fileno()):
                poll.register(source, select.POLLIN)
            for run in self._runs.values():
                poll.register(run.answer.fileno(), select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if 0 in ready and not os.read(0, 1):
                break
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self._reap()
            for run in list(self._runs.values()):
                if run.answer.fileno() in ready:
                    self._abandon(run)
            if self._questions.fileno() in ready:
                self._begin()
        for run in self._runs.values():
            forking.kill_tree(run.pid)

    def _begin(self) -> None:
        """Fork the buildout that somebody asks for."""
        message = channel.receive(self._questions)
        if message is None:
            return
        document, (answering, output) = message
        answer = socket.socket(fileno=answering)
        pid = os.fork()
        if not pid:
            forking.end_child(lambda: run_buildout(document, output))
        os.close(output)
        self._runs[pid] = Run(pid, answer)

    def _reap(self) -> None:
        """Tell the exit status of the buildouts that have ended."""
        while self._runs:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._runs.pop(pid).answer as answer, contextlib.suppress(OSError):
                channel.send(answer, {"status": os.waitstatus_to_exitcode(status)})

    def _abandon(self, run: Run) -> None:
        """Kill a buildout whose asker has gone."""
        forking.kill_tree(run.pid)
        os.waitpid(run.pid, 0)
        del self._runs[run.pid]
        run.answer.close()


def run_buildout(document: channel.Document, output: int) -> int:
    """Be a buildout: the process that ``bin/buildout`` starts, but for the start.

    :param document: ``folder``, ``arguments``, ``environment``, ``umask``, ``uid`` and ``gid``.
    :param output: where what it says goes.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    forking.begin_child()
    logging.getLogger().handlers.clear()
    os.umask(document["umask"])
    os.environ.clear()
    os.environ.update(document["environment"])
    os.chdir(document["folder"])
    forking.become(document["uid"], document["gid"])
    sys.argv = document["arguments"]
    from zc.buildout import buildout  # noqa: PLC0415 (imported already)

    return forking.exit_status(buildout.main())


if __name__ == "__main__":
    main()
