# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts named by their content, built once for all releases and computers of a machine.

A part lives in ``ROOT/NAME/DIGEST``. ROOT is one of ``${buildout:shared-part-list}``, or
``${buildout:parts-directory}``. The marker file is written last: a folder without it is what a
killed build left, and is built again. A lock lets builds of the same part wait for one another.
slapos.recipe.build has the same layout and marker, but no lock.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.files import sync_file_systems

#: Written last into a complete part; says what it was made from.
MARKER = ".buildout-shared.json"

_DIGEST = re.compile(r"[0-9a-f]{32}")


class SharedPart:
    """A folder whose name is the digest of everything that it is made from.

    :param section: the ``[buildout]`` section.
    :param name: the part's name.
    :param shared: whether folders of ``shared-part-list`` may hold it.
    :param identity: plain data that decides the content.
    """

    def __init__(
        self, section: Any, name: str, *, shared: bool, identity: Mapping[str, Any]
    ) -> None:
        self.log = logging.getLogger(name)
        self._identity = json.dumps(identity, indent=2, sort_keys=True)
        digest = hashlib.sha256(self._identity.encode()).hexdigest()[:32]
        lines = section.get("shared-part-list", "").split("\n") if shared else []
        roots = [Path(line.strip()) for line in lines if line.strip()]
        self._parts_directory = Path(section["parts-directory"])
        folders = [root / name / digest for root in [*roots, self._parts_directory]]
        writable = [folder for folder in folders[:-1] if os.access(folder.parent.parent, os.W_OK)]
        complete = [folder for folder in folders if (folder / MARKER).exists()]
        self.location = [*complete, *writable, folders[-1]][0]

    @property
    def complete(self) -> bool:
        """Whether the part is built."""
        return (self.location / MARKER).exists()

    def installed(self) -> list[str]:
        """Return the folders that buildout removes with the part: none that others share."""
        own = self.location.is_relative_to(self._parts_directory)
        return [str(self.location)] if own else []

    def build(self, make: Callable[[Path, int], None]) -> None:
        """Make the part unless it is there.

        :param make: fills the folder it is given. The second argument is the lock's file
            descriptor: a program that inherits it holds the lock even when this process is killed.
        :raises ProfileError: it cannot be written, or *make* raised it. Nothing is left behind.
        """
        if self.complete:
            return
        try:
            with self._locked() as lock:
                if not self.complete:
                    self._build(make, lock)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise out_of_space(self.location) from error
            raise ProfileError(
                f"cannot build {self.location}: {error}", "mend that, then build again"
            ) from error

    def _build(self, make: Callable[[Path, int], None], lock: int) -> None:
        """Make the part, under the lock, or leave nothing of it."""
        started = time.monotonic()
        self._remove()
        try:
            self.location.mkdir(parents=True)
            make(self.location, lock)
            self._mark()
        except BaseException:
            self._remove()
            raise
        self.log.info("built %s in %.1f s", self.location, time.monotonic() - started)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the lock of this part; the lock file stays, for removing it would be a race."""
        folder = self.location.parent
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f".{self.location.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.log.info("waiting for another process that builds %s", self.location)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _remove(self) -> None:
        if self.location.exists():
            shutil.rmtree(self.location)

    def _mark(self) -> None:
        """Declare the part complete, after its files are on the disk."""
        sync_file_systems([self.location])
        marker = self.location / MARKER
        temporary = marker.with_name(f"{MARKER}.new")
        with temporary.open("w") as stream:
            stream.write(self._identity)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(marker)
        folder = os.open(self.location, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def content_identity(path: str) -> str:
    """Return what tells a file's content: its place in a part named by content, or its hash.

    :raises ProfileError: the file belongs to no such part and does not exist.
    """
    *_, folder, name = Path(path).parts
    if _DIGEST.fullmatch(folder):
        return f"{folder}/{name}"
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}") from error


def out_of_space(location: Path) -> ProfileError:
    """Return the error that says which file system is full."""
    folder = next(parent for parent in [location, *location.parents] if parent.exists())
    free = shutil.disk_usage(folder).free // 1024**2
    return ProfileError(
        f"no space left for {location} ({free} MiB are free there)",
        "make room on that file system, then build again: nothing half-made was left",
    )
