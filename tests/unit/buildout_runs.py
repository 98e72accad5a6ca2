# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of profiles and recipes share: real buildout runs, a Python index on loopback."""

import base64
import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

BUILDOUT = Path(sys.executable).with_name("buildout")

BASE = """\
[buildout]
extensions = slapos_wendelin
newest = false
index = file:///nowhere
eggs-directory-version =
"""


def write(path: Path, text: str) -> Path:
    """Write a text with its indentation removed; make the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Return an environment in which only the given indexes and a private cache are known."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))
    }
    return kept | {
        "HOME": str(home),
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(home / "uv-cache"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
        # Longer than an index waits for its gate.
        "UV_HTTP_TIMEOUT": "600",
        **settings,
    }


def buildout(
    folder: Path, *arguments: str, status: int = 0, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run buildout in a folder and require an exit status; return what it printed."""
    result = subprocess.run(
        [BUILDOUT, *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == status, result.stdout
    assert "internal error" not in result.stdout, result.stdout
    return result


def source_archive(name: str, version: str, code: str = "value = 1\n") -> bytes:
    """Return the source archive of a project with one module."""
    files = {
        "pyproject.toml": (
            '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            f'[project]\nname = "{name}"\nversion = "{version}"\n'
            f'[tool.setuptools]\npackages = ["{name}"]\n'
        ),
        f"{name}/__init__.py": code,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    return archive({f"{name}-{version}/{path}": text for path, text in files.items()})


def archive(files: dict[str, str]) -> bytes:
    """Return a tar.gz archive of text files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def wheel(name: str, version: str, *, requires: str = "", padding: int = 0) -> bytes:
    """Return a wheel with one module, which may require something and be large."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}/__init__.py": b"value = 1\n",
        f"{name}/data.bin": os.urandom(padding),
        f"{info}/METADATA": (metadata + (f"Requires-Dist: {requires}\n" * bool(requires))).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for path, content in {**files, f"{info}/RECORD": record.encode()}.items():
            target.writestr(path, content)
    return stream.getvalue()


def sha256(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class Index:
    """A Python index that a test fills, and that counts what is fetched.

    While ``gate`` is cleared, requests for files wait. Where ``login`` is set, others are refused.
    """

    #: User and password, with a colon in between.
    login = ""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = f"{url}/simple"
        self.fetched: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def add(self, project: str, filename: str, content: bytes) -> str:
        """Publish a file; return the SHA-256 of its content."""
        folder = self.folder / "simple" / project
        folder.mkdir(parents=True, exist_ok=True)
        (folder / filename).write_bytes(content)
        links = [f'<a href="{path.name}">{path.name}</a>' for path in folder.glob("*-*")]
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body>")
        return sha256(content)

    def lock(self, path: Path, name: str, version: str, **details: object) -> Path:
        """Publish a wheel and write a lock that names it alone."""
        content = wheel(name, version, **details)
        digest = self.add(name, f"{name}-{version}-py3-none-any.whl", content)
        return write(path, f"{name}=={version} --hash=sha256:{digest}\n")


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder for an Index."""

    index: Index

    def do_GET(self) -> None:
        """Note the file's name, wait for the gate, answer."""
        token = base64.b64encode(self.index.login.encode()).decode()
        if self.index.login and self.headers["Authorization"] != f"Basic {token}":
            self.send_error(401)
            return
        if "." in self.path.rpartition("/")[2]:
            self.index.fetched.append(self.path.rpartition("/")[2])
            self.index.gate.wait(300)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serve(folder: Path) -> Iterator[Index]:
    """Serve a folder as Python index (and as anything else) on loopback."""
    handler = type("Handler", (_Handler,), {})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(folder))
    )
    index = handler.index = Index(folder, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        index.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
