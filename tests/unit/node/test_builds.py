# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent builds releases from the cache and the mirror that its slapos.cfg names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from buildout_runs import buildout, serve
from computer import Computer, wait_for
from test_compiled import push
from test_mirror import python_release, wendelin
from test_recipe_compile import PROFILE, built, profile, publish, source

from slapos_wendelin import build_settings
from slapos_wendelin.compiled.keys import make_key

#: A program that does not name the folder that it was compiled for.
ANYWHERE = {
    "configure_options": "-DCMAKE_INSTALL_PREFIX=/none",
    "make_targets": "&& cmake --install build --prefix %(location)s",
}


def section(options: dict[str, str]) -> str:
    """Return the section of a release that compiles the small program."""
    text = PROFILE.partition("[tiny]")[2]
    return f"[program]{text}" + "".join(
        f"{name.replace('_', '-')} = {value}\n" for name, value in options.items()
    )


def write_software(computer: Computer, parts: str, text: str) -> None:
    """Write the release of a computer."""
    path = computer.folder / "release" / "software.cfg"
    path.write_text(f"[buildout]\nextends = slapos.cfg\nparts = {parts}\n{text}")


def configure(computer: Computer, settings: dict[str, str]) -> None:
    """Write where builds take things from into the computer's slapos.cfg."""
    text = computer.configuration.read_text().partition("\n[builds]")[0]
    computer.configuration.write_text(text + build_settings.section(settings))


def software(computer: Computer) -> dict[str, Any]:
    """Return what the master knows of the release."""
    (found,) = computer.client.status()["software"]
    return found


def wait_until_built(computer: Computer) -> None:
    """Wait until the release is there; fail with its error when there is one."""

    def is_built() -> bool:
        found = software(computer)
        assert found["reported_state"] != "error", found["error"]
        return found["reported_state"] == "available"

    wait_for(is_built, "the release is built")


@pytest.fixture
def cache(tmp_path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings of a cache that has the small program, and the program's options."""
    key = make_key(tmp_path / "key")
    with serve(tmp_path / "upstream") as server:
        options = publish(server, source()) | ANYWHERE
        # The name of a part decides where it is in a cache.
        folder = profile(tmp_path / "a", **options)
        text = (folder / "buildout.cfg").read_text()
        (folder / "buildout.cfg").write_text(
            text.replace("tiny show", "program show")
            .replace("[tiny]", "[program]")
            .replace("${tiny:", "${program:")
        )
        buildout(folder)
        assert push(built(folder), tmp_path / "cache", (tmp_path / "key", key))
    return {"compiled-cache": f"{tmp_path}/cache", "compiled-cache-keys": key}, options


def test_a_computer_that_may_not_compile_takes_from_the_cache_of_its_configuration(
    computer: Computer, cache: tuple[dict[str, str], dict[str, str]]
) -> None:
    settings, options = cache
    write_software(computer, "program", section(options))
    configure(computer, {"compile": "never"})
    computer.supply()
    computer.start()
    error = wait_for(lambda: software(computer)["error"], "it says why it does not compile")
    assert "WENDELIN_COMPILE=never forbids to compile it" in error
    # The agent that runs builds with what stands there by then.
    configure(computer, {"compile": "never", **settings})
    wait_for(lambda: software(computer)["reported_state"] == "available", "it is taken")
    assert f"taken from the cache {settings['compiled-cache']}" in computer.log


#: Takes ninja's place: says how far it is, and waits until it may go on.
MAKE = """\
#!/bin/sh
echo "[35/100] Building C object other.o"
while [ ! -e "$(dirname "$0")/gate" ]; do sleep 0.1; done
"""
FAULT = """\
echo "other.c:1:27: error: 'undeclared_name' undeclared"
exit 1
"""


@contextmanager
def building(computer: Computer, folder: Path, then: str) -> Iterator[Path]:
    """Let the computer build a release; yield the file for whose sake the compiler waits.

    :param then: the rest of what the compiler does.
    """
    script = folder / "make"
    script.write_text(MAKE + then)
    script.chmod(0o755)
    with serve(folder / "upstream") as server:
        options = publish(server, source()) | ANYWHERE | {"make_binary": str(script)}
        write_software(computer, "program", section(options))
        computer.supply()
        computer.start()
        yield folder / "gate"


def test_status_shows_everywhere_how_far_a_build_is(computer: Computer, tmp_path: Path) -> None:
    with building(computer, tmp_path, 'exec ninja "$@"') as gate:
        wait_for(lambda: (software(computer)["progress"] or {}).get("percent"), "it is told")
        assert software(computer)["progress"] == {"stage": "program", "percent": 35}
        for command in (("cluster", "status"), ("computer", "show", "paris"), ("node", "status")):
            shown = computer.slapos(*command).stdout
            assert "building: program 35 %" in shown, shown
        (told,) = json.loads(computer.slapos("node", "status", "--json").stdout)["software"]
        assert (told["state"], told["progress"]["percent"]) == ("building", 35)
        gate.touch()
        wait_until_built(computer)
    assert software(computer)["progress"] is None


def test_a_build_that_fails_is_told_with_its_fault_and_where_all_output_is(
    computer: Computer, tmp_path: Path
) -> None:
    with building(computer, tmp_path, FAULT) as gate:
        gate.touch()
        found = wait_for(lambda: has_failed(computer), "it has failed")
        assert found["progress"] is None
        assert "other.c:1:27: error: 'undeclared_name' undeclared" in found["error"]
        # Each try replaces the log of the one before.
        (log,) = wait_for(lambda: logs(computer), "there is all output")
        assert f"all output is in {log}" in found["error"]
        for command in (("cluster", "status"), ("node", "status")):
            wait_until_told(computer, command, "undeclared_name", str(log))


def has_failed(computer: Computer) -> dict[str, Any] | None:
    """Return what the master knows of the release when its build has failed."""
    found = software(computer)
    return found if found["reported_state"] == "error" else None


def logs(computer: Computer) -> list[Path]:
    """Return the logs of the small program's builds that have all output."""
    return [
        path
        for path in computer.folder.glob("soft/*/parts/program/*.log")
        if path.exists() and "Building C object" in path.read_text()
    ]


def wait_until_told(computer: Computer, command: tuple[str, ...], *texts: str) -> None:
    """Wait until a command tells something; while a build is tried again, it tells that."""

    def tells() -> bool:
        shown = computer.slapos(*command).stdout
        return all(text in shown for text in texts)

    wait_for(tells, f"{command} tells it")


@pytest.mark.parametrize("served", [False, True])
def test_a_release_is_built_from_the_mirror_of_the_configuration_and_nothing_else(
    computer: Computer, tmp_path: Path, served: bool
) -> None:
    with serve(tmp_path / "upstream") as index:
        release = python_release(tmp_path / "release", index) / "software" / "small"
        profile_text = (release / "software.cfg").read_text()
        text = profile_text.replace("parts = small", "parts = small program")
        digest = index.add("program", "program-1.0.tar.gz", source())
        options = {"url": f"{index.url}/program/program-1.0.tar.gz", "sha256": digest}
        (release / "software.cfg").write_text(text + section(options))
        done = wendelin(tmp_path, "mirror", "mirror", PIP_INDEX_URL=index.url, UV_DEFAULT_INDEX="")
        assert done.returncode == 0, done.stdout
    for path in release.iterdir():
        shutil.copy(path, computer.folder / "release")
    with serve(tmp_path / "mirror") as server:
        place = server.url.removesuffix("/simple") if served else f"{tmp_path}/mirror"
        configure(computer, {"source-mirror": place})
        computer.supply()
        computer.start()
        wait_until_built(computer)
    fetched = {"program-1.0.tar.gz", "tiny-1.0.tar.gz", "needed-2.0-py3-none-any.whl"}
    assert (fetched <= set(server.fetched)) == served
