# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands about computers, moves and the status, against a real master."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from master_cloud import RELEASE, Cloud
from our_slapos import run_commands

from slapos_wendelin.cli.ages import age, gibibytes


def settle(cloud: Cloud, reference: str) -> None:
    """Let the computer of a root report that it runs."""
    shown = cloud.client.instance(reference)
    host = cloud.slap.registerComputer(shown["computer"])
    for each in host.getComputerPartitionList():
        if each.getState() == "started":
            each.started()


def settle_again_and_again(cloud: Cloud, stop: threading.Event) -> None:
    """Do what the computers do."""
    while not stop.wait(0.3):
        settle(cloud, "cluster")


def test_a_computer_is_set_and_shown(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris", datacenter="somewhere")
    values = ["--datacenter", "paris-4", "--coordinates", "-33.8", "151.2", "--label", "disk=ssd"]
    changed, shown, relabelled = run_commands(
        tmp_path,
        cloud.url,
        ["computer", "set", "paris", *values, "--json"],
        ["computer", "show", "paris"],
        ["computer", "set", "paris", "--remove-label", "disk", "--label", "a=b=c", "--json"],
    )
    assert changed.status == shown.status == 0
    assert changed.document["datacenter"] == "paris-4"
    assert changed.document["coordinates"] == {"latitude": -33.8, "longitude": 151.2}
    for text in ("paris-4", "-33.8, 151.2", "disk=ssd", "0 of 2 in use", "eligible"):
        assert text in shown.out
    assert relabelled.document["labels"] == {"a": "b=c"}


def test_wrong_commands_are_one_line_and_a_remedy(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    results = run_commands(
        tmp_path,
        cloud.url,
        ["computer", "set", "paris"],
        ["computer", "set", "paris", "--coordinates", "95", "0"],
        ["computer", "set", "paris", "--label", "disk"],
        ["computer", "cordon", "tokyo"],
        ["cluster", "move", "nothing", "--yes"],
        ["cluster", "status", "nothing"],
        ["cluster", "status", "--cfg", "/nonexistent.cfg"],
    )
    messages = (
        "nothing to change of paris",
        "latitude is 95.0",
        "--label is 'disk'",
        "computer 'tokyo' is not registered",
        "no instance 'nothing'",
        "no instance 'nothing'",
        "/nonexistent.cfg",
    )
    for result, message in zip(results, messages, strict=True):
        lines = result.err.strip().splitlines()
        assert (result.status, len(lines)) == (1, 2), result
        assert message in lines[0]
        assert lines[1].startswith("  remedy: ")
        assert result.out == ""
    assert [each["reference"] for each in cloud.client.computers()] == ["paris"]


def test_cordoning_is_undone(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    cordoned, uncordoned = run_commands(
        tmp_path,
        cloud.url,
        ["computer", "cordon", "paris", "--json"],
        ["computer", "uncordon", "paris", "--json"],
    )
    assert cordoned.document["state"] == "cordoned"
    assert uncordoned.document["state"] == "eligible"


def test_a_computer_is_drained_and_removed(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris", partitions=3)
    cloud.request("cluster")
    cloud.request("bound", filter_kw={"computer_guid": "paris"})
    cloud.add_computer("tokyo", partitions=1)
    asked, drained, refused = run_commands(
        tmp_path,
        cloud.url,
        ["computer", "drain", "paris"],
        ["computer", "drain", "paris", "--yes", "--no-wait"],
        ["computer", "remove", "paris", "--yes"],
    )
    assert asked.status == 1
    assert "add --yes" in asked.err
    assert drained.status == 1
    assert "cluster (SOFTINST-1, on paris/slappart0) goes to tokyo/slappart0" in drained.out
    assert "bound (SOFTINST-2, on paris/slappart1) stays: no computer can host" in drained.out
    assert "1 went, 1 could not" in drained.out
    assert cloud.client.computer("paris")["state"] == "draining"
    assert refused.status == 1
    assert "still has 1 instance: bound" in refused.err
    cloud.request("bound", state="destroyed")
    for partition in cloud.slap.registerComputer("paris").getComputerPartitionList():
        if partition.getState() == "destroyed":
            partition.destroyed()
    drained, removed, shown, listed = run_commands(
        tmp_path,
        cloud.url,
        ["computer", "drain", "paris", "--yes", "--json"],
        ["computer", "remove", "paris", "--yes", "--json"],
        ["computer", "show", "paris"],
        ["computer", "list"],
    )
    assert drained.document == {"computer": "paris", "moved": [], "refused": []}
    assert removed.document["state"] == "removed"
    assert "removed" in shown.out
    assert "tokyo" in listed.out
    assert "paris" not in listed.out


def test_a_drain_waits_until_the_moved_instance_is_well(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris", partitions=1)
    cloud.request("cluster")
    cloud.add_computer("tokyo", partitions=1)
    (impatient,) = run_commands(
        tmp_path, cloud.url, ["computer", "drain", "paris", "--yes", "--wait", "0"]
    )
    assert impatient.status == 1
    assert "was moved, but 0 s later cluster (SOFTINST-1) is not well" in impatient.err
    cloud.add_computer("osaka", partitions=1)
    stop = threading.Event()
    other = Cloud(cloud.url)
    nodes = threading.Thread(target=settle_again_and_again, args=(other, stop))
    nodes.start()
    try:
        (patient,) = run_commands(
            tmp_path, cloud.url, ["cluster", "move", "cluster", "--yes", "--wait", "100", "--json"]
        )
    finally:
        stop.set()
        nodes.join()
        other.client.close()
    assert patient.status == 0, patient
    assert patient.document["to"]["computer"] == "osaka"
    assert cloud.client.instance("cluster")["settled"]


def test_a_move_asks_and_says_where_to(cloud: Cloud, tmp_path: Path):
    for name in ("paris", "tokyo"):
        cloud.add_computer(name, partitions=1)
    cloud.request("cluster", filter_kw={})
    asked, moved, refused = run_commands(
        tmp_path,
        cloud.url,
        ["cluster", "move", "cluster"],
        ["cluster", "move", "cluster", "--yes", "--to", "tokyo"],
        ["cluster", "move", "cluster", "--yes"],
    )
    assert asked.status == 1
    assert "will be wiped, not copied: cluster (SOFTINST-1, on paris/slappart0)" in asked.err
    assert moved.out == "cluster (SOFTINST-1, on paris/slappart0) goes to tokyo/slappart0\n"
    assert refused.status == 1
    assert "paris: full (1 of 1 partitions in use); tokyo: it is there now" in refused.err


@pytest.fixture
def busy_cloud(cloud: Cloud) -> Cloud:
    """Give a cloud with a tree of which one node fails and a release that was not built."""
    for name in ("paris-1", "paris-2", "tokyo-1"):
        cloud.add_computer(name, partitions=2, datacenter=name[:5], region="earth")
    cloud.client.put_computer("paris-2", state="cordoned")
    cloud.client.put_measurement(
        "paris-1",
        {
            "cpu_core": 8,
            "memory_size": 16 * 2**30,
            "memory_used": 2**30,
            "storage_capacity": 2**40,
            "load": [1.5, 1, 1],
        },
    )
    cloud.client.put_product("neo", RELEASE, version="1.2")
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris-1"})
    child = cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo-1"})
    cloud.partition(root).started()
    cloud.partition(child).error("a traceback\n  in many lines\nport [3306] is taken")
    cloud.slap.registerComputer("tokyo-1").getSoftwareReleaseList()[0].error("no compiler")
    return cloud


def test_the_status_shows_what_is_where_and_what_is_wrong(busy_cloud: Cloud, tmp_path: Path):
    narrow, document, tree = run_commands(
        tmp_path,
        busy_cloud.url,
        ["cluster", "status"],
        ["cluster", "status", "--json"],
        ["cluster", "status", "storage-is-no-root", "--json"],
        columns=80,
    )
    assert narrow.status == document.status == tree.status == 1
    for text in (
        "paris (earth): 2 computers (1 cordoned), 1 of 4 partitions in use, 1 instances",
        "tokyo (earth): 1 computer, 1 of 2 partitions in use, 1 instances, 1 not well",
        "1.2 error",
        "tokyo-1/slappart0",
        "port [3306] is taken (",
        f"{RELEASE} was not built on tokyo-1",
    ):
        assert text in narrow.out
    assert max(map(len, narrow.out.splitlines())) <= 80
    shown = document.document
    assert shown["well"] is False
    assert [each["name"] for each in shown["datacenters"]] == ["paris", "tokyo"]
    assert shown["instances"][0]["version"] == "1.2"
    assert len(shown["problems"]) == 2
    (wide,) = run_commands(tmp_path, busy_cloud.url, ["cluster", "status"], columns=160)
    for text in ("data center", "8", "1.5", "1.0 of 16 GiB", "SOFTINST-2"):
        assert text in wide.out
    assert max(map(len, wide.out.splitlines())) <= 160


def test_what_has_died_is_shown(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    cloud.request("cluster")
    died = {"partition": "slappart0", "program": "storage", "count": 3, "last": time.time()}
    sizes = {"cpu_core": 8, "memory_size": 2**30, "storage_capacity": 2**30}
    cloud.client.put_measurement("paris", {**sizes, "deaths": [died]})
    status, computer, document = run_commands(
        tmp_path,
        cloud.url,
        ["cluster", "status"],
        ["computer", "show", "paris"],
        ["computer", "show", "paris", "--json"],
    )
    assert "storage died 3 times, and was started again (last" in status.out
    assert "storage of cluster 3 times, last" in computer.out
    (told,) = document.document["deaths"]
    assert (told["partition"], told["count"]) == ("slappart0", 3)


def test_the_status_of_one_tree_leaves_out_the_rest(busy_cloud: Cloud, tmp_path: Path):
    busy_cloud.request("other", filter_kw={"computer_guid": "paris-1"})
    (shown,) = run_commands(tmp_path, busy_cloud.url, ["cluster", "status", "cluster", "--json"])
    assert [each["reference"] for each in shown.document["instances"]] == ["cluster"]
    names = [each["reference"] for each in shown.document["computers"]]
    assert names == ["paris-1", "tokyo-1"]


def test_all_is_well_when_it_is(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    cloud.request("cluster")
    settle(cloud, "cluster")
    (shown,) = run_commands(tmp_path, cloud.url, ["cluster", "status"])
    assert shown.status == 0, shown
    assert "started, promises pass" in shown.out
    assert shown.out.endswith("All is well.\n")


def test_watching_goes_on_until_it_is_interrupted(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    configuration = tmp_path / "client.cfg"
    configuration.write_text(f"[slapos]\nmaster_url = {cloud.url}\n[slapconsole]\n")
    command = ["cluster", "status", "--json", "--watch", "0.1", "--cfg", str(configuration)]
    # Where the tests run in the background, SIGINT is ignored from the start.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from slapos_wendelin.cli.entry import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *command],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        documents = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=240) == 0
    assert all(each["well"] for each in documents)
    assert len({each["time"] for each in documents}) == 3


def test_ages_and_sizes_are_short():
    now = "2026-01-02T00:00:00+00:00"
    assert age(None, now) == ""
    assert age("2026-01-01T23:58:31+00:00", now) == "89 s"
    assert age("2026-01-01T23:30:00+00:00", now) == "30 min"
    assert age("2026-01-01T20:00:00+00:00", now) == "4 h"
    assert age("2025-12-25T00:00:00+00:00", now) == "8 d"
    assert age("2026-01-02T00:00:09+00:00", now) == "0 s"
    assert gibibytes(None) == ""
    assert gibibytes(3 * 2**29) == "1.5 GiB"
    assert gibibytes(64 * 2**30) == "64 GiB"
    assert gibibytes(20 * 2**40) == "20 TiB"
