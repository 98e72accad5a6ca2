# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A computer's service keeps programs running."""

import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from slapos.grid.svcbackend import getSupervisorRPC

from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.node.configuration import read_configuration
from slapos_wendelin.node.durable import Partition
from slapos_wendelin.node.processes import FIRST_DELAY, LAST_DELAY, BackOff, ProcessKeeper

SUPERVISORD = """
[supervisord]
nodaemon = true
logfile = {folder}/supervisord.log
pidfile = {folder}/supervisord.pid
[unix_http_server]
file = {folder}/sv.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:works]
command = sleep 1000
autostart = false
autorestart = false
startsecs = 0
[program:fails]
command = false
autostart = false
autorestart = false
startsecs = 0
"""


@pytest.fixture
def supervised(tmp_path):
    """A supervisord that, as slapgrid's, starts and restarts nothing by itself."""
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(SUPERVISORD.format(folder=tmp_path))
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
    socket = tmp_path / "sv.sock"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        # The socket is there before anybody listens.
        wait_for(lambda: answers(socket))
        yield socket
        process.terminate()


def answers(socket):
    """Say whether supervisord takes questions."""
    try:
        with getSupervisorRPC(str(socket)) as supervisor:
            return supervisor.getPID() > 0
    except OSError:
        return False


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def state_of(socket, name):
    with getSupervisorRPC(str(socket)) as supervisor:
        return supervisor.getProcessInfo(name)


def test_programs_of_a_new_supervisord_are_started(supervised):
    assert "works:works" in ProcessKeeper(supervised).look()
    wait_for(lambda: state_of(supervised, "works")["statename"] == "RUNNING")


def test_a_killed_program_is_started_again_after_a_delay(supervised):
    keeper = ProcessKeeper(supervised)
    keeper.look()
    pid = state_of(supervised, "works")["pid"]
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_for(lambda: state_of(supervised, "works")["statename"] == "EXITED")
    assert "works:works" not in keeper.look()
    wait_for(lambda: "works:works" in keeper.look())
    assert state_of(supervised, "works")["pid"] != pid


def test_a_program_that_an_operator_stopped_stays_stopped(supervised):
    keeper = ProcessKeeper(supervised)
    keeper.look()
    with getSupervisorRPC(str(supervised)) as supervisor:
        supervisor.stopProcess("works")
    assert "works:works" not in keeper.look()


def test_a_program_that_fails_at_once_is_tried_more_and_more_rarely(supervised):
    keeper = ProcessKeeper(supervised)
    starts = []
    for _ in range(4):
        wait_for(lambda: "fails:fails" in keeper.look())
        starts.append(time.monotonic())
    # However late the looks come, none comes too early.
    pauses = [after - before for before, after in pairwise(starts)]
    for number, pause in enumerate(pauses):
        assert pause > FIRST_DELAY * 2**number - 0.1, pauses


def test_a_death_is_noticed_at_once_and_counted(supervised):
    keeper = ProcessKeeper(supervised)
    keeper.look()
    wait_for(lambda: state_of(supervised, "works")["statename"] == "RUNNING")
    keeper.look()
    pid = state_of(supervised, "works")["pid"]
    killer = threading.Timer(0.3, subprocess.run, (["kill", "-9", str(pid)],), {"check": True})
    killer.start()
    begin = time.monotonic()
    while state_of(supervised, "works")["pid"] in (0, pid):
        assert time.monotonic() - begin < 240
        keeper.wait()
        keeper.look()
    assert keeper.deaths.told()["works:works"]["count"] == 1


def test_who_waits_for_a_death_can_be_woken(supervised):
    keeper = ProcessKeeper(supervised)
    keeper.wake()
    keeper.wait()
    keeper.look()


def test_nothing_happens_while_supervisord_is_away(tmp_path):
    assert ProcessKeeper(tmp_path / "none.sock").look() == []


def test_the_delay_doubles_up_to_a_limit_and_is_short_again_after_a_steady_run():
    back_off = BackOff()
    delays = []
    for _ in range(10):
        back_off.died(now=100.0, ran_for=0.0)
        delays.append(back_off.not_before - 100.0)
    assert delays[:3] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY]
    assert delays[-1] == LAST_DELAY
    back_off.died(now=100.0, ran_for=3600.0)
    assert back_off.not_before - 100.0 == FIRST_DELAY


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    path = tmp_path / "slapos.cfg"
    path.write_text("[slapos]\ncomputer_id = paris\n")
    with pytest.raises(MissingRequirementError, match=r"slapos\.cfg is no configuration"):
        read_configuration(path)


GROUP = """
[group:{name}]
programs = {name}_program
[program:{name}_program]
command = sh -c 'trap "sleep 0.5; exit" TERM; while :; do sleep 0.1; done'
environment = VERSION="{version}"
autorestart = false
startsecs = 0
"""


def test_programs_of_many_partitions_that_change_at_once_are_all_taken_over(supervised):
    folder = supervised.parent / "programs"
    folder.mkdir()
    names = [f"slappart{number}" for number in range(4)]

    def write(version):
        for name in names:
            (folder / f"{name}.conf").write_text(GROUP.format(name=name, version=version))

    def update():
        # Only what the method needs: a whole partition is made by the agent alone.
        partition = object.__new__(Partition)
        partition.logger = logging.getLogger("partition")
        partition.supervisord_socket = str(supervised)
        partition.supervisord_partition_configuration_dir = str(folder)
        partition.updateSupervisor()

    with (supervised.parent / "supervisord.conf").open("a") as configuration:
        configuration.write(f"[include]\nfiles = {folder}/*.conf\n")
    write(0)
    update()
    pool = ThreadPoolExecutor(len(names))
    for version in range(1, 4):
        write(version)
        for done in [pool.submit(update) for _ in names]:
            done.result(300)
    pool.shutdown()

    def are_running():
        with getSupervisorRPC(str(supervised)) as supervisor:
            states = {each["group"]: each["statename"] for each in supervisor.getAllProcessInfo()}
        return [states[name] for name in names] == ["RUNNING"] * 4

    wait_for(are_running)
