# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose certificates are good, and how soon one that was revoked is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import running
from secure_cloud import Caller, SecureCloud

from slapos_wendelin.certificates import Subject
from slapos_wendelin.master import admission, callers
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.models import Computer
from slapos_wendelin.master.server import MasterServer


@pytest.fixture
def second_master(secure_cloud: SecureCloud) -> Iterator[MasterServer]:
    """A second master process' work: another server with the same database and authority."""
    server = MasterServer(
        secure_cloud.folder / "master.sqlite",
        "127.0.0.1",
        0,
        authority=Authority(secure_cloud.authority.folder),
    )
    with running(server):
        yield server


def serial_of(cloud: SecureCloud, kind: str, name: str) -> str:
    """Return the serial number of somebody's only good certificate."""
    (serial,) = [
        each["serial"]
        for each in cloud.operator.client.certificates(kind, name)
        if not each["revoked_at"]
    ]
    return serial


def test_a_revoked_certificate_is_refused_at_once_and_says_why(secure_cloud: SecureCloud):
    cloud = secure_cloud
    mallory = cloud.user("mallory", "operator")
    assert mallory.ask("GET", "v1/health").status_code == 200
    cloud.operator.client.revoke(serial_of(cloud, "user", "mallory"), "the laptop was stolen")
    answer = mallory.ask("GET", "v1/health")
    assert answer.status_code == 403
    assert "was revoked: the laptop was stolen" in answer.json()["error"]
    assert "join again" in answer.json()["remedy"]


def test_another_master_refuses_a_revoked_certificate_soon(
    secure_cloud: SecureCloud, second_master: MasterServer
):
    cloud = secure_cloud
    trudy = cloud.user("trudy", "viewer")
    elsewhere = Caller(second_master.url, cloud.authority.certificate_file, trudy.certificate)
    assert elsewhere.ask("GET", "v1/health").status_code == 200
    cloud.operator.client.revoke(serial_of(cloud, "user", "trudy"))
    deadline = time.monotonic() + 120
    while elsewhere.ask("GET", "v1/health").status_code != 403:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    elsewhere.close()
    assert callers._MEMORY <= 1


def test_a_certificate_is_remembered_so_that_most_requests_do_not_ask_for_it(
    secure_cloud: SecureCloud, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    stock_ask = callers.Callers._ask
    monkeypatch.setattr(callers, "_MEMORY", 1000)
    monkeypatch.setattr(
        callers.Callers,
        "_ask",
        lambda self, serial: asked.append(serial) or stock_ask(self, serial),
    )
    reader = secure_cloud.user("reader", "viewer")
    for _ in range(5):
        reader.ask("GET", "v1/health")
    assert len(asked) == 1


def test_a_certificate_that_ends_is_refused_on_a_connection_that_stays(secure_cloud: SecureCloud):
    cloud = secure_cloud
    with cloud.database.writing() as session:
        admission.put_user(session, "brief", "viewer")
        issued = cloud.authority.issue_with_key(Subject("user", "brief"), timedelta(seconds=10))
        admission.record(session, issued)
    path = cloud.folder / "brief.pem"
    path.write_text(issued.key + issued.certificate)
    brief = cloud.caller(path)
    assert brief.ask("GET", "v1/health").status_code == 200
    while time.time() < issued.not_after:
        time.sleep(0.1)
    answer = brief.ask("GET", "v1/health")
    assert answer.status_code == 403
    assert "has ended" in answer.text


def test_a_certificate_that_was_not_recorded_is_refused(secure_cloud: SecureCloud):
    cloud = secure_cloud
    issued = cloud.authority.issue_with_key(Subject("user", "alice"))
    path = cloud.folder / "unrecorded.pem"
    path.write_text(issued.key + issued.certificate)
    answer = cloud.caller(path).ask("GET", "v1/health")
    assert answer.status_code == 403
    assert "is not known to this master" in answer.text


def test_a_removed_user_is_out_with_every_certificate(secure_cloud: SecureCloud):
    cloud = secure_cloud
    carol, again = cloud.user("carol", "operator"), cloud.holder("user", "carol")
    assert again.ask("GET", "v1/status").status_code == 200
    removed = cloud.operator.client.remove_user("carol")
    assert removed["removed_at"]
    for caller in (carol, again):
        assert caller.ask("GET", "v1/status").status_code == 403


def test_a_changed_role_counts_at_once(secure_cloud: SecureCloud):
    cloud = secure_cloud
    dave = cloud.user("dave", "operator")
    assert dave.ask("POST", "v1/users", json={"name": "dave", "role": "viewer"}).status_code == 200
    answer = dave.ask("POST", "v1/users", json={"name": "dave", "role": "operator"})
    assert answer.status_code == 403
    assert "viewer 'dave' may not call POST /v1/users" in answer.json()["error"]


def test_a_computer_that_was_removed_is_out(secure_cloud: SecureCloud):
    cloud = secure_cloud
    oslo = cloud.add_computer("oslo")
    with cloud.database.writing() as session:
        session.query(Computer).filter_by(reference="oslo").one().state = "removed"
        # As when another certificate changes: what is remembered is asked anew.
        admission.put_user(session, "somebody", "viewer")
    answer = oslo.ask("GET", "getFullComputerInformation", params={"computer_id": "oslo"})
    assert answer.status_code == 403
    assert "of a computer that was removed" in answer.text


def test_the_certificate_of_an_instance_ends_with_it(secure_cloud: SecureCloud):
    cloud = secure_cloud
    rome = cloud.add_computer("rome")
    place = {"computer_id": "rome", "computer_partition_id": "slappart0"}
    guid = cloud.request("short", filter_kw={"computer_guid": "rome"}).getInstanceGuid()
    partition = cloud.holder("partition", guid)
    assert partition.ask("POST", "softwareInstanceBang", data=place).status_code == 200
    cloud.request("short", state="destroyed")
    assert partition.ask("POST", "softwareInstanceBang", data=place).status_code == 200
    assert rome.ask("POST", "destroyedComputerPartition", data=place).status_code == 200
    answer = partition.ask("POST", "softwareInstanceBang", data=place)
    assert answer.status_code == 403
    assert "was revoked: the instance is gone" in answer.text
    cloud.request("next", filter_kw={"computer_guid": "rome"})
    assert partition.ask("POST", "softwareInstanceBang", data=place).status_code == 403


def test_who_did_it_stands_in_history(secure_cloud: SecureCloud):
    cloud = secure_cloud
    cloud.user("erin", "operator").client.put_product("erins", "https://example.org/a.cfg")
    with cloud.database.reading() as session:
        rows = session.connection().exec_driver_sql(
            "SELECT who FROM change WHERE kind = 'product' AND subject = 'erins'"
        )
        assert rows.all() == [("operator/erin",)]


def test_requests_of_web_pages_are_refused_with_a_certificate_too(secure_cloud: SecureCloud):
    headers = {"Origin": "https://evil.example"}
    answer = secure_cloud.operator.ask("GET", "v1/status", headers=headers)
    assert answer.status_code == 403
    assert "not from a browser" in answer.text


def test_a_certificate_does_not_make_up_its_caller(secure_cloud: SecureCloud, tmp_path: Path):
    """What counts is what the master has recorded, not what a certificate says."""
    cloud = secure_cloud
    other = Authority(tmp_path / "other")
    issued = other.issue_with_key(Subject("user", "alice"))
    path = tmp_path / "forged.pem"
    path.write_text(issued.key + issued.certificate)
    with pytest.raises(OSError, match=r"(?i)alert|reset|broken|aborted|eof"):
        cloud.caller(path).ask("GET", "v1/health")
