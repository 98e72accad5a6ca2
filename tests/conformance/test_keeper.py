# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators ask for at the master is done by the keeper, on a real cluster of NEO."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from master_cloud import serving
from neo_kept import Kept
from neo_programs import BULK, PATIENCE, Cluster, commit, last_value, wait_until

#: Prints how many revisions the root of the database has.
HISTORY = """
import sys, zodburi
from ZODB.POSException import POSKeyError
storage = zodburi.resolve_uri(sys.argv[1])[0]()
before, count = b"\\x7f" + 7 * b"\\xff", 0
try:
    while found := storage.loadBefore(bytes(8), before):
        before, count = found[1], count + 1
except POSKeyError:
    pass
print(count)
"""


def revisions(cluster: Cluster) -> int:
    """Return how many revisions the root of the database has."""
    command = [cluster.programs / "python", "-c", HISTORY, cluster.uri]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_a_look_shows_nodes_and_cells_as_neoctl_does(kept: Kept) -> None:
    found = kept.look()["result"]
    table = kept.cluster.neoctl("print", "pt")
    assert (found["cluster"], found["primary"], found["replicas"]) == ("RUNNING", "M1", 1)
    assert found["partitions"] == 4
    assert len(found["cells"]) == 3
    for storage, cells in found["cells"].items():
        assert f"{storage} R {cells}\n" in table
    types = sorted(node["type"] for node in found["nodes"])
    assert types == ["ADMIN", "MASTER", "STORAGE", "STORAGE", "STORAGE"]


def test_copies_of_a_lost_storage_are_made_elsewhere_when_it_is_left_out(kept: Kept) -> None:
    client = kept.cluster.client()
    commit(client, 1)
    lost = kept.lose("s3")
    for kind in ("tweak", "balance"):
        refused = kept.do(kind)
        assert refused["error"] == f"{lost} is DOWN"
        assert "--without" in refused["remedy"]
    before = kept.cluster.neoctl("print", "pt")
    shown = kept.look("tweak", without=[lost])["result"]
    assert shown["changed"]
    copies = "".join(cells for name, cells in shown["after"].items() if name != lost).count("O")
    assert copies == shown["before"][lost].count("O")
    assert kept.cluster.neoctl("print", "pt") == before, "to look changes nothing"
    done = kept.do("balance", without=[lost])
    assert (done["result"]["tweaks"], done["result"]["copied"]) == (1, copies)
    cells = kept.look()["result"]["cells"]
    assert [text for name, text in cells.items() if name != lost] == ["UUUU", "UUUU"]
    # It comes back, and is used again.
    kept.cluster.start("s3")
    wait_until(lambda: not kept.look("tweak")["error"])
    assert "runs" in kept.do("tweak", without=[lost])["error"]
    assert kept.do("balance")["state"] == "done"
    assert "".join(kept.look()["result"]["cells"].values()).count("U") == 8
    assert last_value(client) == "value 1\n"


def test_a_keeper_that_is_killed_goes_on_where_it_was(kept: Kept) -> None:
    lost = kept.lose("s3")
    # Nothing can be copied as long as a storage hangs.
    hanging = kept.cluster.processes["s1"]
    hanging.send_signal(signal.SIGSTOP)
    number = kept.client.operate("cluster", "balance", {"without": [lost]})["operation"]
    under_way = kept.end_of(number, "copying")
    assert under_way["progress"]["copying"] > 0
    kept.kill()
    kept.start()
    wait_until(lambda: kept.client.operation("cluster", number)["keeper"] != under_way["keeper"])
    hanging.send_signal(signal.SIGCONT)
    assert kept.end_of(number)["state"] == "done"
    cells = kept.look()["result"]["cells"]
    assert [text for name, text in cells.items() if name != lost] == ["UUUU", "UUUU"]


def test_a_pack_forgets_what_was_before_a_time_on_all_storages(kept: Kept) -> None:
    client = kept.cluster.client()
    for value in range(5):
        commit(client, value)
    time.sleep(1.1)
    middle = time.time()
    for value in range(5, 9):
        commit(client, value)
    assert revisions(kept.cluster) == 10
    done = kept.do("pack", before=middle)
    assert done["result"]["storages"] == 3, done
    assert revisions(kept.cluster) == 5
    # The same again changes nothing.
    assert kept.do("pack", before=middle)["state"] == "done"
    assert revisions(kept.cluster) == 5
    assert kept.do("pack", before=time.time())["state"] == "done"
    assert revisions(kept.cluster) == 1
    kept.cluster.neoctl("check", ":")
    commit(client, 9)
    assert last_value(client) == "value 9\n"
    assert kept.cluster.neoctl("print", "pt").count("U") == 8


def test_a_pack_waits_for_no_storage_that_is_away_but_refuses(kept: Kept) -> None:
    lost = kept.lose("s3")
    refused = kept.do("pack", before=time.time() - 60)
    assert refused["error"].startswith(f"{lost} is DOWN")
    kept.cluster.start("s3")
    wait_until(lambda: kept.do("pack", before=time.time() - 60)["state"] == "done")


def test_a_pack_passes_over_what_cells_that_moved_have_left(kept: Kept) -> None:
    command = [kept.cluster.programs / "python", "-c", BULK, kept.cluster.uri, "800000"]
    subprocess.run(command, check=True, timeout=PATIENCE)
    lost = kept.lose("s3")
    assert kept.do("balance", without=[lost])["state"] == "done"
    kept.cluster.start("s3")
    wait_until(lambda: not kept.look("tweak")["error"])
    # The others give cells up, of which they have data until they start again.
    assert kept.do("balance")["result"]["tweaks"] == 1
    assert kept.do("pack", before=time.time())["state"] == "done"
    kept.cluster.neoctl("check", ":")
    assert kept.cluster.neoctl("print", "pt").count("U") == 8


def test_a_storage_that_is_lost_while_others_pack_does_not_stop_the_primary_master(
    kept: Kept,
) -> None:
    client = kept.cluster.client()
    commit(client, 1)
    hanging = kept.cluster.processes["s1"]
    hanging.send_signal(signal.SIGSTOP)
    number = kept.client.operate("cluster", "pack", {"before": time.time() - 60})["operation"]
    kept.end_of(number, "packing")
    time.sleep(2)  # the others have packed by now
    kept.cluster.end("s2", signal.SIGKILL)
    time.sleep(1)
    assert kept.cluster.processes["m1"].poll() is None
    hanging.send_signal(signal.SIGCONT)
    kept.cluster.start("s2")
    failed = kept.end_of(number)
    assert "went away while the others packed" in failed["error"], failed
    wait_until(lambda: kept.do("pack", before=time.time() - 60)["state"] == "done")
    assert last_value(client) == "value 1\n"


def test_a_pack_whose_keeper_is_killed_is_brought_to_its_end_by_the_next_one(kept: Kept) -> None:
    client = kept.cluster.client()
    for value in range(3):
        commit(client, value)
    before = time.time() + 1
    time.sleep(1.5)
    hanging = kept.cluster.processes["s1"]
    hanging.send_signal(signal.SIGSTOP)
    number = kept.client.operate("cluster", "pack", {"before": before})["operation"]
    first = kept.end_of(number, "packing")["keeper"]
    kept.kill()
    kept.start()
    wait_until(lambda: kept.client.operation("cluster", number)["keeper"] != first)
    kept.end_of(number, "packing")
    time.sleep(1)
    # The pack that the first one began is still under way, and nobody waits for it.
    hanging.send_signal(signal.SIGCONT)
    done = kept.end_of(number)
    assert done["result"].get("storages") == 3, done
    assert revisions(kept.cluster) == 1
    assert last_value(client) == "value 2\n"


def test_an_operation_that_is_cancelled_is_left_off(kept: Kept) -> None:
    hanging = kept.cluster.processes["s1"]
    hanging.send_signal(signal.SIGSTOP)
    number = kept.client.operate("cluster", "pack", {"before": time.time() - 60})["operation"]
    kept.end_of(number, "packing")
    kept.client.cancel_operation("cluster", number)
    hanging.send_signal(signal.SIGCONT)
    # The keeper is free for something else.
    wait_until(lambda: kept.do("pack", before=time.time() - 60)["state"] == "done")
    assert kept.client.operation("cluster", number)["state"] == "cancelled"


def test_without_a_primary_master_a_look_fails_with_the_reason(kept: Kept) -> None:
    kept.cluster.end("m1", signal.SIGKILL)
    wait_until(lambda: kept.cluster.state() != "RUNNING")
    failed = kept.look()
    assert "no primary master" in failed["error"]
    assert "slapos cluster status" in failed["remedy"]
    kept.cluster.start("m1")
    wait_until(lambda: kept.look()["result"].get("cluster") == "RUNNING")


def test_a_keeper_keeps_its_cluster_when_the_master_knows_nothing_of_this(
    neo_python: str, tmp_path: Path
) -> None:
    """As slapproxy, or when there is no master at all."""
    with Cluster(Path(neo_python).parent, tmp_path, storages=2) as cluster:
        wait_until(cluster.is_replicated)
        cluster.neoctl("set", "replicas", "0")
        cluster.neoctl("tweak")
        with serving(tmp_path / "master.sqlite") as cloud:
            kept = Kept(cluster, cloud)
            kept.kill()
            kept.arguments[3] = "2"
            kept.arguments[kept.arguments.index("--partition") + 1] = "nothing"
            kept.start()
            try:
                log = tmp_path / "keeper.log"
                wait_until(lambda: "lets nobody ask" in log.read_text())
                wait_until(cluster.is_replicated)
            finally:
                kept.kill()
