# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos node wipe``: give up what an instance has left that the master does not know."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from slapos.cli.config import ConfigCommand
from slapos.grid.SlapObject import Partition

from slapos_wendelin.cli.client_command import confirm
from slapos_wendelin.errors import CommandError, MissingRequirementError
from slapos_wendelin.node import exclusion, state
from slapos_wendelin.node.configuration import NodeConfiguration, read_configuration
from slapos_wendelin.node.occupants import Occupants

log = logging.getLogger(__name__)


class WipeCommand(ConfigCommand):
    """stop and erase what is in a partition though the master does not know that it is there."""

    command_group = "node"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the stock options, the partition, and --yes."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "partition", metavar="PARTITION", help="one that `slapos node status` names"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def take_action(self, args: argparse.Namespace) -> None:  # pyright: ignore (as stock names it)
        """Ask, and wipe the partition."""
        configuration = read_configuration(Path(self.config_path(args)))
        told = _told(configuration)
        left = told.get("left", {}).get(args.partition)
        if left is None:
            known = ", ".join(told.get("left", {})) or "none"
            raise CommandError(
                f"{args.partition!r} holds nothing that the master does not know",
                f"name a partition of which `slapos node status` says so: {known}",
            )
        what = f"{left['instance']!r} ({left['guid']}) of {left['root']!r}"
        warning = f"{what} in {args.partition} is stopped and its data is erased for good."
        if not args.yes and not confirm(args.partition, warning):
            raise CommandError("nothing was done", f"type {args.partition} to go on")
        wipe(configuration, args.partition)
        if exclusion.is_locked(state.folder_of(configuration.instance_root)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(told["pid"], signal.SIGHUP)
        print(f"{args.partition} is empty; what was of {what} is gone.")


def wipe(configuration: NodeConfiguration, name: str) -> None:
    """Stop the programs of a partition and empty it. May be repeated when it was interrupted."""
    root = configuration.instance_root
    repository = configuration.certificate_repository
    partition = Partition(
        software_path="",
        instance_path=str(root / name),
        shared_part_list="",
        build_time_part_list="",
        supervisord_partition_configuration_dir=str(root / "etc" / "supervisord.conf.d"),
        supervisord_socket=str(configuration.supervisor_socket),
        computer_partition=None,
        computer_id=configuration.computer,
        partition_id=name,
        server_url=configuration.master_url,
        software_release_url="",
        certificate_repository_path=None if repository is None else str(repository),
        buildout=None,
        logger=log,
    )
    try:
        partition.stop()
        is_gone = partition.destroy()
    except (OSError, subprocess.CalledProcessError) as error:
        raise CommandError(f"{name} was not emptied: {error}", "mend that, then repeat") from error
    if not is_gone:
        raise CommandError(
            f"{name} asks to be kept for some time yet", "repeat the command when that is over"
        )
    Occupants(root).forget(name)


def _told(configuration: NodeConfiguration) -> dict[str, Any]:
    """Return what the agent has told last."""
    try:
        told = state.read_state(configuration.instance_root)
    except PermissionError as error:
        raise MissingRequirementError(
            f"only the user of the agent may read {error.filename}", "run this command as that user"
        ) from error
    return told or {}
