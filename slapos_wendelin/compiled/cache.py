# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Push compiled parts into a cache, and take them out of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from slapos_wendelin.compiled import entries
from slapos_wendelin.compiled.entries import NOTE_LIMIT, Note
from slapos_wendelin.compiled.errors import CacheError, NotInCacheError
from slapos_wendelin.compiled.libraries import check_libraries
from slapos_wendelin.compiled.places import Place
from slapos_wendelin.recipe.shared import MARKER

_INDEX = "index.json"
_INDEX_LIMIT = 64 * 1024 * 1024
#: Begins the name of the recipe in the identity of parts that are kept.
RECIPE = "slapos_wendelin:compile "
#: What the compiler was, written into a compiled part.
COMPILER_FILE = ".compiler"


def compiled_parts(root: Path, names: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the complete compiled parts of a folder of shared parts.

    :param names: of parts; all unless given.
    """
    for marker in sorted(root.glob(f"*/*/{MARKER}")):
        part = marker.parent
        if names and part.parent.name not in names:
            continue
        identity = json.loads(marker.read_text())
        if str(identity.get("recipe", "")).startswith(RECIPE):
            yield part


class Cache:
    """A cache of compiled parts."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def listed(self) -> list[tuple[str, str]]:
        """Return name and digest of the parts that the index names; raises CacheError."""
        try:
            content = self.place.read(_INDEX, _INDEX_LIMIT)
        except NotInCacheError:
            return []
        try:
            listed = [(str(name), str(digest)) for name, digest in json.loads(content)["parts"]]
        except (ValueError, TypeError, KeyError) as error:
            raise CacheError(
                f"{self.place}/{_INDEX} is damaged", "remove it, then push the parts again"
            ) from error
        for name, digest in listed:
            entries.check_name(name, digest)
        return listed

    def push(self, part: Path, key: Ed25519PrivateKey, *, again: bool = False) -> bool:
        """Put a part into the cache unless it is there; return whether it was put.

        :param again: also if it is there.
        :raises CacheError: the cache cannot be written.
        """
        name, digest = part.parent.name, part.name
        entries.check_name(name, digest)
        if not again and self._is_held(name, digest):
            return False
        compiler = part / COMPILER_FILE
        with tempfile.TemporaryDirectory(prefix="wendelin-cache-") as work:
            archive = Path(work, "archive")
            sha256, size = entries.pack(part, archive)
            note = Note(
                name=name,
                digest=digest,
                identity=(part / MARKER).read_text(),
                compiler=compiler.read_text().strip() if compiler.is_file() else "",
                location=entries.own_path(part),
                sha256=sha256,
                size=size,
            )
            text = Path(work, "note")
            text.write_bytes(entries.signed(note, key))
            # The note comes last: what it names is there.
            self.place.store(_archive_name(name, digest), archive)
            self.place.store(_note_name(name, digest), text)
            self._list(name, digest, Path(work, "index"))
        return True

    def note(self, name: str, digest: str, keys: Sequence[Ed25519PublicKey]) -> Note:
        """Return what the cache says of a part; raises NotInCacheError, CacheError."""
        path = _note_name(name, digest)
        note = entries.read_note(self.place.read(path, NOTE_LIMIT), f"{self.place}/{path}", keys)
        if (note.name, note.digest) != (name, digest):
            raise CacheError(
                f"{self.place}/{path} is signed, but as {note.name}/{note.digest}",
                "do not use this cache: its files were moved",
            )
        return note

    def take(self, note: Note, location: Path) -> None:
        """Write the files of a part into an empty folder; raises CacheError.

        Its checksum is checked before anything is unpacked.
        """
        if note.location and note.location != str(location):
            raise CacheError(
                f"{note.name} of the cache runs in {note.location} only, not in {location}",
                "keep shared parts in that folder, or compile here",
            )
        path = _archive_name(note.name, note.digest)
        archive = location / ".archive"
        self.place.fetch(path, archive, note.size)
        entries.check_archive(archive, note, f"{self.place}/{path}")
        entries.unpack(archive, location)
        archive.unlink()
        check_libraries(note.name, location)

    def _is_held(self, name: str, digest: str) -> bool:
        """Whether the cache has a note of a part, whoever has signed it."""
        try:
            self.place.read(_note_name(name, digest), NOTE_LIMIT)
        except NotInCacheError:
            return False
        return (name, digest) in self.listed()

    def _list(self, name: str, digest: str, work: Path) -> None:
        """Add a part to the index."""
        with self.place.changing():
            parts = sorted({*self.listed(), (name, digest)})
            work.write_text(json.dumps({"parts": parts}, indent=1))
            self.place.store(_INDEX, work)


def _note_name(name: str, digest: str) -> str:
    return f"{name}/{digest}.json"


def _archive_name(name: str, digest: str) -> str:
    return f"{name}/{digest}.tar.gz"
