# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build one profile, without a master."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from slapos_wendelin.cli.mirror import absolute
from slapos_wendelin.errors import CommandError, MissingRequirementError
from slapos_wendelin.local.home import Home
from slapos_wendelin.mirror.using import Mirror

_PROFILES = ("software.cfg", "buildout.cfg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of ``./wendelin build``."""
    parser.add_argument("profile", help="a folder of the repository, such as component/mariadb")
    parser.add_argument(
        "--from",
        dest="mirror",
        metavar="FOLDER|URL",
        help="take all sources from a mirror, none from elsewhere",
    )


def build(options: argparse.Namespace) -> int:
    """Build a component or release into the environment's parts."""
    home = Home.from_environment()
    profile = find_profile(options.release, options.profile)
    settings, environment = _settings(home), dict(os.environ)
    home.downloads.mkdir(parents=True, exist_ok=True)
    home.shared_parts.mkdir(parents=True, exist_ok=True)
    if options.mirror:
        place = options.mirror
        mirror = Mirror(place if "://" in place else str(absolute(Path(place))))
        mirror.check()
        environment |= mirror.environment
        if mirror.is_folder:
            settings.append("buildout:offline=true")
    folder = home.root / "build" / profile.parent.relative_to(options.release)
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("buildout")), f"-c{profile}"]
    done = subprocess.run(
        [*command, f"buildout:directory={folder}", *settings],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"{options.profile} was not built", "look at the lines above")
    print(f"{options.profile} is built: what it gives is in {folder / '.installed.cfg'}")
    return 0


def find_profile(release: Path, name: str) -> Path:
    """Return the profile of a component or release; raises MissingRequirementError."""
    folder = (release / name).resolve()
    for filename in _PROFILES:
        if folder.is_relative_to(release.resolve()) and (folder / filename).is_file():
            return release / folder.relative_to(release.resolve()) / filename
    names = sorted(
        str(path.parent.relative_to(release))
        for pattern in ("component/*/buildout.cfg", "software/*/software.cfg")
        for path in release.glob(pattern)
    )
    raise MissingRequirementError(f"there is no profile {name}", f"name one of: {', '.join(names)}")


def _settings(home: Home) -> list[str]:
    """Return the options of buildout that put everything in the environment's folders."""
    return [
        f"buildout:shared-part-list={home.shared_parts}",
        f"buildout:download-cache={home.downloads}",
    ]
