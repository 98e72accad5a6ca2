# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one promise in a process of its own: what the runner's forks do.

The class that runs it is slapos.core's, so are the places of its log, its cache and its result.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import pwd
import sys
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from slapos.grid.promise import PromiseProcess
from slapos.grid.promise.generic import (
    PROMISE_LOG_FOLDER_NAME,
    PROMISE_RESULT_FOLDER_NAME,
    PromiseQueueResult,
    TestResult,
)
from slapos.grid.utils import getCleanEnvironment, rotateLog
from slapos.version import version

from slapos_wendelin.node import channel, forking

#: MiB of a promise's log, which is its history, before a new one is begun.
LOG_SIZE = 1
#: Seconds after which a result that says nothing new is written again.
RESULT_AGE = 30.0


@dataclass(frozen=True)
class Promise:
    """A promise of a partition."""

    partition: Path
    name: str
    #: Whether it is a module in etc/plugin; else it is a program in etc/promise.
    is_plugin: bool

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.partition / "etc" / ("plugin" if self.is_plugin else "promise") / self.name

    @property
    def title(self) -> str:
        """Its name in the names of its files."""
        return Path(self.name).stem if self.is_plugin else os.path.splitext(self.name)[0]  # noqa: PTH122

    @property
    def result_file(self) -> Path:
        """Where slapos.core keeps its last result."""
        return self.partition / PROMISE_RESULT_FOLDER_NAME / f"{self.title}.status.json"


def find_promises(partition: Path) -> list[Promise]:
    """Return the promises of a partition."""
    plugins = [
        Promise(partition, name, is_plugin=True)
        for name in _names(partition / "etc" / "plugin")
        if name.endswith(".py") and not name.startswith("__init__")
    ]
    programs = [
        Promise(partition, name, is_plugin=False) for name in _names(partition / "etc" / "promise")
    ]
    return plugins + programs


def _names(folder: Path) -> list[str]:
    """Return the names in a folder that may be missing."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names are wanted)
    except (FileNotFoundError, NotADirectoryError):
        return []


class Answer:
    """Takes the result from the promise and hands it on: the queue that slapos.core expects."""

    def __init__(self, promise: Promise, output: int) -> None:
        self._promise = promise
        self._output = output
        self._begin = datetime.now(UTC)

    def put_nowait(self, result: PromiseQueueResult) -> None:
        """Keep the result in its file and tell it to the runner."""
        item: Any = result.item
        if item.type() == "Empty Result":
            channel.write_line(self._output, {"result": None})
            return
        result.execution_time = round((datetime.now(UTC) - self._begin).total_seconds(), 3)
        if not self._is_saved(item):
            save_result(self._promise, result)
        channel.write_line(self._output, {"result": result.serialize()["result"]})

    def _is_saved(self, item: Any) -> bool:
        """Return whether the file says the same and is new: to replace it costs most of a run."""
        path = self._promise.result_file
        try:
            if not 0 <= time.time() - path.stat().st_mtime < RESULT_AGE:
                return False
            saved = json.loads(path.read_text())["result"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        said = (item.type(), item.hasFailed(), item.message)
        return said == (saved["type"], saved["failed"], saved["message"])


def run_promise(promise: Promise, options: dict[str, Any], output: int) -> int:
    """Be the process of a promise.

    :param options: ``uid``, ``gid``, whether it is to look for an ``anomaly`` (else to test),
        whether it may ``bang``, and in ``arguments`` what slapgrid passes to promises.
    :param output: where the result goes.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    forking.begin_child(keep=[output])
    # It has ended before the collector could be of use.
    gc.disable()
    _be_quiet()
    become_owner(options["uid"], options["gid"])
    process = PromiseProcess(
        str(promise.partition),
        promise.name,
        str(promise.path),
        _arguments(promise, options["arguments"], Answer(promise, output)),
        logger=logging.getLogger("promise"),
        allow_bang=options["anomaly"] and options["bang"],
        wrap=not promise.is_plugin,
        check_anomaly=options["anomaly"],
    )
    try:
        _check(promise)
        rotateLog(
            str(promise.partition / PROMISE_LOG_FOLDER_NAME / f"{promise.title}.log"), LOG_SIZE
        )
        if promise.is_plugin:
            keep_modules()
        process.run()
    except BaseException as error:
        channel.write_line(output, {"fault": describe(error)})
    cache = process.loadPromiseCacheDict() or {}
    told = {name: cache.get(name) for name in ("periodicity", "is_tested", "is_anomaly_detected")}
    channel.write_line(output, {"cache": told})
    return 0


def _be_quiet() -> None:
    """Leave what promises log to their own logs."""
    logging.getLogger().handlers = [logging.NullHandler()]


def become_owner(uid: int, gid: int) -> None:
    """Become the partition's user, with the environment that promises are run in."""
    environment = getCleanEnvironment(logging.getLogger("promise"), pwd.getpwuid(uid).pw_dir)
    os.environ.clear()
    os.environ.update(environment)
    forking.become(uid, gid)


def _arguments(promise: Promise, common: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Return what a promise is made of."""
    return {
        **common,
        "path": str(promise.path),
        "name": promise.name,
        "log-folder": str(promise.partition / PROMISE_LOG_FOLDER_NAME),
        "partition-folder": str(promise.partition),
        "debug": False,
        "queue": answer,
        "slapgrid-version": version,
    }


def _check(promise: Promise) -> None:
    """Raise OSError for a program that cannot be run."""
    if not promise.is_plugin and not os.access(promise.path, os.X_OK):
        raise PermissionError(f"{promise.path} is not executable")


def describe(error: BaseException) -> str:
    """Return what a user needs to know of an error that kept a promise from running."""
    return "".join(traceback.format_exception_only(error)).strip()


def save_result(promise: Promise, result: PromiseQueueResult) -> None:
    """Write a result to its file, whole."""
    path = promise.result_file
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the name that slapgrid has for this: it may be at work on the same promise.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(result.serialize()))
    temporary.replace(path)


def save_fault(promise: Promise, message: str, uid: int, gid: int) -> int:
    """Be the process that writes the result of a promise that could not."""
    forking.begin_child()
    _be_quiet()
    become_owner(uid, gid)
    item = TestResult(problem=True, message=message)
    save_result(promise, PromiseQueueResult(str(promise.path), promise.name, promise.title, item))
    return 0


class _Kept:
    """Gives modules that were imported before to those who import them again."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return how to have a module again."""
        del path, target
        return ModuleSpec(name, self) if name in self._modules else None  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        module = self._modules[spec.name]
        # The import system is about to set what it finds out about a new module.
        self._attributes = {
            name: getattr(module, name)
            for name in ("__spec__", "__loader__", "__path__", "__file__", "__package__")
            if hasattr(module, name)
        }
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it was."""
        for name, value in self._attributes.items():
            setattr(module, name, value)


def keep_modules() -> None:
    """Let plugins have the modules of this process again, which they take out of sys.modules.

    They do so to get the ones of their own folders, which are the same: is_ours has seen to it.
    """
    kept = {
        name: module
        for name, module in sys.modules.items()
        if "slapos" in name or "pkg_resources" in name
    }
    sys.meta_path.insert(0, _Kept(kept))  # pyright: ignore[reportArgumentType]
