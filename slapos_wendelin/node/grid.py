# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapos.core's Slapgrid as the agent uses it: one partition at a time, promises by the runner."""

from __future__ import annotations

import argparse
import configparser
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import slapos.grid.slapgrid as stock
from slapos.grid import SlapObject, utils
from slapos.grid.promise import PromiseError
from slapos.slap.slap import NotFoundError

from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.node import channel, durable
from slapos_wendelin.node.buildout_client import ForkedBuildouts
from slapos_wendelin.node.enforcement import check_partition
from slapos_wendelin.node.occupants import Occupant, Occupants, occupant_of
from slapos_wendelin.node.partition_files import read_text

#: Seconds that the promises of a partition that was just started get to become green.
PATIENCE = 3.0


class Grid(stock.Slapgrid):
    """Processes single partitions, for which it may be used in several forks at once."""

    #: Where buildouts and promises are asked for; set by make_grid.
    buildouts: socket.socket
    promises: socket.socket
    #: What to call when a partition is installed and only waits for its promises.
    installed: Any = staticmethod(lambda: None)
    #: What is in partitions that the master did not know to be there when it was asked last.
    left: dict[str, Occupant]
    #: The one partition that a removal is about.
    _only: str | None = None

    def _checkPromiseList(  # noqa: N802 (slapos.core's name)
        self,
        partition: Any,
        force: bool = True,
        check_anomaly: bool = False,
    ) -> None:
        """Let the runner test the promises of a partition; raises PromiseError for a red one."""
        # After a failure they are only looked at.
        patience = 0.0 if sys.exc_info()[0] else PATIENCE
        if patience:
            self.installed()
        question = {
            "partition": partition.partition_id,
            "release": partition.software_path or "",
            "patience": patience,
        }
        with channel.ask(self.promises, question) as answer:
            told = channel.receive(answer)
        if told is None:
            raise PromiseError("the runner of promises ended before it had tested them")
        if told[0]["foreign"]:
            super()._checkPromiseList(partition, force, check_anomaly)
        for name, message in told[0]["red"]:
            raise PromiseError(f"Promise {name!r} failed with output: {message}")

    def look(self, partition: Any) -> None:
        """Look at promises that only slapgrid can run; raises PromiseError for a red one."""
        super()._checkPromiseList(self._local(partition), force=False, check_anomaly=True)

    def _checkPromiseAnomaly(self, local_partition: Any, computer_partition: Any) -> None:  # noqa: N802
        """Do nothing for a partition that needs nothing: the runner watches its promises."""

    def _local(self, partition: Any) -> Any:
        """Return slapos.core's object for the folder of a partition."""
        url = partition.getSoftwareRelease().getURI()
        return SlapObject.Partition(
            software_path=self.software_path(url),
            instance_path=os.path.join(self.instance_root, partition.getId()),  # noqa: PTH118
            shared_part_list=self.shared_part_list,
            build_time_part_list=self.build_time_part_list,
            supervisord_partition_configuration_dir=str(
                Path(self.instance_root, "etc", "supervisord.conf.d")
            ),
            supervisord_socket=self.supervisord_socket,
            computer_partition=partition,
            computer_id=self.computer_id,
            partition_id=partition.getId(),
            server_url=self.master_url,
            software_release_url=url,
            certificate_repository_path=self.certificate_repository_path,
            buildout=self.buildout,
            logger=self.logger,
        )

    def software_path(self, url: str) -> str:
        """Return the folder of a release."""
        return str(Path(self.software_root, utils.md5digest(url)))

    def fetch(self) -> list[Any]:
        """Ask the master for everything and return the partitions that are not free."""
        self.computer = self.slap.registerComputer(self.computer_id)
        return self.FilterComputerPartitionList(list(self.getComputerPartitionList()))

    def FilterComputerPartitionList(self, computer_partition_list: list[Any]) -> list[Any]:  # noqa: N802
        """Leave out the free ones, and in a removal all but the one that it is about.

        Nothing is touched in a partition that holds the data of another instance.
        """
        self.left = self.occupants.learn(computer_partition_list)
        mine = [
            each
            for each in computer_partition_list
            if each.getId() not in self.left or (self._only is None and occupant_of(each))
        ]
        kept = super().FilterComputerPartitionList(mine)
        return [each for each in kept if self._only in (None, each.getId())]

    @property
    def occupants(self) -> Occupants:
        """Whose data the partitions hold."""
        return Occupants(Path(self.instance_root))

    def is_due(self, partition: Any) -> bool:
        """Return whether a partition is to be processed, by the same marks as slapgrid does."""
        state = partition.getState()
        timestamp = partition.getInstanceParameterDict().get("timestamp")
        if state == stock.COMPUTER_PARTITION_DESTROYED_STATE or timestamp is None:
            return True
        if self.develop or self._manager_list:
            return True
        mark = Path(
            self.instance_root, partition.getId(), stock.COMPUTER_PARTITION_TIMESTAMP_FILENAME
        )
        period = self._period(partition)
        try:
            is_old = 0 <= period < time.time() - mark.stat().st_mtime
            return not period or is_old or read_text(mark) != str(timestamp)
        except OSError:
            return True

    def _period(self, partition: Any) -> float:
        """Return after how many seconds a partition is processed even when nothing has changed."""
        try:
            url = partition.getSoftwareRelease().getURI()
            return int(Path(self.software_path(url), "periodicity").read_text())
        except (NotFoundError, OSError, ValueError):
            return int(self.maximum_periodicity)

    def process(self, partition: Any) -> None:
        """Do for one partition what slapgrid does for all; raises what went wrong."""
        name = partition.getId()
        is_destroyed = partition.getState() == stock.COMPUTER_PARTITION_DESTROYED_STATE
        if not is_destroyed:
            check_partition(Path(self.instance_root, name))
        self.occupants.enter(partition)
        self.processComputerPartition(partition)
        if is_destroyed:
            # slapgrid empties partitions when it reports usage.
            self._only = name
            self.agregateAndSendUsage()
            self.occupants.forget(name)

    def prepare(self) -> None:
        """Write what supervisord needs, and start it when it does not run."""
        super().checkEnvironmentAndCreateStructure()
        super()._launchSupervisord()

    def checkEnvironmentAndCreateStructure(self) -> None:  # noqa: N802
        """Do nothing: prepare has done it, and forks must not write the same files at once."""

    def _launchSupervisord(self) -> None:  # noqa: N802
        """Do nothing: the agent keeps it running."""


def make_grid(configuration: Path, buildouts: socket.socket, promises: socket.socket) -> Grid:
    """Make the grid of a computer, as ``slapos node`` does; raises MissingRequirementError."""
    parser = configparser.ConfigParser()
    parser.read(configuration)
    options = stock.merged_options(argparse.Namespace(now=True), parser)
    try:
        stock.check_missing_parameters(options)
        stock.check_missing_files(options)
    except RuntimeError as error:
        raise MissingRequirementError(
            f"{configuration}: {error}", "correct it, or register the computer again"
        ) from error
    durable.use(stock)
    utils.launchBuildout = ForkedBuildouts(buildouts, utils.launchBuildout).launch
    # The function that knows all options makes an object of the class that its module names.
    module: Any = stock
    original, module.Slapgrid = stock.Slapgrid, Grid
    try:
        grid: Any = stock.create_slapgrid_object(options, logging.getLogger("slapgrid"))
    finally:
        module.Slapgrid = original
    # What stands in the file is text, which slapos.core's own command replaces by its default.
    grid.promise_timeout = max(1, int(float(grid.promise_timeout)))
    grid.buildouts, grid.promises = buildouts, promises
    return grid
