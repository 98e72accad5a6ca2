# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrors: filled from wherever the sources are, checked, and built from without a network."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from buildout_runs import archive, environment, serve, sha256, source_archive, wheel, write

from slapos_wendelin.cli.build import find_profile
from slapos_wendelin.cli.mirror import mirror as command
from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.files import sha256_of
from slapos_wendelin.mirror.debian import DebianSources, write_sources
from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.mirror.filling import Filler
from slapos_wendelin.mirror.folder import MirrorFolder
from slapos_wendelin.mirror.needs import TOOLKIT_LOCK, read_needs
from slapos_wendelin.mirror.using import Mirror

CONTENT = archive({"tiny-1.0/README": "hello"})
URL = "http://127.0.0.1:9/tiny-1.0.tar.gz"


@pytest.fixture
def tmp_path():
    """Yield a folder with a short name: the paths of sockets below it are limited."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def key(url):
    return hashlib.md5(url.encode()).hexdigest()  # noqa: S324


def release(folder, url=URL, checksum=None, **options):
    """Write a release that needs one archive."""
    lines = {"recipe": "slapos_wendelin:compile", "version": "1.0"}
    lines |= {"url": url.replace("1.0", "${:version}")}
    lines |= {"sha256": checksum or sha256(CONTENT)} | options
    text = "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in lines.items())
    write(folder / "component" / "tiny" / "buildout.cfg", "[tiny]\n" + text)
    write(folder / TOOLKIT_LOCK, "")
    return folder


def fill(release_folder, folder, *, python=False, **options):
    filler = Filler(MirrorFolder(folder), apt=Path("/nonexistent"), **options)
    return filler.fill(read_needs(release_folder), lambda _: None, python=python)


@pytest.fixture
def upstream(tmp_path):
    with serve(tmp_path / "upstream") as index:
        index.add("tiny", "tiny-1.0.tar.gz", CONTENT)
        yield index


@pytest.fixture
def filled(tmp_path, upstream):
    """Return a mirror with one archive, and the archive's URL."""
    url = f"{upstream.url}/tiny/tiny-1.0.tar.gz"
    assert not fill(release(tmp_path / "release", url), tmp_path / "mirror").missing
    return tmp_path / "mirror", url


def test_what_is_needed_is_read_from_the_profiles_of_the_repository():
    needs = read_needs(Path(__file__).parents[2])
    assert "mariadb" in {archive.debian_source for archive in needs.archives}
    assert all("${" not in archive.url for archive in needs.archives)
    names = {source.requirement.partition("==")[0] for source in needs.python_sources}
    assert {"neoppod", "mysqlclient"} <= names
    assert all(lock.is_file() for lock in needs.locks)
    assert {lock.parent.name for lock in needs.locks} >= {"requirements", "neo", "analytics"}


def test_an_archive_comes_from_its_own_url_and_is_not_fetched_twice(tmp_path, filled, upstream):
    folder, url = filled
    again = fill(release(tmp_path / "release", url), folder)
    assert again.found == {url: "this mirror"}
    assert upstream.fetched == ["tiny-1.0.tar.gz"]


def test_a_damaged_archive_of_the_mirror_is_fetched_again(tmp_path, filled, upstream):
    folder, url = filled
    (held,) = folder.glob("sources/*/*")
    held.write_bytes(b"damaged")
    assert fill(release(tmp_path / "release", url), folder).found == {url: url}
    assert held.read_bytes() == CONTENT
    assert len(upstream.fetched) == 2


def test_what_a_killed_run_has_left_is_removed(tmp_path):
    write(tmp_path / "mirror" / ".fetching-x" / "download", "half")
    write(tmp_path / "mirror" / "python" / "files" / ".y.new", "half")
    fill(release(tmp_path / "release"), tmp_path / "mirror")
    left = {path.name for path in (tmp_path / "mirror").rglob("*")}
    assert not left & {".fetching-x", ".y.new"}


def test_two_commands_do_not_fill_one_mirror(tmp_path):
    folder = MirrorFolder(tmp_path / "mirror")
    with folder.filling(), pytest.raises(MirrorError, match="another command fills"):
        fill(release(tmp_path / "release"), tmp_path / "mirror")


@pytest.mark.parametrize("name", ["tiny-1.0.tar.gz", key(URL), "tiny_1.0.orig.tar.gz"])
def test_an_archive_is_found_in_a_given_folder(tmp_path, name):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / name).write_bytes(CONTENT)
    outcome = fill(release(tmp_path / "release"), tmp_path / "mirror", look_in=[tmp_path / "here"])
    assert outcome.found == {URL: "folders given"}


def test_what_is_missing_is_named_with_every_place_that_was_tried(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tiny-1.0.tar.gz").write_bytes(b"other")
    outcome = fill(release(tmp_path / "release"), tmp_path / "mirror", look_in=[tmp_path / "here"])
    (text,) = outcome.missing
    assert sha256(CONTENT) in text
    assert "[tiny] of" in text
    assert f"{tmp_path}/here: no file has this checksum" in text
    assert f"{URL}: [Errno 111] Connection refused" in text
    assert "Debian's source package tiny: there is no source package tiny" in text
    assert not list((tmp_path / "mirror").glob("sources/*/*"))


def test_other_bytes_from_upstream_are_refused(tmp_path, upstream):
    url = f"{upstream.url}/tiny/tiny-1.0.tar.gz"
    (text,) = fill(release(tmp_path / "r", url, "0" * 64), tmp_path / "mirror").missing
    assert f"{url}: has sha256 {sha256(CONTENT)}" in text


def test_an_answer_that_is_no_archive_is_named(tmp_path, upstream):
    (text,) = fill(
        release(tmp_path / "r", f"{upstream.url}/none-1.0.tar.gz"), tmp_path / "m"
    ).missing
    assert "answers 404" in text


def test_the_command_says_what_is_missing_and_exits_with_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WENDELIN_FOLDER", str(tmp_path))
    options = argparse.Namespace(
        folder=Path("mirror"),
        release=release(tmp_path / "release", debian_source="no-such-package"),
        look_in=[],
        no_python=True,
        tests=False,
        json=True,
    )
    assert command(options) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == f"{tmp_path}/mirror"
    assert "no-such-package" in document["missing"][0]


def test_a_folder_with_other_things_is_no_mirror(tmp_path):
    write(tmp_path / "thesis.txt", "x")
    with pytest.raises(MirrorError, match=r"holds thesis\.txt and no mirror\.json"):
        MirrorFolder(tmp_path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"checksum": "abc"}, "'abc' is no sha256"),
        ({"url": "http://x/${other:version}.tar"}, "refers to another section"),
        ({"url": "http://x/${:nothing}.tar"}, "has no option nothing"),
    ],
)
def test_a_profile_that_cannot_be_understood_is_named(tmp_path, options, text):
    folder = release(tmp_path, **options)
    with pytest.raises(MirrorError, match=text) as error:
        read_needs(folder)
    assert "component/tiny/buildout.cfg" in str(error.value)


def test_a_folder_without_profiles_is_named(tmp_path):
    with pytest.raises(MirrorError, match="has no profiles"):
        read_needs(tmp_path)


def copied(folder, target):
    subprocess.run(["cp", "-R", folder, target], check=True)
    return target


@pytest.mark.parametrize("served", [False, True])
def test_a_mirror_may_be_copied_and_served(tmp_path, filled, served):
    elsewhere = copied(filled[0], tmp_path / "copy")
    with serve(elsewhere) as server:
        place = server.url.removesuffix("/simple") if served else str(elsewhere)
        Mirror(place).check()


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("/nonexistent", "is no mirror"),
        ("ftp://host/mirror", "neither a folder nor a URL"),
        ("http://127.0.0.1:9/mirror", "cannot be reached"),
    ],
)
def test_a_wrong_place_is_named(place, text):
    with pytest.raises(MirrorError, match=text):
        Mirror(place).check()


def test_debian_sources_are_those_of_the_configured_mirror(tmp_path):
    apt = tmp_path / "apt"
    write(apt / "sources.list", "# a comment\ndeb [arch=amd64] http://host/debian stable main\n")
    write(
        apt / "sources.list.d" / "more.sources",
        "Types: deb\nURIs: http://host/debian\nSuites: stable\nComponents: main\n",
    )
    write(apt / "sources.list.d" / "off.sources.disabled", "Types: deb\n")
    assert write_sources(apt, tmp_path) == 2
    one_line = (tmp_path / "sources.list").read_text()
    assert one_line == "deb-src [arch=amd64] http://host/debian stable main\n"
    assert "Types: deb-src\n" in (tmp_path / "more.sources").read_text()


@pytest.fixture
def debian(tmp_path):
    """Return apt's configuration for a repository with one source package."""
    repository = tmp_path / "debian"
    pool = repository / "pool"
    pool.mkdir(parents=True)
    (pool / "tiny_1.0.orig.tar.gz").write_bytes(CONTENT)
    files = {}
    for name, content in {
        "tiny_1.0.orig.tar.gz": CONTENT,
        "tiny_1.0-1.debian.tar.xz": b"debian",
        "tiny_1.0-1.dsc": b"dsc",
    }.items():
        (pool / name).write_bytes(content)
        files[name] = f" {sha256(content)} {len(content)} {name}\n"
    md5 = "".join(
        f" {hashlib.md5((pool / name).read_bytes()).hexdigest()} "  # noqa: S324
        f"{(pool / name).stat().st_size} {name}\n"
        for name in files
    )
    (repository / "Sources").write_text(
        "Package: tiny\nBinary: tiny\nVersion: 1.0-1\nMaintainer: x <x@example.org>\n"
        "Architecture: any\nFormat: 3.0 (quilt)\nDirectory: pool\n"
        f"Files:\n{md5}Checksums-Sha256:\n{''.join(files.values())}\n"
    )
    write(
        tmp_path / "apt" / "sources.list.d" / "x.list",
        f"deb [trusted=yes] file://{repository} ./\n",
    )
    return tmp_path / "apt"


def test_an_archive_is_taken_out_of_a_source_package_by_its_checksum(tmp_path, debian):
    filler = Filler(MirrorFolder(tmp_path / "mirror"), apt=debian)
    outcome = filler.fill(read_needs(release(tmp_path / "r")), lambda _: None, python=False)
    assert outcome.found == {URL: "Debian's source package tiny"}
    (held,) = (tmp_path / "mirror").glob("sources/*/tiny-1.0.tar.gz")
    assert sha256_of(held) == sha256(CONTENT)


def test_a_source_package_with_another_archive_is_named_with_its_versions(tmp_path, debian):
    sources = DebianSources(debian)
    with pytest.raises(MirrorError, match=r"tiny has other archives \(versions 1\.0-1\)"):
        sources.fetch("tiny", "0" * 64, tmp_path)
    sources.close()


def python_release(folder, index):
    """Write a release with a wheel from a lock and one that is built."""
    source = source_archive("tiny", "1.0")
    index.add("tiny", "tiny-1.0.tar.gz", source)
    needed = wheel("needed", "2.0")
    index.add("needed", "needed-2.0-py3-none-any.whl", needed)
    write(
        folder / "software" / "small" / "software.cfg",
        f"""\
        [buildout]
        extensions = slapos_wendelin
        index = file:///nowhere
        eggs-directory-version =
        parts = small
        [tiny]
        recipe = slapos_wendelin:wheel
        requirement = tiny==1.0
        sha256 = {sha256(source)}
        [small]
        recipe = slapos_wendelin:venv
        requirements = ${{:_profile_base_location_}}/requirements.txt
        wheels = ${{tiny:wheel}}
        imports = tiny needed
        """,
    )
    write(
        folder / "software" / "small" / "requirements.txt",
        f"needed==2.0 \\\n    --hash=sha256:{sha256(needed)}\n",
    )
    write(folder / TOOLKIT_LOCK, "")
    return folder


def wendelin(tmp_path, *arguments, command=(), **settings):
    """Run a command of ./wendelin on the release in a folder."""
    program = [sys.executable, "-P", "-m", "slapos_wendelin.cli.starting"]
    return subprocess.run(
        [*command, *program, "--release", str(tmp_path / "release"), *arguments],
        env=environment(tmp_path / "home")
        | {"WENDELIN_HOME": str(tmp_path / "home"), "WENDELIN_FOLDER": str(tmp_path)}
        | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("served", [False, True])
def test_a_release_is_built_from_a_mirror_when_nothing_else_is_there(tmp_path, served):
    with serve(tmp_path / "upstream") as index:
        python_release(tmp_path / "release", index)
        done = wendelin(tmp_path, "mirror", "mirror", PIP_INDEX_URL=index.url, UV_DEFAULT_INDEX="")
        assert done.returncode == 0, done.stdout
        assert "is complete" in done.stdout
    with serve(tmp_path / "mirror") as server:
        place = server.url.removesuffix("/simple") if served else "mirror"
        done = wendelin(tmp_path, "build", "--from", place, "software/small")
        assert done.returncode == 0, done.stdout
        assert list((tmp_path / "home" / "parts" / "small").glob("*/bin/python"))
        if served:
            assert "needed-2.0-py3-none-any.whl" in server.fetched


def test_the_password_of_a_mirror_may_be_in_netrc(tmp_path):
    with serve(tmp_path / "upstream") as index:
        folder = python_release(tmp_path / "release", index) / "software" / "small"
        index.add("program", "program-1.0.tar.gz", CONTENT)
        write(
            folder / "program.cfg",
            f"""\
            [program]
            recipe = slapos_wendelin:compile
            url = {index.url}/program/program-1.0.tar.gz
            sha256 = {sha256(CONTENT)}
            configure-command = true
            make-binary = true
            make-targets = && cp README %(location)s
            """,
        )
        text = (
            (folder / "software.cfg").read_text().replace("parts = small", "parts = small program")
        )
        (folder / "software.cfg").write_text(
            text.replace("[buildout]", "[buildout]\nextends = program.cfg")
        )
        done = wendelin(tmp_path, "mirror", "mirror", PIP_INDEX_URL=index.url, UV_DEFAULT_INDEX="")
        assert done.returncode == 0, done.stdout
    with serve(tmp_path / "mirror") as server:
        server.login = "me:secret"
        place = server.url.removesuffix("/simple")
        done = wendelin(tmp_path, "build", "--from", place, "software/small")
        assert "the mirror answers 401" in done.stdout
        netrc = write(tmp_path / "home" / ".netrc", "machine 127.0.0.1 login me password secret\n")
        netrc.chmod(0o600)
        done = wendelin(tmp_path, "build", "--from", place, "software/small")
        assert done.returncode == 0, done.stdout
        assert list((tmp_path / "home" / "parts" / "program").glob("*/README"))


def test_a_lock_that_the_index_cannot_fill_is_named(tmp_path):
    with serve(tmp_path / "upstream") as index:
        folder = python_release(tmp_path / "release", index)
        write(
            folder / "software" / "small" / "requirements.txt",
            f"absent==2.0 --hash=sha256:{'0' * 64}\n",
        )
        done = wendelin(tmp_path, "mirror", "mirror", PIP_INDEX_URL=index.url, UV_DEFAULT_INDEX="")
    assert done.returncode == 1
    assert "absent==2.0" in done.stdout
    assert f"from {index.url}" in done.stdout


def test_an_unknown_profile_is_told_with_those_there_are(tmp_path):
    folder = release(tmp_path)
    with pytest.raises(MissingRequirementError, match="component/tiny"):
        find_profile(folder, "component/tinny")
    with pytest.raises(MissingRequirementError):
        find_profile(folder, "../..")
    assert find_profile(folder, "component/tiny/").is_file()


def without_network():
    """Return what starts a program without any network, or skip the test."""
    command = ("unshare", "--net", *(() if os.getuid() == 0 else ("--map-root-user",)))
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets only root make a network namespace")
    return command


def test_a_mirror_builds_on_a_host_without_a_network(tmp_path):
    command = without_network()
    with serve(tmp_path / "upstream") as index:
        python_release(tmp_path / "release", index)
        assert not wendelin(
            tmp_path, "mirror", "mirror", PIP_INDEX_URL=index.url, UV_DEFAULT_INDEX=""
        ).returncode
    done = wendelin(tmp_path, "build", "--from", "mirror", "software/small", command=command)
    assert done.returncode == 0, done.stdout
