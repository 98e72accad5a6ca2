# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for the nodes of a request, of a real master whose computers report."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from master_cloud import RELEASE, Cloud
from our_slapos import Slapos
from rich.console import Console

from slapos_wendelin import waiting
from slapos_wendelin.cli.showing import wait
from slapos_wendelin.waiting import FailedNodeError, NotReadyError, Patience, follow

#: Where the tests run in the background, SIGINT is ignored from the start.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from slapos_wendelin.cli.entry import main
raise SystemExit(main())
"""


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_INTERVAL", 0.01)


def steps(cloud: Cloud, patience: Patience = Patience(seconds=240.0), release: str = ""):  # noqa: B008
    return follow(
        lambda: cloud.client.instance("cluster"),
        lambda: cloud.client.software(RELEASE),
        patience,
        release,
    )


def build(cloud: Cloud, computer: str, error: str = "") -> None:
    """Report that a computer has the release, or why it could not be built."""
    (release,) = cloud.slap.registerComputer(computer).getSoftwareReleaseList()
    release.error(error) if error else release.available()


def test_it_ends_when_every_node_is_well(cloud: Cloud):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    following = steps(cloud)
    assert [node.fault for node in next(following)] == ["its software is being built"]
    build(cloud, "paris")
    assert [node.fault for node in next(following)] == ["is not started as requested yet"]
    child = cloud.request_from(root, "storage")
    cloud.partition(child).started()
    cloud.partition(root).error("promise masters-listen is red")
    assert {node.name: node.fault for node in next(following)} == {
        "cluster": "promise masters-listen is red",
        "storage": "",
    }
    cloud.partition(root).started()
    assert [node.fault for node in next(following)] == ["", ""]
    assert next(following, None) is None


def test_a_build_that_fails_ends_it_at_once_with_the_last_lines_of_the_log(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("cluster")
    build(cloud, "paris", "a failure of long ago")
    following = steps(cloud)
    next(following)
    next(following)
    build(cloud, "paris", "compiling\ncc: out of memory\nmake: *** [all] Error 1")
    with pytest.raises(FailedNodeError) as caught:
        list(following)
    assert caught.value.message == (
        "paris could not build the release for cluster:\n"
        "  compiling\n  cc: out of memory\n  make: *** [all] Error 1"
    )
    assert caught.value.exit_status == 1


def test_a_node_that_reports_an_error_when_time_is_over_is_named_with_its_last_lines(cloud: Cloud):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    build(cloud, "paris")
    cloud.partition(root).error("Traceback\nport 80 is taken")
    with pytest.raises(FailedNodeError) as caught:
        list(steps(cloud, Patience(seconds=0.1)))
    assert "cluster (paris/slappart0): port 80 is taken" in caught.value.message
    assert "the last lines of cluster:\n    Traceback\n    port 80 is taken" in caught.value.message


def test_nodes_that_are_only_slow_are_not_ready(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("cluster")
    with pytest.raises(NotReadyError, match="1 of 1 nodes are not well after 0 s without a change"):
        list(steps(cloud, Patience(unchanged=0.1)))
    assert NotReadyError.exit_status == 2


def test_nodes_of_another_release_wait_for_the_new_one(cloud: Cloud):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    cloud.partition(root).started()
    (node,) = next(steps(cloud, release="https://example.org/new.cfg"))
    assert node.fault == "waits for the new release"


def test_request_waits_and_prints_a_line_for_each_change(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    build(cloud, "paris")
    slapos = Slapos(tmp_path, cloud.url)
    unready = ["request", "cluster", RELEASE, "--unchecked", "--force-serialisation", "xml"]
    late = slapos(*unready, "--wait", "0")
    assert late.status == 2
    assert "0/1  cluster  paris/slappart0  is not started as requested yet" in late.out
    assert "remedy: the request stays" in late.err
    cloud.partition(root).setConnectionDict({"url": "neo://"})
    cloud.partition(root).started()
    ready = slapos(*unready, "--wait")
    assert ready.status == 0, ready
    assert ready.out.endswith("  url              neo://\ncluster is ready.\n")
    as_json = slapos(*unready, "--wait", "--json")
    assert as_json.document["settled"] is True


def test_a_terminal_shows_a_table_that_changes(cloud: Cloud):
    cloud.add_computer("paris")
    root = cloud.request("cluster")
    build(cloud, "paris")
    cloud.partition(root).error("[red]port[/red] 80 is taken")
    screen = io.StringIO()
    out = Console(file=screen, force_terminal=True, width=100)
    with pytest.raises(FailedNodeError):
        wait(cloud.client, "SOFTINST-1", Patience(seconds=0.0), out)
    assert "0 of 1 nodes well" in screen.getvalue()
    assert "[red]port[/red] 80 is taken" in screen.getvalue()
    cloud.partition(root).started()
    assert wait(cloud.client, "SOFTINST-1", Patience(), out)["settled"]
    assert "1 of 1 nodes well" in screen.getvalue()


def test_request_waits_until_what_is_destroyed_is_gone(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    cloud.request("cluster")
    slapos = Slapos(tmp_path, cloud.url)
    late = slapos("request", "cluster", "--state", "destroyed", "--wait", "0")
    assert late.status == 2
    assert "is not destroyed as requested yet" in late.out
    root = cloud.slap.registerComputer("paris").getComputerPartitionList()[0]
    root.destroyed()
    assert cloud.client.instance("SOFTINST-1")["settled"]


def test_interrupted_the_request_stays(cloud: Cloud, tmp_path: Path):
    cloud.add_computer("paris")
    slapos = Slapos(tmp_path, cloud.url)
    arguments = ["request", "cluster", RELEASE, "--unchecked", "--wait"]
    with subprocess.Popen(
        [sys.executable, "-u", "-W", "ignore", "-c", INTERRUPTIBLE, *arguments],
        env=slapos.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "cluster is requested" in process.stdout.readline()
        assert "0/1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 130
        assert "The request for cluster stays" in process.stderr.read()
    assert cloud.client.instance("cluster")["state"] == "started"
