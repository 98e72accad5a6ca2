# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MariaDB that the profile compiles, run as an ordinary user.

It takes long to compile, so these tests run only where that was done: ``./wendelin build
component/mysqlclient``, or a cache of compiled parts.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PATIENCE = 300


def as_user(*command):
    """Let an ordinary user run a command: servers refuse to run as root."""
    user = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
    return [*(user if os.getuid() == 0 else ()), *map(str, command)]


class Server:
    """The compiled server on a data folder of its own, on a unix socket only."""

    def __init__(self, mariadb):
        self.mariadb = mariadb
        self.folder = Path(tempfile.mkdtemp(prefix="wendelin-"))
        self.process = None
        if os.getuid() == 0:
            shutil.chown(self.folder, "nobody")

    def initialize(self):
        subprocess.run(
            as_user(
                self.mariadb / "scripts" / "mariadb-install-db",
                "--no-defaults",
                f"--basedir={self.mariadb}",
                f"--datadir={self.folder}/data",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                as_user(
                    self.mariadb / "bin" / "mariadbd",
                    "--no-defaults",
                    f"--basedir={self.mariadb}",
                    f"--datadir={self.folder}/data",
                    f"--socket={self.folder}/socket",
                    f"--pid-file={self.folder}/pid",
                    "--skip-networking",
                    "--plugin-load-add=ha_rocksdb",
                    "--innodb-buffer-pool-size=16M",
                    "--innodb-flush-log-at-trx-commit=1",
                    "--rocksdb-flush-log-at-trx-commit=1",
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while self.client("SELECT 1").returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def client(self, statement, database="mysql"):
        return subprocess.run(
            as_user(
                self.mariadb / "bin" / "mariadb",
                "--no-defaults",
                f"--socket={self.folder}/socket",
                "--user=root",
                f"--database={database}",
                "--batch",
                "--skip-column-names",
                f"--execute={statement}",
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def ask(self, statement, database="mysql"):
        done = self.client(statement, database)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def server(compiled):
    server = Server(compiled.mariadb)
    try:
        server.initialize()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder)


@pytest.mark.parametrize("engine", ["InnoDB", "ROCKSDB"])
def test_what_is_committed_survives_a_crash(server, engine):
    server.ask("CREATE DATABASE d")
    server.ask(
        f"CREATE TABLE t (i INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB) ENGINE={engine}", "d"
    )
    for _ in range(5):
        server.ask("INSERT INTO t (b) VALUES (REPEAT('x', 100000))", "d")
    schema = "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
    assert server.ask(schema, "d") == engine
    server.kill()
    server.start()
    assert server.ask("SELECT COUNT(*), SUM(LENGTH(b)) FROM t", "d") == "5\t500000"


def test_it_listens_on_its_socket_only(server):
    assert server.ask("SELECT @@skip_networking, @@socket") == f"1\t{server.folder}/socket"
    descriptors = Path(f"/proc/{server.process.pid}/net/tcp").read_text()
    inodes = set()
    for path in Path(f"/proc/{server.process.pid}/fd").iterdir():
        # The server may close it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            inodes.add(str(path.readlink()))
    sockets = {line.split()[9] for line in descriptors.splitlines()[1:]}
    assert not {f"socket:[{inode}]" for inode in sockets} & inodes


def test_rocksdb_compresses_with_lz4_and_zstd(server):
    kinds = server.ask("SELECT @@rocksdb_supported_compression_types").split(",")
    assert {"LZ4", "Snappy"} <= set(kinds)
    assert any(kind.startswith("ZSTD") for kind in kinds)


def test_it_finds_its_own_files_and_no_others(server):
    assert Path(server.ask("SELECT @@basedir")).samefile(server.mariadb)
    assert Path(server.ask("SELECT @@plugin_dir")).samefile(server.mariadb / "lib" / "plugin")
    assert "doesn't exist" in server.client("SELECT * FROM mysql.nothing").stderr


def test_mysqlclient_speaks_through_the_compiled_library(server, compiled, tmp_path):
    folder = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, f"--target={folder}", compiled.wheel], check=True)
    code = (
        "import MySQLdb, sys\n"
        "connection = MySQLdb.connect(unix_socket=sys.argv[1], user='root')\n"
        "print(connection.get_server_info())\n"
        "print([line for line in open('/proc/self/maps') if 'libmariadb' in line][0].split()[-1])\n"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code, f"{server.folder}/socket"],
        env=os.environ | {"PYTHONPATH": str(folder)},
        text=True,
    ).splitlines()
    assert output[0].startswith("10.11.18-MariaDB")
    assert Path(output[1]).samefile(compiled.mariadb / "lib" / "libmariadb.so")


def test_it_is_small_and_runs_from_any_folder(compiled, tmp_path):
    files = [path for path in compiled.mariadb.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files if not path.is_symlink())
    assert size < 120 * 1024**2
    shutil.copytree(compiled.mariadb, tmp_path / "copy", symlinks=True)
    version = subprocess.check_output([tmp_path / "copy" / "bin" / "mariadbd", "--version"])
    assert b"10.11.18-MariaDB" in version
