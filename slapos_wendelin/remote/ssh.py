# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to hosts over SSH, whose keys are checked."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from slapos_wendelin.remote.errors import (
    ChangedHostKeyError,
    HostError,
    UnknownHostKeyError,
    UnreachableHostError,
)
from slapos_wendelin.remote.target import PORT, Address, parse_jumps

#: Seconds to wait for a connection, for the greeting and for each answer while it is made.
CONNECT_TIME = 20.0
#: Seconds between two signs of life on a connection: a cut is noticed after a few of them.
_KEEPALIVE = 5
#: What a command may write at most, in bytes, before it is taken for a flood.
_MOST_OUTPUT = 4_000_000

_SYSTEM_FILE = Path("/etc/ssh/ssh_known_hosts")
_writing = threading.Lock()
_open: WeakSet[Connection] = WeakSet()


@dataclass(frozen=True)
class Access:
    """How hosts are entered: whose keys are trusted, and with what we identify ourselves."""

    known_hosts: Path = Path("~/.ssh/known_hosts")
    #: The private key to use; None for those of the agent and of ~/.ssh.
    identity: Path | None = None
    #: Trust and remember the keys of hosts that were never met.
    accept_new: bool = False
    #: OpenSSH's configuration of the user, for names, users, ports, keys and jumps.
    configuration: Path = Path("~/.ssh/config")


@dataclass(frozen=True)
class Result:
    """What a command ended with and wrote."""

    status: int
    out: str
    err: str


class Connection:
    """An open connection to one host."""

    def __init__(self, client: paramiko.SSHClient, address: Address) -> None:
        self._client = client
        self.address = address

    @property
    def transport(self) -> paramiko.Transport:
        """The connection as paramiko has it."""
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise lost(self.address)
        return transport

    def open_channel(self, command: str) -> paramiko.Channel:
        """Start a command and return the channel to it."""
        try:
            channel = self.transport.open_session(timeout=CONNECT_TIME)
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise lost(self.address) from error
        return channel

    def drop(self) -> None:
        """Close the connection, whoever waits for it."""
        transport = self._client.get_transport()
        if transport is not None:
            transport.close()

    def run(self, command: str, given: str = "", seconds: float = 120.0) -> Result:
        """Run a command to its end.

        :param given: what it reads.
        :param seconds: how long it may take.
        :raises UnreachableHostError: when the connection is lost, or it takes longer.
        """
        channel = self.open_channel(command)
        try:
            channel.settimeout(seconds)
            channel.sendall(given.encode())
            channel.shutdown_write()
            out, err = _both(channel, time.monotonic() + seconds)
            return Result(channel.recv_exit_status(), out, err)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise lost(self.address) from error
        finally:
            channel.close()


def drop_all() -> None:
    """Close all connections of this process."""
    for each in list(_open):
        each.drop()


def lost(address: Address) -> UnreachableHostError:
    """Return the error for a connection that is gone."""
    return UnreachableHostError(
        f"the connection to {address} was lost", "repeat the command: it goes on where it stopped"
    )


def _both(channel: paramiko.Channel, deadline: float) -> tuple[str, str]:
    """Return what a command writes until it closes both of its outputs."""
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    errors = threading.Thread(
        target=lambda: parts[1].extend(iter(lambda: channel.recv_stderr(65536), b"")), daemon=True
    )
    errors.start()
    size = 0
    while chunk := channel.recv(65536):
        parts[0].append(chunk)
        size += len(chunk)
        if size > _MOST_OUTPUT or time.monotonic() > deadline:
            raise OSError
    errors.join(max(deadline - time.monotonic(), 0.0))
    out, err = (b"".join(each).decode(errors="replace") for each in parts)
    return out, err


@contextmanager
def connected(address: Address, jumps: Sequence[Address], access: Access) -> Iterator[Connection]:
    """Connect to a host, through others if need be.

    :raises UnreachableHostError: when a host does not answer.
    :raises UnknownHostKeyError: when nobody has said that the host's key is right.
    :raises ChangedHostKeyError: when the host shows another key than before.
    :raises HostError: when the host does not let us in.
    """
    settings = SshSettings(access)
    way = list(jumps) or settings.jumps_to(address)
    with ExitStack() as stack:
        before: Connection | None = None
        for each in (*way, address):
            client = paramiko.SSHClient()
            stack.callback(client.close)
            _enter(client, settings.completed(each), access, before)
            before = Connection(client, each)
        assert before is not None  # noqa: S101 (there is at least the host itself)
        _open.add(before)
        yield before


@dataclass(frozen=True)
class _Way:
    """What is known of the way to one host."""

    address: Address
    #: How known_hosts names it.
    alias: str
    identities: tuple[str, ...] = ()


class SshSettings:
    """OpenSSH's configuration of the user, which may be missing."""

    def __init__(self, access: Access) -> None:
        path = access.configuration.expanduser()
        try:
            self._configuration = paramiko.SSHConfig.from_path(str(path))
        except FileNotFoundError:
            self._configuration = paramiko.SSHConfig()
        except (OSError, paramiko.SSHException) as error:
            raise HostError(f"{path} cannot be read: {error}", "mend or remove it") from error
        self._access = access

    def jumps_to(self, address: Address) -> list[Address]:
        """Return the hosts through which the configuration goes to another."""
        named = self._configuration.lookup(address.host).get("proxyjump", "none")
        return [] if named == "none" else list(parse_jumps(named, "ProxyJump"))

    def completed(self, address: Address) -> _Way:
        """Return a host's address with what the configuration says of it."""
        found = self._configuration.lookup(address.host)
        port = address.port or int(found.get("port", PORT))
        user = address.user or found.get("user")
        host = found.get("hostname", address.host)
        own = self._access.identity
        identities = [str(own.expanduser())] if own else found.get("identityfile", [])
        alias = host if port == PORT else f"[{host}]:{port}"
        return _Way(Address(host, port, user), alias, tuple(identities))


def _enter(
    client: paramiko.SSHClient, way: _Way, access: Access, before: Connection | None
) -> None:
    """Connect and identify ourselves, after the host has."""
    address = way.address
    known = access.known_hosts.expanduser()
    for path in (_SYSTEM_FILE, known):
        if path.exists():
            client.load_system_host_keys(str(path))
    client.set_missing_host_key_policy(_Policy(way.alias, known, accept=access.accept_new))
    try:
        client.connect(
            address.host,
            address.port or PORT,
            address.user,
            sock=None if before is None else _through(before, address),
            key_filename=list(way.identities) or None,  # pyright: ignore (paramiko takes a list)
            allow_agent=access.identity is None,
            look_for_keys=access.identity is None,
            timeout=CONNECT_TIME,
            banner_timeout=CONNECT_TIME,
            auth_timeout=CONNECT_TIME,
            channel_timeout=CONNECT_TIME,
        )
    except paramiko.BadHostKeyException as error:
        raise _changed(way, error, known) from error
    except paramiko.AuthenticationException as error:
        raise HostError(
            f"{address} does not let us in: {error}",
            "put your public key there (ssh-copy-id), or name another user or key: --identity FILE",
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise UnreachableHostError(
            f"{address} does not answer as SSH: {_reason(error)}",
            "see that it is switched on and that sshd runs there, or correct the address",
        ) from error
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(_KEEPALIVE)


def _through(before: Connection, address: Address) -> paramiko.Channel:
    """Return a connection that another host makes for us."""
    where = (address.host, address.port or PORT)
    try:
        return before.transport.open_channel("direct-tcpip", where, ("", 0), timeout=CONNECT_TIME)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise UnreachableHostError(
            f"{address} cannot be reached through {before.address}: {_reason(error)}",
            "see that it is switched on, and that the host in between forwards connections",
        ) from error


class _Policy(paramiko.MissingHostKeyPolicy):
    """What to do with a host that was never met: remember it when told to, else refuse."""

    def __init__(self, alias: str, known_hosts: Path, *, accept: bool) -> None:
        self._alias = alias
        self._known_hosts = known_hosts
        self._accept = accept

    def missing_host_key(
        self,
        client: paramiko.SSHClient,  # noqa: ARG002 (the signature is paramiko's)
        hostname: str,  # noqa: ARG002
        key: paramiko.PKey,
    ) -> None:
        """Remember the key, or raise UnknownHostKeyError."""
        if not self._accept:
            raise UnknownHostKeyError(
                f"the key of {self._alias} is not known yet: {key.get_name()} {fingerprint(key)}",
                f"compare it with what ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub says there, then "
                f"add --accept-new-host-key, or the key to {self._known_hosts}",
            )
        remember(self._known_hosts, self._alias, key)


def remember(path: Path, alias: str, key: paramiko.PKey) -> None:
    """Add a host's key to a file of known hosts."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = f"{alias} {key.get_name()} {key.get_base64()}\n"
    with _writing, path.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        text = stream.read()
        stream.write(line if not text or text.endswith("\n") else f"\n{line}")
        stream.flush()
        os.fsync(stream.fileno())


def fingerprint(key: paramiko.PKey) -> str:
    """Return the fingerprint of a key as OpenSSH shows it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def _changed(way: _Way, error: paramiko.BadHostKeyException, known: Path) -> ChangedHostKeyError:
    """Return the error for a host that shows another key than before."""
    return ChangedHostKeyError(
        f"the key of {way.alias} has changed: it was {fingerprint(error.expected_key)} and is "
        f"{fingerprint(error.key)}; another machine may pose as it, and nothing was sent to it",
        f"if you know that it was installed anew: ssh-keygen -f {known} -R '{way.alias}', then "
        f"repeat with --accept-new-host-key",
    )


def _reason(error: BaseException) -> str:
    """Return why something failed, in a few words."""
    if isinstance(error, NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
