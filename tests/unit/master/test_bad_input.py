# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What callers get who send what they should not."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest
import requests
import slapos.slap
from master_cloud import RELEASE, Cloud
from slapos.util import dumps

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
    return requests.post(f"{cloud.url}requestComputerPartition", data=form | fields, timeout=10)


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
        timeout=10,
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
        timeout=10,
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


def test_a_full_disk_refuses_changes_and_lets_computers_read_then_recovers(
    cloud: Cloud, tmp_path: Path
):
    cloud.add_computer("paris", partitions=2)
    cloud.request("cluster")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(each.stat().st_size for each in tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(slapos.slap.ServerError, match="nothing was changed; look at the disk"):
            cloud.request("second", partition_parameter_kw={"_": "x" * 100_000})
        assert len(cloud.slap.registerComputer("paris").getComputerPartitionList()) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each["reference"] for each in cloud.client.instances()] == ["cluster"]
    cloud.request("second", partition_parameter_kw={"_": "x" * 100_000})
    assert len(cloud.client.instances()) == 2


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example:5000"}]
)
def test_requests_from_web_pages_are_refused(cloud: Cloud, headers: dict[str, str]):
    answer = requests.get(f"{cloud.url}v1/status", headers=headers, timeout=10)
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
