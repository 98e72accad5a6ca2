# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe slapos_wendelin:compile, in real buildout runs with a small program in C."""

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from buildout_runs import BASE, BUILDOUT, archive, buildout, environment, serve, write

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.recipe.compile import job_count
from slapos_wendelin.recipe.compiler_output import (
    is_out_of_memory,
    percentage,
    useful_lines,
)
from slapos_wendelin.recipe.mirrored import archive_place
from slapos_wendelin.recipe.shared import MARKER

CMAKE = """\
cmake_minimum_required(VERSION 3.18)
project(tiny C)
add_executable(tiny tiny.c other.c)
install(TARGETS tiny DESTINATION bin)
"""
MAIN = """\
#include <stdio.h>
int other(void);
int main(void) { printf("%d\\n", other()); return 0; }
"""
OTHER = "int other(void) { return 42; }\n"

PROFILE = """\
parts = tiny show
shared-part-list = ${buildout:directory}/shared
[tiny]
recipe = slapos_wendelin:compile
configure-command = cmake -S . -B build -G Ninja
configure-options = -DCMAKE_INSTALL_PREFIX=@@LOCATION@@
make-binary = ninja
make-options = -C build -j%(jobs)s
promises = @@LOCATION@@/bin/tiny
"""


def source(**files):
    files = {"CMakeLists.txt": CMAKE, "tiny.c": MAIN, "other.c": OTHER} | files
    return archive({f"tiny-1.0/{name}": text for name, text in files.items()})


@pytest.fixture
def server(tmp_path):
    with serve(tmp_path / "upstream") as index:
        yield index


def publish(server, content):
    digest = server.add("tiny", "tiny-1.0.tar.gz", content)
    return {"url": f"{server.url}/tiny/tiny-1.0.tar.gz", "sha256": digest}


def profile(folder, **options):
    lines = [f"{name.replace('_', '-')} = {value}\n" for name, value in options.items()]
    show = "[show]\nrecipe = slapos.recipe.template:jinja2\noutput = ${buildout:directory}/place\n"
    show += "inline = ${tiny:location}\n"
    write(folder / "buildout.cfg", BASE + PROFILE + "".join(lines) + show)
    (folder / "shared").mkdir(exist_ok=True)
    return folder


def built(folder):
    return Path((folder / "place").read_text())


def said(folder):
    return subprocess.check_output([built(folder) / "bin" / "tiny"], text=True)


def parts(folder):
    return [path for path in (folder / "shared" / "tiny").iterdir() if path.is_dir()]


def test_a_program_is_compiled_once_and_tells_how_far_it_is(tmp_path, server):
    profile(tmp_path, **publish(server, source()))
    output = buildout(tmp_path).stdout
    assert "tiny: compiling: 100 %" in output
    assert said(tmp_path) == "42\n"
    assert not list(built(tmp_path).rglob(".build"))
    assert not list((tmp_path / "shared" / "tiny").glob("*.log"))
    again = buildout(tmp_path).stdout
    assert "compiling" not in again
    assert server.fetched == ["tiny-1.0.tar.gz"]


def test_another_archive_than_the_pinned_one_is_refused(tmp_path, server):
    options = publish(server, source())
    (tmp_path / "cache").mkdir()
    profile(tmp_path, **{**options, "sha256": "0" * 64})
    output = buildout(tmp_path, f"buildout:download-cache={tmp_path}/cache", status=1).stdout
    assert f"tiny-1.0.tar.gz has sha256 {options['sha256']}, not {'0' * 64}" in output
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_file()]
    assert not parts(tmp_path)


def test_a_source_that_cannot_be_fetched_is_named_with_the_remedy(tmp_path):
    profile(tmp_path, url="http://127.0.0.1:9/tiny.tar.gz", sha256="0" * 64)
    output = buildout(tmp_path, status=1).stdout
    assert "http://127.0.0.1:9/tiny.tar.gz" in output
    assert "./wendelin mirror" in output


@pytest.fixture
def mirrored(tmp_path, server):
    """Return the options of a program whose source is on a mirror only, and the mirror."""
    content = source()
    url = "http://127.0.0.1:9/source/tiny-1.0.tar.gz"
    options = {"url": url, "sha256": hashlib.sha256(content).hexdigest()}
    place = tmp_path / "upstream" / archive_place(url, options["sha256"])
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    return options, {False: str(tmp_path / "upstream"), True: server.url.removesuffix("/simple")}


@pytest.mark.parametrize("served", [False, True])
def test_a_source_comes_from_the_mirror_that_is_named(tmp_path, mirrored, served):
    options, mirror = mirrored
    work = tmp_path / "work"
    work.mkdir()
    profile(tmp_path, **options)
    offline = [] if served else ["buildout:offline=true"]
    buildout(tmp_path, *offline, WENDELIN_MIRROR=mirror[served], TMPDIR=str(work))
    assert said(tmp_path) == "42\n"
    assert not list(work.iterdir())


@pytest.mark.parametrize("served", [False, True])
def test_a_mirror_that_lacks_a_source_or_has_another_is_named(tmp_path, mirrored, served):
    options, mirror = mirrored
    work = tmp_path / "work"
    work.mkdir()
    settings = {"WENDELIN_MIRROR": mirror[served], "TMPDIR": str(work)}
    profile(tmp_path, **options)
    (held,) = (tmp_path / "upstream").glob("sources/*/*")
    held.write_bytes(b"damaged")
    output = buildout(tmp_path, status=1, **settings).stdout
    assert f"of the mirror {mirror[served]} has sha256" in output
    assert held.exists()
    held.unlink()
    output = buildout(tmp_path, status=1, **settings).stdout
    assert f"the mirror has no {mirror[served]}/sources/" in output
    assert "./wendelin mirror FOLDER" in output
    assert "Traceback" not in output
    assert not list(work.iterdir())


def test_a_mirror_that_cannot_be_reached_is_named_without_its_password(tmp_path, mirrored):
    options, _ = mirrored
    profile(tmp_path, **options)
    settings = {"WENDELIN_MIRROR": "http://me:secret@127.0.0.1:9/mirror"}
    output = buildout(tmp_path, status=1, **settings).stdout
    assert "the mirror does not give http://127.0.0.1:9/mirror/sources/" in output
    assert "secret" not in output


def test_a_fault_shows_the_lines_that_matter_and_where_all_output_is(tmp_path, server):
    broken = "int other(void) { return undeclared_name; }\n"
    profile(tmp_path, **publish(server, source(**{"other.c": broken})))
    output = buildout(tmp_path, status=1).stdout
    assert "undeclared_name" in output
    (log,) = (tmp_path / "shared" / "tiny").glob("*.log")
    assert f"all output is in {log}" in output
    assert "cmake -S . -B build" in log.read_text()
    assert "Traceback" not in output
    assert not parts(tmp_path)


def test_a_result_without_what_it_promises_does_not_count(tmp_path, server):
    profile(tmp_path, **publish(server, source()), make_targets="")
    output = buildout(tmp_path, status=1).stdout
    assert "there is no" in output
    assert "bin/tiny" in output
    assert not parts(tmp_path)


def test_a_patch_decides_the_place_and_the_result(tmp_path, server):
    options = publish(server, source())
    profile(tmp_path, **options)
    buildout(tmp_path)
    before = built(tmp_path)
    fix = write(
        tmp_path / "fix.patch",
        "--- a/other.c\n+++ b/other.c\n@@ -1 +1 @@\n"
        "-int other(void) { return 42; }\n+int other(void) { return 43; }\n",
    )
    checksum = hashlib.md5(fix.read_bytes()).hexdigest()  # noqa: S324
    profile(tmp_path, **options, patches=f"{fix}#{checksum}", patch_options="-p1")
    buildout(tmp_path)
    assert said(tmp_path) == "43\n"
    assert built(tmp_path) != before


def test_the_place_does_not_depend_on_where_the_profile_and_the_mirror_are(tmp_path, server):
    options = publish(server, source())
    buildout(profile(tmp_path / "a", **options))
    elsewhere = {**options, "url": options["url"].replace("/simple/", "//simple/")}
    buildout(profile(tmp_path / "b", **elsewhere))
    assert built(tmp_path / "a").name == built(tmp_path / "b").name


def test_settings_of_the_caller_do_not_reach_the_compiler(tmp_path, server):
    profile(tmp_path, **publish(server, source()))
    buildout(tmp_path, CFLAGS="-Dother=broken -DX=%", CC="/nowhere/cc", DESTDIR="/nowhere")
    assert said(tmp_path) == "42\n"


def test_a_variable_of_the_profile_reaches_the_compiler(tmp_path, server):
    other = "int other(void) { return NUMBER; }\n"
    options = publish(server, source(**{"other.c": other}))
    buildout(profile(tmp_path, **options, environment="\n  CFLAGS = -DNUMBER=7"))
    assert said(tmp_path) == "7\n"


def wait_until(true, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_build_is_no_part_and_the_next_one_waits_for_its_compiler(tmp_path, server):
    # The build step waits for a file: killed there, the compiler that it started lives on.
    waiting = "add_custom_command(TARGET tiny POST_BUILD COMMAND sh ${CMAKE_SOURCE_DIR}/wait.sh)\n"
    script = f"echo $$ > {tmp_path}/compiler; until test -e {tmp_path}/go; do sleep 0.05; done\n"
    script += f"rm {tmp_path}/compiler\n"
    files = {"CMakeLists.txt": CMAKE + waiting, "wait.sh": script}
    profile(tmp_path, **publish(server, source(**files)))
    first = subprocess.Popen([BUILDOUT], cwd=tmp_path, env=environment(tmp_path))
    wait_until((tmp_path / "compiler").exists)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (left,) = parts(tmp_path)
    assert not (left / MARKER).exists()
    second = subprocess.Popen(
        [BUILDOUT], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert second.stdout
    heard = iter(second.stdout.readline, "")
    assert any("waiting for another process" in line for line in heard)
    assert (tmp_path / "compiler").exists()
    (tmp_path / "go").touch()
    second.communicate(timeout=300)
    assert second.returncode == 0
    assert said(tmp_path) == "42\n"
    assert (built(tmp_path) / MARKER).exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[12/48] Building C object x.o", 25),
        ("[ 37%] Building CXX object y.o", 37),
        ("[0/0] nothing", None),
        ("[12/48]no", None),
        ("error: [1/2] x", None),
    ],
)
def test_progress_is_read_from_ninja_and_make(line, expected):
    assert percentage(line) == expected


def test_the_first_fault_is_shown_without_the_compiler_commands():
    lines = [
        "[1/3] Building a.o",
        "FAILED: b.o",
        "c++ " + "-I/very/long " * 60,
        "b.cc:1:2: error: 'x' was not declared",
        "[2/3] Building c.o",
        "ninja: build stopped: subcommand failed.",
    ]
    assert useful_lines(lines) == [lines[1], lines[3], lines[5]]


def test_a_harmless_line_does_not_hide_the_fault():
    lines = ["cat: VERSION: No such file or directory", "b.cc:1:2: error: no", "stopped"]
    assert useful_lines(lines) == lines[1:]
    assert useful_lines([lines[0], "going on", "sh: cmake: not found"])[0].endswith("not found")


def test_without_a_known_fault_the_last_lines_are_shown():
    assert useful_lines([str(number) for number in range(100)])[-1] == "99"


def test_a_compiler_that_the_kernel_ended_is_told_from_other_faults():
    assert is_out_of_memory(["c++: fatal error: Killed signal terminated program cc1plus"])
    assert not is_out_of_memory(["b.cc:1:2: error: 'x' was not declared"])


def test_the_number_of_jobs_can_be_given():
    assert job_count({"WENDELIN_JOBS": "3"}) == 3
    assert 1 <= job_count({}) <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("text", ["0", "-1", "many"])
def test_a_wrong_number_of_jobs_is_named(text):
    with pytest.raises(ProfileError, match=f"WENDELIN_JOBS={text}"):
        job_count({"WENDELIN_JOBS": text})


def test_a_required_option_is_named(tmp_path):
    profile(tmp_path, url="http://127.0.0.1:9/x.tar.gz")
    assert "[tiny] has no option sha256" in buildout(tmp_path, status=1).stdout
