# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first ``up`` of an environment of its own, which is disturbed at every step, and ``down``.

The tests are one story: each begins with what the one before has left.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from environment import COMMAND_TIME, PATIENCE, Environment, listening, new_environment, wait_for

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.local.home import MASTER_PORT

#: Nothing listens there: an index that cannot be reached.
NO_INDEX = "http://127.0.0.1:9/simple"
NO_NETWORK = dict.fromkeys(("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"), NO_INDEX)
#: Seconds for the end of what was killed: a busy disk may keep it for some.
KILLED_TIME = 20
#: MiB of the small disk: room for a part of the analytics environment.
SMALL_DISK = 64


@pytest.fixture(scope="module")
def fresh() -> Iterator[Environment]:
    """Yield an environment that ``up`` has never finished in."""
    with new_environment() as made:
        yield made


def commands(environment: Environment) -> list[str]:
    """Return the command lines of the environment's processes."""
    found = []
    for process in environment.processes():
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


def kill_group(process: subprocess.Popen[str]) -> None:
    """``kill -9`` the whole process group of a command."""
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until_said(process: subprocess.Popen[str], text: str) -> None:
    """Read what a command says until it has said a text."""
    said = []
    for line in process.stdout or ():
        said.append(line)
        if text in line:
            return
    raise AssertionError("".join(said))


def check_error(output: str, message: str) -> None:
    """The output ends with one line of error and its remedy, without a traceback."""
    *_, error, remedy = output.splitlines()
    assert re.match("wendelin: ", error), output
    assert message in error
    assert remedy.startswith("  remedy: ")
    assert "Traceback" not in output


def test_kill_9_while_the_toolkit_is_installed_leaves_no_process(fresh: Environment) -> None:
    up = fresh.start_wendelin("up")
    wait_for(lambda: any(" pip install " in command for command in commands(fresh)), "pip installs")
    assert not list(fresh.home.root.glob("toolkit/*/.complete"))
    kill_group(up)
    wait_for(lambda: not fresh.processes(), "all processes end", KILLED_TIME)


def test_up_names_a_taken_port_of_the_master_and_leaves_nothing_running(fresh: Environment) -> None:
    with listening(f"{fresh.home.network}.0.1", MASTER_PORT):
        done = fresh.wendelin("up", status=1)
        check_error(done.stdout, f"the master cannot listen at {fresh.home.master_address}")
        assert "Address already in use" in done.stdout
        assert not fresh.processes()


def test_up_without_network_says_so(fresh: Environment, tmp_path: Path) -> None:
    done = fresh.wendelin("up", status=1, UV_CACHE_DIR=str(tmp_path), **NO_NETWORK)
    check_error(done.stdout, "could not build the release")
    assert "127.0.0.1:9" in done.stdout
    assert "network" in done.stdout


def test_up_on_a_full_disk_says_so(fresh: Environment) -> None:
    """The parts are on a small disk of a mount namespace, which takes its processes along."""
    fresh.down()
    mount = f'mount -t tmpfs -o size={SMALL_DISK}m,mode=755 tmpfs "$0" && shift 0'
    user = f"exec unshare --user --map-user={os.getuid()} --map-group={os.getgid()} -- "
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"),
            *("--mount-proc", "sh", "-c", f'{mount} && {user} "$1" up'),
            *(str(fresh.home.shared_parts), str(fresh.source / "wendelin")),
        ],
        cwd=fresh.source,
        env=fresh.variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIME,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    check_error(output, "no space left for")
    wait_for(lambda: not fresh.processes(), "all processes end", KILLED_TIME)


def test_kill_9_while_the_release_is_built_leaves_one_build(fresh: Environment) -> None:
    up = fresh.start_wendelin("up")
    parts = str(fresh.home.shared_parts)
    wait_for(lambda: any("install" in c and parts in c for c in commands(fresh)), "uv installs")
    kill_group(up)
    assert len([c for c in commands(fresh) if c.endswith("/slapos.cfg")]) >= 3
    assert fresh.service("paris").is_running()


def test_kill_9_while_nodes_are_requested_and_ctrl_c_while_they_start(fresh: Environment) -> None:
    def nodes() -> dict[str, Any]:
        try:
            return fresh.cluster.nodes()
        except (AssertionError, WendelinError):
            return {}

    up = fresh.start_wendelin("up")
    wait_for(nodes, "the root instance is requested", COMMAND_TIME)
    kill_group(up)
    assert len(nodes()) < 12
    up = fresh.start_wendelin("up")
    # The computers go on with the nodes whether it has begun or not.
    wait_until_said(up, "start the master")
    wait_for(lambda: len(nodes()) == 12, "all nodes are requested", COMMAND_TIME)
    assert fresh.cluster.faults()
    os.killpg(up.pid, signal.SIGINT)
    output, _ = up.communicate(timeout=PATIENCE)
    assert up.returncode == 130, output
    assert "Interrupted" in output
    assert "Traceback" not in output


def test_up_ends_well_after_all_that_and_again_starts_nothing_anew(fresh: Environment) -> None:
    fresh.wendelin("up", "--no-proof")
    fresh.cluster.wait_until_well()
    before = fresh.programs()
    nodes = [command for command in before.values() if "/bin/neo" in command]
    assert len(nodes) == len(set(nodes)) == 7
    assert sorted(fresh.cluster.nodes()) == sorted(
        [
            *("dask-scheduler", "dask-worker-0", "dask-worker-1", "dask-worker-2", "neo-admin"),
            *("neo-master-0", "neo-master-1", "neo-master-2"),
            *("neo-storage-0", "neo-storage-1", "neo-storage-2", "wendelin-cluster"),
        ]
    )
    said = fresh.wendelin("up", "--no-proof").stdout
    assert "The cluster is up" in said
    assert fresh.programs() == before


def test_down_and_up_keep_the_data(fresh: Environment) -> None:
    fresh.cluster.write_objects("kept")
    said = fresh.down()
    assert "The data stays" in said
    assert not fresh.processes()
    assert fresh.wendelin("status", status=3).stdout.startswith("Nothing runs.")
    fresh.wendelin("up", "--no-proof")
    fresh.cluster.check_objects("kept")


def test_down_erase_asks_first(fresh: Environment) -> None:
    fresh.cluster.wait_until_well()
    before = fresh.programs()
    done = fresh.wendelin("down", "--erase", status=1)
    check_error(done.stdout, "there is no terminal to ask on")
    assert "--yes" in done.stdout
    assert fresh.programs() == before
    fresh.cluster.check_objects("kept")


def test_down_erase_removes_everything(fresh: Environment) -> None:
    fresh.wendelin("down", "--erase", "--yes")
    assert not fresh.home.root.exists()
    assert not fresh.processes()
