# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Source trees that wheels are built from: unpacked from an archive or copied from a folder."""

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from slapos_wendelin.buildout.errors import ProfileError

#: Files beside the packages that a build reads.
_PROJECT_FILES = (
    "pyproject.toml", "setup.py", "setup.cfg", "MANIFEST.in", "README*", "LICENSE*", "COPYING*",
)  # fmt: skip


def unpack(archive: bytes, place: str, folder: Path) -> Path:
    """Write the regular files of a source archive below a folder; return the folder of its project.

    Links, devices and paths that lead outside are refused. Modes are 0644 and 0755, whatever the
    archive and the umask say, so that what is built from them is the same everywhere.

    :param place: what errors call the archive.
    :raises ProfileError: the archive is damaged, refused, or holds more than one project.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if (
                    path.is_absolute()
                    or ".." in path.parts
                    or not (member.isreg() or member.isdir())
                ):
                    raise ProfileError(f"{place} holds {member.name!r}, which is no plain file")
                if member.isreg():
                    _write(folder / path, tar.extractfile(member), member.mode)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ProfileError(f"{place} is no intact tar.gz archive: {error}") from error
    projects = list(folder.iterdir())
    if len(projects) != 1:
        raise ProfileError(f"{place} holds {len(projects)} folders, not one project")
    return projects[0]


def project_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a project that its build reads: metadata and packages, in stable order.

    :raises ProfileError: the folder holds no project.
    """
    if not any((folder / name).is_file() for name in ("pyproject.toml", "setup.py")):
        raise ProfileError(f"{folder} holds no Python project", "name the folder of pyproject.toml")
    top = {path for pattern in _PROJECT_FILES for path in folder.glob(pattern) if path.is_file()}
    packages = {path.parent for path in folder.glob("*/__init__.py")}
    inside = {
        path
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    yield from sorted(top | inside)


def project_digest(folder: Path) -> str:
    """Return the SHA-256 of a project's paths and contents."""
    digest = hashlib.sha256()
    for path in project_files(folder):
        name = str(path.relative_to(folder)).encode()
        content = path.read_bytes()
        digest.update(b"%d %d\n%s%s" % (len(name), len(content), name, content))
    return digest.hexdigest()


def copy_project(folder: Path, target: Path) -> None:
    """Copy the files of a project, so that building leaves nothing in its folder."""
    for path in project_files(folder):
        with path.open("rb") as stream:
            _write(target / path.relative_to(folder), stream, path.stat().st_mode)


def project_name_and_version(folder: Path) -> tuple[str, str]:
    """Return what ``pyproject.toml`` says; setup.py is not run for it.

    :raises ProfileError: it says neither.
    """
    path = folder / "pyproject.toml"
    text = path.read_text() if path.is_file() else ""
    found = [re.search(rf'^{key} *= *"([^"]+)"', text, re.MULTILINE) for key in ("name", "version")]
    if not all(found):
        raise ProfileError(f"{path} gives no name and version")
    name, version = (match.group(1) for match in found if match)
    return name, version


def _write(path: Path, content: IO[bytes] | None, mode: int) -> None:
    """Write a regular file with a mode that depends on its executable bit only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        if content:
            shutil.copyfileobj(content, stream)
    path.chmod(0o755 if mode & 0o100 else 0o644)
