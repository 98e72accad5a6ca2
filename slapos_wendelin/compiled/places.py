# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a cache is: a folder, or an HTTP server that gives files and takes them by PUT.

::

    index.json            which parts there are; says nothing that is not checked with the part
    NAME/DIGEST.json      what a part is, signed
    NAME/DIGEST.tar.gz    its files
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from slapos_wendelin.compiled.errors import CacheError, NotInCacheError, UnreachableError
from slapos_wendelin.errors import reason

#: Seconds without any byte after which a transfer is given up.
_TIMEOUT = 30
_BLOCK = 1024 * 1024
_MISSING = (404, 410)


class Place(Protocol):
    """A cache."""

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file; raises NotInCacheError, CacheError."""
        ...

    def fetch(self, name: str, target: Path, size: int) -> None:
        """Copy a file of a known size; raises NotInCacheError, CacheError."""
        ...

    def store(self, name: str, source: Path) -> None:
        """Put a file there, whole or not at all; raises CacheError."""
        ...

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep others from changing the index meanwhile, where that can be done."""
        ...


def open_place(text: str) -> Place:
    """Return the cache in a folder or at a URL; raises CacheError."""
    if text.startswith(("http://", "https://")):
        return _Server(text)
    if "://" in text:
        raise CacheError(
            f"the cache {text} is neither a folder nor a URL of http or https", "correct it"
        )
    return _Folder(Path(text).expanduser().absolute())


class _Folder:
    """A cache in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file."""
        with self._open(name) as path, path.open("rb") as stream:
            return stream.read(limit)

    def fetch(self, name: str, target: Path, size: int) -> None:
        """Copy a file of a known size."""
        with self._open(name) as path:
            if path.stat().st_size == size:
                shutil.copyfile(path, target)
                return
        raise CacheError(f"{self.root / name} has not the size that its signature says")

    def store(self, name: str, source: Path) -> None:
        """Put a file there, whole or not at all."""
        target = self.root / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CacheError(
                f"the cache {self.root} cannot be written: {error.strerror}",
                "make room or choose another folder",
            ) from error

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the folder's lock."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            stream = (self.root / ".lock").open("w")
        except OSError as error:
            raise CacheError(
                f"the cache {self.root} cannot be written: {error.strerror}"
            ) from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _open(self, name: str) -> Iterator[Path]:
        """Give the path of a file, and tell errors of reading it."""
        path = self.root / name
        try:
            yield path
        except FileNotFoundError:
            raise NotInCacheError(f"there is no {path}") from None
        except OSError as error:
            raise CacheError(f"{path} cannot be read: {error.strerror}") from error


class _Server:
    """A cache on an HTTP server. Name and password may be in the URL; messages leave them out."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.rstrip("/"))
        self._login = (parts.username, parts.password or "") if parts.username else None
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path, "", ""))

    def __str__(self) -> str:
        return self.url

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file."""
        with self._ask("GET", name, stream=True) as answer:
            return b"".join(self._content(answer, name, limit))[:limit]

    def fetch(self, name: str, target: Path, size: int) -> None:
        """Copy a file of a known size."""
        done = 0
        with self._ask("GET", name, stream=True) as answer, target.open("wb") as stream:
            for block in self._content(answer, name, size + 1):
                done += len(block)
                stream.write(block)
        if done != size:
            raise CacheError(f"{self.url}/{name} has not the size that its signature says")

    def store(self, name: str, source: Path) -> None:
        """Put a file there."""
        with source.open("rb") as stream:
            self._ask("PUT", name, data=stream).close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Do nothing: the server has no lock, and an index that lacks a part hides it only."""
        yield

    def _content(self, answer: requests.Response, name: str, limit: int) -> Iterator[bytes]:
        """Yield what is answered, not much more than a limit."""
        done = 0
        try:
            for block in answer.iter_content(_BLOCK):
                yield block
                done += len(block)
                if done >= limit:
                    return
        except requests.RequestException as error:
            raise CacheError(f"{self.url}/{name} ended early: {error}", "try again") from error

    def _ask(self, method: str, name: str, **options: object) -> requests.Response:
        """Send a request; raises NotInCacheError, CacheError."""
        url = f"{self.url}/{quote(name)}"
        try:
            answer = requests.request(
                method,
                url,
                auth=self._login,
                timeout=_TIMEOUT,
                **options,  # type: ignore[arg-type]
            )
        except requests.RequestException as error:
            raise UnreachableError(
                f"the cache cannot be reached at {url}: {reason(error)}", "correct its URL"
            ) from error
        if answer.ok:
            return answer
        answer.close()
        if method == "GET" and answer.status_code in _MISSING:
            raise NotInCacheError(f"there is no {url}")
        raise CacheError(
            f"the cache answers {answer.status_code} {answer.reason} to {method} {url}",
            "let the server take files by PUT from who may push" if method == "PUT" else "",
        )
