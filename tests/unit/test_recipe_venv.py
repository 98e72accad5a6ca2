# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe slapos_wendelin:venv, in real buildout runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from buildout_runs import BASE, BUILDOUT, buildout, environment, serve, wheel, write

MARKER = ".buildout-shared.json"


@pytest.fixture
def index(tmp_path):
    with serve(tmp_path / "index") as index:
        yield index


def profile(folder, lock, shared=None, **options):
    shared = shared or folder / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    text = BASE + f"parts = tools\nshared-part-list =\n  {shared}\n"
    text += f"[tools]\nrecipe = slapos_wendelin:venv\nrequirements = {lock}\n"
    text += "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in options.items())
    write(folder / "buildout.cfg", text)
    return shared / "tools"


def built(folder):
    """Return the complete environments below a folder."""
    return [path.parent for path in folder.glob(f"*/{MARKER}")]


def leftovers(folder):
    """Return what is there beside complete environments and locks."""
    return [
        path
        for path in folder.glob("*")
        if path not in built(folder) and not path.name.endswith(".lock")
    ]


def imports(venv, name):
    command = [venv / "bin" / "python", "-c", f"import {name}; print({name}.value)"]
    return subprocess.run(command, capture_output=True, check=False).stdout == b"1\n"


def test_an_environment_holds_what_its_lock_names(tmp_path, index):
    folder = profile(tmp_path, index.lock(tmp_path / "lock", "tiny", "1.0"), imports="tiny")
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    (venv,) = built(folder)
    assert imports(venv, "tiny")
    assert list(venv.glob("lib/*/site-packages/tiny/__pycache__/*.pyc"))
    assert not leftovers(folder)


def test_it_is_built_once_for_two_buildouts(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    shared = tmp_path / "shared"
    folders = [tmp_path / name for name in ("paris", "tokyo", "virginia")]
    for folder in folders:
        profile(folder, lock, shared)
    index.gate.clear()
    runs = []
    for folder in folders:
        with (folder / "output").open("w") as output:
            runs.append(start(folder, index, output))

    def said(words):
        return sum(words in (folder / "output").read_text() for folder in folders)

    wait_until(lambda: said("waiting for another process") == 2)
    wait_until(lambda: index.fetched)
    index.gate.set()
    assert [run.wait(300) for run in runs] == [0, 0, 0]
    assert said("tools: installing") == 1
    assert said("waiting for another process") == 2
    assert len(built(shared / "tools")) == 1


def start(folder, index, output=subprocess.PIPE):
    """Start buildout in a process group of its own."""
    return subprocess.Popen(
        [BUILDOUT],
        cwd=folder,
        env=environment(folder, UV_DEFAULT_INDEX=index.url),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_build_killed_in_the_middle_is_made_again(tmp_path, index):
    folder = profile(tmp_path, index.lock(tmp_path / "lock", "tiny", "1.0"))
    index.gate.clear()
    run = start(tmp_path, index)
    wait_until(lambda: index.fetched)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert leftovers(folder)
    assert not built(folder)
    index.gate.set()
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert imports(built(folder)[0], "tiny")
    assert not leftovers(folder)


def test_a_build_waits_for_the_uv_that_a_killed_one_left(tmp_path, index):
    folder = profile(tmp_path, index.lock(tmp_path / "lock", "tiny", "1.0"))
    index.gate.clear()
    killed = start(tmp_path, index)
    wait_until(lambda: index.fetched)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    second = start(tmp_path, index)
    lines = iter(second.stdout.readline, "")
    assert any("waiting for another process" in line for line in lines)
    index.gate.set()
    assert second.wait(300) == 0
    assert imports(built(folder)[0], "tiny")


def test_an_environment_without_marker_is_made_again(tmp_path, index):
    folder = profile(tmp_path, index.lock(tmp_path / "lock", "tiny", "1.0"))
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    (venv,) = built(folder)
    (venv / MARKER).unlink()
    (venv / "bin" / "python").unlink()
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert imports(venv, "tiny")


def test_another_lock_makes_another_environment_and_keeps_the_first(tmp_path, index):
    second = index.lock(tmp_path / "second", "tiny", "1.1")
    folder = profile(tmp_path, index.lock(tmp_path / "first", "tiny", "1.0"))
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    profile(tmp_path, second)
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert len(built(folder)) == 2


def test_without_shared_folder_it_is_a_part_that_goes_with_its_profile(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    write(
        tmp_path / "buildout.cfg",
        BASE + f"parts = tools\n[tools]\nrecipe = slapos_wendelin:venv\nrequirements = {lock}\n",
    )
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert imports(built(tmp_path / "parts" / "tools")[0], "tiny")
    write(tmp_path / "buildout.cfg", BASE + "parts =\n")
    buildout(tmp_path)
    assert not built(tmp_path / "parts" / "tools")


def test_local_wheels_are_added(tmp_path, index):
    path = tmp_path / "local-1.0-py3-none-any.whl"
    path.write_bytes(wheel("local", "1.0", requires="tiny"))
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    folder = profile(tmp_path, lock, wheels=path)
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert imports(built(folder)[0], "local")


def test_a_local_wheel_whose_requirement_no_lock_holds_is_refused(tmp_path, index):
    path = tmp_path / "local-1.0-py3-none-any.whl"
    path.write_bytes(wheel("local", "1.0", requires="absent"))
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    folder = profile(tmp_path, lock, wheels=path)
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "`local` requires `absent`, but it's not installed" in output
    assert not leftovers(folder)
    profile(tmp_path, lock, partial_wheels=path)
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert imports(built(folder)[0], "local")


def test_a_module_that_does_not_import_stops_the_build(tmp_path, index):
    folder = profile(tmp_path, index.lock(tmp_path / "lock", "tiny", "1.0"), imports="absent")
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "No module named 'absent'" in output
    assert not leftovers(folder)


def test_a_missing_network_is_named_with_the_remedy(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    folder = profile(tmp_path, lock)
    output = buildout(tmp_path, status=1).stdout
    assert f"[tools] installing {lock}: cannot fetch from the Python index" in output
    assert "tiny" in output
    assert "UV_DEFAULT_INDEX" in output
    assert not leftovers(folder)


def test_a_filled_cache_serves_in_offline_mode(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    cache = str(tmp_path / "cache")
    profile(tmp_path / "a", lock)
    buildout(tmp_path / "a", UV_DEFAULT_INDEX=index.url, UV_CACHE_DIR=cache)
    folder = profile(tmp_path / "b", lock)
    offline = "buildout:offline=true"
    output = buildout(tmp_path / "b", offline, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "cannot fetch from the Python index" in output
    buildout(tmp_path / "b", offline, UV_DEFAULT_INDEX=index.url, UV_CACHE_DIR=cache)
    assert imports(built(folder)[0], "tiny")


def test_the_cache_is_beside_other_downloads_unless_it_is_named(tmp_path, index):
    profile(tmp_path, index.lock(tmp_path / "lock", "tiny", "1.0"))
    settings = environment(tmp_path, UV_DEFAULT_INDEX=index.url)
    del settings["UV_CACHE_DIR"]
    command = [BUILDOUT, f"buildout:download-cache={tmp_path}/downloads"]
    subprocess.run(command, cwd=tmp_path, env=settings, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "downloads" / "uv" / "CACHEDIR.TAG").exists()


def test_a_package_with_another_hash_is_refused(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    folder = profile(tmp_path, write(lock, f"tiny==1.0 --hash=sha256:{'0' * 64}\n"))
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "Hash mismatch" in output
    assert not leftovers(folder)


def test_a_lock_without_hashes_is_refused(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0")
    profile(tmp_path, write(lock, "tiny==1.0\n"))
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "hash" in output


def test_a_missing_lock_is_named(tmp_path):
    profile(tmp_path, tmp_path / "absent.txt")
    assert f"there is no file {tmp_path}/absent.txt" in buildout(tmp_path, status=1).stdout


SMALL_DISK = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'


def small_disk(folder: Path) -> list[str]:
    """Return what a command is put behind so that it sees a file system of 1 MiB in a folder."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    return [*namespace, "sh", "-ec", SMALL_DISK, "sh", str(folder)]


def test_a_full_disk_is_named_and_nothing_half_made_stays(tmp_path, index):
    lock = index.lock(tmp_path / "lock", "tiny", "1.0", padding=2 * 1024**2)
    folder = profile(tmp_path, lock)
    if subprocess.run([*small_disk(folder.parent), "true"], check=False).returncode:
        pytest.skip("this user may not mount a file system in a namespace")
    left = (
        'import sys; from pathlib import Path; print([*Path(sys.argv[1]).glob("tools/[0-9a-f]*")])'
    )
    script = '"$0"; status=$?; "$1" -c "$2" "$3"; exit $status'
    command = ["sh", "-c", script, BUILDOUT, sys.executable, left, folder.parent]
    result = subprocess.run(
        [*small_disk(folder.parent), *command],
        cwd=tmp_path,
        env=environment(tmp_path, UV_DEFAULT_INDEX=index.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    assert f"no space left for {folder}" in result.stdout
    assert "[]" in result.stdout.splitlines()
