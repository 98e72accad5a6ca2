# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the releases are built from, as their profiles say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zc.buildout import configparser

from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.recipe.mirrored import archive_name

#: Folders of a release that have profiles, and the lock of what runs buildout.
_FOLDERS = ("component", "stack", "software")
TOOLKIT_LOCK = Path("requirements", "toolkit.txt")
TEST_LOCK = Path("requirements", "test.txt")

_REFERENCE = re.compile(r"\$\{:([^}]+)\}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Archive:
    """A source archive of a project."""

    url: str
    sha256: str
    #: Debian's source package that has the same archive.
    debian_source: str
    #: The section and the profile that want it.
    wanted_by: str

    @property
    def filename(self) -> str:
        """Name of the archive."""
        return archive_name(self.url)


@dataclass(frozen=True)
class PythonSource:
    """A source archive on the Python index."""

    requirement: str
    sha256: str
    wanted_by: str


@dataclass(frozen=True)
class Needs:
    """All that a release is built from."""

    archives: list[Archive] = field(default_factory=list)
    python_sources: list[PythonSource] = field(default_factory=list)
    #: Files that pin Python packages by hash.
    locks: list[Path] = field(default_factory=list)


def read_needs(release: Path, *, tests: bool = False) -> Needs:
    """Read the profiles of a release.

    :param release: the folder of the repository.
    :param tests: whether the tools of the tests are needed too.
    :raises MirrorError: a profile cannot be read or names an archive in a way not understood.
    """
    needs = Needs()
    needs.locks.append(release / TOOLKIT_LOCK)
    if tests:
        needs.locks.append(release / TEST_LOCK)
    for profile in _profiles(release):
        for name, options in _sections(profile):
            _note(needs, name, options, profile)
    return needs


def _profiles(release: Path) -> Iterator[Path]:
    """Yield the profiles of a release; raises MirrorError when there are none."""
    profiles = sorted(
        path
        for folder in _FOLDERS
        for path in (release / folder).rglob("*.cfg")
        if not path.name.startswith(".")
    )
    if not profiles:
        raise MirrorError(
            f"{release} has no profiles in {', '.join(_FOLDERS)}", "name the folder of the release"
        )
    yield from profiles


def _sections(profile: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the sections of a profile."""
    with profile.open() as stream:
        try:
            sections = configparser.parse(stream, str(profile))
        except configparser.ParsingError as error:
            raise MirrorError(
                f"{profile} cannot be read: {error}", "correct the profile"
            ) from error
    for name, options in sections.items():
        own = {key: value.strip() for key, value in options.items()}
        own["_profile_base_location_"] = str(profile.parent)
        yield name, own


def _note(needs: Needs, name: str, options: Mapping[str, str], profile: Path) -> None:
    """Add what one section needs."""
    place = f"[{name}] of {profile}"
    if "requirements" in options:
        needs.locks.extend(
            path
            for line in options["requirements"].splitlines()
            if (path := Path(_value(line.partition("#")[0], options, place))) not in needs.locks
        )
    if "sha256" not in options:
        return
    sha256 = _value(options["sha256"], options, place).lower()
    if not _SHA256.fullmatch(sha256):
        raise MirrorError(f"{place}: {sha256!r} is no sha256", "correct the profile")
    if "requirement" in options:
        requirement = _value(options["requirement"], options, place)
        needs.python_sources.append(PythonSource(requirement, sha256, place))
    elif "url" in options:
        url = _value(options["url"], options, place)
        needs.archives.append(Archive(url, sha256, options.get("debian-source", name), place))


def _value(text: str, options: Mapping[str, str], place: str) -> str:
    """Return an option with the references to options of its own section replaced."""

    def replaced(reference: re.Match[str]) -> str:
        if reference[1] not in options:
            raise MirrorError(f"{place} has no option {reference[1]}", "correct the profile")
        return _value(options[reference[1]], options, place)

    value = _REFERENCE.sub(replaced, text.strip())
    if "${" in value:
        raise MirrorError(
            f"{place}: {value!r} refers to another section, which the mirror cannot follow",
            "write the value itself",
        )
    return value
