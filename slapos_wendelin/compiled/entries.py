# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled parts as a cache holds them: an archive, and a signed note that says what it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from slapos_wendelin.compiled.errors import CacheError
from slapos_wendelin.compiled.keys import is_signed, public_text, sign
from slapos_wendelin.files import sha256_of
from slapos_wendelin.recipe.shared import MARKER

_FORMAT = 1
#: Bytes that a note may have.
NOTE_LIMIT = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_REFUSED = "do not use it: ask who runs the cache, or compile here without it"


@dataclass(frozen=True)
class Note:
    """What a compiled part is."""

    name: str
    digest: str
    #: What decides the content: profile, source, system (the text of the part's marker).
    identity: str
    #: What compiled it.
    compiler: str
    #: The only folder that it runs in; empty when it runs in any.
    location: str
    #: Of the archive.
    sha256: str
    size: int


def check_name(name: str, digest: str) -> None:
    """Refuse names that would lead elsewhere; raises CacheError."""
    if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest):
        raise CacheError(f"{name}/{digest} is no name of a compiled part")


def pack(part: Path, target: Path) -> tuple[str, int]:
    """Write the files of a part into an archive; return its SHA-256 and size.

    The same files give the same bytes. The marker is left out: whoever unpacks them writes it last.
    """
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(part.rglob("*")):
            if path == part / MARKER:
                continue
            member = tar.gettarinfo(path, str(path.relative_to(part)))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            if member.islnk():  # two names of one file are two files
                member.type, member.linkname = tarfile.REGTYPE, ""
                member.size = path.stat().st_size
            if member.isreg():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    return sha256_of(target), target.stat().st_size


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive below a folder; raises CacheError.

    Python before 3.11.4 has no filter for that. Nothing is written outside of the folder, no link
    leads there, and there are no devices. A marker is left out: it would say too early that all is
    there.
    """
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path != PurePosixPath(MARKER):
                    _write(tar, member, path, folder)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise CacheError(f"{archive} is no intact archive: {error}", _REFUSED) from error


def _write(
    tar: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath, folder: Path
) -> None:
    """Write one file, link or folder of an archive; raises CacheError."""
    target = folder / path
    top = folder.resolve()
    is_inside = not path.is_absolute() and ".." not in path.parts
    if is_inside and member.issym():
        end = Path(os.path.normpath(target.parent.resolve() / member.linkname))
        is_inside = not member.linkname.startswith("/") and end.is_relative_to(top)
    kind_is_known = member.isreg() or member.isdir() or member.issym()
    if not is_inside or not kind_is_known or not target.parent.resolve().is_relative_to(top):
        raise CacheError(f"the archive holds {member.name!r}, which is refused", _REFUSED)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
        return
    content = tar.extractfile(member)
    with target.open("xb") as stream:
        if content:
            shutil.copyfileobj(content, stream)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)


def own_path(part: Path) -> str:
    """Return the folder of a part if its files name the folder of shared parts, else nothing.

    Then it runs nowhere else. The folder in which it was compiled is gone: that compilers have
    noted it does not matter.
    """
    root = part.parent.parent
    gone = f"{part.parent.name}/{part.name}/.build"
    pattern = re.compile(re.escape(os.fsencode(root)) + b"/(?!" + re.escape(gone.encode()) + b")")
    for path in part.rglob("*"):
        if path.is_symlink():
            if pattern.match(os.fsencode(path.readlink())):
                return str(part)
        elif path.is_file() and path != part / MARKER and _contains(path, pattern):
            return str(part)
    return ""


def _contains(path: Path, pattern: re.Pattern[bytes]) -> bool:
    """Whether a pattern is in a file."""
    if not path.stat().st_size:
        return False
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return bool(pattern.search(content))


def signed(note: Note, key: Ed25519PrivateKey) -> bytes:
    """Return the note as it is kept: with its signature and the key to ask for."""
    document = {"format": _FORMAT, "note": asdict(note)}
    return json.dumps(
        document | {"key": public_text(key.public_key()), "signature": sign(key, _plain(note))},
        indent=2,
        sort_keys=True,
    ).encode()


def read_note(content: bytes, place: str, keys: Iterable[Ed25519PublicKey]) -> Note:
    """Read a note and check who has signed it.

    :raises CacheError: it is damaged, or no trusted key has signed it.
    """
    try:
        document = json.loads(content)
        fields: dict[str, Any] = document["note"]
        note = Note(**fields)
        signature, key = str(document["signature"]), str(document["key"])
        is_known = document["format"] == _FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise CacheError(f"{place} is no note of a compiled part", _REFUSED) from error
    if not is_known:
        raise CacheError(f"{place} has a format of a later version", "upgrade slapos_wendelin here")
    if not is_signed(keys, _plain(note), signature):
        raise CacheError(
            f"{place} is not signed by a trusted key: it says to be of {key!r}",
            "trust that key if you know whose it is, or " + _REFUSED,
        )
    check_name(note.name, note.digest)
    if hashlib.sha256(note.identity.encode()).hexdigest()[:32] != note.digest:
        raise CacheError(f"{place} is signed, but for another part", _REFUSED)
    return note


def check_archive(archive: Path, note: Note, place: str) -> None:
    """Refuse an archive with another checksum than the signed one; raises CacheError."""
    found = sha256_of(archive)
    if found != note.sha256:
        raise CacheError(f"{place} has sha256 {found}, but {note.sha256} is signed", _REFUSED)


def _plain(note: Note) -> bytes:
    """Return the bytes that are signed."""
    return json.dumps(asdict(note), sort_keys=True, separators=(",", ":")).encode()
