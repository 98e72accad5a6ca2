# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A partition that holds the data of one instance is not touched for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from slapos.slap.slap import ComputerPartition

from slapos_wendelin.node.occupants import Occupant, Occupants, OccupiedError

MINE, OTHER = Occupant("SOFTINST-1", "mine", "root"), Occupant("SOFTINST-2", "other", "root")


@pytest.fixture
def partition(tmp_path: Path) -> Path:
    """Return the folder of a partition that is formatted and free."""
    folder = tmp_path / "slappart0"
    folder.mkdir()
    (folder / ".slapos-resource").touch()
    (tmp_path / ".agent").mkdir()
    return folder


def wanted(occupant: Occupant | None, timestamp: str = "1") -> Any:
    """Return a partition as the slap library gives it; free for None."""
    document = ComputerPartition("paris", "slappart0")
    parameters = {} if occupant is None else {"timestamp": timestamp}
    if occupant is not None:
        parameters |= {"instance_title": occupant.instance, "root_instance_title": occupant.root}
    guid = None if occupant is None else occupant.guid
    vars(document).update(_instance_guid=guid, _parameter_dict=parameters)
    return document


def test_data_of_one_instance_are_not_touched_for_another(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter("slappart0", MINE)
    (partition / "data").touch()
    occupants.enter("slappart0", MINE)
    with pytest.raises(OccupiedError, match=r"slappart0 holds the data of 'mine' \(SOFTINST-1\)"):
        occupants.enter("slappart0", OTHER)
    assert occupants.of("slappart0") == MINE


def test_what_the_master_does_not_know_is_told(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter("slappart0", MINE)
    (partition / "data").touch()
    assert occupants.learn([wanted(MINE)]) == {}
    for master_says in (wanted(None), wanted(OTHER)):
        assert occupants.learn([master_says]) == {"slappart0": MINE}


@pytest.mark.parametrize("garbage", [".slapgrid", ".timestamp"])
def test_a_partition_that_was_emptied_is_free_for_others(partition: Path, garbage: str) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter("slappart0", MINE)
    (partition / garbage).touch()
    assert occupants.learn([wanted(None)]) == {}
    occupants.enter("slappart0", OTHER)
    (partition / "data").touch()
    assert occupants.of("slappart0") == OTHER
    occupants.forget("slappart0")
    assert occupants.of("slappart0") == OTHER
    (partition / "data").unlink()
    occupants.forget("slappart0")
    assert not list((partition.parent / ".agent" / "instances").iterdir())


def test_what_was_processed_before_anybody_noted_it_is_noted(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    (partition / "data").touch()
    occupants.learn([wanted(MINE, "2")])
    assert occupants.of("slappart0") is None
    (partition / ".timestamp").write_text("2")
    occupants.learn([wanted(MINE, "2")])
    assert occupants.of("slappart0") == MINE
