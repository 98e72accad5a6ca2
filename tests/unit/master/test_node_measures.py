# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real service of a formatted computer tells the master what the computer has."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from master_cloud import Cloud
from slapos_command import run


def test_a_formatted_computer_measures_itself_when_its_service_starts(
    cloud: Cloud, configuration: Path, tmp_path: Path
):
    (formatted,) = run(configuration, ["node", "format", "--now"])
    assert formatted.endswith("status 0"), formatted
    shown = cloud.client.computer("paris")
    assert (shown["partitions"], shown["address"]) == (4, "127.0.0.1")
    assert shown["contacted_at"]
    assert shown["measured"] == {}
    command = [sys.executable, "-m", "slapos_wendelin.node", "--configuration", str(configuration)]
    log = tmp_path / "node.log"
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as service:
        deadline = time.monotonic() + 240
        while not (measured := cloud.client.computer("paris")["measured"]):
            assert time.monotonic() < deadline, log.read_text()
            assert service.poll() is None, log.read_text()
            time.sleep(0.1)
        service.terminate()
        service.wait(timeout=240)
    assert measured["cpu_core"] == psutil.cpu_count()
    assert measured["memory_size"] == psutil.virtual_memory().total
    assert measured["storage_capacity"] == psutil.disk_usage(str(tmp_path)).total
