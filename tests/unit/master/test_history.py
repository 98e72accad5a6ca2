# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every transaction leaves behind: history, and new revisions of the computers concerned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from database_servers import on_every_database
from sqlalchemy import select, update

from slapos_wendelin.master.database import Database
from slapos_wendelin.master.history import ADDED, CHANGED, REMOVED
from slapos_wendelin.master.models import Change, Computer, Instance, Partition, Product, Software

pytestmark = on_every_database


@pytest.fixture
def database(location: Path | str) -> Iterator[Database]:
    made = Database(location)
    with made.writing("operator/alice") as session:
        for name in ("paris", "tokyo"):
            host = Computer(reference=name)
            host.partitions.append(Partition(reference="slappart0"))
            session.add(host)
    yield made
    made.close()


def changes(database: Database, kind: str) -> list[Change]:
    with database.reading() as session:
        return list(session.scalars(select(Change).where(Change.kind == kind).order_by(Change.id)))


def revision(database: Database, name: str) -> int:
    with database.reading() as session:
        return session.scalars(select(Computer.revision).where(Computer.reference == name)).one()


def host(database: Database, name: str = "paris") -> Partition:
    with database.reading() as session:
        return session.scalars(
            select(Partition).join(Computer).where(Computer.reference == name)
        ).one()


def add_instance(database: Database, reference: str, computer: str = "paris") -> int:
    with database.writing("operator/alice") as session:
        instance = Instance(
            reference=reference,
            software_release="r",
            software_type="default",
            requested_state="started",
            state="started",
            created_at=1.0,
            partition=session.get_one(Partition, host(database, computer).id),
        )
        session.add(instance)
        session.flush()
        return instance.id


def test_a_new_row_is_kept_with_its_values_and_who_made_it(database: Database):
    add_instance(database, "cluster")
    (change,) = changes(database, "instance")
    assert (change.who, change.action, change.subject) == ("operator/alice", ADDED, "SOFTINST-1")
    assert change.tree_id == 1
    assert change.after["reference"] == "cluster"
    assert change.before == {}


def test_a_change_is_kept_with_the_values_before_and_after(database: Database):
    row = add_instance(database, "cluster")
    with database.writing("partition/SOFTINST-1") as session:
        session.get_one(Instance, row).parameters = {"storages": 4}
    change = changes(database, "instance")[-1]
    assert (change.who, change.action) == ("partition/SOFTINST-1", CHANGED)
    assert (change.before, change.after) == (
        {"parameters": {}},
        {"parameters": {"storages": 4}},
    )


def test_a_removed_row_is_kept_whole(database: Database):
    with database.writing() as session:
        paris = session.scalars(select(Computer).where(Computer.reference == "paris")).one()
        session.add(Software(computer=paris, url="https://a", requested_state="available"))
    with database.writing() as session:
        session.delete(session.scalars(select(Software)).one())
    change = changes(database, "software")[-1]
    assert (change.action, change.subject) == (REMOVED, "paris https://a")
    assert change.before["requested_state"] == "available"


def test_what_is_written_as_it_was_is_no_change(database: Database):
    with database.writing() as session:
        session.add(Product(name="neo", release_url="a"))
    with database.writing() as session:
        session.get_one(Product, "neo").release_url = "a"
    assert [each.action for each in changes(database, "product")] == [ADDED]


def test_a_fault_that_stays_is_one_change_though_its_text_differs(database: Database):
    row = add_instance(database, "cluster")
    for text in ("fails at 10:00", "fails at 10:01", ""):
        with database.writing() as session:
            session.get_one(Instance, row).error = text
    told = [each.after["error"] for each in changes(database, "instance")[1:]]
    assert told == ["fails at 10:00", ""]


def test_changes_of_one_transaction_share_a_number_that_grows(database: Database):
    first = {each.number for each in changes(database, "computer")}
    add_instance(database, "cluster")
    second = {each.number for each in changes(database, "instance")}
    assert len(first) == len(second) == 1
    assert max(second) > max(first)


def test_a_transaction_that_is_written_in_pieces_has_one_number(database: Database):
    with database.writing() as session:
        for name in ("neo", "wendelin"):
            session.add(Product(name=name, release_url="a"))
            session.flush()
    assert len({each.number for each in changes(database, "product")}) == 1


def test_a_failed_transaction_leaves_no_history(database: Database):
    def fail() -> None:
        with database.writing() as session:
            session.add(Product(name="neo", release_url="a"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert changes(database, "product") == []


def test_a_trial_leaves_nothing(database: Database):
    before = revision(database, "paris")
    with database.trying() as session:
        session.add(Product(name="neo", release_url="a"))
        session.get_one(Computer, 1).region = "eu"
        session.flush()
    assert changes(database, "product") == []
    assert revision(database, "paris") == before


def test_only_the_computers_concerned_get_a_new_revision(database: Database):
    before = {name: revision(database, name) for name in ("paris", "tokyo")}
    add_instance(database, "cluster", "paris")
    assert revision(database, "paris") > before["paris"]
    assert revision(database, "tokyo") == before["tokyo"]


def test_an_instance_that_moves_concerns_both_computers(database: Database):
    row = add_instance(database, "cluster", "paris")
    before = {name: revision(database, name) for name in ("paris", "tokyo")}
    with database.writing() as session:
        session.get_one(Instance, row).partition_id = host(database, "tokyo").id
    assert revision(database, "paris") > before["paris"]
    assert revision(database, "tokyo") > before["tokyo"]


def test_a_shared_instance_concerns_the_computer_of_its_provider(database: Database):
    row = add_instance(database, "provider", "tokyo")
    before = {name: revision(database, name) for name in ("paris", "tokyo")}
    with database.writing() as session:
        session.add(
            Instance(
                reference="front",
                shared=True,
                provider_id=row,
                software_release="r",
                software_type="default",
                requested_state="started",
                state="started",
                created_at=1.0,
            )
        )
    assert revision(database, "tokyo") > before["tokyo"]
    assert revision(database, "paris") == before["paris"]


def test_a_renamed_root_concerns_every_computer_of_its_tree(database: Database):
    root = add_instance(database, "cluster", "paris")
    child = add_instance(database, "storage", "tokyo")
    with database.writing() as session:
        session.get_one(Instance, child).tree_id = root
    before = revision(database, "tokyo")
    with database.writing() as session:
        session.get_one(Instance, root).reference = "renamed"
    assert revision(database, "tokyo") > before


def test_that_a_computer_called_is_no_news(database: Database):
    before = revision(database, "paris")
    with database.writing() as session:
        paris = session.scalars(select(Computer).where(Computer.reference == "paris")).one()
        paris.contacted_at = 5.0
        paris.fetched_number = 5
    assert revision(database, "paris") == before
    assert len(changes(database, "computer")) == 2


def test_rows_cannot_be_changed_past_history(database: Database):
    with database.writing() as session, pytest.raises(TypeError, match="one by one"):
        session.execute(update(Computer).values(region="eu"))
