# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files: written so that a crash leaves them whole, told by their content, held by one process."""

import ctypes
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(
    path: Path, content: str | bytes, *, secret: bool = False, durable: bool = True
) -> None:
    """Replace *path* with *content* so that a crash leaves the old or the new content, never half.

    :param secret: let only the owner read it.
    :param durable: let what was written be there to stay when this returns; False for what tells of
        the present only, of which a crash of the machine may leave the old content.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with os.fdopen(os.open(temporary, flags, 0o600 if secret else 0o666), "wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    temporary.replace(path)
    if not durable:
        return
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of a folder's files durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_systems(paths: Iterable[Path]) -> None:
    """Write down all that is still in memory of the file systems that some paths are on.

    Paths that do not exist are left out. Raises OSError when something could not be written.
    """
    done = set()
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            device = os.fstat(descriptor).st_dev
            # Python offers only sync(), which waits for the disks of everybody.
            if device not in done and _libc.syncfs(descriptor):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
            done.add(device)
        finally:
            os.close(descriptor)


_libc = ctypes.CDLL(None, use_errno=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def held(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold a lock file, which the system releases when the process dies.

    :raises Exception: *refusal*, at once, when another process holds it.
    """
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
