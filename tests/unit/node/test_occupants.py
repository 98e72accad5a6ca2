# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A partition that holds the data of one instance is not touched for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from slapos.slap.slap import ComputerPartition

from slapos_wendelin.node.occupants import Occupant, Occupants, OccupiedError

MINE = Occupant("SOFTINST-1", "mine", "root", 1.0)
OTHER = Occupant("SOFTINST-2", "other", "root", 1.0)


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
    vars(document).update(
        _instance_guid=guid, _parameter_dict=parameters, _requested_state="started"
    )
    return document


def left_by(occupant: Occupant, at: str) -> Any:
    """Return a partition that an instance has left, which is to be wiped."""
    document = wanted(OTHER, "9")
    vars(document)["_requested_state"] = "destroyed"
    vars(document)["_parameter_dict"] |= {"left_by": occupant.guid, "left_at": at}
    return document


def test_data_of_one_instance_are_not_touched_for_another(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter(wanted(MINE))
    (partition / "data").touch()
    occupants.enter(wanted(MINE))
    with pytest.raises(OccupiedError, match=r"slappart0 holds the data of 'mine' \(SOFTINST-1\)"):
        occupants.enter(wanted(OTHER))
    assert occupants.of("slappart0") == MINE


def test_what_the_master_does_not_know_is_told(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter(wanted(MINE))
    (partition / "data").touch()
    assert occupants.learn([wanted(MINE)]) == {}
    for master_says in (wanted(None), wanted(OTHER)):
        assert occupants.learn([master_says]) == {"slappart0": MINE}


@pytest.mark.parametrize(
    "garbage", [".slapgrid", ".timestamp", ".slapos-request-transaction-slappart0"]
)
def test_a_partition_that_was_emptied_is_free_for_others(partition: Path, garbage: str) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter(wanted(MINE))
    (partition / garbage).touch()
    assert occupants.learn([wanted(None)]) == {}
    occupants.enter(wanted(OTHER))
    (partition / "data").touch()
    assert occupants.of("slappart0") == OTHER
    occupants.forget("slappart0")
    assert occupants.of("slappart0") == OTHER
    (partition / "data").unlink()
    occupants.forget("slappart0")
    assert not list((partition.parent / ".agent" / "instances").iterdir())


def test_what_an_instance_has_left_is_wiped_but_not_after_it_has_come_back(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    occupants.enter(wanted(MINE, "5"))
    (partition / "data").touch()
    assert occupants.learn([left_by(MINE, "7")]) == {}
    occupants.enter(left_by(MINE, "7"))
    known = {"slappart0": Occupant("SOFTINST-1", "mine", "root", 5.0)}
    for earlier in (left_by(MINE, "3"), left_by(Occupant("SOFTINST-3"), "7")):
        assert occupants.learn([earlier]) == known
        with pytest.raises(OccupiedError):
            occupants.enter(earlier)


def test_what_was_processed_before_anybody_noted_it_is_noted(partition: Path) -> None:
    occupants = Occupants(partition.parent)
    (partition / "data").touch()
    occupants.learn([wanted(MINE, "2")])
    assert occupants.of("slappart0") is None
    (partition / ".timestamp").write_text("2")
    occupants.learn([wanted(MINE, "2")])
    known = occupants.of("slappart0")
    assert known is not None
    assert known.guid == MINE.guid
