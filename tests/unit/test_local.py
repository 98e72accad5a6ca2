# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of ./wendelin keeps to its folder and its addresses."""

import argparse
import io
import os
import re
import socket
from pathlib import Path

import pytest
from rich.console import Console

from slapos_wendelin import build_settings
from slapos_wendelin.cli import local as commands
from slapos_wendelin.compiled.keys import make_key
from slapos_wendelin.errors import MissingRequirementError, ParameterError
from slapos_wendelin.local.computers import configure_computer
from slapos_wendelin.local.home import DATA_CENTERS, MASTER_PORT, PARTITION_COUNT, Home
from slapos_wendelin.local.progress import Progress
from slapos_wendelin.local.services import Services


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home", "127.251")


def test_every_partition_has_an_address_of_its_own(home):
    addresses = [
        home.partition_address(computer, number)
        for computer in DATA_CENTERS
        for number in range(PARTITION_COUNT)
    ]
    assert len(set(addresses)) == len(addresses)
    assert all(address.startswith("127.251.") for address in addresses)
    assert home.master_address.split(":")[0] not in addresses


def test_the_folder_decides_the_addresses(monkeypatch):
    monkeypatch.delenv("WENDELIN_NETWORK", raising=False)
    networks = set()
    for name in ("/a", "/b", "/a"):
        monkeypatch.setenv("WENDELIN_HOME", name)
        networks.add(Home.from_environment().network)
    assert len(networks) == 2


@pytest.mark.parametrize("network", ["10.0", "127", "127.0", "127.255", "127.a", "127.1.2"])
def test_a_network_that_others_could_reach_is_refused(monkeypatch, network):
    monkeypatch.setenv("WENDELIN_HOME", "/a")
    monkeypatch.setenv("WENDELIN_NETWORK", network)
    with pytest.raises(MissingRequirementError, match=f"WENDELIN_NETWORK={network} is no part"):
        Home.from_environment()


def test_a_folder_too_deep_for_sockets_is_refused(monkeypatch):
    monkeypatch.setenv("WENDELIN_HOME", "/" + "x" * 90)
    with pytest.raises(MissingRequirementError, match="is too long"):
        Home.from_environment()


def test_two_commands_do_not_work_on_one_environment(home):
    with (
        home.locked(),
        pytest.raises(MissingRequirementError, match="another command"),
        home.locked(),
    ):
        pass


def test_configuring_a_computer_twice_gives_the_same_files(home):
    for _ in range(2):
        configure_computer(home, "tokyo")
    definition = (home.computer("tokyo") / "definition.cfg").read_text()
    assert definition.count("[partition_") == PARTITION_COUNT
    assert "127.251.2.10/255.255.255.255" in definition
    assert home.master_url in home.computer_configuration("tokyo").read_text()


def test_what_up_was_told_of_builds_reaches_the_computers_and_nobody_else(home, monkeypatch):
    key = make_key(home.root / "key")
    told = {
        "WENDELIN_COMPILED": "https://me:secret@cache.example.org",
        "WENDELIN_COMPILED_KEYS": key,
        "WENDELIN_COMPILE": "never",
        "WENDELIN_MIRROR": "/srv/mirror",
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    configure_computer(home, "tokyo")
    configuration = home.computer_configuration("tokyo")
    index = {"UV_DEFAULT_INDEX": "file:///srv/mirror/python/simple"}
    assert build_settings.environment(build_settings.read(configuration)) == told | index
    assert configuration.stat().st_mode & 0o077 == 0
    for name in told:
        monkeypatch.delenv(name)
    configure_computer(home, "tokyo")
    assert build_settings.read(configuration) == {}


def test_a_cache_that_up_cannot_use_is_named_with_its_variable(home, monkeypatch):
    monkeypatch.setenv("WENDELIN_COMPILED", "cache")
    with pytest.raises(ParameterError, match="WENDELIN_COMPILED is 'cache', no absolute path"):
        configure_computer(home, "tokyo")


def test_a_taken_port_of_the_master_is_named_before_anything_starts(tmp_path):
    # No other run of the tests has a process of this number.
    home = Home(tmp_path / "home", f"127.{200 + os.getpid() % 50}")
    home.root.mkdir()
    services = Services(home)
    with socket.create_server((home.master_address.split(":")[0], MASTER_PORT)):
        with pytest.raises(MissingRequirementError) as caught:
            services.start()
        assert f"{home.master_address}: Address already in use" in caught.value.message
        assert "WENDELIN_NETWORK" in caught.value.remedy
    assert not services.running()


def test_erasing_removes_what_is_ours_and_nothing_else(tmp_path):
    for name in ("computers", "master", "parts"):
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    commands._erase(tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_erasing_without_a_terminal_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WENDELIN_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO("erase\n"))
    with pytest.raises(MissingRequirementError, match="no terminal"):
        commands.down(argparse.Namespace(erase=True, yes=False))


def test_every_entry_that_is_made_is_erased():
    source = Path(commands.__file__).parents[1]
    texts = [path.read_text() for path in (source / "local").glob("*.py")]
    texts.append((Path(__file__).parents[2] / "wendelin").read_text())
    made = set(re.findall(r'(?:root / "|WENDELIN_HOME/)([a-z.-]+)', "\n".join(texts)))
    assert made <= set(commands.ENTRIES)


def test_a_step_is_one_line_with_its_time_and_its_outcome():
    output = io.StringIO()
    progress = Progress(Console(file=output))
    with progress.step("build"):
        pass
    with pytest.raises(ValueError, match="no"), progress.step("start"):
        raise ValueError("no")
    build, start = output.getvalue().splitlines()
    assert re.fullmatch(r"✓ build +\d+\.\d s", build)
    assert re.fullmatch(r"✗ start +\d+\.\d s", start)
