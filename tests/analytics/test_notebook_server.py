# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A JupyterLab with certificates of an authority that revokes one while it runs, and without."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import websocket
from certified import PATIENCE, Certified, eventually
from notebook_page import NotebookPage

from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.neo import notebook_server
from slapos_wendelin.neo.notebook_example import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator


FORK = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=print, args=("from a fork",))
child.start()
child.join()
"""


class Server:
    """The program, in a folder like a partition."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notebooks = folder / "srv"
        self.log = folder / "log"
        self.notebooks.mkdir()
        self.port = free_ports(1)[0]
        self.process: psutil.Popen | None = None

    @contextmanager
    def running(self, *login: str) -> Iterator[psutil.Popen]:
        """Run it until it answers, and then until the context ends."""
        address = f"127.0.0.1:{self.port}"
        program = ("-m", "slapos_wendelin.neo.notebook_server", "--address", address)
        own = {"HOME": str(self.folder / "home"), "JUPYTER_RUNTIME_DIR": str(self.folder / "run")}
        with self.log.open("ab") as log:
            process = psutil.Popen(
                [sys.executable, *program, "--notebooks", str(self.notebooks), *login],
                cwd=self.folder,
                env={**os.environ, **own},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            eventually(lambda: self._listens(process))
            yield process
        finally:
            below = []
            # A test may have killed it.
            if process.poll() is None:
                below = process.children(recursive=True)
                process.terminate()
                process.wait(PATIENCE)
                psutil.wait_procs(below, PATIENCE)
        assert not [each for each in below if each.is_running()]

    def page(self, scheme: str = "https") -> str:
        """Return the address of the page."""
        return f"{scheme}://127.0.0.1:{self.port}/lab"

    def _listens(self, process: psutil.Popen) -> bool:
        assert process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def server() -> Iterator[Server]:
    # The paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        yield Server(Path(folder))


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    made = Certified(tmp_path)
    made.add("node")
    made.use("node")
    return made


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    """Return where a process and all below it listen."""
    found = set()
    for each in (process, *process.children(recursive=True)):
        for connection in each.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(tuple(connection.laddr))
    return found


def test_the_certificate_is_the_login_and_the_page_is_the_only_port(
    server: Server, certified: Certified
) -> None:
    certified.add("alice")
    with server.running("--certificates", str(certified.folder)) as process:
        page = NotebookPage(server.page(), certified.context("alice"))
        assert page.tell("GET", "/api/me")["identity"]["username"] == "alice"
        # Who takes up a session again is not asked whether the certificate is still good.
        assert page.connection.sock.version() == "TLSv1.3"
        assert not page.connection.sock.session.has_ticket
        kernel = page.start_kernel()
        assert kernel.run("import os; print(os.getcwd())") == f"{server.notebooks}\n"
        assert kernel.run("import importlib.util as u; print(u.find_spec('debugpy'))") == "None\n"
        assert kernel.run(FORK, until="\n") == "from a fork\n"
        assert listening(process) == {("127.0.0.1", server.port)}
        sockets = [path for path in (server.folder / "run").iterdir() if path.is_socket()]
        assert len(sockets) == 6
        assert (server.folder / "run").stat().st_mode & 0o777 == 0o700
        # Another web page that the user's browser shows can do nothing in the user's name.
        del page.headers["X-XSRFToken"]
        answer = page.ask("POST", "/api/kernels", {"name": "python3"})
        assert (answer.status, b"_xsrf" in answer.read()) == (403, True)
        page.headers["Host"] = "elsewhere.example"
        assert page.ask("GET", "/api/kernels").status == 403


def test_the_page_asks_nobody_whether_to_fetch_news(server: Server, certified: Certified) -> None:
    with server.running("--certificates", str(certified.folder)):
        page = NotebookPage(server.page(), certified.context("node"))
        shown = page.ask("GET", "/lab").read().decode()
    told = re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', shown, re.DOTALL)
    assert told
    assert (
        "@jupyterlab/apputils-extension:announcements" in json.loads(told[1])["disabledExtensions"]
    )


def test_open_connections_of_who_is_revoked_end_and_kernels_go_on(
    server: Server, certified: Certified
) -> None:
    for name in ("alice", "bob", "node-2"):
        certified.add(name)
    with server.running("--certificates", str(certified.folder)):
        alice, bob = (
            NotebookPage(server.page(), certified.context(name)) for name in ("alice", "bob")
        )
        kernels = [each.start_kernel() for each in (alice, bob)]
        assert [each.run("x = 1; print(x)") for each in kernels] == ["1\n", "1\n"]
        certified.use("node-2")
        eventually(lambda: shown(server.port, certified) == "node-2")
        certified.revoke("bob")
        kernels[1].socket.settimeout(PATIENCE)
        assert ends(kernels[1].socket)
        with pytest.raises((OSError, ValueError)):
            bob.get("/api")
        eventually(lambda: is_refused(server.page(), certified.context("bob")))
        assert kernels[0].run("print(x + 1)") == "2\n"
        assert {each["id"] for each in alice.tell("GET", "/api/kernels")} == {
            each.id for each in kernels
        }
        again = NotebookPage(server.page(), certified.context("alice"))
        assert again.tell("GET", "/api/me")["identity"]["username"] == "alice"


def ends(connection: websocket.WebSocket) -> bool:
    """Return whether the other side ends a connection before its time limit."""
    try:
        while connection.recv():
            pass
    except (TimeoutError, websocket.WebSocketTimeoutException):
        return False
    except (OSError, websocket.WebSocketConnectionClosedException):
        pass
    return True


def shown(port: int, certified: Certified) -> str:
    """Return whose certificate the server shows to a new connection."""
    context = certified.context("alice")
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain) as connection,
    ):
        certificate = connection.getpeercert()
    assert certificate
    return dict(pair for part in certificate["subject"] for pair in part)["commonName"]


def is_refused(url: str, context: ssl.SSLContext) -> bool:
    """Return whether the page refuses a certificate because it is revoked."""
    try:
        NotebookPage(url, context)
    except ssl.SSLError as error:
        return "REVOKED" in str(error)
    except OSError:
        pass
    return False


def test_without_certificates_a_token_of_the_partition_is_the_login(server: Server) -> None:
    file = server.folder / "token"
    with server.running("--token-file", str(file)) as process:
        token = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert len(token) >= 32
        page = NotebookPage(server.page("http"), None, token)
        assert page.start_kernel().run("print(2 * 3)") == "6\n"
        page.headers.clear()
        assert page.ask("GET", "/api/kernels").status == 403
        below = (process, *process.children(recursive=True))
        assert not [each for each in below if token in " ".join(each.cmdline())]
    assert token not in server.log.read_text()


def test_a_killed_server_starts_again_as_it_was_and_its_kernels_end(server: Server) -> None:
    file, example = server.folder / "token", server.notebooks / NAME
    with server.running("--token-file", str(file)) as process:
        token = file.read_text().strip()
        NotebookPage(server.page("http"), None, token).start_kernel()
        (kernel,) = process.children()
        process.kill()
        process.wait(PATIENCE)
        eventually(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
    assert len(json.loads(example.read_text())["cells"]) == 3
    example.unlink()
    with server.running("--token-file", str(file)):
        again = NotebookPage(server.page("http"), None, token)
        assert again.start_kernel().run("print(1)") == "1\n"
        # Who has removed the example does not want it.
        assert not example.exists()


def test_a_folder_that_is_too_deep_for_sockets_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / ("deep" * 25)))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "")
    options = ("--notebooks", str(tmp_path), "--token-file", str(tmp_path / "token"))
    assert notebook_server.main(["--address", "127.0.0.1:1", *options]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"notebook: the folder .* is too deep for sockets, .*\)\n", said)
    assert list(tmp_path.iterdir()) == []
