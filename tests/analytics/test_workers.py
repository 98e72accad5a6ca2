# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on many blocks by dask workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.neo import memory
from slapos_wendelin.neo.errors import WorkersError
from slapos_wendelin.neo.servers import Server
from slapos_wendelin.neo.workers import Workers


def square(number):
    return number * number


def test_each_task_yields_its_result_once(workers):
    assert sorted(workers.each(square, ((n,) for n in range(50)))) == [n * n for n in range(50)]


def test_no_task_yields_nothing(workers):
    assert list(workers.each(square, [])) == []


def test_tasks_are_taken_only_as_they_can_be_worked_on(workers):
    taken = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield (number,)

    results = workers.each(square, numbers())
    next(results)
    assert len(taken) <= 2 * 2 * 2
    results.close()


def test_the_error_of_a_task_is_raised(workers):
    with pytest.raises(ZeroDivisionError):
        list(workers.each(lambda number: 1 // number, [(1,), (0,)]))
    with pytest.raises(FileNotFoundError):
        list(workers.each(lambda name: Path(name).read_text(), [("/does/not/exist",)]))


def test_a_task_of_a_killed_worker_is_done_by_another(workers, tmp_path):
    def die_once(number, folder):
        mark = Path(folder, f"died-{number}")
        if number % 5 == 0 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    tasks = ((number, str(tmp_path)) for number in range(10))
    assert sorted(workers.each(die_once, tasks)) == list(range(10))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_scheduler_that_comes_back_gets_the_tasks_again(tmp_path):
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    scheduler = Server(
        tmp_path,
        "scheduler",
        ["dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
    )
    worker = Server(
        tmp_path,
        "worker",
        ["dask", "worker", address, "--nthreads=1", "--no-nanny", "--no-dashboard"],
    )

    def slowly(number):
        time.sleep(0.1)
        return number

    try:
        scheduler.start()
        worker.start()
        with Workers(address, time_limit=240) as workers:
            results = workers.each(slowly, ((number,) for number in range(20)))
            found = [next(results), next(results)]
            scheduler.kill()
            worker.kill()
            scheduler.start()
            worker.start()
            found += results
        assert sorted(found) == list(range(20))
    finally:
        worker.kill()
        scheduler.kill()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_scheduler_that_is_not_there_is_a_clear_error(address):
    with (
        pytest.raises(WorkersError, match=f"no scheduler with a worker at {address}"),
        Workers(address, time_limit=1),
    ):
        pass


def test_the_peak_of_memory_is_measured_from_its_reset():
    program = (
        "from slapos_wendelin.neo import memory\n"
        "(b'1' * 300 * 2**20).find(b'2')\n"
        "before = memory.peak_bytes(); memory.reset_peak()\n"
        "print(before, memory.peak_bytes())"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    before, after = map(int, output.split())
    assert before > 300 * 2**20
    assert after < 100 * 2**20


def test_workers_started_here_have_the_settings_of_malloc(workers):
    names = list(memory.MALLOC_ENVIRONMENT)
    # One that was killed may not be back yet.
    workers.client.wait_for_workers(2, timeout=240)
    found = workers.on_each_worker(lambda: [os.environ.get(name) for name in names])
    assert len(found) == 2
    assert all(values == list(memory.MALLOC_ENVIRONMENT.values()) for values in found.values())
