# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to make computers of six bare hosts, near and far.

The hosts are a lab's (root is needed). The peer pushes the same wheels to one host, file by file
over SFTP, which is only a part of a joining.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "hosts"))

from operators import Operator, collect_wheels

from slapos_wendelin.lab import Host, Lab

CENTERS = {"paris": 2, "tokyo": 2, "virginia": 2}


def join_all(operator: Operator) -> dict[str, Any]:
    """Join all hosts of a lab with one command; return the seconds of it, of hosts and of steps."""
    inventory = operator.folder / "computers.yaml"
    described: dict[str, Any] = {}
    for host in operator.lab.hosts.values():
        center = described.setdefault(host.data_center, {"hosts": []})
        center["hosts"].append({"address": host.address, "name": host.name})
    document = {"defaults": {"user": "admin", "partitions": 8}, "datacenters": described}
    inventory.write_text(yaml.safe_dump(document))
    begin = time.monotonic()
    command = ["computer", "join", "--inventory", str(inventory), "--json", *operator.way()]
    outcomes = json.loads(operator.slapos(*command).stdout)
    total = time.monotonic() - begin
    steps = {
        step["step"]: statistics.median(
            each["seconds"]
            for outcome in outcomes
            for each in outcome["steps"]
            if each["step"] == step["step"]
        )
        for step in outcomes[0]["steps"]
    }
    return {"total": total, "hosts": [each["seconds"] for each in outcomes], "steps": steps}


def push_files(host: Host, wheels: list[Path]) -> float:
    """Push wheels to a host, one file after another; return the seconds."""
    with host.ssh(timeout=60) as client:
        client.exec_command("mkdir -p pushed")[1].read()
        begin = time.monotonic()
        with client.open_sftp() as sftp:
            for path in wheels:
                sftp.put(str(path), f"pushed/{path.name}")
        return time.monotonic() - begin


def measure(round_trip: float) -> dict[str, Any]:
    """Measure at one round trip between data centers and to the master, in seconds."""
    with (
        Lab.build(CENTERS, round_trip=round_trip) as lab,
        tempfile.TemporaryDirectory() as folder,
    ):
        operator = Operator(lab, Path(folder))
        operator.start_master()
        try:
            result = join_all(operator)
            newest = max(collect_wheels().iterdir(), key=lambda each: each.stat().st_mtime)
            result["sftp"] = push_files(lab.host("paris-1"), sorted(newest.glob("*.whl")))
        finally:
            operator.stop_master()
    return {"round_trip": round_trip, "load": os.getloadavg()[0], **result}


def show(results: list[dict[str, Any]]) -> None:
    """Print a table."""
    steps = list(results[0]["steps"])
    header = ["round trip", "6 hosts", "one host", *steps, "(wheels by SFTP)", "load"]
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for each in results:
        cells = [f"{each['round_trip'] * 1000:.0f} ms", f"{each['total']:.1f}"]
        cells += [f"{statistics.median(each['hosts']):.1f}"]
        cells += [f"{each['steps'].get(step, 0):.1f}" for step in steps]
        cells += [f"{each['sftp']:.1f}", f"{each['load']:.1f}"]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--round-trip", type=float, action="append", metavar="MS", help="default: 0, 40 and 100"
    )
    parser.add_argument("--json", action="store_true", help="print everything")
    options = parser.parse_args()
    collect_wheels()
    results = [measure(each / 1000) for each in options.round_trip or (0, 40, 100)]
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        show(results)


if __name__ == "__main__":
    main()
