# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of a computer does what the master wants, and tells how it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
from computer import Computer, wait_for

BROKEN_PLUGIN = "import no_such_module\n"

PLUGIN = """\
from zope.interface import implementer
from slapos.grid.promise import interface
from slapos.grid.promise.generic import GenericPromise

@implementer(interface.IPromise)
class RunPromise(GenericPromise):
    def __init__(self, config):
        GenericPromise.__init__(self, config)
        self.setPeriodicity(minute=0.01)

    def sense(self):
        {sense}
"""


def test_an_instance_is_started_published_and_its_promises_are_kept(shared: Computer) -> None:
    shared.request("first")
    shared.wait_until_well("first")
    folder = shared.partition("first")
    assert shared.client.instance("first")["connection"]["folder"] == str(folder)
    pid = int((folder / "var" / "run" / "service.pid").read_text())
    assert psutil.Process(pid).cwd() == str(folder)
    assert shared.promise("first", "service-runs")["message"] == f"service runs as process {pid}"
    assert not shared.promise("first", "no-fault")["failed"]
    assert "service runs" in (folder / ".slapgrid/promise/log/service-runs.log").read_text()
    wait_for((folder / ".timestamp").exists, "the processing has ended")
    # Our extension does to a forked buildout what it does to any other.
    assert (folder / "typed").read_text().split() == ["!py!{'a':", "[1]}", "1"]


def test_a_buildout_is_a_fork_of_one_that_has_imported_everything(shared: Computer) -> None:
    server = shared.helper("buildout_server")
    before = sum(server.cpu_times()[2:4])
    shared.request("forked")
    shared.wait_until_well("forked")
    wait_for(lambda: sum(server.cpu_times()[2:4]) > before, "the server has had a child")


def test_what_is_unchanged_is_not_processed_again(shared: Computer) -> None:
    shared.request("unchanged")
    shared.wait_until_well("unchanged")
    mark = shared.partition("unchanged") / ".timestamp"
    wait_for(mark.exists, "its processing has ended")
    before = mark.stat().st_mtime_ns
    shared.request("another")
    shared.wait_until_well("another")
    assert mark.stat().st_mtime_ns == before


def test_a_change_is_processed_at_once_and_a_stopped_instance_stops(shared: Computer) -> None:
    shared.request("changes")
    shared.wait_until_well("changes")
    pid = int((shared.partition("changes") / "var/run/service.pid").read_text())
    shared.request("changes", "stopped")
    wait_for(lambda: shared.reported("changes")[0] == "stopped", "it is stopped")
    wait_for(lambda: not psutil.pid_exists(pid), "its program ends")
    shared.request("changes", "started")
    shared.wait_until_well("changes")


def test_a_destroyed_instance_leaves_an_empty_partition(shared: Computer) -> None:
    shared.request("destroyed")
    shared.wait_until_well("destroyed")
    folder = shared.partition("destroyed")
    shared.request("destroyed", "destroyed")
    wait_for(lambda: not (folder / "etc").exists(), "the partition is empty")
    wait_for(lambda: not shared.told_of("destroyed"), "the agent forgets it")


def test_a_promise_that_turns_red_is_told_to_the_master_and_again_when_it_is_green(
    shared: Computer,
) -> None:
    shared.request("turns")
    shared.wait_until_well("turns")
    fault = shared.partition("turns") / "broken"
    shared.add_promise(
        "turns",
        "plugin/turns.py",
        PLUGIN.format(
            sense=f"import os; (self.logger.error if os.path.exists({str(fault)!r}) "
            "else self.logger.info)('the fault is ' + str(os.path.exists("
            f"{str(fault)!r})))"
        ),
    )
    shared.request("turns", x="1")
    wait_for(lambda: shared.promise("turns", "turns"), "the promise runs")
    shared.wait_until_well("turns")
    fault.touch()
    shared.wait_for_error("turns", "Promise 'turns.py' failed with output: the fault is True")
    fault.unlink()
    shared.wait_until_well("turns")


def test_a_promise_of_the_old_style_is_red_with_what_it_printed(shared: Computer) -> None:
    shared.request("old")
    shared.wait_until_well("old")
    (shared.partition("old") / "fault").write_text("the disk is on fire\n")
    shared.request("old", x="1")
    shared.wait_for_error("old", "Promise 'no-fault' failed with output: the disk is on fire")
    (shared.partition("old") / "fault").unlink()
    shared.wait_until_well("old")


def test_promises_that_cannot_run_are_red_with_the_reason_and_harm_no_other(
    shared: Computer,
) -> None:
    shared.request("sick")
    shared.request("healthy")
    shared.wait_until_well("sick", "healthy")
    shared.add_promise("sick", "plugin/imports.py", BROKEN_PLUGIN)
    shared.add_promise("sick", "plugin/crashes.py", PLUGIN.format(sense="import os; os.abort()"))
    shared.add_promise("sick", "plugin/leaves.py", PLUGIN.format(sense="import os; os._exit(0)"))
    shared.add_promise("sick", "plugin/is_none.py", "RunPromise = 3\n")
    shared.add_promise(
        "sick", "plugin/hangs.py", PLUGIN.format(sense="import time; time.sleep(1000)")
    )
    shared.add_promise("sick", "promise/hangs-too", "#!/bin/sh\nsleep 1000\n")
    (shared.partition("sick") / "etc" / "promise" / "no-program").write_text("text\n")
    shared.request("sick", x="1")
    reasons = {
        "imports": "No module named 'no_such_module'",
        "crashes": "without a result (killed by signal 6)",
        "leaves": "without a result (exit status 0)",
        "is_none": "'IPromise'",
        "hangs": "timed out after 10 seconds",
        "hangs-too": "timed out after 10 seconds",
        "no-program": "is not executable",
    }
    for name, reason in reasons.items():

        def says_why(name: str = name, reason: str = reason) -> bool:
            return reason in shared.promise("sick", name).get("message", "")

        wait_for(says_why, f"{name} says {reason}")
        assert shared.promise("sick", name)["failed"], name
    shared.wait_for_error("sick", "Promise 'crashes.py' failed with output: the promise ended")
    wait_for(lambda: shared.reported("healthy") == ("started", ""), "the other one is well")
    wait_for(lambda: "sleep 1000" not in processes_of(shared, "sick"), "what hung is gone")


def test_a_plugin_with_eggs_of_its_own_is_run_by_slapgrid(shared: Computer) -> None:
    shared.request("foreign")
    shared.wait_until_well("foreign")
    first = "import sys\nsys.path[0:0] = ['/srv/eggs/some.egg']\n"
    tell = "self.logger.info('runs with %s', [p for p in __import__('sys').path if 'egg' in p])"
    shared.add_promise("foreign", "plugin/eggs.py", first + PLUGIN.format(sense=tell))
    shared.request("foreign", x="1")
    wait_for(
        lambda: "/srv/eggs/some.egg" in shared.promise("foreign", "eggs").get("message", ""),
        "the promise runs with its eggs",
    )
    shared.wait_until_well("foreign")
    (shared.partition("foreign") / "fault").write_text("no tea\n")
    shared.request("foreign", x="2")
    shared.wait_for_error("foreign", "Promise 'no-fault' failed with output: no tea")


def processes_of(computer: Computer, name: str) -> set[str]:
    """Return the command lines of the processes that work in an instance's partition."""
    folder, found = str(computer.partition(name)), set()
    for process in psutil.process_iter():
        try:
            if process.cwd() == folder:
                found.add(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_a_partition_that_others_can_read_is_refused_with_its_mode(shared: Computer) -> None:
    for folder in shared.instances.glob("slappart*"):
        if not (folder / "etc").exists():
            folder.chmod(0o755)
    shared.request("open")
    shared.wait_for_error("open", "is 0755, not 0750 (let root run `slapos node format --now`")
    for folder in shared.instances.glob("slappart*"):
        folder.chmod(0o750)
    shared.wait_until_well("open")


def test_status_shows_partitions_promises_and_programs(shared: Computer) -> None:
    shared.request("shown")
    shared.wait_until_well("shown")
    name = shared.partition("shown").name
    wait_for(lambda: shared.told_of("shown").get("phase") == "settled", "it is told")
    result = shared.slapos("node", "status", "--json", name)
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads(result.stdout)
    (partition,) = document["partitions"]
    assert (partition["instance"], partition["phase"]) == ("shown", "settled")
    assert {each: told["red"] for each, told in partition["promises"].items()} == {
        "service-runs.py": False,
        "no-fault": False,
    }
    (program,) = document["programs"]
    assert (program["group"], program["state"]) == (name, "RUNNING")
    shown = shared.slapos("node", "status", name)
    assert "all is well" in shown.stdout
    assert f"{name}:service" in shown.stdout
    assert Path(document["quotas"]["mount_point"]).is_mount()
    assert "disk quotas of partitions: " in shown.stdout


def test_status_tells_what_a_partition_waits_for_and_why(shared: Computer) -> None:
    shared.request("waits")
    shared.wait_until_well("waits")
    (shared.partition("waits") / "fault").write_text("out of tea\n")
    shared.request("waits", x="1")
    name = shared.partition("waits").name

    def is_told() -> bool:
        # It is processed again now and then, and waits for nothing meanwhile.
        shown = shared.slapos("node", "status", name)
        text = " ".join(shown.stdout.split())
        told = "waits for its promises, to be green" in text and "out of tea" in text
        assert shown.returncode == 1 or not told
        return told

    wait_for(is_told, "it tells what it waits for")
    (shared.partition("waits") / "fault").unlink()
    shared.wait_until_well("waits")


def test_status_of_what_is_not_there_says_what_is(shared: Computer) -> None:
    shown = shared.slapos("node", "status", "slappart99")
    assert shown.returncode == 1
    assert "no instance is in slappart99" in shown.stderr


def test_the_state_is_readable_by_the_agents_user_only(shared: Computer) -> None:
    shared.request("private")
    shared.wait_until_well("private")
    folder = shared.instances / ".agent"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "state.json").stat().st_mode & 0o777 == 0o600
    assert (folder / "state.json").stat().st_uid == os.geteuid()
