# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the master knows of computers, and what it refuses to believe."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil
import pytest
import requests
from database_servers import on_every_database
from master_cloud import Cloud
from requests.adapters import HTTPAdapter
from slapos.collect.reporter import Journal
from slapos.util import dumps
from sqlalchemy import select

from slapos_wendelin.master import computers
from slapos_wendelin.master.client import MasterAnswerError, MasterClient
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import ConflictError
from slapos_wendelin.master.models import Certificate, Change
from slapos_wendelin.master.presence import Presence
from slapos_wendelin.master.server import MasterServer
from slapos_wendelin.node.measurement import Reporter, measure

DEATH = {"partition": "slappart0", "program": "storage", "count": 3, "last": 1e9}
SIZES = {"cpu_core": 4, "memory_size": 8 * 2**30, "storage_capacity": 100 * 2**30}


@pytest.fixture
def hasty_cloud(tmp_path: Path) -> Iterator[Cloud]:
    """Give a master for which a computer is lost after few seconds."""
    server = MasterServer(tmp_path / "hasty.sqlite", "127.0.0.1", 0, plain=True, lost_after=3.0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    running = Cloud(server.url)
    yield running
    running.client.close()
    server.stop()
    thread.join()


def wait_until_lost(cloud: Cloud, reference: str) -> None:
    """Wait until a computer has been silent for too long."""
    deadline = time.monotonic() + 120
    while not cloud.client.computer(reference)["lost"]:
        assert time.monotonic() < deadline, "it is never lost"
        time.sleep(0.1)


def format_at(cloud: Cloud, reference: str, address: str, source: str = "127.0.0.1") -> int:
    """Format a computer as a machine of that address does; return the status of the answer."""
    document = {"reference": reference, "address": address, "partition_list": []}
    with requests.Session() as session:
        adapter = HTTPAdapter()
        adapter.init_poolmanager(1, 1, source_address=(source, 0))
        session.mount("http://", adapter)
        url = f"{cloud.url}loadComputerConfigurationFromXML"
        return session.post(url, data={"xml": dumps(document)}, timeout=60).status_code


def test_everything_that_is_told_of_a_computer_is_shown(cloud: Cloud):
    told = {
        "datacenter": "paris-4",
        "region": "eu",
        "provider": "hosting",
        "network": "net-1",
        "coordinates": {"latitude": 48.85, "longitude": 2.35},
        "labels": {"storage_type": "ssd"},
        "state": "cordoned",
    }
    cloud.client.put_computer("paris", **told)
    shown = cloud.client.computer("paris")
    assert {name: shown[name] for name in told} == told
    assert shown["instances"] == []
    assert shown["contacted_at"] is None
    assert not shown["lost"]


def test_labels_are_changed_one_by_one(cloud: Cloud):
    cloud.client.put_computer("paris", labels={"disk": "ssd", "rack": "3"})
    changed = cloud.client.put_computer("paris", label_changes={"rack": None, "row": "b"})
    assert changed["labels"] == {"disk": "ssd", "row": "b"}


def test_coordinates_can_be_taken_away(cloud: Cloud):
    cloud.client.put_computer("paris", coordinates={"latitude": 1, "longitude": 2})
    assert cloud.client.put_computer("paris", coordinates={})["coordinates"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coordinates": {"latitude": 91, "longitude": 2}}, "latitude is 91"),
        ({"coordinates": {"latitude": 1, "longitude": -181}}, "longitude is -181"),
        ({"coordinates": {"latitude": "1", "longitude": 2}}, "latitude is '1'"),
        ({"coordinates": {"latitude": 10**400, "longitude": 2}}, "latitude is 1000"),
        ({"coordinates": {"latitude": True, "longitude": 2}}, "latitude is True"),
        ({"coordinates": [1, 2]}, r"coordinates is \[1, 2\]"),
        ({"coordinates": {"latitude": 1}}, "coordinates is {'latitude': 1}"),
        ({"state": "gone"}, "state is 'gone' .use one of eligible, cordoned, draining"),
        ({"state": "removed"}, "slapos computer remove"),
        ({"state": "lost"}, "state is 'lost'"),
        ({"state": ["eligible"]}, "state is"),
        ({"provider": "a, b"}, "provider is 'a, b'"),
        ({"network": 7}, "network is 7"),
        ({"labels": {"disk": None}}, "labels is"),
        ({"labels": {"": "x"}}, "the name of a label is ''"),
        ({"labels": {"disk": "a\nb"}}, r"label disk is 'a\\nb'"),
        ({"label_changes": {"disk": 1}}, "label_changes is"),
        ({"label_changes": []}, "label_changes is"),
        ({"address": "a" * 300}, "address has 300 characters"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_nothing_changes(
    cloud: Cloud, values: dict, message: str
):
    before = cloud.client.put_computer("paris", datacenter="a")
    with pytest.raises(MasterAnswerError, match=message) as refusal:
        cloud.client.put_computer("paris", datacenter="b", **values)
    assert refusal.value.status == 400
    assert refusal.value.remedy
    (after,) = cloud.client.computers()
    assert after == before


def test_a_cordoned_computer_takes_no_new_instance_and_keeps_those_it_has(cloud: Cloud):
    cloud.add_computer("paris", partitions=2)
    kept = cloud.request("kept")
    cloud.client.put_computer("paris", state="cordoned")
    with pytest.raises(Exception, match="paris: cordoned"):
        cloud.request("refused")
    assert cloud.request("kept").getInstanceGuid() == kept.getInstanceGuid()
    cloud.client.put_computer("paris", state="eligible")
    cloud.request("welcome")


def test_a_silent_computer_is_lost_until_it_calls_again(hasty_cloud: Cloud):
    hasty_cloud.add_computer("paris")
    wait_until_lost(hasty_cloud, "paris")
    with pytest.raises(Exception, match="paris: lost"):
        hasty_cloud.request("cluster")
    hasty_cloud.client.wait_due("paris", timeout=0)
    assert not hasty_cloud.client.computer("paris")["lost"]
    hasty_cloud.client.wait_due("paris", timeout=0)
    assert hasty_cloud.request("cluster").slap_computer_id == "paris"


def test_a_computer_that_waits_for_work_is_not_lost_meanwhile(hasty_cloud: Cloud):
    hasty_cloud.add_computer("paris")
    begin = time.monotonic()
    hasty_cloud.client.wait_due("paris", after=0, timeout=60)
    assert time.monotonic() - begin < 30
    assert not hasty_cloud.client.computer("paris")["lost"]


@on_every_database
def test_contacts_are_in_the_database_for_other_masters(cloud: Cloud, location: Path | str):
    cloud.add_computer("paris")
    cloud.client.wait_due("paris", timeout=0)
    other = MasterServer(location, "127.0.0.1", 0, plain=True)
    thread = threading.Thread(target=other.serve)
    thread.start()
    try:
        with MasterClient(other.url) as client:
            assert client.computer("paris")["contacted_at"]
            assert not client.computer("paris")["lost"]
    finally:
        other.stop()
        thread.join()


def test_a_second_machine_of_the_same_name_is_refused(cloud: Cloud):
    assert format_at(cloud, "paris", "10.0.0.1") == 200
    before = cloud.client.computer("paris")
    assert format_at(cloud, "paris", "10.0.0.2") == 409
    assert cloud.client.computer("paris") == before


@pytest.mark.parametrize(
    ("callers", "source", "is_refused"),
    [
        (["192.0.2.1"], "192.0.2.1", False),
        (["192.0.2.1"], "192.0.2.2", True),
        (["192.0.2.1", "192.0.2.2"], "192.0.2.2", True),
        ([""], "192.0.2.1", True),
    ],
)
def test_a_machine_has_a_new_address_when_its_name_is_called_from_nowhere_else(
    tmp_path: Path, callers: list[str], source: str, is_refused: bool
):
    database = Database(tmp_path / "master.sqlite")
    presence = Presence(database)
    with database.writing() as session:
        computers.put_computer(session, "paris", {"address": "10.0.0.1"})
    for caller in callers:
        with database.reading() as session:
            presence.seen(computers.find_computer(session, "paris"), caller)
    with database.reading() as session:
        paris = computers.find_computer(session, "paris")
    if is_refused:
        with pytest.raises(ConflictError, match="another machine, with address"):
            presence.check_machine(paris, "10.0.0.2", source)
    else:
        presence.check_machine(paris, "10.0.0.2", source)
    presence.check_machine(paris, "10.0.0.1", source)
    database.close()


def test_an_operator_can_say_that_a_machine_has_a_new_address(cloud: Cloud):
    format_at(cloud, "paris", "10.0.0.1")
    cloud.client.put_computer("paris", address="10.0.0.2")
    assert format_at(cloud, "paris", "10.0.0.2") == 200


def test_the_machine_that_replaces_a_lost_one_is_welcome(hasty_cloud: Cloud):
    format_at(hasty_cloud, "paris", "10.0.0.1")
    wait_until_lost(hasty_cloud, "paris")
    assert format_at(hasty_cloud, "paris", "10.0.0.2") == 200
    assert hasty_cloud.client.computer("paris")["address"] == "10.0.0.2"


def test_a_computer_keeps_its_sizes_and_uses(cloud: Cloud):
    cloud.add_computer("paris")
    told = {**SIZES, "memory_used": 2**30, "storage_used": 2**30, "load": [0.5, 1, 2]}
    assert cloud.client.put_measurement("paris", told) == {"kept": True}
    shown = cloud.client.computer("paris")
    assert shown["measured"] == told
    assert shown["measured_at"]
    # The same sizes soon after are no news; other ones are.
    assert cloud.client.put_measurement("paris", {**told, "memory_used": 5}) == {"kept": False}
    assert cloud.client.put_measurement("paris", {**told, "cpu_core": 8}) == {"kept": True}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cpu_core": -1}, "cpu_core is -1"),
        ({"memory_size": 1.5}, "memory_size is 1.5"),
        ({"storage_capacity": "10 GB"}, "storage_capacity is '10 GB'"),
        ({"cpu_core": True}, "cpu_core is True"),
        ({"storage_used": 2**70}, "storage_used is"),
        ({"load": [1, 2]}, r"load is \[1, 2\]"),
        ({"cores": 1}, "unknown key 'cores'"),
        ({"deaths": {}}, "deaths is {}"),
        ({"deaths": 101 * [DEATH]}, "send a list of 100 programs at most"),
        ({"deaths": [{"partition": "slappart0"}]}, "deaths has .*slappart0"),
        ({"deaths": [DEATH | {"count": -1}]}, "count is -1"),
        ({"deaths": [DEATH | {"program": ""}]}, "program is ''"),
        ({"deaths": [DEATH | {"last": 1e300}]}, r"last is 1e\+300"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(cloud: Cloud, values: dict, message: str):
    cloud.add_computer("paris")
    with pytest.raises(MasterAnswerError, match=message) as refusal:
        cloud.client.put_measurement("paris", SIZES | values)
    assert refusal.value.status == 400
    assert cloud.client.computer("paris")["measured"] == {}


def test_what_has_died_is_told_of_its_computer_and_of_its_instance(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("cluster")
    died = DEATH | {"last": time.time()}
    unknown = died | {"partition": "slappart1"}
    assert cloud.client.put_measurement("paris", {**SIZES, "deaths": [died, unknown]})["kept"]
    assert not cloud.client.put_measurement("paris", {**SIZES, "deaths": [died, unknown]})["kept"]
    computer, instance = cloud.client.computer("paris"), cloud.client.instance("cluster")
    assert "deaths" not in computer["measured"]
    assert [each["partition"] for each in computer["deaths"]] == ["slappart0", "slappart1"]
    (told,) = instance["deaths"]
    assert (told["program"], told["count"]) == ("storage", 3)
    assert datetime.fromisoformat(told["last_at"]).timestamp() == pytest.approx(died["last"], abs=1)
    # It is no fault: what died was started again.
    assert not any("died" in each for each in cloud.client.status()["problems"])
    # Whoever was in the partition before is nobody's affair.
    earlier = [died | {"last": time.time() - 3600}]
    assert cloud.client.put_measurement("paris", {**SIZES, "deaths": earlier})["kept"]
    assert cloud.client.instance("cluster")["deaths"] == []
    assert cloud.client.put_measurement("paris", SIZES)["kept"]
    assert cloud.client.computer("paris")["deaths"] == []


def test_a_partition_is_told_how_many_of_its_kind_are_on_its_computer(cloud: Cloud):
    cloud.add_computer("paris", 4)
    storages = [cloud.request(f"storage-{n}", software_type="storage") for n in range(2)]
    other = cloud.request("other", software_type="worker")
    alike = [
        cloud.client.location("paris", each.slap_computer_partition_id)["alike"]
        for each in (*storages, other)
    ]
    assert alike == [2, 2, 1]
    assert cloud.client.location("paris", "slappart3")["alike"] == 0


def test_a_load_that_is_no_number_is_refused(cloud: Cloud):
    cloud.add_computer("paris")
    answer = requests.put(
        f"{cloud.url}v1/computers/paris/measurement",
        data='{"cpu_core": 1, "memory_size": 1, "storage_capacity": 1, "load": [1, 2, NaN]}',
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert (answer.status_code, "load is" in answer.json()["error"]) == (400, True)


def test_a_measurement_without_a_size_is_refused(cloud: Cloud):
    cloud.add_computer("paris")
    with pytest.raises(MasterAnswerError, match="lacks 'memory_size'"):
        cloud.client.put_measurement("paris", {"cpu_core": 1, "storage_capacity": 1})


def test_instances_go_where_what_was_measured_is_enough(cloud: Cloud):
    for name, cores in (("small", 2), ("large", 16)):
        cloud.add_computer(name)
        cloud.client.put_measurement(name, {**SIZES, "cpu_core": cores})
    assert cloud.request("cluster", filter_kw={"cpu_core": "8"}).slap_computer_id == "large"


def test_what_a_computer_holds_unknown_to_its_master_is_named_and_no_place_for_others(cloud: Cloud):
    cloud.add_computer("paris")
    left = {"slappart0": {"guid": "SOFTINST-7", "instance": "lost", "root": "tree"}}
    cloud.client.put_measurement("paris", {**SIZES, "left": left})
    (problem,) = cloud.client.status()["problems"]
    assert "slappart0 of paris holds the data of 'lost' (SOFTINST-7)" in problem
    assert "slapos node wipe slappart0" in problem
    assert cloud.request("first").slap_computer_partition_id == "slappart1"
    with pytest.raises(MasterAnswerError, match="paris: full"):
        cloud.client.request({"reference": "second", "release_url": "/software.cfg"})
    # It is gone with the next measurement that does not tell of it, and at once.
    cloud.client.put_measurement("paris", SIZES)
    assert cloud.request("second").slap_computer_partition_id == "slappart0"


@pytest.mark.parametrize(
    "left",
    [
        [],
        {"slappart0": "SOFTINST-7"},
        {"slappart0": {"guid": "SOFTINST-7"}},
        {"slappart0": {"guid": 7, "instance": "lost", "root": "tree"}},
    ],
)
def test_what_a_computer_holds_is_told_well_formed(cloud: Cloud, left: object):
    cloud.add_computer("paris")
    with pytest.raises(MasterAnswerError):
        cloud.client.put_measurement("paris", {**SIZES, "left": left})


def test_a_computer_measures_itself(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    assert Reporter(cloud.client, "paris", tmp_path).report()
    shown = cloud.client.computer("paris")["measured"]
    assert shown["cpu_core"] == psutil.cpu_count()
    assert shown["memory_size"] == psutil.virtual_memory().total
    assert shown["storage_capacity"] == psutil.disk_usage(str(tmp_path)).total
    assert 0 < shown["memory_used"] <= shown["memory_size"]


def test_a_computer_measures_on_while_its_master_is_away(tmp_path: Path):
    with MasterClient("http://127.0.0.1:9/", timeout=5) as nobody:
        assert not Reporter(nobody, "paris", tmp_path).report()


def test_measurements_use_the_keys_that_the_master_knows(tmp_path: Path):
    assert set(measure(tmp_path)) == {*SIZES, "memory_used", "storage_used", "load"}


def test_what_single_partitions_can_do_is_kept_from_formatting(cloud: Cloud):
    document = {
        "reference": "paris",
        "address": "10.0.0.1",
        "partition_list": [
            {"reference": "slappart0", "address_list": [], "tap": None},
            {
                "reference": "slappart1",
                "address_list": [],
                "tap": None,
                "capability_list": ["gpu"],
            },
        ],
    }
    cloud.slap.registerComputer("paris").updateConfiguration(dumps(document))
    placed = cloud.request("cluster", filter_kw={"capability": "gpu"})
    assert placed.slap_computer_partition_id == "slappart1"


def usage_report(day: str, cpu: str) -> str:
    """Write a report as slapos.core's collect does."""
    journal = Journal()
    transaction = journal.newTransaction()
    journal.setProperty(transaction, "start_date", f"{day} 00:00:00")
    for resource, quantity, whose in (
        ("cpu_load_percent", cpu, "paris"),
        ("memory_used", "1048576", "paris"),
        ("memory_used", "2.0", "slapuser0"),
        ("disk_used", "3.0", "slapuser0"),
        ("electricity", "9.0", "paris"),
    ):
        journal.newMovement(
            transaction, f"service_module/{resource}", "", quantity, whose, category=""
        )
    return journal.getXML().decode()


def test_the_averages_of_the_last_day_are_kept_from_usage_reports(cloud: Cloud):
    cloud.add_computer("paris")
    computer = cloud.slap.registerComputer("paris")
    computer.reportUsage(usage_report("2026-01-02", "12.5"))
    computer.reportUsage(usage_report("2026-01-01", "99.0"))
    assert cloud.client.computer("paris")["measured"]["usage"] == {
        "date": "2026-01-02",
        "computer": {"cpu_load_percent": 12.5, "memory_used": 1048576.0},
        "partitions": {"slapuser0": {"memory_used": 2 * 2**20, "disk_used": 3 * 2**20}},
    }


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("<journal", "use_string is not well-formed"),
        ("<report/>", "use_string is a <report>"),
        ("<!DOCTYPE journal><journal/>", "document type declaration"),
        (usage_report("2026-01-02", "much"), "quantity of 'cpu_load_percent' is 'much'"),
        (usage_report("2026-01-02", "nan"), "quantity of 'cpu_load_percent' is 'nan'"),
    ],
)
def test_a_wrong_usage_report_is_refused(cloud: Cloud, report: str, message: str):
    cloud.add_computer("paris")
    with pytest.raises(Exception, match=message):
        cloud.slap.registerComputer("paris").reportUsage(report)
    assert "usage" not in cloud.client.computer("paris")["measured"]


def test_a_computer_with_instances_is_not_removed(cloud: Cloud):
    cloud.add_computer("paris")
    guid = cloud.request("cluster").getInstanceGuid()
    with pytest.raises(MasterAnswerError, match=rf"still has 1 instance: cluster \({guid}\)"):
        cloud.client.remove_computer("paris")
    cloud.request("cluster", state="destroyed")
    with pytest.raises(MasterAnswerError, match="has yet to wipe the partitions of 1 instance"):
        cloud.client.remove_computer("paris")


@on_every_database
def test_a_removed_computer_stays_known_and_may_not_come_back_by_itself(cloud: Cloud):
    cloud.add_computer("paris")
    assert cloud.client.remove_computer("paris")["state"] == "removed"
    assert cloud.client.status()["computers"] == []
    with pytest.raises(Exception, match="computer 'paris' was removed"):
        cloud.format("paris", ["slappart0"])
    with pytest.raises(MasterAnswerError, match="computer 'paris' was removed"):
        cloud.client.wait_due("paris", timeout=0)
    with pytest.raises(Exception, match="none is registered"):
        cloud.request("cluster")
    cloud.client.put_computer("paris", state="eligible")
    assert cloud.request("cluster").slap_computer_id == "paris"


def test_the_instances_that_a_lost_computer_was_to_destroy_go_with_it(hasty_cloud: Cloud):
    hasty_cloud.add_computer("paris")
    hasty_cloud.request("cluster")
    hasty_cloud.request("cluster", state="destroyed")
    wait_until_lost(hasty_cloud, "paris")
    hasty_cloud.client.remove_computer("paris")
    assert hasty_cloud.client.instances() == []


def test_the_certificates_of_a_removed_computer_end(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    database = Database(tmp_path / "master.sqlite")
    with database.writing() as session:
        session.add(
            Certificate(
                serial="1f",
                kind="computer",
                name="paris",
                fingerprint="",
                issued_at=1.0,
                not_after=2e9,
            )
        )
    cloud.client.remove_computer("paris")
    with database.reading() as session:
        certificate = session.get_one(Certificate, "1f")
        assert certificate.revoked_at
        assert certificate.reason == "the computer was removed"
    database.close()


def test_who_changed_a_computer_is_kept(cloud: Cloud, tmp_path: Path):
    cloud.client.put_computer("paris", datacenter="a")
    cloud.client.put_computer("paris", state="cordoned")
    database = Database(tmp_path / "master.sqlite")
    with database.reading() as session:
        last = session.scalars(select(Change).order_by(Change.id.desc())).first()
        assert last is not None
        assert (last.who, last.after) == ("operator/loopback", {"state": "cordoned"})
    database.close()
