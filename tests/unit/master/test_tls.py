# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients of the master's TLS get: the good ones, the strangers and the ones that dawdle."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from slapos_wendelin.certificates import Subject, subject_of
from slapos_wendelin.master import tls
from slapos_wendelin.master.authority import Authority, Lifetimes
from slapos_wendelin.master.errors import ListenError
from slapos_wendelin.master.server import MasterServer, default_names
from slapos_wendelin.master.tls import CERTIFICATE, HttpServer, ServerContexts, TlsAdapter

ALICE = Subject("user", "alice")

#: A request of 64 bytes, so that one ends where the server's buffer of 8192 bytes does.
REQUEST = b"GET /%04d HTTP/1.1\r\nHost: localhost\r\nAccept: */*;q=1.0000000\r\n\r\n"


def tell_caller(environ, start_response):
    """Answer with what the server knows of the request."""
    certificate = environ.get(CERTIFICATE)
    caller = None if certificate is None else str(subject_of(certificate))
    answer = {"caller": caller, "scheme": environ["wsgi.url_scheme"], "path": environ["PATH_INFO"]}
    text = json.dumps(answer).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    start_response("200 OK", headers)
    return [text]


class Server:
    """A running server with an authority of its own."""

    def __init__(self, authority: Authority, timeout: float = 240) -> None:
        self.authority = authority
        adapter = TlsAdapter(ServerContexts(authority, ["127.0.0.1"]))
        self._server = HttpServer(("127.0.0.1", 0), tell_caller, numthreads=16, timeout=timeout)
        self._server.expiration_interval = 0.02
        self._server.error_log = lambda *_, **__: None
        self._server.ssl_adapter = adapter
        self._server.prepare()
        self.address = self._server.bind_addr
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join()

    def context(self, *, owner: Authority | None, subject: Subject = ALICE, lifetime=None):
        """Return the settings of a client that has a certificate of an authority, or none."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate_file))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if owner is not None:
            issued = owner.issue_with_key(subject, lifetime)
            path = self.authority.folder / "client.pem"
            path.write_text(issued.key + issued.certificate)
            context.load_cert_chain(path)
        return context

    def client(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self.address, context=context, timeout=60)

    def ask(self, context: ssl.SSLContext, path: str = "/") -> dict[str, str | None]:
        """Send one request and return the answer."""
        client = self.client(context)
        try:
            return ask(client, path)
        finally:
            client.close()


def ask(client: http.client.HTTPSConnection, path: str = "/") -> dict[str, str | None]:
    """Send a request on a connection and return the answer."""
    client.request("GET", path)
    return json.load(client.getresponse())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    running = Server(authority)
    yield running
    running.stop()


def test_the_application_is_told_whose_certificate_the_caller_has(server: Server):
    answer = server.ask(server.context(owner=server.authority))
    assert answer == {"caller": "user/alice", "scheme": "https", "path": "/"}


def test_a_caller_without_a_certificate_is_let_in_as_nobody(server: Server):
    assert server.ask(server.context(owner=None))["caller"] is None


def test_a_certificate_of_another_authority_is_refused(server: Server, tmp_path: Path):
    context = server.context(owner=Authority(tmp_path / "other"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.ask(context)


def test_an_expired_certificate_is_refused(server: Server):
    context = server.context(owner=server.authority, lifetime=timedelta(seconds=-1))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.ask(context)


def test_the_masters_own_certificate_does_not_make_a_caller(server: Server):
    context = server.context(owner=None)
    context.load_cert_chain(server.authority.server_certificate(["127.0.0.1"]))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.ask(context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_of_today_is_spoken(server: Server, version: ssl.TLSVersion):
    context = server.context(owner=server.authority)
    context.minimum_version = context.maximum_version = version
    assert server.ask(context)["caller"] == "user/alice"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_tls_is_refused(server: Server):
    context = server.context(owner=server.authority)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.ask(context)


def test_a_client_that_speaks_plain_http_is_told_so(server: Server):
    client = http.client.HTTPConnection(*server.address, timeout=60)
    client.request("GET", "/")
    answer = client.getresponse()
    assert answer.status == 400
    assert b"use https" in answer.read()
    client.close()


def test_requests_that_come_together_are_all_answered(server: Server):
    with (
        socket.create_connection(server.address, timeout=60) as raw,
        server.context(owner=None).wrap_socket(raw, server_hostname="127.0.0.1") as client,
    ):
        # Within one record of TLS, more than the server reads at once.
        count = 200
        assert len(REQUEST % 0) == 64
        client.sendall(b"".join(REQUEST % number for number in range(count)))
        answers = b""
        while answers.count(b'"path"') < count:
            piece = client.recv(65536)
            assert piece, "the server closed the connection"
            answers += piece


def test_a_large_body_that_nobody_reads_is_not_waited_for(server: Server):
    with (
        socket.create_connection(server.address, timeout=60) as raw,
        server.context(owner=None).wrap_socket(raw, server_hostname="127.0.0.1") as client,
    ):
        head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
        client.sendall(head.encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer


def half_hello(address: tuple[str, int]) -> socket.socket:
    """Connect and send the beginning of a handshake only."""
    hello, unused = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(unused, hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    connection = socket.create_connection(address, timeout=60)
    connection.sendall(hello.read()[:100])
    return connection


def test_clients_that_never_finish_the_handshake_block_nobody(server: Server):
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(server.address))
            stack.enter_context(half_hello(server.address))
        assert server.ask(server.context(owner=server.authority))["caller"] == "user/alice"


@contextmanager
def strangers_that_never_finish_a_request(server: Server) -> Iterator[None]:
    """Keep open more requests than the server has workers."""
    context = server.context(owner=None)
    with ExitStack() as stack:
        for _ in range(40):
            raw = socket.create_connection(server.address, timeout=60)
            client = stack.enter_context(context.wrap_socket(raw, server_hostname="127.0.0.1"))
            client.sendall(b"GET / HTTP/1.1\r\n")
        yield


def test_strangers_that_never_finish_a_request_block_no_caller_with_a_certificate(server: Server):
    with strangers_that_never_finish_a_request(server):
        assert server.ask(server.context(owner=server.authority))["caller"] == "user/alice"


def test_strangers_are_served_again_when_others_have_gone(server: Server):
    with strangers_that_never_finish_a_request(server):
        pass
    deadline = time.monotonic() + 120
    while True:
        try:
            assert server.ask(server.context(owner=None))["caller"] is None
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
        else:
            break


def test_a_handshake_that_takes_too_long_is_dropped_even_when_bytes_trickle(authority: Authority):
    server = Server(authority, timeout=0.3)
    try:
        with half_hello(server.address) as client:
            client.settimeout(0.2)
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                try:
                    client.sendall(b"\0")
                    if client.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                pytest.fail("the connection stayed open")
    finally:
        server.stop()


def test_more_connections_than_files_allow_are_closed_at_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tls, "_connection_limit", lambda: 5)
    server = Server(authority)
    try:
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(server.address, timeout=60))
                for _ in range(6)
            ]
            assert clients[-1].recv(1) == b""
    finally:
        server.stop()


def serial_of_server(client: http.client.HTTPSConnection) -> int:
    """Return the serial number of the certificate that a client was shown."""
    assert isinstance(client.sock, ssl.SSLSocket)
    encoded = client.sock.getpeercert(binary_form=True)
    assert encoded is not None
    return x509.load_der_x509_certificate(encoded).serial_number


def serials_of_two_connections(server: Server) -> tuple[int, int]:
    """Connect twice and return the serial numbers; both connections must work to the end."""
    context = server.context(owner=server.authority)
    first, second = server.client(context), server.client(context)
    ask(first)
    ask(second)
    serials = serial_of_server(first), serial_of_server(second)
    assert ask(first, "/again")["path"] == "/again"
    first.close()
    second.close()
    return serials


def test_new_connections_get_the_renewed_certificate_and_old_ones_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tls, "RENEWAL_INTERVAL", 0)
    # So short a life is always near its end.
    server = Server(Authority(tmp_path / "a", Lifetimes(server=timedelta(minutes=1))))
    try:
        first, second = serials_of_two_connections(server)
        assert first != second
    finally:
        server.stop()


def test_one_process_renews_the_certificate_and_the_others_take_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tls, "RENEWAL_INTERVAL", 0)
    folder = tmp_path / "authority"
    servers = [Server(Authority(folder)) for _ in range(2)]
    try:
        (path,) = folder.glob("server-*.pem")
        path.unlink()
        # So short a life is always near its end.
        Authority(folder, Lifetimes(server=timedelta(minutes=1))).server_certificate(["127.0.0.1"])
        ending = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        serials = [serials_of_two_connections(server) for server in servers]
        assert serials[0] == serials[1]
        assert ending not in serials[0]
        assert len(set(serials[0])) == 1
    finally:
        for server in servers:
            server.stop()


def test_a_certificate_that_is_good_is_kept(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tls, "RENEWAL_INTERVAL", 0)
    first, second = serials_of_two_connections(server)
    assert first == second


def test_a_master_that_cannot_renew_its_certificate_goes_on_with_the_one_it_has(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    context = server.context(owner=server.authority)
    monkeypatch.setattr(tls, "RENEWAL_INTERVAL", 0)
    shutil.rmtree(server.authority.folder)
    assert server.ask(context)["caller"] == "user/alice"


def test_a_master_listens_with_tls_unless_it_is_told_otherwise(tmp_path: Path):
    with pytest.raises(ListenError, match="needs a certificate authority") as refusal:
        MasterServer(tmp_path / "master.sqlite", "127.0.0.1", 0)
    assert "--plain" in refusal.value.remedy
    assert not (tmp_path / "master.sqlite").exists()


def test_a_master_with_tls_answers_at_an_https_url(tmp_path: Path, authority: Authority):
    server = MasterServer(tmp_path / "master.sqlite", "127.0.0.1", 0, authority=authority)
    assert server.url.startswith("https://127.0.0.1:")
    server.stop()


def test_a_master_is_called_by_its_address_and_on_loopback_as_localhost():
    assert default_names("192.0.2.1") == {"192.0.2.1"}
    assert default_names("127.0.0.7") == {"127.0.0.7", "localhost"}
    everywhere = default_names("0.0.0.0")  # noqa: S104
    assert {"127.0.0.1", "localhost", socket.gethostname()} <= everywhere
    assert "0.0.0.0" not in everywhere  # noqa: S104
