# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a host what it has, in one go and without changing anything."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slapos_wendelin.onhost.record import RECORD
from slapos_wendelin.remote.errors import HostError
from slapos_wendelin.remote.ssh import Connection

#: Begins what the script says, whatever the host's shell says before.
_MARK = "@@"

#: The Pythons to try, the system's first: partitions' users have to reach it as well.
_PYTHONS = (
    "/usr/bin/python3",
    "/usr/bin/python3.13",
    "/usr/bin/python3.12",
    "/usr/bin/python3.11",
    "/usr/local/bin/python3",
    "/usr/local/bin/python3.13",
    "/usr/local/bin/python3.12",
    "/usr/local/bin/python3.11",
)

#: Prints what a Python is and can; of the master only what it shows to everybody is asked.
_PYTHON = r"""
import configparser, contextlib, http.client, importlib.util, json, os, platform
import socket, ssl, sys, sysconfig, time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
def reach(url, path):
    parts = urlsplit(url)
    kinds = {"https": http.client.HTTPSConnection, "http": http.client.HTTPConnection}
    options = {"timeout": 8}
    if parts.scheme == "https":
        options["context"] = ssl._create_unverified_context()
    try:
        connection = kinds[parts.scheme](parts.hostname, parts.port, **options)
        connection.request("GET", path or "/")
        date = connection.getresponse().getheader("Date")
        moment = time.time()
        connection.close()
        return {"difference": date and moment - parsedate_to_datetime(date).timestamp()}
    except (OSError, http.client.HTTPException, ValueError) as error:
        return {"error": getattr(error, "strerror", None) or str(error) or type(error).__name__}
def index():
    named = os.environ.get("PIP_INDEX_URL")
    for path in ("/etc/pip.conf", os.path.expanduser("~/.config/pip/pip.conf")):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except configparser.Error:
            continue
        named = named or parser.get("global", "index-url", fallback=None)
    return named or sys.argv[2]
def own_address(url):
    parts = urlsplit(url)
    kind = socket.SOCK_DGRAM
    try:
        for found in socket.getaddrinfo(parts.hostname, parts.port or 443, type=kind):
            with contextlib.suppress(OSError), socket.socket(found[0], kind) as probe:
                probe.connect(found[4])
                return probe.getsockname()[0]
    except OSError:
        pass
    return None
master = sys.argv[1]
url = index() if len(sys.argv) > 2 else ""
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "venv": all(importlib.util.find_spec(each) for each in ("venv", "ensurepip")),
    "headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
    "machine": platform.machine(),
    "glibc": platform.libc_ver()[1],
    "master": reach(master, "/v1/health") if master else {},
    "index": reach(url, urlsplit(url).path.rstrip("/") + "/pip/") if url else {},
    "address": own_address(master) if master else None,
    "hostname": socket.gethostname(),
}))
"""

#: Prints one mark, a name and a value a line.
_SCRIPT = r"""
fits="import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))"
say() { printf '%s%s=%s\n' '@@' "$1" "$2"; }
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
say uid "$(id -u)"
. /etc/os-release 2>/dev/null
say distribution "$ID"
say distribution_like "$ID_LIKE"
say distribution_name "$PRETTY_NAME"
say machine "$(uname -m)"
for each in tar setpriv useradd userdel groupadd passwd ip gcc patch sync; do
    command -v "$each" >/dev/null 2>&1 && say program "$each"
done
free() { # FOLDER: the space of the file system that it will be in
    folder=$1
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    df -Pk "$folder" | tail -1 | (read -r device size used free rest; echo "$((free * 1024))")
}
say prefix_free "$(free "$prefix")"
say data_free "$(free "$data")"
for each in "$prefix" "$data" /etc/opt/slapos; do
    [ -e "$each" ] && [ -n "$(ls -A "$each" 2>/dev/null)" ] && say taken "$each"
done
[ -r "$record" ] && say record "$(cat "$record")"
[ -r "$record" ] || [ ! -e "$record" ] || say record_unreadable yes
[ -d /run/systemd/system ] && say systemd yes
for each in slapsoft slapuser0; do id "$each" >/dev/null 2>&1 && say user "$each"; done
sockets=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { print $2 }')
say listening "$(echo $sockets)"
for python in $pythons; do
    [ -x "$python" ] || continue
    if "$python" -IB -c "$fits" 2>/dev/null; then
        say python "$python"
        say python_facts "$("$python" -IB -c "$program" "$master" $index 2>&1 | tail -1)"
        break
    fi
    say other_python "$("$python" -V 2>&1)"
done
say end yes
"""


@dataclass(frozen=True)
class Facts:
    """What a host has."""

    #: How to become root there: nothing, or the words of sudo.
    become: str
    uid: int
    distribution: str
    distribution_name: str
    likes: frozenset[str]
    machine: str
    programs: frozenset[str]
    prefix_free: int
    data_free: int
    #: Of the folders that we would use, those that hold something.
    taken: tuple[str, ...]
    users: tuple[str, ...]
    has_systemd: bool
    #: The ports on which somebody listens, with the addresses in hexadecimal digits.
    listening: tuple[tuple[str, int], ...]
    python: str = ""
    python_facts: Mapping[str, Any] = field(default_factory=dict)
    other_pythons: tuple[str, ...] = ()
    #: What an earlier join has noted on the host; empty when there was none.
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def python_version(self) -> tuple[int, int, int]:
        """The version of the Python that will be used; zeros when there is none."""
        major, minor, micro = self.python_facts.get("version", (0, 0, 0))
        return (major, minor, micro)

    @property
    def hostname(self) -> str:
        """The host's own name, without its domain."""
        return str(self.python_facts.get("hostname", "")).partition(".")[0]


def look(
    connection: Connection, *, prefix: str, data: str, master_url: str, ask_index: bool = True
) -> Facts:
    """Ask a host what it has.

    :param prefix: the folder that the toolkit is to have.
    :param data: the folder that software and partitions are to have.
    :param ask_index: see whether the host reaches the Python index.
    :raises HostError: when it does not say.
    """
    script = script_for(prefix=prefix, data=data, master_url=master_url, ask_index=ask_index)
    # Whether we may be root is asked on the way: without it the script runs as who we are.
    result = connection.run(
        'if [ "$(id -u)" = 0 ]; then echo @@become=; exec sh -s; '
        "elif sudo -n true 2>/dev/null; then echo '@@become=sudo -n --'; exec sudo -n -- sh -s; "
        "else echo '@@become=none'; exec sh -s; fi",
        script,
    )
    return parse_facts(result.out, f"{connection.address}: {result.err.strip()[-300:]}")


def script_for(*, prefix: str, data: str, master_url: str, ask_index: bool) -> str:
    """Return the script that a host runs."""
    # A process that has imported pip cannot import setuptools, nor buildout, any more.
    from pip._internal.models.index import PyPI  # noqa: PLC0415

    values = {
        "prefix": prefix,
        "data": data,
        "record": RECORD,
        "pythons": " ".join(_PYTHONS),
        "program": _PYTHON,
        "master": master_url,
        "index": PyPI.simple_url if ask_index else "",
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, _SCRIPT])


def parse_facts(text: str, place: str) -> Facts:
    """Return what a host has said.

    :param place: names the host in errors, with what else it said.
    :raises HostError: when it is not all there.
    """
    said = _values(text)
    if "end" not in said:
        raise HostError(
            f"the host does not say what it has: {place}",
            "see that a POSIX shell runs what is sent to it, and that sudo asks for no password",
        )

    def first(name: str, default: str = "") -> str:
        return said.get(name, [default])[0]

    return Facts(
        become=first("become"),
        uid=int(first("uid", "-1")),
        distribution=first("distribution"),
        distribution_name=first("distribution_name") or first("distribution") or "unknown",
        likes=frozenset(first("distribution_like").split()),
        machine=first("machine"),
        programs=frozenset(said.get("program", ())),
        prefix_free=_number(first("prefix_free")),
        data_free=_number(first("data_free")),
        taken=tuple(dict.fromkeys(said.get("taken", ()))),
        users=tuple(said.get("user", ())),
        has_systemd="systemd" in said,
        listening=_listening(first("listening").split()),
        python=first("python"),
        python_facts=_document(first("python_facts")),
        other_pythons=tuple(dict.fromkeys(said.get("other_python", ()))),
        record=_document(first("record")),
    )


def _values(text: str) -> dict[str, list[str]]:
    """Return the values under their names; a value may have several lines."""
    said: dict[str, list[str]] = {}
    for piece in re.split(rf"^{_MARK}", text, flags=re.MULTILINE)[1:]:
        name, separator, value = piece.partition("=")
        if separator:
            said.setdefault(name, []).append(value.strip())
    return said


def _document(text: str) -> Mapping[str, Any]:
    """Return a document that may be missing or broken."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _number(text: str) -> int:
    """Return a number that may be missing."""
    return int(text) if text.isdecimal() else -1


def _listening(pairs: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return addresses and ports as the kernel shows them."""
    found = []
    for pair in pairs:
        address, _, port = pair.partition(":")
        found.append((address, int(port, 16)))
    return tuple(sorted(set(found)))
