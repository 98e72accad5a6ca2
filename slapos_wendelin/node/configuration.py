# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a computer knows of itself: the slapos.cfg that slapgrid reads too."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slapos_wendelin.errors import MissingRequirementError

#: The pid files that ``slapos node`` uses when the configuration names none.
PID_FILES = {
    "software": Path("/opt/slapos/slapgrid-sr.pid"),
    "instance": Path("/opt/slapos/slapgrid-cp.pid"),
}


@dataclass(frozen=True)
class NodeConfiguration:
    """The parts of slapos.cfg that the node service needs."""

    path: Path
    computer: str
    master_url: str
    instance_root: Path
    #: Where slapgrid keeps partitions' certificates, and how many seconds promises get.
    certificate_repository: Path | None = None
    promise_time: float = 20.0
    #: The pid files of ``slapos node software`` and ``slapos node instance``.
    pid_files: Mapping[str, Path] = field(default_factory=dict)
    #: Files of the computer's certificate, of its key and of the master's authority.
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    @property
    def supervisor_socket(self) -> Path:
        """The socket of the supervisord that runs the partitions' programs."""
        return self.instance_root / "sv.sock"

    def pid_file(self, kind: str) -> Path:
        """Return the pid file of ``slapos node KIND``."""
        return self.pid_files[kind]

    @property
    def promise_settings(self) -> dict[str, Any]:
        """What the runner of promises needs to know."""
        repository = self.certificate_repository
        return {
            "instance_root": str(self.instance_root),
            "master_url": self.master_url,
            "computer_id": self.computer,
            "certificates": None if repository is None else str(repository),
            "time_limit": self.promise_time,
        }


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
            instance_root=Path(section["instance_root"]).absolute(),
            certificate_repository=_path(section, "certificate_repository_path"),
            promise_time=section.getfloat("promise_timeout", 20.0),
            pid_files={
                kind: _path(section, f"pidfile_{kind}") or _path(section, "pidfile") or default
                for kind, default in PID_FILES.items()
            },
            certificate=_path(section, "cert_file"),
            key=_path(section, "key_file"),
            authority=_path(section, "master_ca_file"),
        )
    except (OSError, KeyError, ValueError, configparser.Error) as error:
        raise MissingRequirementError(
            f"{path} is no configuration of a computer: {error}", "make it again: ./wendelin up"
        ) from error


def _path(section: configparser.SectionProxy, option: str) -> Path | None:
    """Return the path that an option names, or None when it names none."""
    value = section.get(option)
    return Path(value).expanduser() if value else None
