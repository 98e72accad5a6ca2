# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lets systemd or supervisord run a master."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

SYSTEMD, SUPERVISORD = "systemd", "supervisord"

_SYSTEMD = """\
[Unit]
Description=Slap master of a Wendelin cloud
Documentation=https://slapos.nexedi.com/
After=network-online.target mariadb.service postgresql.service
Wants=network-online.target

[Service]
Type=notify
ExecStart={command}
EnvironmentFile=-/etc/slapos/master.env
User={user}
UMask=0077
Restart=on-failure
RestartSec=2
TimeoutStopSec=30
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=full
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateTmp=yes
PrivateDevices=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""

_SUPERVISORD = """\
[program:slapos-master]
command={command}
user={user}
umask=077
autostart=true
autorestart=true
startsecs=5
stopsignal=TERM
stopwaitsecs=30
redirect_stderr=true
"""


def unit(kind: str, command: Sequence[str], user: str) -> str:
    """Return a unit of systemd or a section for supervisord's configuration.

    :param kind: systemd or supervisord.
    :param command: what starts the master.
    :param user: who runs it.
    """
    if kind == SYSTEMD:
        return _SYSTEMD.format(command=" ".join(map(_systemd_word, command)), user=user)
    return _SUPERVISORD.format(command=shlex.join(command).replace("%", "%%"), user=user)


def _systemd_word(word: str) -> str:
    """Return a word as it stands in ExecStart."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or shlex.quote(word) != word else word
