# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts are reached: what OpenSSH's configuration says, and whose keys are known."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from slapos_wendelin.remote.errors import HostError, UnreachableHostError
from slapos_wendelin.remote.ssh import Access, SshSettings, connected, fingerprint, remember
from slapos_wendelin.remote.target import Address

CONFIGURATION = """
Host paris
  HostName 192.0.2.10
  Port 2200
  User ops
  IdentityFile ~/.ssh/paris
  ProxyJump bastion,inner:2222
Host *
  User everybody
"""


def settings(folder: Path) -> SshSettings:
    path = folder / "config"
    path.write_text(CONFIGURATION)
    return SshSettings(Access(configuration=path))


def test_the_configuration_completes_what_is_not_said(tmp_path: Path) -> None:
    way = settings(tmp_path).completed(Address("paris"))
    assert way.address == Address("192.0.2.10", 2200, "ops")
    assert way.alias == "[192.0.2.10]:2200"
    assert way.identities[0].endswith("/.ssh/paris")
    said = settings(tmp_path).completed(Address("paris", 22, "root"))
    assert said.address == Address("192.0.2.10", 22, "root")
    assert said.alias == "192.0.2.10"
    assert settings(tmp_path).completed(Address("tokyo")).address == Address(
        "tokyo", 22, "everybody"
    )


def test_the_configuration_says_through_which_hosts_to_go(tmp_path: Path) -> None:
    assert settings(tmp_path).jumps_to(Address("paris")) == [
        Address("bastion"),
        Address("inner", 2222),
    ]
    assert settings(tmp_path).jumps_to(Address("tokyo")) == []


def test_without_a_configuration_nothing_is_completed(tmp_path: Path) -> None:
    bare = SshSettings(Access(configuration=tmp_path / "missing"))
    assert bare.completed(Address("paris")).address == Address("paris", 22, None)


def test_a_key_is_remembered_beside_what_is_there(tmp_path: Path) -> None:
    known = tmp_path / "ssh" / "known_hosts"
    keys = [paramiko.ECDSAKey.generate() for _ in range(2)]
    remember(known, "first", keys[0])
    known.write_text(known.read_text() + "# a comment without an end")
    remember(known, "[second]:2200", keys[1])
    assert "# a comment without an end\n" in known.read_text()
    found = paramiko.HostKeys(str(known))
    assert found.check("first", keys[0])
    assert found.check("[second]:2200", keys[1])
    assert fingerprint(keys[0]).startswith("SHA256:")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port on which something answers that is no SSH."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


def test_what_is_no_ssh_and_what_does_not_answer_are_named(
    tmp_path: Path, silent_port: int
) -> None:
    access = Access(known_hosts=tmp_path / "known_hosts", configuration=tmp_path / "config")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    for port, reason in ((silent_port, ""), (free, "Connection refused|Unable to connect")):
        with (
            pytest.raises(
                UnreachableHostError, match=f"127.0.0.1:{port} does not answer.*{reason}"
            ),
            connected(Address("127.0.0.1", port, "nobody"), (), access),
        ):
            pass


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read"):
        SshSettings(Access(configuration=tmp_path))
