# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators see and do with ``slapos cluster neo``, on a real cluster of NEO."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from neo_kept import Kept
from neo_programs import commit, last_value, wait_until
from our_slapos import Result, Slapos


@pytest.fixture
def slapos(kept: Kept, tmp_path: Path) -> Slapos:
    kept.publish()
    return Slapos(tmp_path, kept.cloud.url, columns=140)


def neo(*words: object) -> list[str]:
    """Return a command."""
    return ["cluster", "neo", *map(str, words)]


def line_of(result: Result, word: str) -> list[str]:
    """Return the words of the line that has one of them."""
    (line,) = [each for each in result.out.splitlines() if word in each.split()]
    return line.split()


def test_nodes_cells_and_the_partition_table_are_shown_with_names_and_places(
    kept: Kept, slapos: Slapos
) -> None:
    nodes, table, cells, one, as_json = slapos.all(
        neo("nodes", "cluster"),
        neo("pt", "cluster"),
        neo("cells", "cluster"),
        neo("cells", "cluster", "paris-storage"),
        neo("pt", "cluster", "--json"),
    )
    assert nodes.out.startswith("cluster is RUNNING\n"), nodes
    assert line_of(nodes, "M1")[:4] == ["M1", "master", "RUNNING,", "primary"]
    storage = line_of(nodes, "S1")
    assert storage[:6] == [
        "S1",
        "storage",
        "paris-storage",
        "RUNNING",
        "computer-of-cluster",
        "paris",
    ]
    assert "4 NEO partitions, replicas: 1" in table.out
    assert "paris-storage (computer-of-cluster, paris)" in table.out
    count = kept.look()["result"]["cells"]["S1"].count("U")
    assert line_of(cells, "S1")[-2:] == ["paris", str(count)]
    assert one.out.count("UP_TO_DATE") == count
    rows = as_json.document["partitions"]
    assert [row["partition"] for row in rows] == [0, 1, 2, 3]
    assert all(len(row["cells"]) == 2 for row in rows)
    cell = next(cell for row in rows for cell in row["cells"] if cell["id"] == "S1")
    assert cell == {
        "id": "S1",
        "name": "paris-storage",
        "computer": "computer-of-cluster",
        "datacenter": "paris",
        "node_state": "RUNNING",
        "state": "UP_TO_DATE",
    }


def test_a_storage_that_is_down_is_left_out_by_name_and_its_copies_are_made_elsewhere(
    kept: Kept, slapos: Slapos
) -> None:
    lost = kept.lose("s3")
    name = "paris-storage" if lost == "S1" else lost
    called = f"paris-storage ({lost})" if lost == "S1" else lost
    refused, table, preview, unknown, done, after, log = slapos.all(
        neo("balance", "cluster"),
        neo("pt", "cluster"),
        neo("tweak", "cluster", "--dry-run", "--without", name),
        neo("tweak", "cluster", "--without", "neo-storage-7"),
        neo("balance", "cluster", "--without", name),
        neo("tweak", "cluster", "--without", name),
        neo("operations", "cluster"),
    )
    assert refused.status == 1
    assert refused.err.splitlines()[0] == f"slapos: {called} is DOWN"
    assert "remedy: wait until it is back, or leave it out with --without" in refused.err
    assert "out of date" in table.out
    assert "would have to be copied. Nothing was changed." in preview.out, preview
    assert "cluster has no storage 'neo-storage-7'" in unknown.err
    assert "remedy: its storages are " in unknown.err
    assert "cluster is balanced: nothing is left to tweak" in done.out, done
    assert after.out == "No change: the cells of cluster are spread as they should be.\n"
    assert line_of(log, "failed")[1] == "balance"
    assert log.out.count(" done ") == 2


def test_a_pack_says_what_is_lost_and_wants_to_be_confirmed(kept: Kept, slapos: Slapos) -> None:
    client = kept.cluster.client()
    commit(client, 1)
    neither, asked, future, packed = slapos.all(
        neo("pack", "cluster"),
        neo("pack", "cluster", "--all"),
        neo("pack", "cluster", "--before", "2999-01-01", "--yes"),
        neo("pack", "cluster", "--all", "--yes"),
    )
    assert "one of the arguments --before --all is required" in neither.err
    assert "will be forgotten for ever" in asked.err
    assert "remedy: add --yes" in asked.err
    assert "is in the future" in future.err
    assert "3 storages of cluster have forgotten what was before" in packed.out, packed
    assert last_value(client) == "value 1\n"


def test_whoever_does_not_wait_or_interrupts_comes_back_later(kept: Kept, slapos: Slapos) -> None:
    hanging = kept.cluster.processes["s1"]
    hanging.send_signal(signal.SIGSTOP)
    asked = slapos(*neo("pack", "cluster", "--before", "1h", "--yes", "--no-wait"))
    number = int(asked.err.split()[1])
    kept.end_of(number, "packing")
    assert f"slapos cluster neo follow cluster {number}" in asked.err
    # Where the tests run in the background, SIGINT is ignored until it is set again.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "slapos_wendelin.cli.entry"]
    with subprocess.Popen(
        [*command, *neo("follow", "cluster", number)],
        env={**slapos.environment, "PYTHONWARNINGS": "ignore"},
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stderr
        assert "packing for" in follower.stderr.readline()
        follower.send_signal(signal.SIGINT)
        assert "goes on" in follower.stderr.read()
    assert follower.returncode == 130
    late, other = slapos.all(
        neo("follow", "cluster", number, "--wait", 0.2), neo("balance", "cluster")
    )
    assert late.status == 2
    assert "pack is not over after 0.2 s" in late.err
    assert "has asked for pack already" in other.err
    assert f"slapos cluster neo cancel cluster {number}" in other.err
    hanging.send_signal(signal.SIGCONT)
    (done,) = slapos.all(neo("follow", "cluster", number, "--json"))
    assert done.document["state"] == "done"
    assert done.document["result"]["storages"] == 3


def test_a_keeper_that_is_away_is_told_with_where_to_look(kept: Kept, slapos: Slapos) -> None:
    kept.kill()
    began = time.monotonic()
    result = slapos(*neo("pt", "cluster"))
    # The 20 seconds of the message, and the command's own time on a busy machine.
    assert time.monotonic() - began < 100
    assert result.status == 1
    assert "the keeper of the cluster did not take it in 20 s" in result.err
    assert "remedy: see the promises neo-keeper-runs and cluster-is-running" in result.err
    kept.start()
    wait_until(lambda: kept.look()["state"] == "done")
    missing, look = slapos.all(neo("pt", "nothing"), neo("follow", "cluster", 1))
    assert "operation 1 of cluster was a look" in look.err
    assert "there is no instance 'nothing'" in missing.err


def test_an_operation_is_cancelled(kept: Kept, slapos: Slapos) -> None:
    hanging = kept.cluster.processes["s1"]
    hanging.send_signal(signal.SIGSTOP)
    number = kept.client.operate("cluster", "pack", {"before": time.time() - 60})["operation"]
    kept.end_of(number, "packing")
    done, again, followed = slapos.all(
        neo("cancel", "cluster", number),
        neo("cancel", "cluster", number),
        neo("follow", "cluster", number),
    )
    assert done.out == "pack of cluster is ended.\n"
    assert "is over" in again.err
    assert "has ended operation" in followed.err
    hanging.send_signal(signal.SIGCONT)
