# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MariaDB of a storage, started as the profiles start it, and what may befall it.

The server is the compiled one; without it these tests are skipped.
"""

import hashlib
import json
import os
import pwd
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from slapos_wendelin.mariadb.crashes import crash_times
from slapos_wendelin.mariadb.logs import KEPT, rotate
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.promise import disk, mariadb, mariadb_crashes, mariadb_disk
from slapos_wendelin.promise.base import BrokenPromiseError

PATIENCE = 300.0


def as_user(*command):
    """Let an ordinary user run a command: servers refuse to run as root."""
    user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
    return [*(user if os.getuid() == 0 else ()), *map(str, command)]


def wait_for(ask, what):
    deadline = time.monotonic() + PATIENCE
    while not (answer := ask()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return answer


class Storage:
    """A partition with a MariaDB."""

    def __init__(self, software):
        self.software = software
        self.folder = Path(tempfile.mkdtemp(prefix="wendelin-"))
        self.place = Place(self.folder)
        self.log = self.folder / ".slappart0_mariadb-0a1b.log"
        self.process = None
        #: A command that runs the program that follows it.
        self.before = ()
        for name in ("var/run", "var/log", "srv"):
            (self.folder / name).mkdir(parents=True)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "nobody:nogroup", self.folder], check=True)

    def spawn(self, *options, engine="innodb"):
        """Start it and do not wait."""
        command = as_user(
            *(sys.executable, "-m", "slapos_wendelin.mariadb.start"),
            f"--software={self.software}",
            f"--partition={self.folder}",
            f"--engine={engine}",
            *("--set", "innodb-buffer-pool-size=16MiB"),
            *options,
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.before, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def start(self, *options, engine="innodb"):
        """Start it and wait until it answers."""
        self.spawn(*options, engine=engine)

        def answers():
            assert self.process.poll() is None, self.said()
            return self.client("SELECT 1").returncode == 0

        wait_for(answers, "the server answers")

    def refusal(self, *options, engine="innodb"):
        """Start it and return what it says when it refuses."""
        self.spawn(*options, engine=engine)
        assert self.process.wait(PATIENCE) == 1
        return self.log.read_text().splitlines()[-1]

    def said(self):
        text = self.log.read_text() if self.log.exists() else ""
        error_log = self.place.error_log
        return text + (error_log.read_text() if error_log.exists() else "")

    def client(self, statement):
        return subprocess.run(
            as_user(
                self.software / "bin" / "mariadb",
                "--no-defaults",
                f"--socket={self.place.socket}",
                "--database=neo",
                "--batch",
                "--skip-column-names",
                f"--execute={statement}",
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ask(self, statement):
        done = self.client(statement)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, self.said()

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def begin_anew(self):
        """Remove the server with its data, and start it without waiting."""
        self.remove_processes()
        self.place.socket.unlink()
        shutil.rmtree(self.place.folder)
        self.spawn()

    def remove_processes(self):
        """Kill what runs, and what a killed one has left: that belongs to the same session."""
        if self.process:
            subprocess.run(["pkill", "-KILL", "-s", str(self.process.pid)], check=False)
            self.kill()

    def clean_up(self):
        self.remove_processes()
        wait_for(self._removed, "the folder is gone")

    def _removed(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        return not self.folder.exists()

    def promise(self, module, **configuration):
        return module.RunPromise(
            {
                "queue": queue.Queue(),
                "name": "promise.py",
                "path": str(self.folder / "promise.py"),
                "partition-folder": str(self.folder),
                "partition": str(self.folder),
                **configuration,
            }
        )

    def check_answers(self, monkeypatch, engine="innodb"):
        """Run the promise of the server, as the user that runs the server."""
        monkeypatch.setattr(mariadb, "START_TIME", 0.0)
        if os.getuid() == 0:
            monkeypatch.setattr(mariadb, "server_user", lambda: "root")
        return self.promise(mariadb, software=str(self.software), engine=engine).check()


@pytest.fixture
def storage(compiled):
    if subprocess.run(
        as_user(sys.executable, "-c", ""), capture_output=True, check=False
    ).returncode:
        pytest.skip(f"the user nobody cannot run {sys.executable}: call ./wendelin test")
    storage = Storage(compiled.mariadb)
    try:
        yield storage
    finally:
        storage.clean_up()


def test_it_makes_its_data_and_the_database_of_neo_and_keeps_both(storage):
    storage.start()
    variables = "@@skip_networking, @@socket, @@innodb_flush_log_at_trx_commit, @@slow_query_log"
    assert storage.ask(f"SELECT {variables}") == f"1\t{storage.place.socket}\t1\t1"
    assert storage.ask("SELECT DATABASE()") == "neo"
    storage.ask("CREATE TABLE t (i INT)")
    storage.ask("INSERT INTO t VALUES (7)")
    storage.stop()
    storage.start()
    assert storage.ask("SELECT i FROM t") == "7"
    assert crash_times(storage.place.crashes) == []


def test_only_the_user_of_the_partition_is_let_in(storage):
    storage.start()
    assert "unix_socket" in storage.ask("SHOW CREATE USER CURRENT_USER()")
    others = storage.ask(
        "SELECT COUNT(*) FROM mysql.user WHERE Host <> 'localhost' AND NOT is_role = 'Y'"
    )
    assert others == "0"
    done = storage.client("SELECT 1 FROM mysql.user WHERE User = ''")
    assert done.stdout == ""


def test_relaxed_durability_and_settings_reach_the_server(storage):
    storage.start("--durability=relaxed", "--set=innodb-io-capacity=321", "--set=long-query-time=9")
    asked = "@@innodb_flush_log_at_trx_commit, @@innodb_io_capacity, @@long_query_time"
    assert storage.ask(f"SELECT {asked}") == "2\t321\t9.000000"
    assert storage.ask("SELECT @@innodb_buffer_pool_size") == str(16 * 2**20)


def test_rocksdb_keeps_what_is_committed_through_a_crash(storage, monkeypatch):
    storage.start("--set=rocksdb-block-cache-size=16MiB", engine="rocksdb")
    assert storage.check_answers(monkeypatch, "rocksdb").endswith("answers and has ROCKSDB")
    storage.ask("CREATE TABLE t (i INT PRIMARY KEY) ENGINE=RocksDB")
    storage.ask("INSERT INTO t VALUES (7)")
    storage.kill()
    storage.start("--set=rocksdb-block-cache-size=16MiB", engine="rocksdb")
    assert storage.ask("SELECT i FROM t") == "7"
    assert storage.ask("SELECT @@rocksdb_flush_log_at_trx_commit") == "1"


@pytest.mark.parametrize("sight", ["", "ibdata1", "mysql", "mysql/user.frm", "wendelin.json"])
def test_an_initialisation_that_is_killed_is_done_again(storage, sight):
    """The one process is killed; what it has started may go on for a while."""
    storage.spawn()
    place = storage.place

    def begun():
        return list(place.folder.glob(f"new-*/{sight}" if sight else "new-*")) or (
            place.data.exists()
        )

    wait_for(begun, "the initialisation has begun")
    storage.kill()
    while place.socket.exists():
        # It was done before it could be killed: again, from nothing.
        storage.begin_anew()
        wait_for(begun, "the initialisation has begun")
        storage.kill()
    first = storage.process
    storage.start()
    assert storage.ask("SELECT COUNT(*) > 0 FROM mysql.user") == "1"
    assert json.loads(place.note.read_text())["engine"] == "innodb"
    subprocess.run(["pkill", "-KILL", "-s", str(first.pid)], check=False)


def test_data_of_an_older_server_is_upgraded_and_an_interrupted_upgrade_is_done_again(storage):
    storage.start()
    storage.stop()
    note = json.loads(storage.place.note.read_text())
    version = note["version"]
    storage.place.note.write_text(json.dumps(note | {"version": "10.6.25"}))
    (storage.place.data / "mysql_upgrade_info").write_text("10.6.25-MariaDB")
    storage.spawn()
    wait_for(storage.place.old_upgrade_sockets, "the upgrade has begun")
    storage.kill()
    assert json.loads(storage.place.note.read_text())["version"] == "10.6.25"
    storage.start()
    assert json.loads(storage.place.note.read_text())["version"] == version
    assert f"upgrading the data from 10.6.25 to {version}" in storage.log.read_text()
    upgraded = (storage.place.data / "mysql_upgrade_info").read_text()
    assert upgraded.startswith(version)


def test_data_of_a_newer_server_is_refused_by_name(storage):
    storage.start()
    storage.stop()
    note = json.loads(storage.place.note.read_text())
    storage.place.note.write_text(json.dumps(note | {"version": "11.8.3"}))
    said = storage.refusal()
    assert f"written by MariaDB 11.8.3, and this release has the older {note['version']}" in said
    assert "request a release with MariaDB 11.8.3 or newer" in said


def test_data_of_another_engine_is_refused(storage):
    storage.start()
    storage.stop()
    said = storage.refusal(engine="rocksdb")
    assert "this storage has its data in InnoDB, and ROCKSDB is asked for" in said


def test_an_unknown_engine_is_refused(storage):
    storage.spawn(engine="tokudb")
    assert storage.process.wait(PATIENCE) == 2
    assert "invalid choice: 'tokudb'" in storage.log.read_text()
    assert not storage.place.folder.exists()


def test_a_missing_ibdata1_is_told_and_not_made_anew(storage, monkeypatch):
    storage.start()
    storage.stop()
    (storage.place.data / "ibdata1").rename(storage.folder / "away")
    said = storage.refusal()
    assert "lacks ibdata1: the data of this storage is damaged" in said
    assert not (storage.place.data / "ibdata1").exists()
    with pytest.raises(BrokenPromiseError, match="lacks ibdata1: the data of this storage is dama"):
        storage.check_answers(monkeypatch)
    (storage.folder / "away").rename(storage.place.data / "ibdata1")
    storage.start()
    assert "answers and has InnoDB" in storage.check_answers(monkeypatch)


def test_a_damaged_ibdata1_is_told_and_not_overwritten(storage, monkeypatch):
    storage.start()
    storage.ask("CREATE TABLE t (i INT)")
    storage.ask("INSERT INTO t VALUES (7)")
    storage.stop()
    path = storage.place.data / "ibdata1"
    good = path.read_bytes()
    damaged = good[:64] + b"\xff" * 200_000 + good[200_064:]
    path.write_bytes(damaged)
    storage.spawn()
    assert storage.process.wait(PATIENCE) != 0
    with pytest.raises(BrokenPromiseError, match=r"said: .*ibdata1.*data folder is damaged"):
        storage.check_answers(monkeypatch)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(damaged).digest()
    path.write_bytes(good)
    storage.start()
    assert storage.ask("SELECT i FROM t") == "7"
    assert "answers and has InnoDB" in storage.check_answers(monkeypatch)


def test_the_promise_is_red_without_the_engine_and_while_the_server_hangs(storage, monkeypatch):
    storage.start()
    with pytest.raises(BrokenPromiseError, match="runs without the engine ROCKSDB"):
        storage.check_answers(monkeypatch, "rocksdb")
    monkeypatch.setattr(mariadb, "TIME_LIMIT", 0.5)
    storage.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(BrokenPromiseError, match="did not answer in"):
            storage.check_answers(monkeypatch)
    finally:
        storage.process.send_signal(signal.SIGCONT)
    monkeypatch.undo()
    assert "answers and has InnoDB" in storage.check_answers(monkeypatch)


def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(storage):
    storage.start()
    storage.ask("CREATE TABLE t (i INT PRIMARY KEY, b BLOB) ENGINE=InnoDB")
    command = as_user(
        storage.software / "bin" / "mariadb",
        *("--no-defaults", f"--socket={storage.place.socket}", "--database=neo"),
        *("--batch", "--skip-column-names", "--unbuffered"),
    )
    writer = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    acknowledged = []
    with writer:
        for number in range(100_000):
            try:
                statement = f"INSERT INTO t VALUES ({number}, REPEAT('x', 9000))"  # noqa: S608
                writer.stdin.write(f"{statement}; SELECT {number};\n")
                writer.stdin.flush()
            except BrokenPipeError:
                break
            line = writer.stdout.readline()
            if not line:
                break
            acknowledged.append(int(line))
            if number == 200:
                storage.process.send_signal(signal.SIGKILL)
        writer.kill()
        writer.stdin = None
    storage.process.wait()
    storage.start()
    stored = set(map(int, storage.ask("SELECT i FROM t").split()))
    assert len(acknowledged) > 200
    assert set(acknowledged) <= stored
    assert len(stored) - len(acknowledged) in {0, 1}


def fill(storage):
    """Write until that is refused; return the question and the answer about what was not."""
    storage.ask("CREATE TABLE t (i INT PRIMARY KEY, b LONGBLOB) ENGINE=InnoDB")
    acknowledged = []
    for number in range(200):
        statement = f"INSERT INTO t VALUES ({number}, REPEAT('x', 2000000))"  # noqa: S608
        if storage.client(statement).returncode:
            break
        acknowledged.append(str(number))
    else:
        raise AssertionError("it is never refused")
    assert len(acknowledged) > 10
    return "SELECT i FROM t WHERE LENGTH(b) = 2000000 ORDER BY i", "\n".join(acknowledged)


def test_where_files_cannot_grow_any_more_nothing_that_was_acknowledged_is_lost(storage):
    storage.before = ("prlimit", f"--fsize={100 * 2**20}", "--")
    storage.start()
    question, answer = fill(storage)
    storage.kill()
    storage.before = ()
    storage.start()
    assert storage.ask(question) == answer
    storage.ask("INSERT INTO t VALUES (1000, REPEAT('x', 2000000))")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_lost(storage, monkeypatch):
    disk = storage.folder / "srv"
    options = f"size=250m,uid={pwd.getpwnam('nobody').pw_uid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", disk], check=True)
    try:
        storage.start()
        question, answer = fill(storage)
        full = f"the disk of {storage.place.folder} is full"
        with pytest.raises(BrokenPromiseError, match=full):
            storage.promise(mariadb_disk).check()
        storage.kill()
        # InnoDB would abort there in its recovery, each time, and that would count as a crash.
        assert full in storage.refusal()
        with pytest.raises(BrokenPromiseError, match=f"does not answer: .*{full}"):
            storage.check_answers(monkeypatch)
        assert crash_times(storage.place.crashes) == []
        subprocess.run(["mount", "-o", "remount,size=500m", disk], check=True)
        assert storage.promise(mariadb_disk).check().endswith("are left")
        storage.start()
        assert storage.ask(question) == answer
        storage.ask("INSERT INTO t VALUES (1000, REPEAT('x', 2000000))")
    finally:
        storage.kill()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_crashes_are_counted_and_make_the_promise_red(storage):
    promise = storage.promise(mariadb_crashes)
    storage.start()
    assert promise.check() == "MariaDB has crashed 0 times within a day"
    storage.kill()
    storage.start()
    assert promise.check() == "MariaDB has crashed 1 times within a day"
    now = time.time()
    storage.place.crashes.write_text("".join(f"{now - n:.0f}\n" for n in range(5)))
    with pytest.raises(BrokenPromiseError, match="has crashed 5 times within an hour"):
        promise.check()
    storage.place.crashes.write_text("".join(f"{now - 3600 - n:.0f}\n" for n in range(5)))
    assert promise.check() == "MariaDB has crashed 5 times within a day"


def test_little_space_on_the_disk_makes_the_promise_red(tmp_path, monkeypatch):
    storage = Storage.__new__(Storage)
    storage.folder = tmp_path
    assert storage.promise(mariadb_disk).check().endswith("are left")
    monkeypatch.setattr(disk, "BYTES", 2**60)
    monkeypatch.setattr(disk, "PART", 1.0)
    with pytest.raises(BrokenPromiseError, match="are left on the disk of"):
        storage.promise(mariadb_disk).check()


def test_a_program_is_started_once_the_server_answers(storage):
    program = storage.folder / "program"
    program.write_text(f"#!/bin/sh\ntest -S {storage.place.socket} && echo begins\n")
    program.chmod(0o755)
    command = as_user(
        *(sys.executable, "-u", "-m", "slapos_wendelin.mariadb.wait"),
        *(f"--socket={storage.place.socket}", "--", program),
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout.readline().startswith("waiting for MariaDB at")
        assert waiting.poll() is None
        storage.start()
        assert waiting.stdout.readline() == "begins\n"


def test_large_logs_are_set_aside_and_the_server_goes_on_in_new_ones(storage):
    storage.start("--set=long-query-time=0")
    storage.ask("SELECT 'a first statement'")
    command = as_user(
        *(sys.executable, "-m", "slapos_wendelin.mariadb.logs"),
        *(f"--software={storage.software}", f"--partition={storage.folder}"),
        *("--large=1", "--interval=60"),
    )
    slow = storage.place.slow_log
    with subprocess.Popen(command, cwd=storage.folder) as rotating:
        wait_for(slow.with_name(f"{slow.name}.1").exists, "the slow log is set aside")
        wait_for(slow.exists, "the server writes to a new one")
        rotating.terminate()
        assert rotating.wait(PATIENCE) == 0
    storage.ask("SELECT 'a last statement'")
    # It is written after the answer was sent.
    wait_for(lambda: "a last statement" in slow.read_text(), "the server writes to the new one")
    older = [slow.with_name(f"{slow.name}.{number}") for number in range(1, KEPT + 1)]
    assert any("a first statement" in each.read_text() for each in older if each.exists())


def test_so_many_old_logs_are_kept(tmp_path):
    place = Place(tmp_path)
    place.slow_log.parent.mkdir(parents=True)
    for number in range(KEPT + 3):
        place.slow_log.write_text(f"{number}\n")
        assert rotate(place, large=1)
    names = {path.name for path in place.slow_log.parent.iterdir()}
    assert names == {f"{place.slow_log.name}.{number}" for number in range(1, KEPT + 1)}
    newest = place.slow_log.with_name(f"{place.slow_log.name}.1")
    assert newest.read_text() == f"{KEPT + 2}\n"
    assert not rotate(place, large=1)
