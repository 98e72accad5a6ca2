# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example that learns digits from an array larger than memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import digits
import numpy as np
import pytest
from conftest import needs_neo

from slapos_wendelin.neo import client
from slapos_wendelin.neo.servers import NeoCluster, ZeoServer

PROGRAM = Path(digits.__file__)

SIZE = ["--size", "16MiB", "--epochs", "2", "--memory-limit", "1GiB"]

#: Long enough to be interrupted.
LONGER = ["--size", "32MiB", "--epochs", "1"]


@pytest.fixture
def run(workers, capsys):
    """Run the example on the workers of the session; return exit status, result and messages."""

    def run_digits(uri, *options):
        status = digits.main(
            ["--zodb-uri", uri, "--scheduler", workers.address, "--json", *SIZE, *options]
        )
        output = capsys.readouterr()
        return status, json.loads(output.out or "null"), output.err

    return run_digits


def test_it_ends_with_the_right_answer(server_uri, run):
    status, result, _ = run(server_uri)
    assert status == 0
    assert result["blocks_written"] == result["blocks_verified"] == 8
    assert result["accuracy"] > 0.6
    assert result["accuracy_in_memory"] > 0.6
    assert min(result["memory_peak"].values()) > 0
    again = run(server_uri)[1]
    assert again["blocks_written"] == 0
    assert again["accuracy"] == result["accuracy"]
    anew = run(server_uri, "--erase")[1]
    assert anew["blocks_written"] == 8
    assert anew["accuracy"] == result["accuracy"]


def test_blocks_do_not_depend_on_who_makes_them():
    plan = digits.Plan(16, 1, 2, 1998)
    pixels, labels = digits.make_block(plan, 5)
    assert digits.checksum(pixels, labels) == digits.checksum(*digits.make_block(plan, 5))
    assert digits.checksum(pixels, labels) != digits.checksum(*digits.make_block(plan, 6))
    assert pixels.nbytes == digits.BLOCK_BYTES


def test_every_training_block_is_learned_from_once_in_an_epoch():
    plan = digits.Plan(37, 2, 5, 0)
    blocks = [n for number in range(5) for part in plan.round_blocks(number) for n in part]
    assert blocks == plan.training_blocks()
    assert plan.round_blocks(6) == plan.round_blocks(1)


def test_a_run_with_another_plan_is_refused(file_uri, capsys):
    def main(*options):
        return digits.main(["--zodb-uri", file_uri, "--size", "16MiB", *options])

    assert main("--memory-limit", "4GiB") == 0
    assert main("--seed", "7") == 1
    assert "repeat the earlier options" in capsys.readouterr().err


def test_a_block_that_was_changed_is_named(tmp_path, run):
    with ZeoServer(tmp_path) as server:
        assert run(server.uri)[0] == 0
        spoil = threading.Event()
        original = digits.Example.verify

        def spoil_then_verify(example, model):
            client.run(server.uri, lambda root: root["digits"]["pixels"].write_block(3, 0.5))
            spoil.set()
            original(example, model)

        digits.Example.verify = spoil_then_verify
        try:
            status, _, messages = run(server.uri)
        finally:
            digits.Example.verify = original
    assert status == 1
    assert spoil.is_set()
    assert "1 blocks are wrong: 3: pixels" in messages


def test_too_much_memory_is_an_error(tmp_path, run):
    with ZeoServer(tmp_path) as server:
        status, _, messages = run(server.uri, "--memory-limit", "50MiB")
    assert status == 1
    assert "the limit is 50.00 MiB" in messages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "1MiB"], "give at least 16.00 MiB"),
        ([], "set WENDELIN_ZODB_URI"),
        (["--zodb-uri", "nonsense"], "cannot use the database address 'nonsense'"),
    ],
)
def test_wrong_options_are_explained_in_a_line(options, message, capsys, monkeypatch, workers):
    monkeypatch.delenv("WENDELIN_ZODB_URI", raising=False)
    assert digits.main(["--scheduler", workers.address, *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_command_that_cannot_restart_a_storage_is_an_error(tmp_path, run):
    with ZeoServer(tmp_path) as server:
        status, _, messages = run(server.uri, "--restart-storage", "false")
        assert status == 1
        assert "the command to restart a storage has failed" in messages
        status, result, _ = run(server.uri, "--restart-storage", "true")
        assert status == 0
        assert result["restarted_storage"]


def wait_until_written(uri, count):
    """Wait until so many blocks are in the database."""

    def written(root):
        arrays = root.get("digits")
        return arrays is not None and sum(
            map(arrays["pixels"].is_block_written, range(arrays["pixels"].block_count))
        )

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if client.run(uri, written) >= count:
            return
        time.sleep(0.05)
    pytest.fail("no blocks are written")


def test_a_killed_run_goes_on_where_it_was(tmp_path, workers, run):
    with ZeoServer(tmp_path) as server:
        command = [sys.executable, str(PROGRAM), "--zodb-uri", server.uri]
        process = subprocess.Popen([*command, "--scheduler", workers.address, *SIZE, *LONGER])
        wait_until_written(server.uri, 4)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        status, result, _ = run(server.uri, *LONGER)
        assert status == 0
        assert result["blocks_written"] <= 12
        assert result["blocks_verified"] == 16


@needs_neo
@pytest.mark.parametrize("victim", ["storage", "primary master"])
def test_nodes_killed_while_it_writes_change_nothing(tmp_path, run, victim):
    with NeoCluster(tmp_path, storage_count=3, master_count=3, replicas=1) as cluster:

        def kill_and_start():
            wait_until_written(cluster.uri, 4)
            if victim == "storage":
                node = cluster.storages[1]
            else:
                primary = client.open_database(cluster.uri).storage.app.primary_master_node
                port = primary.getAddress()[1]
                node = next(m for m in cluster.masters if f"127.0.0.1:{port}" in m.command)
            node.kill()
            time.sleep(1)
            node.start()

        killer = threading.Thread(target=kill_and_start)
        killer.start()
        status, result, messages = run(cluster.uri, *LONGER)
        killer.join()
    assert status == 0, messages
    assert result["blocks_verified"] == 16
    assert result["accuracy"] == pytest.approx(reference_accuracy(), abs=0)


def reference_accuracy():
    """Return the accuracy of the same learning without any database."""
    plan = digits.Plan(16, 1, 2, 1998)
    model = digits.new_model(plan)
    for number in range(plan.rounds):
        models = []
        for shard in plan.round_blocks(number):
            copy = digits.pickle.loads(digits.pickle.dumps(model))
            models.append(digits.learn(copy, [digits.make_block(plan, n) for n in shard]))
        model = digits.average(models)
    scores = []
    for number in filter(plan.is_test, range(plan.blocks)):
        pixels, labels = digits.make_block(plan, number)
        with digits.threadpool_limits(1):
            scores.append(np.count_nonzero(model.predict(pixels) == labels))
    return sum(scores) / (len(scores) * digits.ROWS)
