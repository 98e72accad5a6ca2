# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A false master learns nothing: every program that calls a master refuses it before it asks."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from false_master import FalseMaster, Victim, false_master

from slapos_wendelin import tokens
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.trust import AUTHORITY_VARIABLE, UntrustedMasterError

REFUSED = "is not the master: "
NOTHING_KNOWN = "there is nothing to recognise the master at https://"

#: An event of supervisord, after which the watchdog bangs.
EVENT = "processname:a-on-watch groupname:slappart0 from_state:RUNNING expected:0 pid:1"
EVENT_INPUT = (
    f"ver:3.0 server:s serial:1 pool:w poolserial:1 eventname:PROCESS_STATE_EXITED "
    f"len:{len(EVENT)}\n{EVENT}"
)

PROMISE = """
import sys
sys.path[0:0] = []
from zope.interface import implementer
from slapos.grid.promise import GenericPromise, interface
@implementer(interface.IPromise)
class RunPromise(GenericPromise):
    def __init__(self, config):
        super().__init__(config)
        self.setPeriodicity(minute=1)
    def sense(self):
        self.logger.error("broken")
    def test(self):
        return self._test(result_count=1, failure_amount=1)
    def anomaly(self):
        return self._anomaly(result_count=1, failure_amount=1)
"""


def run_promises(victim: Victim) -> str:
    """Run a promise that fails and asks the master for help, as slapgrid does it."""
    plugins = victim.folder / "inst/slappart0/etc/plugin"
    plugins.mkdir(parents=True)
    (plugins / "broken.py").write_text(PROMISE)
    runner = importlib.util.find_spec("slapos.grid.promise.runpromises")
    assert runner is not None
    assert runner.origin is not None
    pki = victim.folder / "ssl/partition_pki"
    options = {
        "promise-folder": plugins,
        "legacy-promise-folder": victim.folder / "none",
        "partition-folder": victim.folder / "inst/slappart0",
        "log-folder": victim.folder,
        "promise-timeout": 20,
        "master-url": victim.url,
        "partition-cert": pki / "slappart0.crt",
        "partition-key": pki / "slappart0.key",
        "partition-id": "slappart0",
        "computer-id": "paris",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    return victim.run("python", runner.origin, "--check-anomaly", *arguments)


def run_node_service(victim: Victim) -> str:
    """Start the service of the computer and stop it when it has told what it thinks of the master.

    The computer's supervisord is stopped too.
    """
    log = victim.folder / "service.log"
    command = [sys.executable, "-m", "slapos_wendelin.node", "--configuration", "slapos.cfg"]
    with (
        log.open("w") as stream,
        subprocess.Popen(command, cwd=victim.folder, stdout=stream, stderr=stream) as process,
    ):
        try:
            deadline = time.monotonic() + 300
            while "master" not in log.read_text() and process.poll() is None:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        finally:
            process.terminate()
    victim.run("slapos", "node", "supervisorctl", "shutdown")
    return log.read_text()


def register(victim: Victim, function: str) -> str:
    """Call what slapos.core's commands call to get a first certificate."""
    code = (
        "import logging; from slapos.cli.register import *; log = logging.getLogger();"
        f"print({function.format(url=repr(victim.url))})"
    )
    return victim.run("python", "-c", code)


#: Every program of the toolkit that calls a master, and how it is run.
CALLERS: dict[str, Callable[[Victim], str]] = {
    "slapos request": lambda victim: victim.run("slapos", "request", "cluster", "/release"),
    "slapos supply": lambda victim: victim.run("slapos", "supply", "/release", "paris"),
    "slapos service list": lambda victim: victim.run("slapos", "service", "list"),
    "slapos node format": lambda victim: victim.run("slapos", "node", "format", "--now"),
    "slapos node instance": lambda victim: victim.run("slapos", "node", "instance"),
    "slapos.core's own slapos": lambda victim: victim.run(
        "python", "-m", "slapos.cli.entry", "supply", "/release", "paris"
    ),
    "buildout": lambda victim: victim.run("buildout", folder="buildout-slapos_wendelin"),
    "buildout without our extension": lambda victim: victim.run(
        "buildout", folder="buildout-stock"
    ),
    "promises": run_promises,
    "watchdog": lambda victim: victim.run(
        "slapos-watchdog",
        *("--master-url", victim.url, "--computer-id", "paris"),
        *("--certificate-repository-path", str(victim.folder / "ssl/partition_pki")),
        given=EVENT_INPUT,
    ),
    "node service": run_node_service,
}

#: Programs that ask for a first certificate: they know the authority from the environment only.
JOINERS: dict[str, Callable[[Victim], str]] = {
    "slapos configure client": lambda victim: victim.run(
        "python",
        *("-m", "slapos.cli.entry", "configure", "client", "--token", "secret"),
        *("--master-url-web", victim.url, "--cfg", str(victim.folder / "new" / "client.cfg")),
    ),
    "slapos node register": lambda victim: register(
        victim, "get_certificate_key_pair(log, {url}, 'paris', token='secret')"
    ),
}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "true")


@pytest.fixture
def master(tmp_path: Path) -> Iterator[FalseMaster]:
    with false_master(Authority(tmp_path / "false")) as running:
        yield running


@pytest.mark.parametrize("caller", CALLERS)
def test_a_program_refuses_a_false_master_before_it_asks_anything(
    caller: str, master: FalseMaster, authority: Authority, tmp_path: Path
):
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="certificate")
    said = CALLERS[caller](victim)
    assert REFUSED in said
    assert master.connections
    assert not master.requests


@pytest.mark.parametrize("caller", ["slapos request", "slapos node instance"])
def test_the_authority_in_the_configuration_is_enough(
    caller: str, master: FalseMaster, authority: Authority, tmp_path: Path
):
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="configuration")
    assert REFUSED in CALLERS[caller](victim)
    assert master.connections
    assert not master.requests


@pytest.mark.parametrize(
    "caller",
    ["slapos request", "slapos service list", "slapos node instance", "buildout", "node service"],
)
def test_a_program_that_cannot_recognise_its_master_calls_nobody(
    caller: str, master: FalseMaster, authority: Authority, tmp_path: Path
):
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="nothing")
    said = CALLERS[caller](victim)
    assert NOTHING_KNOWN in said
    assert "master_ca_file" in said
    assert AUTHORITY_VARIABLE in said
    assert not master.connections


@pytest.mark.parametrize("joiner", JOINERS)
def test_a_first_certificate_is_asked_of_the_true_master_only(
    joiner: str,
    master: FalseMaster,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="nothing")
    assert NOTHING_KNOWN in JOINERS[joiner](victim)
    assert not master.connections
    monkeypatch.setenv(AUTHORITY_VARIABLE, str(authority.certificate_file))
    assert REFUSED in JOINERS[joiner](victim)
    assert master.connections
    assert not master.requests


@pytest.mark.parametrize("command", [("configure", "client"), ("node", "register", "paris")])
def test_a_token_is_told_to_the_master_that_made_it_only(
    command: tuple[str, ...], master: FalseMaster, authority: Authority, tmp_path: Path
):
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="nothing")
    token = tokens.join("secret", authority.fingerprint)
    options = ["--master-url", master.url, "--token", token, "--cfg", "new/slapos.cfg"]
    said = victim.run("slapos", *command, *options)
    assert "its authority is not the one of the token" in said
    said = victim.run("slapos", *command, *options, "--ca-file", str(authority.certificate_file))
    assert REFUSED in said
    assert master.connections == 2
    assert not master.requests


def test_the_same_server_is_believed_by_who_has_its_authority(master: FalseMaster, tmp_path: Path):
    """What refuses in the other tests is the check, not something else."""
    authority = Authority(tmp_path / "false")
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="certificate")
    victim.run("slapos", "supply", "/release", "paris")
    assert "POST /supplySupply" in master.requests


def test_a_client_of_the_api_refuses_a_false_master(master: FalseMaster, authority: Authority):
    client = MasterClient(master.url, ca_file=authority.certificate_file)
    with pytest.raises(UntrustedMasterError, match=REFUSED) as refusal:
        client.health()
    assert "nothing was sent to it" in refusal.value.remedy
    assert not master.requests


def test_a_client_of_the_api_refuses_what_it_cannot_recognise(master: FalseMaster):
    with pytest.raises(UntrustedMasterError, match=NOTHING_KNOWN):
        MasterClient(master.url)
    assert not master.connections


@pytest.mark.parametrize("name", ["missing.crt", "empty.crt", "leaf.crt"])
def test_a_file_without_an_authority_is_named(
    name: str, master: FalseMaster, authority: Authority, tmp_path: Path
):
    (tmp_path / "empty.crt").write_text("")
    victim = Victim(tmp_path / "victim", authority, master.url, knowing="nothing")
    (tmp_path / "leaf.crt").write_bytes((victim.folder / "ssl/client.crt").read_bytes())
    with pytest.raises(UntrustedMasterError, match=rf"{name} holds no certificate"):
        MasterClient(master.url, ca_file=tmp_path / name)


@pytest.mark.parametrize("url", ["http://192.0.2.1:5000", "http://master.example.org/"])
def test_no_master_is_called_in_clear_over_the_network(url: str):
    with pytest.raises(UntrustedMasterError, match="in clear over the network"):
        MasterClient(url)


def test_the_slap_library_calls_no_master_in_clear_over_the_network(
    authority: Authority, tmp_path: Path
):
    victim = Victim(tmp_path / "victim", authority, "http://192.0.2.1:5000", knowing="certificate")
    assert "in clear over the network" in CALLERS["slapos supply"](victim)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_proxy_of_the_environment_is_used(scheme: str, tmp_path: Path):
    authority = Authority(tmp_path / "false")
    with false_master(authority) as master, socket.create_server(("127.0.0.1", 0)) as proxy:
        url = master.url if scheme == "https" else f"http://127.0.0.1:{closed_port()}"
        victim = Victim(tmp_path / "victim", authority, url, knowing="certificate")
        address = "http://{}:{}".format(*proxy.getsockname())
        variables = {f"{name}_proxy": address for name in ("http", "https", "all")}
        variables |= {"no_proxy": ""}
        proxy.settimeout(0)
        victim.run("slapos", "supply", "/release", "paris", **variables)
        with pytest.raises(BlockingIOError):
            proxy.accept()
        assert bool(master.requests) == (scheme == "https")


def closed_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_redirection_to_where_nothing_is_checked_is_not_followed(tmp_path: Path):
    authority = Authority(tmp_path / "false")
    with false_master(authority) as master, socket.create_server(("127.0.0.1", 0)) as elsewhere:
        target = "http://{}:{}/".format(*elsewhere.getsockname())

        master.redirection = target
        victim = Victim(tmp_path / "victim", authority, master.url, knowing="certificate")
        elsewhere.settimeout(0)
        said = victim.run("slapos", "supply", "/release", "paris")
        assert "No connection adapters were found for" in said
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
