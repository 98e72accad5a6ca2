# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus and readers of the log are told."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
import requests
from database_servers import on_every_database
from master_cloud import Cloud
from prometheus_client.parser import text_string_to_metric_families

from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.client import NotFoundError
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.logs import Event, JsonFormatter
from slapos_wendelin.master.models import Base


def scrape(text: str) -> dict[tuple, float]:
    """Return the value of each sample by its name and its labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(cloud: Cloud) -> dict[tuple, float]:
    """Scrape a master as Prometheus does."""
    answer = requests.get(f"{cloud.url}metrics", timeout=60)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return scrape(answer.text)


@on_every_database
def test_the_cloud_is_told_as_it_is(cloud: Cloud):
    cloud.add_computer("paris-1", partitions=3, datacenter="paris")
    cloud.add_computer("paris-2", partitions=2, datacenter="paris")
    cloud.add_computer("gone", datacenter="paris")
    cloud.client.remove_computer("gone")
    cloud.client.put_computer("paris-2", state="cordoned")
    root = cloud.request("cluster")
    child = cloud.request_from(root, "storage")
    cloud.partition(root).started()
    cloud.partition(child).error("no")
    told = samples(cloud)
    paris = ("datacenter", "paris")
    assert told["slapos_computers", paris, ("state", "eligible")] == 1
    assert told["slapos_computers", paris, ("state", "cordoned")] == 1
    assert sum(value for key, value in told.items() if key[0] == "slapos_computers") == 2
    assert told["slapos_partitions", paris] == 5
    assert told["slapos_partitions_used", paris] == 2
    assert told["slapos_instances", ("state", "started")] == 2
    assert told["slapos_instances_settled", ("state", "started")] == 1
    assert told["slapos_instances_failing", ("state", "started")] == 1
    assert told["slapos_software", ("state", "waiting")] == 1
    assert told["slapos_computer_contact_age_seconds", ("computer", "paris-1"), paris] < 60
    assert told["slapos_database_up",] == 1


def test_requests_placements_and_waits_are_counted(cloud: Cloud):
    cloud.add_computer("paris")
    before = samples(cloud)
    cloud.request("cluster")
    with pytest.raises(NotFoundError):
        cloud.client.instance("nothing")
    after = samples(cloud)
    requested = ("endpoint", "protocol.request_computer_partition")
    missed = ("endpoint", "api.get_instance")
    assert after["slapos_master_requests_total", requested, ("status", "200")] == 1
    assert after["slapos_master_requests_total", missed, ("status", "404")] == 1
    assert after["slapos_master_request_seconds_count", requested] == 1
    for name in ("placement", "database_lock_wait"):
        key = (f"slapos_master_{name}_seconds_count",)
        assert after[key] == before[key] + 1


def test_two_masters_in_one_process_count_for_themselves(tmp_path: Path):
    counted = []
    for name in ("one", "other"):
        database = Database(tmp_path / f"{name}.sqlite")
        client = create_application(database, is_plain=True).test_client()
        for _ in range(2):
            client.get("/v1/health", headers={"Host": "127.0.0.1"})
        text = client.get("/metrics", headers={"Host": "127.0.0.1"}).text
        key = ("slapos_master_requests_total", ("endpoint", "api.health"), ("status", "200"))
        counted.append(scrape(text)[key])
        database.close()
    assert counted == [2, 2]


def test_a_database_that_fails_is_a_metric(tmp_path: Path):
    database = Database(tmp_path / "master.sqlite")
    client = create_application(database, is_plain=True).test_client()
    with database.writing() as session:
        Base.metadata.drop_all(session.connection(), [Base.metadata.tables["software"]])
    told = scrape(client.get("/metrics", headers={"Host": "127.0.0.1"}).text)
    assert told["slapos_database_up",] == 0
    database.close()


def test_the_log_names_caller_endpoint_and_what_was_changed(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG, "slapos_wendelin.master.application"):
        cloud.client.put_computer("paris")
        cloud.client.put_computer("paris")
        cloud.client.computers()
    lines = [each.msg.fields for each in caplog.records if isinstance(each.msg, Event)]
    changed, unchanged, read = lines
    assert changed["endpoint"] == "registry.put_computer"
    assert str(changed["caller"]) == "operator/loopback"
    assert (changed["method"], changed["path"], changed["status"], changed["address"]) == (
        "PUT",
        "/v1/computers/paris",
        200,
        "127.0.0.1",
    )
    assert changed["number"] > 0
    assert "number" not in unchanged
    assert "number" not in read


def record(message: object, **options: object) -> logging.LogRecord:
    return logging.LogRecord("master", logging.INFO, "", 1, message, options.pop("args", ()), None)


def test_events_are_text_that_cannot_be_taken_for_another():
    event = Event("request", path="/a b\nlevel=ERROR", status=200, milliseconds=1.25, number=None)
    assert str(event) == 'request path="/a b\\nlevel=ERROR" status=200 milliseconds=1.2'


def test_json_lines_have_the_keys_of_the_event():
    line = JsonFormatter().format(record(Event("request", path="/a\nb", status=200, level="x")))
    told = json.loads(line)
    assert "\n" not in line
    assert (told["event"], told["path"], told["status"]) == ("request", "/a\nb", 200)
    assert (told["level"], told["logger"], told["time"][-6:]) == ("INFO", "master", "+00:00")


def test_json_lines_of_other_programs_have_their_text():
    assert json.loads(JsonFormatter().format(record("a %s", args=("b",))))["event"] == "a b"


def test_json_lines_have_tracebacks():
    faulty = record("failed")
    try:
        int("why")
    except ValueError:
        faulty.exc_info = sys.exc_info()
    assert "ValueError: invalid literal" in json.loads(JsonFormatter().format(faulty))["exception"]
