# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``update-hash``: refresh the checksums that profiles give for files beside them.

A folder whose files profiles use holds a ``buildout.hash.cfg``. A section of it names a file in
``filename`` (or ``_update_hash_filename_``, where ``filename`` means something else to the recipe)
and gives its ``md5sum``. Buildout checks it when it uses the file.
"""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slapos_wendelin.errors import WendelinError

HASH_FILE = "buildout.hash.cfg"

_SECTION = re.compile(r"\[([^\]]+)\]")
_OPTION = re.compile(r"([^\s=]+)\s*=\s*(.*)")
_FILE_OPTIONS = ("_update_hash_filename_", "filename")

#: Folders that buildout fills, and those of tools.
_SKIPPED = {"parts", "eggs", "develop-eggs", "node_modules", "__pycache__"}


@dataclass
class _Entry:
    """A section of a hash file, with the numbers of its lines."""

    section: str
    filename: str = ""
    filename_line: int = -1
    md5sum: str = ""
    md5sum_line: int = -1


def hash_files(folders: list[Path]) -> list[Path]:
    """Return the hash files below folders.

    :raises WendelinError: a folder does not exist or has none below it.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise WendelinError(f"there is no folder {folder}")
        before = len(found)
        for place, names, files in os.walk(folder):
            names[:] = sorted(n for n in names if n not in _SKIPPED and not n.startswith("."))
            found += [Path(place) / name for name in files if name == HASH_FILE]
        if len(found) == before:
            raise WendelinError(f"there is no {HASH_FILE} below {folder}")
    return found


def refreshed(path: Path) -> tuple[str, list[str]]:
    """Return the text that a hash file should have, and the files whose checksum it changes.

    :raises WendelinError: it names a file that does not exist, or a section names none.
    """
    lines = path.read_text().splitlines()
    stale = []
    for entry in reversed(list(_entries(lines))):
        if not entry.filename:
            raise WendelinError(
                f"[{entry.section}] of {path} names no file", "add the option filename"
            )
        target = path.parent / entry.filename
        if not target.is_file():
            raise WendelinError(
                f"[{entry.section}] of {path} names {entry.filename}, which does not exist",
                "remove the section, or correct the file name",
            )
        md5sum = hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest()
        if entry.md5sum == md5sum:
            continue
        stale.append(str(target))
        if entry.md5sum_line < 0:
            lines.insert(entry.filename_line + 1, f"md5sum = {md5sum}")
        else:
            lines[entry.md5sum_line] = f"md5sum = {md5sum}"
    return "\n".join(lines) + "\n", stale[::-1]


def _entries(lines: list[str]) -> Iterator[_Entry]:
    """Yield the sections of a hash file."""
    entry = None
    for number, line in enumerate(lines):
        if section := _SECTION.match(line):
            if entry:
                yield entry
            entry = _Entry(section[1])
        elif entry and (option := _OPTION.match(line)):
            name, value = option[1], option[2].strip()
            if name == _FILE_OPTIONS[0] or (name == _FILE_OPTIONS[1] and not entry.filename):
                entry.filename, entry.filename_line = value, number
            elif name == "md5sum":
                entry.md5sum, entry.md5sum_line = value, number
    if entry:
        yield entry


def update(folders: list[Path], *, check: bool) -> list[str]:
    """Refresh the hash files below folders; return the files whose checksum was not right.

    :param check: leave the hash files as they are.
    :raises WendelinError: as :func:`hash_files` and :func:`refreshed`; nothing is written then.
    """
    texts = {path: refreshed(path) for path in hash_files(folders)}
    for path, (text, stale) in texts.items():
        if stale and not check:
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(text)
            temporary.replace(path)
    return [name for _, stale in texts.values() for name in stale]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="update-hash", description=f"Refresh the checksums of the {HASH_FILE} below folders."
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path, default=[Path()])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail when a checksum is not right"
    )
    options = parser.parse_args(arguments)
    try:
        stale = update(options.folders, check=options.check)
    except WendelinError as error:
        sys.stderr.write(f"update-hash: {error}\n")
        return error.exit_status
    for name in stale:
        sys.stdout.write(f"{'stale' if options.check else 'updated'}: {name}\n")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
