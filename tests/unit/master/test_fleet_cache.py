# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that a master keeps is at each transaction what one made from the tables would be."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from database_servers import on_every_database
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select
from sqlalchemy.orm import Session

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import computers, due, moves, registry, reports
from slapos_wendelin.master.candidates import LOST
from slapos_wendelin.master.computers import put_computer
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.fleet import Fleet
from slapos_wendelin.master.fleet_cache import FleetCache, fleet_of, keep_in, without
from slapos_wendelin.master.models import Computer, Instance
from slapos_wendelin.master.requests import InstanceRequest, destroy, request_instance

NAMES = st.sampled_from(["paris", "tokyo", "lyon", "osaka"])
VALUES = st.one_of(
    st.builds(lambda state: {"state": state}, st.sampled_from(["eligible", "cordoned"])),
    st.builds(lambda name: {"datacenter": name}, st.sampled_from(["a", "b"])),
    st.builds(lambda name: {"network": name}, st.sampled_from(["n", "m"])),
    st.builds(lambda disk: {"labels": disk}, st.sampled_from([{"disk": "ssd"}, {}])),
    st.just({"labels": {"capability": "gpu, ipv4"}}),
)


def format_computer(session: Session, name: str, partitions: int) -> None:
    """Do what the master does when a computer is formatted."""
    registry.load_configuration(
        session,
        {
            "reference": name,
            "partition_list": [
                {
                    "reference": f"slappart{index}",
                    "address_list": [],
                    "tap": None,
                    "capability_list": ["tap"] if index else [],
                }
                for index in range(partitions)
            ],
        },
    )


def picture(fleet: Fleet) -> tuple:
    """Return all that placement can see of a fleet."""
    return (
        {each.reference: each for each in fleet},
        list(fleet.references),
        {
            facet: {site: list(ranks) for site, ranks in sites.items()}
            for facet, sites in fleet._open.items()
        },
        fleet._having,
        fleet._sizes,
    )


class InterruptedTransactionError(Exception):
    """What ends a transaction before its time."""


class TwoMasters(RuleBasedStateMachine):
    """Two masters, each with its cache, change one database in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        # Numbers that are not the time: what a failed transaction took is given out again.
        self.clock = patch.object(due, "time", SimpleNamespace(time_ns=lambda: 0))
        self.clock.start()
        self.database = Database(Path(self.folder.name) / "master.sqlite")
        self.silent: set[str] = set()
        # They look for lost computers at every transaction.
        self.caches = [FleetCache(self.is_silent, lost_after=0.0) for _ in range(2)]
        self.requests = 0

    def is_silent(self, reference: str, _contact: float | None) -> bool:
        return reference in self.silent

    def teardown(self) -> None:
        self.clock.stop()
        self.database.close()
        self.folder.cleanup()

    @contextlib.contextmanager
    def transaction(self, how: str, master: int) -> Iterator[Session]:
        """Give a session whose changes are kept, or not."""
        begin = self.database.trying if how == "trial" else self.database.writing
        with contextlib.suppress(WendelinError, InterruptedTransactionError), begin() as session:
            keep_in(session, self.caches[master])
            yield session
            fleet_of(session)
            if how == "failure":
                raise InterruptedTransactionError

    how = st.sampled_from(["kept", "kept", "kept", "trial", "failure"])
    master = st.integers(0, 1)

    @rule(name=NAMES, partitions=st.integers(0, 3), how=how, master=master)
    def format(self, name: str, partitions: int, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            format_computer(session, name, partitions)

    @rule(name=NAMES, values=VALUES, how=how, master=master)
    def change(self, name: str, values: dict, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            put_computer(session, name, values)

    @rule(name=NAMES, cores=st.integers(1, 2), how=how, master=master)
    def measure(self, name: str, cores: int, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            sizes = {"cpu_core": cores, "memory_size": 2**30, "storage_capacity": 2**30}
            computers.keep_measurement(registry.computer(session, name), sizes, now=0.0)

    @rule(name=NAMES, how=how, master=master)
    def remove(self, name: str, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            computers.remove(session, registry.computer(session, name), is_lost=True)

    @rule(count=st.integers(1, 3), how=how, master=master)
    def request(self, count: int, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            for _ in range(count):
                self.requests += 1
                wanted = InstanceRequest(f"instance-{self.requests}", "https://example.org/a")
                request_instance(session, wanted, None)

    @rule(index=st.integers(0, 20), how=how, master=master)
    def move(self, index: int, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            if instance := self.pick(session, index):
                moves.move(session, instance, None)

    @rule(index=st.integers(0, 20), how=how, master=master)
    def destroy(self, index: int, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            if instance := self.pick(session, index):
                destroy(session, instance)

    @rule(name=NAMES, how=how, master=master)
    def wipe(self, name: str, how: str, master: int) -> None:
        with self.transaction(how, master) as session:
            for instance in computers.instances_on(session, registry.computer(session, name)):
                if instance.state == "destroyed" and instance.partition is not None:
                    reports.report_destroyed(session, instance.partition)

    @rule(name=NAMES)
    def fall_silent(self, name: str) -> None:
        self.silent ^= {name}

    @invariant()
    def caches_are_what_the_tables_say(self) -> None:
        with self.database.trying() as session:
            fresh = picture(FleetCache(self.is_silent).fleet(session))
            for cache in self.caches:
                assert picture(cache.fleet(session)) == fresh

    @staticmethod
    def pick(session: Session, index: int) -> Instance | None:
        """Return one of the live instances."""
        live = session.scalars(select(Instance).where(Instance.live.is_(True))).all()
        return live[index % len(live)] if live else None


TwoMasters.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestTwoMasters = TwoMasters.TestCase


@on_every_database
def test_a_computer_is_lost_and_found_without_a_change_of_its_row(location: Path | str):
    database = Database(location)
    silent = set()
    cache = FleetCache(lambda reference, _: reference in silent, lost_after=0.0)
    with database.writing() as session:
        put_computer(session, "paris", {})
    for now_silent, state in ((set(), "eligible"), ({"paris"}, LOST), (set(), "eligible")):
        silent = now_silent
        with database.writing() as session:
            assert cache.fleet(session)["paris"].state == state
    database.close()


def test_a_computer_of_a_failed_transaction_whose_row_another_one_gets_is_gone(tmp_path: Path):
    database = Database(tmp_path / "master.sqlite")
    cache = FleetCache()
    with database.trying() as session:
        put_computer(session, "paris", {})
        assert list(cache.fleet(session).references) == ["paris"]
    with database.writing() as session:
        put_computer(session, "tokyo", {})
        assert list(cache.fleet(session).references) == ["tokyo"]
        assert session.scalars(select(Computer.id)).all() == [1]
    database.close()


def test_a_closed_computer_is_open_again_even_after_an_error(tmp_path: Path):
    database = Database(tmp_path / "master.sqlite")
    with database.writing() as session:
        put_computer(session, "paris", {})
        fleet = fleet_of(session)
        with (
            contextlib.suppress(InterruptedTransactionError),
            without(fleet, "paris", "it is there now"),
        ):
            assert fleet["paris"].state == "it is there now"
            raise InterruptedTransactionError
        assert fleet["paris"].state == "eligible"
    database.close()
