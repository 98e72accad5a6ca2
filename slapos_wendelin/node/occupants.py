# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose data is in each partition, as the computer itself knows it.

A master whose database was put back from a backup does not know what came later: it takes for free,
or gives to others, partitions that hold data which somebody needs. Guids are never given out twice,
so a partition that holds the data of one guid is not touched for another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slapos.grid.slapgrid import (
    COMPUTER_PARTITION_DESTROYED_STATE,
    COMPUTER_PARTITION_TIMESTAMP_FILENAME,
)
from slapos.slap.exception import ResourceNotReady
from slapos.slap.slap import COMPUTER_PARTITION_REQUEST_LIST_TEMPLATE_FILENAME

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.node.partition_files import read_text
from slapos_wendelin.node.state import folder_of
from slapos_wendelin.protocol_words import LEFT_AT, LEFT_BY

#: The folder of what is known, in the agent's own.
FOLDER = "instances"
#: What may be in a partition that is free: what slapformat puts there, and what slapgrid has left.
_NOTHING = frozenset({".slapos-resource", ".slapgrid", COMPUTER_PARTITION_TIMESTAMP_FILENAME})
_REQUESTS = COMPUTER_PARTITION_REQUEST_LIST_TEMPLATE_FILENAME.removesuffix("%s")


@dataclass(frozen=True)
class Occupant:
    """An instance whose data a partition holds."""

    guid: str
    #: Its name, and that of the root of its tree.
    instance: str = ""
    root: str = ""
    #: What the master called the time, in seconds, when it came here.
    since: float = 0.0

    def told(self) -> dict[str, str]:
        """Return what the master and the operator are told of it."""
        return {"guid": self.guid, "instance": self.instance, "root": self.root}


class OccupiedError(WendelinError):
    """A partition holds the data of another instance than the one that it is to get."""


class Occupants:
    """Knows the instances whose data the partitions of a computer hold."""

    def __init__(self, instance_root: Path) -> None:
        self._root = instance_root
        self._folder = folder_of(instance_root) / FOLDER

    def of(self, partition: str) -> Occupant | None:
        """Return whose data a partition holds; None when it is empty or that is not known."""
        try:
            told = json.loads((self._folder / f"{partition}.json").read_text())
            occupant = Occupant(told["guid"], told["instance"], told["root"], told["since"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if self._is_empty(partition) else occupant

    def enter(self, place: Any) -> None:
        """Note, for good, that a partition is about to hold the data of an instance.

        :param place: the partition with its instance, as the slap library gives it.
        :raises OccupiedError: when it holds the data of another one.
        """
        partition, occupant = place.getId(), occupant_of(place)
        if occupant is None:
            return
        known = self.of(partition)
        if known is not None and not _is_about(place, known):
            raise OccupiedError(
                f"{partition} holds the data of {known.instance!r} ({known.guid}), of which the"
                f" master does not know that it is here, and nothing of {occupant.instance!r}"
                f" ({occupant.guid}) was done",
                f"move the new one (slapos cluster move {occupant.guid}), or give up the old data:"
                f" slapos node wipe {partition} on this computer",
            )
        if known is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps(asdict(occupant))
            write_atomically(self._folder / f"{partition}.json", text, secret=True)

    def forget(self, partition: str) -> None:
        """Note that a partition was emptied, if it is so."""
        if self._is_empty(partition):
            (self._folder / f"{partition}.json").unlink(missing_ok=True)

    def learn(self, partitions: Iterable[Any]) -> dict[str, Occupant]:
        """Return what is in partitions that the master does not know to be there.

        Notes the occupants of partitions that were processed before anybody noted them.

        :param partitions: all of the computer, as the slap library gives them.
        """
        left = {}
        for partition in partitions:
            name = partition.getId()
            known = self.of(name)
            if known is None:
                if self._was_processed(partition):
                    self.enter(partition)
            elif not _is_about(partition, known):
                left[name] = known
        return left

    def _was_processed(self, partition: Any) -> bool:
        """Return whether what the master wants of a partition was the last that was done in it."""
        mark = self._root / partition.getId() / COMPUTER_PARTITION_TIMESTAMP_FILENAME
        try:
            return read_text(mark) == str(partition.getInstanceParameterDict().get("timestamp"))
        except OSError:
            return False

    def _is_empty(self, partition: str) -> bool:
        """Return whether there is nothing in the folder of a partition."""
        try:
            names = [each.name for each in (self._root / partition).iterdir()]
            return all(each in _NOTHING or each.startswith(_REQUESTS) for each in names)
        except OSError:
            return True


def occupant_of(partition: Any) -> Occupant | None:
    """Return the instance that the master wants in a partition; None for a free one."""
    try:
        guid = partition.getInstanceGuid()
    except ResourceNotReady:
        return None
    parameters = partition.getInstanceParameterDict()
    instance, root = (
        parameters.get(key) or guid for key in ("instance_title", "root_instance_title")
    )
    return Occupant(guid, instance, root, float(parameters.get("timestamp") or 0))


def _is_about(partition: Any, known: Occupant) -> bool:
    """Return whether what the master wants of a partition is about the instance that is in it.

    What holds the partition that an instance has left, until it is wiped, tells whose it was.
    """
    wanted = occupant_of(partition)
    if wanted is None or wanted.guid == known.guid:
        return wanted is not None
    parameters = partition.getInstanceParameterDict()
    is_left = partition.getState() == COMPUTER_PARTITION_DESTROYED_STATE
    # It may have come back since then.
    return (
        is_left
        and parameters.get(LEFT_BY) == known.guid
        and known.since <= float(parameters.get(LEFT_AT) or 0)
    )
