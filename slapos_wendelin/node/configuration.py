# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a computer knows of itself: the slapos.cfg that slapgrid reads too."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from slapos_wendelin.errors import MissingRequirementError


@dataclass(frozen=True)
class NodeConfiguration:
    """The parts of slapos.cfg that the node service needs."""

    path: Path
    computer: str
    master_url: str
    instance_root: Path
    #: Files of the computer's certificate, of its key and of the master's authority.
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    @property
    def supervisor_socket(self) -> Path:
        """The socket of the supervisord that runs the partitions' programs."""
        return self.instance_root / "sv.sock"


def read_configuration(path: Path) -> NodeConfiguration:
    """Read slapos.cfg at *path*; raises MissingRequirementError when it lacks something."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open() as stream:
            parser.read_file(stream)
        section = parser["slapos"]
        return NodeConfiguration(
            path=path,
            computer=section["computer_id"],
            master_url=section["master_url"],
            instance_root=Path(section["instance_root"]),
            certificate=_path(section, "cert_file"),
            key=_path(section, "key_file"),
            authority=_path(section, "master_ca_file"),
        )
    except (OSError, KeyError, configparser.Error) as error:
        raise MissingRequirementError(
            f"{path} is no configuration of a computer: {error}", "make it again: ./wendelin up"
        ) from error


def _path(section: configparser.SectionProxy, option: str) -> Path | None:
    """Return the path that an option names, or None when it names none."""
    value = section.get(option)
    return Path(value).expanduser() if value else None
