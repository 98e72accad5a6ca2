# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the service of a computer running: under systemd, else under a supervisord of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.onhost.processes import end_all, is_any_called
from slapos_wendelin.onhost.session import Session

NAME = "slapos-wendelin"
_UNIT = Path(f"/etc/systemd/system/{NAME}.service")
_CRON = Path(f"/etc/cron.d/{NAME}")
_INIT = Path(f"/etc/init.d/{NAME}")

_UNIT_TEXT = """\
# Written by `slapos computer join`.
[Unit]
Description=Service of a SlapOS computer
After=network-online.target
Wants=network-online.target

[Service]
Environment=HOME={data}/home
ExecStartPre={python} -m slapos_wendelin.node.addresses {settings}
ExecStart={python} -m slapos_wendelin.node --configuration {settings}
Restart=always
RestartSec=2
# What runs in the partitions goes on while the service is started anew.
KillMode=process
Delegate=yes
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""

_SUPERVISORD_TEXT = """\
; Written by `slapos computer join`, as no systemd runs here.
[supervisord]
logfile = {data}/run/agent-supervisord.log
logfile_maxbytes = 5MB
pidfile = {data}/run/agent-supervisord.pid
directory = {data}
umask = 022
environment = HOME="{data}/home"

[unix_http_server]
file = {data}/run/agent.sock
chmod = 0700

[supervisorctl]
serverurl = unix://{data}/run/agent.sock

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[program:agent]
command = {python} -m slapos_wendelin.node --configuration {settings}
autorestart = true
startsecs = 1
startretries = 1000000
stopwaitsecs = 30
redirect_stderr = true
stdout_logfile = {data}/run/agent.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 2
"""

_START_TEXT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          slapos-wendelin
# Required-Start:    $network $local_fs $remote_fs
# Required-Stop:     $network $local_fs $remote_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: service of a SlapOS computer
### END INIT INFO
# Written by `slapos computer join`: starts the service, or stops it.
case "${{1:-start}}" in
    start | restart | force-reload)
        {python} -m slapos_wendelin.node.addresses {settings}
        {current}/bin/supervisorctl -c {configuration} pid >/dev/null 2>&1 ||
            exec {current}/bin/supervisord -c {configuration}
        ;;
    stop) exec {current}/bin/supervisorctl -c {configuration} shutdown ;;
esac
"""


class Agent:
    """The service of this computer."""

    def __init__(self, session: Session, prefix: Path, data: Path, settings: Path) -> None:
        self._session = session
        self._prefix = prefix
        self._data = data
        self._settings = settings
        self._configuration = prefix / "supervisord.conf"
        self._script = prefix / "start"
        self._has_systemd = Path("/run/systemd/system").exists()

    def identity(self, toolkit: str) -> str:
        """Return what decides whether the service has to be started anew."""
        return f"{toolkit} {'systemd' if self._has_systemd else 'supervisord'} {self._text()}"

    def is_running(self) -> bool:
        """Say whether the service runs."""
        if self._has_systemd:
            return _status(["systemctl", "is-active", "--quiet", NAME]) == 0
        return _status([*self._control(), "status", "agent"]) == 0

    def start(self) -> str:
        """Start the service, or start it anew; say how it comes back when the host is started."""
        if self._has_systemd:
            write_atomically(_UNIT, self._text())
            for words in (["daemon-reload"], ["enable", NAME], ["restart", NAME]):
                self._session.run(["systemctl", *words], doing="starting the service")
            return "systemd starts it when the host starts"
        write_atomically(self._configuration, self._text())
        self._write_script()
        if _status([*self._control(), "pid"]) == 0:
            for words in (["reread"], ["update"], ["restart", "agent"]):
                self._session.run([*self._control(), *words], doing="starting the service")
        else:
            # It stays when this program ends, and does not hold the host.
            done = subprocess.run(
                [str(self._script)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                start_new_session=True,
            )
            if done.returncode:
                raise CommandError(
                    f"the service cannot be started: {done.stdout.strip()[-300:]}",
                    f"look into {self._data}/run there, then repeat the command",
                )
        return self._come_back()

    def stop(self, instance_root: Path) -> None:
        """Stop the service, then what runs in the partitions; nothing brings it back."""
        if self._has_systemd and _UNIT.exists():
            _status(["systemctl", "disable", "--now", NAME])
        _CRON.unlink(missing_ok=True)
        if _INIT.is_symlink() or _INIT.exists():
            _status(["update-rc.d", "-f", NAME, "remove"])
            _INIT.unlink(missing_ok=True)
        # What brings others back is ended first.
        end_all(str(self._configuration))
        end_all(str(self._settings))
        end_all(str(instance_root / "etc" / "supervisord.conf"))
        end_all(str(self._prefix), str(self._data))
        if _UNIT.exists():
            _UNIT.unlink()
            _status(["systemctl", "daemon-reload"])

    def _text(self) -> str:
        """Return what systemd or supervisord is told."""
        text = _UNIT_TEXT if self._has_systemd else _SUPERVISORD_TEXT
        return text.format(
            data=self._data, settings=self._settings, python=self._prefix / "current/bin/python"
        )

    def _control(self) -> list[str]:
        """Return the command that speaks with our supervisord."""
        program = self._prefix / "current" / "bin" / "supervisorctl"
        return [str(program), "-c", str(self._configuration)]

    def _write_script(self) -> None:
        """Write what starts the service without systemd."""
        text = _START_TEXT.format(
            python=self._prefix / "current/bin/python",
            settings=self._settings,
            current=self._prefix / "current",
            configuration=self._configuration,
        )
        write_atomically(self._script, text)
        self._script.chmod(0o755)

    def _come_back(self) -> str:
        """Let the service be started when the host is; say by what, or that nothing does."""
        ways = []
        first = Path("/proc/1/comm").read_text().strip()
        if shutil.which("update-rc.d") and Path("/etc/rc2.d").is_dir():
            _INIT.unlink(missing_ok=True)
            _INIT.symlink_to(self._script)
            self._session.run(["update-rc.d", NAME, "defaults"], doing="adding it to the init")
            unsure = "" if first == "init" else f", if {first}, the first process here, runs them"
            ways.append(f"the init scripts start it when the host starts{unsure}")
        if Path("/etc/cron.d").is_dir() and is_any_called("cron", "crond"):
            line = f"@reboot root {self._script} >/dev/null 2>&1\n"
            write_atomically(_CRON, f"# Written by `slapos computer join`.\n{line}")
            _CRON.chmod(0o644)
            ways.append("cron starts it when the host starts")
        nothing = f"NOTHING starts it when the host starts: let {self._script} be run then"
        return "; ".join(ways) or nothing


def _status(command: list[str]) -> int:
    """Run a program and return its exit status; one that is missing has failed."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    except FileNotFoundError:
        return 127
