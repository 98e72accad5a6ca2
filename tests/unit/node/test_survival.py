# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever dies, and whoever else is at work: the agent converges, and nothing runs twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from computer import INSTANCE, PATIENCE, Computer, wait_for
from slapos.grid.svcbackend import getSupervisorRPC

#: A part that takes as long as a file is there, and tells who works on it and when.
SLOW = """
[slow]
recipe = slapos.recipe.build
install =
  import os, time
  folder = self.buildout['buildout']['directory']
  gate = os.path.join(folder, '..', '..', 'gate')
  log = open(os.path.join(folder, '..', '..', 'slow.log'), 'a')
  print('begin', os.path.basename(folder), os.getpid(), file=log, flush=True)
  while os.path.exists(gate):
    time.sleep(0.02)
  os.makedirs(self.options['location'], exist_ok=True)
  print('end', os.path.basename(folder), os.getpid(), file=log, flush=True)
update =
"""


@pytest.fixture
def slow(computer: Computer) -> Computer:
    """A computer whose instances take as long as the file ``gate`` is there."""
    text = INSTANCE.replace("parts = service", "parts = slow service")
    computer.write_release(text + SLOW)
    (computer.folder / "gate").touch()
    computer.supply()
    computer.start()
    return computer


def lines(computer: Computer) -> list[list[str]]:
    """Return what the slow parts told."""
    try:
        return [line.split() for line in (computer.folder / "slow.log").read_text().splitlines()]
    except FileNotFoundError:
        return []


def begun(computer: Computer) -> list[list[str]]:
    """Return the beginnings of slow parts."""
    return [line for line in lines(computer) if line[0] == "begin"]


def test_partitions_are_processed_at_the_same_time_and_none_of_them_twice(slow: Computer) -> None:
    slow.request("one")
    slow.request("two")
    wait_for(lambda: len(begun(slow)) == 2, "both are under way")
    slow.request("one", x="1")
    wait_for(lambda: slow.told_of("one").get("phase") == "processing", "the agent tells so")
    (slow.folder / "gate").unlink()
    slow.wait_until_well("one", "two")
    assert {line[1] for line in begun(slow)} == {"slappart0", "slappart1"}
    for partition in ("slappart0", "slappart1"):
        told = [line for line in lines(slow) if line[1] == partition]
        assert [line[0] for line in told] == ["begin", "end"] * (len(told) // 2)


def test_a_change_during_the_work_is_not_reported_as_done_before_it_is(slow: Computer) -> None:
    slow.request("changes")
    wait_for(lambda: begun(slow), "the work is under way")
    number = slow.client.wait_due("paris")["number"]
    slow.request("changes", x="1")
    wait_for(lambda: slow.client.wait_due("paris")["number"] != number, "there is a change")
    # The agent has asked for everything again before the work ends.
    wait_for(lambda: fetched(slow), "the agent knows of the change")
    (slow.folder / "gate").unlink()
    slow.wait_until_well("changes")
    mark = slow.partition("changes") / ".timestamp"
    number = slow.client.wait_due("paris")["instances"][0]["number"]
    # It is written when it was reported, and was by the processing before.
    wait_for(
        lambda: mark.exists() and mark.read_text().replace(".", "") == str(number),
        "the processing has ended",
    )


def fetched(computer: Computer) -> bool:
    """Return whether the computer has asked for everything since the last change."""
    (instance,) = computer.client.computer("paris")["instances"]
    return (
        bool(computer.told())
        and not instance["settled"]
        and bool(computer.told_of("changes").get("is_due_again"))
    )


def test_an_agent_that_is_killed_at_work_leaves_nothing_and_goes_on_at_the_next_start(
    slow: Computer,
) -> None:
    slow.request("killed")
    (first,) = wait_for(lambda: begun(slow), "the work is under way")
    slow.kill()
    wait_for(lambda: not is_alive(int(first[2])), "the buildout ends with its agent")
    slow.start()
    wait_for(lambda: len(begun(slow)) == 2, "the next agent goes on")
    working = [line for line in begun(slow) if is_alive(int(line[2]))]
    assert len(working) == 1
    (slow.folder / "gate").unlink()
    slow.wait_until_well("killed")


@pytest.mark.parametrize("helper", ["processor", "buildout_server", "promise_runner"])
def test_a_helper_that_is_killed_at_work_is_replaced(slow: Computer, helper: str) -> None:
    slow.request("goes-on")
    (first,) = wait_for(lambda: begun(slow), "the work is under way")
    slow.helper(helper).kill()
    if helper != "promise_runner":
        wait_for(lambda: not is_alive(int(first[2])), "the buildout ends")
        wait_for(lambda: len(begun(slow)) == 2, "it is begun again")
    (slow.folder / "gate").unlink()
    slow.wait_until_well("goes-on")
    wait_for(lambda: slow.promise("goes-on", "service-runs"), "promises are run")


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie that nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_killed_agent_has_started_is_ended_before_anything_else(slow: Computer) -> None:
    slow.request("orphan")
    (first,) = wait_for(lambda: begun(slow), "the work is under way")
    environment = psutil.Process(int(first[2])).environ()
    # A program that a buildout has started is no child of anybody by then.
    orphan = subprocess.Popen(["sleep", "1000"], env=environment, start_new_session=True)
    slow.kill()
    (slow.folder / "gate").unlink()
    slow.start()
    assert orphan.wait(PATIENCE) == -signal.SIGKILL
    slow.wait_until_well("orphan")


def test_a_second_agent_is_refused(computer: Computer) -> None:
    computer.start()
    wait_for(computer.told, "the first one works")
    second = subprocess.run(
        [sys.executable, "-m", "slapos_wendelin.node", "--configuration", computer.configuration],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert second.returncode == 1
    assert f"another agent (process {computer.agent.pid}) works in" in second.stderr


def test_slapgrid_and_the_agent_keep_out_of_each_others_way(slow: Computer) -> None:
    slow.request("mine")
    wait_for(lambda: begun(slow), "the agent works")
    assert slow.slapos("node", "instance").returncode == 10
    (slow.folder / "gate").unlink()
    slow.wait_until_well("mine")
    wait_for(lambda: not (slow.folder / "instance.pid").exists(), "the agent is done")
    (slow.folder / "gate").touch()
    # A process with the word in its command line, as slapgrid looks for others.
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "slapos"], stdin=subprocess.PIPE
    ) as other:
        (slow.folder / "instance.pid").write_text(str(other.pid))
        slow.request("yours")
        wait_for(lambda: slow.told_of("yours").get("phase") == "queued", "it waits")
        wait_for(
            lambda: str(other.pid) in slow.told_of("yours").get("waits_for", ""), "it says for whom"
        )
        assert slow.partition("yours").name not in {line[1] for line in begun(slow)}
        other.communicate()
    (slow.folder / "gate").unlink()
    slow.wait_until_well("yours")


def test_a_cut_from_the_master_changes_nothing_that_runs(computer: Computer) -> None:
    computer.supply()
    computer.start()
    computer.request("lonely")
    computer.wait_until_well("lonely")
    folder = computer.partition("lonely")
    # The master knows it a moment before the agent has written down what it watches from now on.
    wait_for(lambda: computer.told_of("lonely").get("phase") == "settled", "it is settled")
    computer.master.kill()
    wait_for(lambda: computer.told()["master"]["error"], "the agent notices")
    pid = int((folder / "var/run/service.pid").read_text())
    assert is_alive(pid)
    computer.kill()
    result = folder / ".slapgrid/promise/result/service-runs.status.json"
    result.unlink()
    computer.start()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: program_of(folder) not in (0, pid), "the program is started again")
    wait_for(result.exists, "promises run")
    wait_for(lambda: is_cut(computer), "the next agent notices")
    computer.master.start()
    computer.wait_until_well("lonely")
    wait_for(lambda: not computer.told()["master"]["error"], "the agent sees it again")
    wait_for(lambda: computer.told_of("lonely")["phase"] == "settled", "it is settled")


def is_cut(computer: Computer) -> bool:
    """Return whether the status says that the master is away, and that this is a fault."""
    shown = computer.slapos("node", "status")
    return shown.returncode == 1 and "the master does not answer" in shown.stdout


def program_of(folder: Path) -> int:
    """Return the process of the partition's program as its pid file names it, 0 for none."""
    try:
        pid = int((folder / "var/run/service.pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if is_alive(pid) else 0


def kill_program(folder: Path) -> int:
    """Kill the partition's program and return which process it was."""
    pid: int = wait_for(lambda: program_of(folder), "the program runs")
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_program_that_dies_is_started_again_and_counted(computer: Computer) -> None:
    computer.supply()
    computer.start()
    computer.request("dies")
    computer.wait_until_well("dies")
    folder = computer.partition("dies")
    pid = kill_program(folder)
    wait_for(lambda: program_of(folder) not in (0, pid), "it is started again")
    told = wait_for(lambda: computer.told()["deaths"], "it is counted")
    name = f"{folder.name}:service"
    assert [(each, told[each]["count"]) for each in told] == [(name, 1)]
    wait_for(lambda: computer.client.instance("dies")["deaths"], "the master knows")
    (died,) = computer.client.instance("dies")["deaths"]
    assert (died["partition"], died["program"], died["count"]) == (folder.name, "service", 1)
    computer.stop()
    computer.start()
    wait_for(lambda: computer.told()["deaths"] == told, "the next agent knows it too")
    kill_program(folder)
    wait_for(lambda: computer.told()["deaths"][name]["count"] == 2, "it is counted on")


def test_a_supervisord_that_dies_is_started_again_with_its_programs(computer: Computer) -> None:
    computer.supply()
    computer.start()
    computer.request("dies")
    computer.wait_until_well("dies")
    folder = computer.partition("dies")
    with getSupervisorRPC(str(computer.instances / "sv.sock")) as supervisor:
        supervisord = psutil.Process(supervisor.getPID())
    pid = wait_for(lambda: program_of(folder), "the program runs")
    supervisord.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: program_of(folder) not in (0, pid), "the program runs again")


def test_nothing_of_an_agent_is_left_when_it_is_stopped(slow: Computer) -> None:
    slow.request("stopped")
    wait_for(lambda: begun(slow), "the work is under way")
    processes = psutil.Process(slow.agent.pid).children(recursive=True)
    slow.stop()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive
    assert not (slow.folder / "instance.pid").exists()
    shown = slow.slapos("node", "status")
    assert "the agent does not run" in shown.stdout


def test_an_idle_agent_uses_next_to_no_processor(computer: Computer) -> None:
    computer.supply()
    computer.start()
    computer.request("idle")
    computer.wait_until_well("idle")
    agent = psutil.Process(computer.agent.pid)

    def is_idle() -> bool:
        before, begin = sum(agent.cpu_times()[:2]), time.monotonic()
        time.sleep(3)
        used = sum(agent.cpu_times()[:2]) - before
        return used < 0.1 * (time.monotonic() - begin)

    # What it was told of is not all done yet.
    wait_for(is_idle, "it is idle")
