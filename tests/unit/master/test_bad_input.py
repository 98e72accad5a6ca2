# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What callers get who send what they should not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import slapos.slap
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from master_cloud import RELEASE, Cloud
from slapos.util import dumps

from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.database import Database

BOMB = """<?xml version="1.0"?>
<!DOCTYPE marshal [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<marshal><dictionary><string>a</string><string>&c;</string></dictionary></marshal>"""

FILE_ENTITY = """<!DOCTYPE marshal [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<marshal><dictionary><string>a</string><string>&a;</string></dictionary></marshal>"""

OBJECT = """<marshal><object id="i2" module="slapos.slap.slap" class="ComputerPartition"><tuple>
<string>a</string><string>../b</string></tuple><dictionary id="i3"/></object></marshal>"""

SHARED = """<marshal><dictionary id="i1"><string>a</string><list id="i2"><int>1</int></list>
<string>b</string><reference id="i2"/></dictionary></marshal>"""


def send(cloud: Cloud, **fields: str) -> requests.Response:
    """Send a request for an instance with some fields of its form replaced."""
    form = {
        "software_release": RELEASE,
        "software_type": "default",
        "partition_reference": "cluster",
        "partition_parameter_xml": dumps({}).decode(),
        "filter_xml": dumps({}).decode(),
        "shared_xml": dumps(False).decode(),
        "state": dumps("started").decode(),
    }
    return requests.post(f"{cloud.url}requestComputerPartition", data=form | fields, timeout=60)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"partition_parameter_xml": "<marshal><dict"}, "is not well-formed XML"),
        ({"partition_parameter_xml": "nonsense"}, "is not well-formed XML"),
        ({"partition_parameter_xml": "<other/>"}, "not one value in a <marshal> element"),
        ({"partition_parameter_xml": BOMB}, "document type declaration"),
        ({"partition_parameter_xml": FILE_ENTITY}, "document type declaration"),
        ({"partition_parameter_xml": OBJECT}, "holds a <object> element"),
        ({"partition_parameter_xml": "<marshal><code>AA==</code></marshal>"}, "a <code> element"),
        ({"partition_parameter_xml": SHARED}, "refers to one list or dictionary twice"),
        ({"partition_parameter_xml": dumps([1]).decode()}, "not a dictionary"),
        ({"partition_parameter_xml": dumps({"a": [1]}).decode()}, "'a' is a list"),
        ({"partition_parameter_xml": "<marshal><int>x</int></marshal>"}, "<int> holds 'x'"),
        ({"filter_xml": dumps({"cpu_count": "8"}).decode()}, "unknown SLA key 'cpu_count'"),
        ({"state": dumps("paused").decode()}, "state is 'paused'"),
        ({"shared_xml": dumps("yes").decode()}, "shared_xml is 'yes'"),
        ({"computer_id": "paris"}, "send both computer_id and computer_partition_id"),
        ({"partition_reference": ""}, "'partition_reference' is missing"),
        ({"partition_reference": "a\nb"}, "without control characters"),
        ({"partition_reference": "a" * 10_000}, "has 10000 characters"),
        ({"software_release": "http://a b"}, "holds a space"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason_and_changes_nothing(
    cloud: Cloud, fields: dict[str, str], message: str
):
    cloud.add_computer("paris")
    answer = send(cloud, **fields)
    assert answer.status_code == 400
    assert message in answer.text
    assert message in answer.reason
    assert cloud.client.status()["instances"] == []
    assert cloud.client.status()["software"] == []


def test_deeply_nested_xml_is_refused(cloud: Cloud):
    cloud.add_computer("paris")
    depth = 100_000
    answer = send(cloud, filter_xml=f"<marshal>{'<list>' * depth}{'</list>' * depth}</marshal>")
    assert answer.status_code == 400


def test_a_full_cloud_tells_the_reason_for_each_computer(cloud: Cloud):
    cloud.add_computer("paris", partitions=1, datacenter="paris")
    cloud.add_computer("tokyo", partitions=1, datacenter="tokyo")
    root = cloud.request("cluster", filter_kw={"datacenter": "paris"})
    with pytest.raises(slapos.slap.ServerError) as refusal:
        cloud.request_from(root, "storage", filter_kw={"datacenter": "paris"})
    text = str(refusal.value)
    assert text.startswith("503 Server Error: no computer can host 'storage'")
    assert "paris: full (1 of 1 partitions in use)" in text
    assert "tokyo: data center is tokyo, asked for paris" in text
    assert cloud.client.instance("cluster")["children"] == []


def test_an_empty_cloud_says_so(cloud: Cloud):
    with pytest.raises(slapos.slap.ServerError, match="none is registered"):
        cloud.request("cluster")


def test_a_body_of_more_than_four_mebibytes_is_refused(cloud: Cloud):
    answer = requests.post(
        f"{cloud.url}loadComputerConfigurationFromXML",
        data={"xml": "a" * (5 * 1024 * 1024)},
        timeout=60,
    )
    assert answer.status_code == 413
    assert "send 4194304 bytes (4 MiB) at most" in answer.text
    assert cloud.client.health() == {"status": "ok"}


def test_a_body_of_unknown_length_is_refused(cloud: Cloud):
    piece = b"xml=" + b"a" * 65536
    answer = requests.post(
        f"{cloud.url}loadComputerConfigurationFromXML",
        data=(piece for _ in range(80)),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=60,
    )
    assert answer.status_code == 411
    assert "send it whole with Content-Length" in answer.text


def test_large_parameters_below_the_limit_are_kept(cloud: Cloud):
    cloud.add_computer("paris")
    text = "é" * 300_000
    instance = cloud.request("cluster", partition_parameter_kw={"_": text})
    assert cloud.partition(instance).getInstanceParameterDict()["_"] == text


def test_a_half_sent_request_changes_nothing_and_harms_nobody(cloud: Cloud):
    host, port = cloud.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST /supplySupply HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nurl=a"
        )
        assert cloud.client.health() == {"status": "ok"}
    assert cloud.client.status()["software"] == []


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:5000"}]
)
def test_requests_from_web_pages_are_refused(cloud: Cloud, headers: dict[str, str]):
    answer = requests.get(f"{cloud.url}v1/status", headers=headers, timeout=60)
    assert answer.status_code == 403
    assert "not from a browser" in answer.json()["remedy"]


def test_reading_never_makes_files_where_a_document_says(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The slap library's ComputerPartition writes below SLAPGRID_INSTANCE_ROOT when it is made."""
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("SLAPGRID_INSTANCE_ROOT", str(tmp_path / "a"))
    assert send(cloud, filter_xml=OBJECT).status_code == 400
    assert not list((tmp_path / "b").iterdir())


FIELDS = {
    "computer_id": ["paris"],
    "computer_reference": ["paris"],
    "computer_partition_id": ["slappart0", "slappart1"],
    "computer_partition_reference": ["slappart0"],
    "software_release": [RELEASE],
    "url": [RELEASE],
    "state": ["available", "destroyed", dumps("started").decode(), dumps("destroyed").decode()],
    "partition_reference": ["cluster", "other"],
    "partition_parameter_xml": [dumps({"a": "1"}).decode()],
    "filter_xml": [dumps({"computer_guid": "paris"}).decode()],
    "shared_xml": [dumps(True).decode()],
    "connection_xml": [dumps({"a": "1"}).decode()],
    "instance_reference_xml": [dumps(["other"]).decode()],
    "slave_reference": ["SOFTINST-1"],
    "new_name": ["renamed"],
    "error_log": ["a promise fails"],
    "software_product_reference": ["neo"],
    "software_release_url": [RELEASE],
    "query": ['portal_type:"Compute Node" AND validation_state:validated'],
    "relative_url": ["compute_node/paris", "instance_tree/cluster"],
    "xml": [dumps({"reference": "paris", "partition_list": []}).decode()],
}

#: Texts that nothing is called, and XML that does not hold what it should.
_strange = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["a\nb", "a" * 10_000, "None", BOMB, OBJECT, SHARED, "\x00", "SOFTINST-0"]),
    st.sampled_from([[], [1], {"a": [1]}, {1: 2}, "x", None, 1.5]).map(
        lambda value: dumps(value).decode()
    ),
)


@st.composite
def _forms(draw: st.DrawFn) -> dict[str, str]:
    """Draw most fields of a form as they should be and some otherwise."""
    return {
        name: draw(st.sampled_from(values) if draw(st.integers(0, 3)) else _strange)
        for name, values in FIELDS.items()
        if draw(st.integers(0, 9))
    }


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Flask]:
    """Give an application whose database has one computer with an instance."""
    database = Database(tmp_path / "master.sqlite")
    application = create_application(database, is_plain=True)
    client = application.test_client()
    places = [{"partition_id": f"slappart{index}"} for index in range(2)]
    formatted = {"computer_guid": "paris", "compute_partition_list": places}
    assert client.post("/slapos.put.v0.compute_node_format", json=formatted).status_code == 200
    wanted = {"software_release": RELEASE, "partition_reference": "cluster"}
    assert client.post("/requestComputerPartition", data=wanted).status_code == 200
    yield application
    database.close()


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), form=_forms())
def test_whatever_a_form_holds_the_answer_is_a_result_or_a_reason(
    application: Flask, data: st.DataObject, form: dict[str, str]
):
    rules = [
        rule
        for rule in application.url_map.iter_rules()
        if rule.endpoint.startswith(("protocol.", "hateoas."))
    ]
    rule = data.draw(st.sampled_from(rules))
    client = application.test_client()
    if "POST" in (rule.methods or ()):
        answer = client.post(rule.rule, data=form)
    else:
        answer = client.get(rule.rule, query_string=form)
    assert answer.status_code in {200, 400, 404, 409, 503}, answer.text
    assert len(answer.status) < 2000
    assert answer.status_code == 200 or answer.text


@pytest.mark.parametrize("url", ["supplySupply", "computerBang", "slapos.get.v0.software_instance"])
def test_a_name_of_ten_kilobytes_comes_back_shortened(cloud: Cloud, url: str):
    name = "a" * 10_000
    sent = {"computer_id": name, "url": RELEASE, "state": "available"}
    if url.startswith("slapos."):
        answer = requests.post(cloud.url + url, json={"instance_guid": name}, timeout=60)
    else:
        answer = requests.post(cloud.url + url, data=sent, timeout=60)
    assert answer.status_code in {403, 404}
    assert len(answer.text) < 400
