# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a master as a service: commands, units, readiness, logs, and where the password is."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xmlrpc.client import ServerProxy

import pytest
from database_servers import DatabaseServer, MariadbServer, PostgresqlServer
from master_command import slapos_master
from supervisor.xmlrpc import SupervisorTransport

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.units import unit

SLAPOS = [sys.executable, "-P", "-m", "slapos_wendelin.cli.entry"]
PATIENCE = 240


def wait_for_health(port: int) -> None:
    """Wait until a master answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with MasterClient(f"http://127.0.0.1:{port}") as client:
                assert client.health() == {"status": "ok"}
                return
        except WendelinError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_slapos_master_start_tells_systemd_when_it_is_ready_and_when_it_stops(tmp_path: Path):
    (port,) = free_ports(1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        process = subprocess.Popen(
            [*SLAPOS, "master", "start", "--plain", "--listen", f"127.0.0.1:{port}"],
            env=os.environ
            | {
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WENDELIN_MASTER_DATABASE": str(tmp_path / "master.sqlite"),
            },
            stdin=subprocess.DEVNULL,
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            with MasterClient(f"http://127.0.0.1:{port}") as client:
                client.health()
            process.send_signal(signal.SIGTERM)
            assert systemd.recv(100) == b"STOPPING=1"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
    assert (tmp_path / "master.sqlite").exists()


def test_a_master_that_cannot_start_says_why_on_two_lines(tmp_path: Path):
    done = subprocess.run(
        [*SLAPOS, "master", "start", "--plain", "--database", str(tmp_path / "no" / "database")],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    message, remedy = done.stderr.splitlines()
    assert message.startswith("slapos: the database")
    assert message.endswith("No such file or directory")
    assert remedy.startswith("  remedy: create its folder")


def test_systemd_accepts_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    verifier = shutil.which("systemd-analyze")
    database = tmp_path / 'with "quotes" $HOME %n' / "master.sqlite"
    options = ["--database", database, "--listen", "127.0.0.1:5000", "--plain"]
    assert slapos_master("unit", "systemd", *options) == 0
    text = capsys.readouterr().out
    assert "Type=notify" in text
    assert f"User={getpass.getuser()}" in text
    escaped = str(database).replace('"', '\\"').replace("$", "$$").replace("%", "%%")
    assert f'--database "{escaped}"' in text
    if verifier is None:
        # Debian's package systemd has it; containers often lack that.
        return
    path = tmp_path / "slapos-master.service"
    path.write_text(text)
    done = subprocess.run(
        [verifier, "verify", "--man=no", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    complaints = [line for line in done.stdout.splitlines() if "slapos-master" in line]
    assert complaints == []


def test_supervisord_runs_a_master_and_starts_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (port,) = free_ports(1)
    options = ["--database", tmp_path / "per%cent.sqlite", "--listen", f"127.0.0.1:{port}"]
    assert slapos_master("unit", "supervisord", *options, "--plain") == 0
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        f"[unix_http_server]\nfile={tmp_path}/socket\n[supervisord]\nnodaemon=true\n"
        f"logfile={tmp_path}/log\npidfile={tmp_path}/pid\nchildlogdir={tmp_path}\n"
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory ="
        " supervisor.rpcinterface:make_main_rpcinterface\n" + capsys.readouterr().out
    )
    supervisord = subprocess.Popen(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_health(port)
        transport = SupervisorTransport(None, None, f"unix://{tmp_path}/socket")
        proxy = ServerProxy("http://127.0.0.1", transport)
        first = proxy.supervisor.getProcessInfo("slapos-master")["pid"]
        os.kill(first, signal.SIGKILL)
        wait_for_health(port)
        deadline = time.monotonic() + PATIENCE
        while proxy.supervisor.getProcessInfo("slapos-master")["pid"] in {0, first}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        wait_for_health(port)
    finally:
        supervisord.send_signal(signal.SIGTERM)
        assert supervisord.wait(PATIENCE) == 0
    assert (tmp_path / "per%cent.sqlite").exists()


def test_a_unit_does_not_hold_a_password(capsys: pytest.CaptureFixture[str]):
    url = "postgresql://slapos:secret@host/master"
    assert slapos_master("unit", "systemd", "--database", url, "--plain") == 1
    told = capsys.readouterr()
    assert "secret" not in told.out + told.err
    assert "put the password into a file" in told.err


def test_a_database_that_the_environment_names_is_not_in_the_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WENDELIN_MASTER_DATABASE", "postgresql://slapos@host/master")
    assert slapos_master("unit", "systemd", "--plain") == 0
    told = capsys.readouterr().out
    assert "--database" not in told
    assert "EnvironmentFile=-/etc/slapos/master.env" in told


def test_units_start_the_command_as_it_is_written():
    command = ["/bin/a b", "100%", "$x", 'q"', "back\\slash"]
    assert 'ExecStart="/bin/a b" "100%%" "$$x" "q\\"" "back\\\\slash"\n' in unit(
        "systemd", command, "me"
    )
    assert "command='/bin/a b' 100%% '$x' 'q\"' 'back\\slash'\n" in unit(
        "supervisord", command, "me"
    )


def test_the_log_is_json_for_programs_and_names_no_password(
    database_servers: Callable[[str], DatabaseServer],
):
    location = database_servers("mariadb").new_database()
    database_servers("mariadb").execute(
        "CREATE OR REPLACE USER logged@localhost IDENTIFIED BY 'any-password'"
    )
    database_servers("mariadb").execute("GRANT ALL ON *.* TO logged@localhost")
    location = location.replace("root@", "logged:any-password@")
    options = ["--plain", "--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug"]
    process = subprocess.Popen(
        [*SLAPOS, "master", "start", *options],
        env=os.environ | {"WENDELIN_MASTER_DATABASE": location},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        for line in process.stderr:
            lines.append(line)
            record = json.loads(line)
            if record["event"] == "started":
                break
        assert record["level"] == "INFO"
        assert record["database"].startswith("mariadb+pymysql://logged:***@localhost/")
        with MasterClient(record["url"].rstrip("/")) as client:
            client.health()
        process.send_signal(signal.SIGTERM)
        lines += process.stderr.readlines()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    (request,) = [each for each in map(json.loads, lines) if each.get("path") == "/v1/health"]
    assert (request["event"], request["status"]) == ("request", 200)
    assert isinstance(request["milliseconds"], float)
    assert "any-password" not in "".join(lines)


def test_mariadb_takes_the_password_from_a_file(
    tmp_path: Path, database_servers: Callable[[str], DatabaseServer]
):
    server = database_servers("mariadb")
    assert isinstance(server, MariadbServer)
    location = server.new_database()
    server.execute("CREATE OR REPLACE USER slapos@localhost IDENTIFIED BY 'se''cret'")
    server.execute("GRANT ALL ON *.* TO slapos@localhost")
    guarded = location.replace("root@", "slapos@")
    with pytest.raises(WendelinError, match="Access denied"):
        Database(guarded)
    options = tmp_path / "master.cnf"
    options.write_text("[client]\npassword = se'cret\n")
    Database(f"{guarded}&read_default_file={options}").close()


def test_postgresql_takes_the_password_from_a_file(
    tmp_path: Path, database_servers: Callable[[str], DatabaseServer]
):
    server = database_servers("postgresql")
    assert isinstance(server, PostgresqlServer)
    location = server.new_database()
    server.execute("DROP ROLE IF EXISTS slapos")
    server.execute("CREATE ROLE slapos SUPERUSER LOGIN PASSWORD 'secret'")
    guarded = location.replace("wendelin@", "slapos@")
    with pytest.raises(WendelinError, match="no password supplied"):
        Database(guarded)
    passwords = tmp_path / "pgpass"
    passwords.write_text("*:*:*:slapos:secret\n")
    passwords.chmod(0o600)
    Database(f"{guarded}&passfile={passwords}").close()
