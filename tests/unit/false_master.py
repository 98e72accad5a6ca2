# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that pretends to be a master, and a computer and a user whom it would like to fool."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slapos_wendelin.certificates import Subject
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.tls import HttpServer, ServerContexts, TlsAdapter

PROGRAMS = Path(sys.executable).parent

NODE = """\
[slapos]
computer_id = paris
master_url = {url}
{authority}
cert_file = {folder}/ssl/computer.crt
key_file = {folder}/ssl/computer.key
certificate_repository_path = {folder}/ssl/partition_pki
software_root = {folder}/soft
instance_root = {folder}/inst
root_check = False
forbid_supervisord_automatic_launch = true
pidfile_software = {folder}/software.pid
pidfile_instance = {folder}/instance.pid
pidfile_report = {folder}/report.pid
[slapformat]
root_check = False
input_definition_file = {folder}/definition.cfg
computer_xml = {folder}/slapos.xml
partition_amount = 1
alter_user = False
alter_network = False
create_tap = False
"""

DEFINITION = """\
[computer]
address = 127.0.0.1/8
[partition_0]
address = 127.0.0.1/8
pathname = slappart0
user = {user}
network_interface = lo
"""

CLIENT = """\
[slapos]
master_url = {url}
{authority}
[slapconsole]
cert_file = {folder}/ssl/client.crt
key_file = {folder}/ssl/client.key
"""

BUILDOUT = """\
[buildout]
{extensions}
parts = request
offline = true
eggs-directory-version =

[request]
recipe = slapos.cookbook:request
software-url = /release
name = child
server-url = {url}
key-file = {folder}/ssl/partition_pki/slappart0.key
cert-file = {folder}/ssl/partition_pki/slappart0.crt
computer-id = paris
partition-id = slappart0

[slap-connection]
requested = started
"""


class FalseMaster:
    """Counts who connects, and keeps every request that somebody sends nevertheless."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = 0
        self.requests: list[str] = []
        #: Where to send callers, if anywhere.
        self.redirection = ""

    def answer(self, environ, start_response):
        """Answer as a master would to whom the caller listens."""
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        headers = [("Content-Type", "text/plain"), ("Content-Length", "2")]
        if self.redirection:
            start_response("302 Found", [*headers, ("Location", self.redirection)])
        else:
            start_response("200 OK", headers)
        return [b"{}"]


@contextmanager
def false_master(authority: Authority) -> Iterator[FalseMaster]:
    """Run a server with a certificate of an authority, for the address at which it listens."""
    adapter = TlsAdapter(ServerContexts(authority, ["127.0.0.1", "localhost"]))
    server = HttpServer(("127.0.0.1", 0), None, numthreads=2)
    server.expiration_interval = 0.02
    server.ssl_adapter = adapter
    server.prepare()
    master = FalseMaster("https://{}:{}/".format(*server.bind_addr))
    server.wsgi_app = master.answer
    stock_wrap = adapter.wrap

    def wrap(sock):
        master.connections += 1
        return stock_wrap(sock)

    adapter.wrap = wrap
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield master
    finally:
        server.stop()
        thread.join()


class Victim:
    """The files of a computer and of a user who have joined another master than the false one."""

    def __init__(self, folder: Path, authority: Authority, url: str, *, knowing: str) -> None:
        """Write the files.

        :param knowing: how they recognise their master: ``certificate`` (the authority's follows
            their own), ``configuration`` (it names the file) or nothing.
        """
        self.folder = folder
        self.url = url
        for name in ("ssl/partition_pki", "soft", "inst/slappart0"):
            (folder / name).mkdir(parents=True)
        (folder / "inst/slappart0").chmod(0o750)
        owners = {
            "ssl/computer": Subject("computer", "paris"),
            "ssl/client": Subject("user", "alice"),
            "ssl/partition_pki/slappart0": Subject("partition", "SOFTINST-1"),
        }
        for path, subject in owners.items():
            issued = authority.issue_with_key(subject)
            certificate = issued.certificate
            if knowing != "certificate":
                certificate = certificate.partition("-----END CERTIFICATE-----\n")[0]
                certificate += "-----END CERTIFICATE-----\n"
            (folder / f"{path}.crt").write_text(certificate)
            (folder / f"{path}.key").write_text(issued.key)
        line = f"master_ca_file = {authority.certificate_file}" * (knowing == "configuration")
        for name, text in {"slapos.cfg": NODE, "client.cfg": CLIENT}.items():
            (folder / name).write_text(text.format(url=url, folder=folder, authority=line))
        (folder / "definition.cfg").write_text(DEFINITION.format(user=getpass.getuser()))
        for extensions in ("", "slapos_wendelin"):
            name = f"buildout-{extensions or 'stock'}"
            (folder / name).mkdir()
            line = f"extensions = {extensions}" if extensions else ""
            text = BUILDOUT.format(url=url, folder=folder, extensions=line)
            (folder / name / "buildout.cfg").write_text(text)

    def run(self, *command: str, given: str = "", folder: str = "", **variables: str) -> str:
        """Run a program of the toolkit and return what it said."""
        return subprocess.run(
            [str(PROGRAMS / command[0]), *command[1:]],
            cwd=self.folder / folder,
            env=os.environ
            | {
                "HOME": str(self.folder),
                "SLAPOS_CONFIGURATION": str(self.folder / "slapos.cfg"),
                "SLAPOS_CLIENT_CONFIGURATION": str(self.folder / "client.cfg"),
                **variables,
            },
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        ).stdout
