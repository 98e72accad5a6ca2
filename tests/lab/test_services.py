# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What manages the nodes may die too: it comes back, and the nodes go on meanwhile."""

from __future__ import annotations

import contextlib

import psutil
from cluster import Cluster
from environment import PATIENCE, Environment, wait_for
from processes import is_alive

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.local.home import DATA_CENTERS


def kill(process: psutil.Process) -> None:
    """``kill -9`` a process and wait for its end."""
    process.kill()
    wait_for(lambda: not is_alive(process), "the kill")


def test_master_comes_back_by_itself(environment: Environment, cluster: Cluster) -> None:
    before, requested = cluster.processes(), cluster.root["parameters"]
    kill(environment.service("master"))
    assert cluster_answers(environment)
    assert cluster.root["parameters"] == requested
    assert cluster.processes() == before


def cluster_answers(environment: Environment) -> bool:
    """Wait until the master answers."""

    def ask() -> bool:
        try:
            return environment.master.health()["status"] == "ok"
        except WendelinError:
            return False

    return wait_for(ask, "the master answers")


def test_up_replaces_the_supervisord_of_the_services(
    environment: Environment, cluster: Cluster
) -> None:
    before = cluster.processes()
    services = [environment.service(name) for name in ("master", *DATA_CENTERS)]
    kill(environment.service("services"))
    psutil.wait_procs(services, timeout=PATIENCE)
    assert not any(service.is_running() for service in services)
    environment.wendelin("up", "--no-proof")
    assert cluster.processes() == before
    again = [environment.service(name).pid for name in ("master", *DATA_CENTERS)]
    assert not {service.pid for service in services} & set(again)
    for name in DATA_CENTERS:
        configuration = str(environment.home.computer_configuration(name))
        # What an agent starts has its command line until it has begun.
        wait_for(lambda each=configuration: len(agents_of(environment, each)) == 1, "one agent")


def agents_of(environment: Environment, configuration: str) -> list[psutil.Process]:
    """Return the agents of a computer, whoever has started them."""
    found = []
    for process in environment.processes():
        # Promises come and go meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[-2:] == ["--configuration", configuration]:
                found.append(process)
    return found


def test_programs_have_one_copy_after_their_supervisord_was_killed(
    environment: Environment, cluster: Cluster
) -> None:
    supervisord = environment.supervisord("tokyo")
    programs = supervisord.children()
    kill(supervisord)
    psutil.wait_procs(programs, timeout=PATIENCE)
    assert not [program for program in programs if program.is_running()]
    wait_for(lambda: environment.supervisord("tokyo").pid != supervisord.pid, "another supervisord")
    cluster.wait_until_well()
    commands = [command for command in environment.programs().values() if "/bin/neo" in command]
    assert len(commands) == len(set(commands)) == 7


def test_node_service_killed_at_work_goes_on_with_it(
    environment: Environment, cluster: Cluster
) -> None:
    cluster.request(worker_count=4)
    wait_for(lambda: "dask-worker-3" in cluster.nodes(), "the new worker is requested")
    computer = cluster.computer("dask-worker-3")
    service = environment.service(computer)
    wait_for(lambda: environment.is_at_work(computer), f"{computer} processes")
    helpers = service.children(recursive=True)
    kill(service)
    psutil.wait_procs(helpers, timeout=PATIENCE)
    assert not any(helper.is_running() for helper in helpers)
    cluster.wait_until_well()
    assert environment.service(computer).pid != service.pid
    worker = cluster.process("dask-worker-3")
    assert worker.is_running()
    cluster.request(worker_count=3)
    psutil.wait_procs([worker], timeout=PATIENCE)
    assert not worker.is_running()
    wait_for(lambda: "dask-worker-3" not in cluster.nodes(), "the worker is gone")
