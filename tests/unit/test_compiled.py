# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled parts that one computer has built and others take, signed."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from buildout_runs import BUILDOUT, buildout, environment, serve, write
from test_recipe_compile import built, profile, publish, said, source

from slapos_wendelin.compiled import entries, libraries
from slapos_wendelin.compiled.cache import Cache, compiled_parts
from slapos_wendelin.compiled.errors import CacheError, NotInCacheError
from slapos_wendelin.compiled.keys import make_key, read_private_key, read_public_keys
from slapos_wendelin.compiled.places import open_place
from slapos_wendelin.compiled.pulling import pull
from slapos_wendelin.recipe.build_platform import build_platform
from slapos_wendelin.recipe.shared import MARKER, SharedPart


@pytest.fixture
def keys(tmp_path):
    """Return the file of a private key and the public one."""
    return tmp_path / "key", make_key(tmp_path / "key")


def make_part(root, *, text="program", platform=None, name="tool", recipe="compile", own=False):
    """Make a compiled part without a compiler."""
    identity = {"recipe": f"slapos_wendelin:{recipe} 1", "content": text}
    identity["platform"] = platform or build_platform()
    root.mkdir(parents=True, exist_ok=True)
    section = {"shared-part-list": str(root), "parts-directory": str(root)}
    part = SharedPart(section, name, shared=True, identity=identity)

    def make(location, _lock):
        write(location / "bin" / "tool", f"{location if own else text}\n").chmod(0o755)
        (location / "bin" / "alias").symlink_to("tool")
        write(location / ".compiler", "cc 1\n")

    part.build(make)
    return part.location


def cache_in(folder):
    return Cache(open_place(str(folder)))


def push(part, folder, keys, **options):
    return cache_in(folder).push(part, read_private_key(keys[0]), **options)


def pulled(folder, root, *keys, names=()):
    return [each.outcome for each in pull(cache_in(folder), root, read_public_keys(keys), names)]


def files_of(part):
    return {
        str(path.relative_to(part)): path.read_bytes() for path in part.rglob("*") if path.is_file()
    }


def test_a_part_is_taken_as_it_was_pushed(tmp_path, keys):
    part = make_part(tmp_path / "a")
    assert push(part, tmp_path / "cache", keys)
    assert pulled(tmp_path / "cache", tmp_path / "b", keys[1]) == ["taken"]
    taken = tmp_path / "b" / "tool" / part.name
    assert files_of(taken) == files_of(part)
    assert (taken / "bin" / "alias").readlink() == Path("tool")
    assert os.access(taken / "bin" / "tool", os.X_OK)
    assert pulled(tmp_path / "cache", tmp_path / "b", keys[1]) == ["is there"]


def test_what_the_cache_has_is_not_pushed_again(tmp_path, keys):
    part = make_part(tmp_path / "a")
    assert push(part, tmp_path / "cache", keys)
    assert not push(part, tmp_path / "cache", keys)
    assert push(part, tmp_path / "cache", keys, again=True)


def test_the_same_part_gives_the_same_archive(tmp_path):
    part = make_part(tmp_path / "a")
    first = entries.pack(part, tmp_path / "first")
    os.utime(part / "bin" / "tool", (0, 0))
    assert entries.pack(part, tmp_path / "second") == first


def test_only_complete_compiled_parts_are_pushed(tmp_path):
    part = make_part(tmp_path / "a")
    make_part(tmp_path / "a", name="environment", recipe="venv")
    (make_part(tmp_path / "a", text="other") / MARKER).unlink()
    assert list(compiled_parts(tmp_path / "a")) == [part]
    assert not list(compiled_parts(tmp_path / "a", ["another"]))


def note_of(folder):
    (path,) = folder.glob("tool/*.json")
    return path


def archive_of(folder):
    (path,) = folder.glob("tool/*.tar.gz")
    return path


def test_an_archive_with_another_checksum_is_refused_and_leaves_nothing(tmp_path, keys):
    push(make_part(tmp_path / "a"), tmp_path / "cache", keys)
    archive = archive_of(tmp_path / "cache")
    content = bytearray(archive.read_bytes())
    content[-20] ^= 1
    archive.write_bytes(content)
    with pytest.raises(CacheError, match=r"tar\.gz has sha256 .* is signed"):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])
    assert not list((tmp_path / "b").glob("tool/[0-9a-f]*"))


def test_a_shortened_archive_is_refused(tmp_path, keys):
    push(make_part(tmp_path / "a"), tmp_path / "cache", keys)
    archive = archive_of(tmp_path / "cache")
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(CacheError, match="has not the size"):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])


def test_a_part_that_another_key_has_signed_is_refused(tmp_path, keys):
    push(make_part(tmp_path / "a"), tmp_path / "cache", keys)
    other = make_key(tmp_path / "other")
    with pytest.raises(CacheError, match="is not signed by a trusted key") as error:
        pulled(tmp_path / "cache", tmp_path / "b", other)
    assert keys[1] in str(error.value)
    assert pulled(tmp_path / "cache", tmp_path / "b", other, keys[1]) == ["taken"]


@pytest.mark.parametrize("field", ["compiler", "location", "sha256", "identity", "digest", "size"])
def test_a_changed_note_is_refused(tmp_path, keys, field):
    push(make_part(tmp_path / "a"), tmp_path / "cache", keys)
    note = note_of(tmp_path / "cache")
    document = json.loads(note.read_text())
    document["note"][field] = 1 if field == "size" else "x"
    note.write_text(json.dumps(document))
    with pytest.raises(CacheError, match="is not signed by a trusted key"):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])


def test_a_signed_part_in_the_place_of_another_is_refused(tmp_path, keys):
    first = make_part(tmp_path / "a")
    second = make_part(tmp_path / "a", text="older and vulnerable")
    for part in (first, second):
        push(part, tmp_path / "cache", keys)
    for kind in (".json", ".tar.gz"):
        folder = tmp_path / "cache" / "tool"
        shutil.copy(folder / (second.name + kind), folder / (first.name + kind))
    with pytest.raises(CacheError, match=f"is signed, but as tool/{second.name}"):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "note": {}}'])
def test_a_damaged_note_is_refused(tmp_path, keys, text):
    push(make_part(tmp_path / "a"), tmp_path / "cache", keys)
    note_of(tmp_path / "cache").write_text(text)
    with pytest.raises(CacheError, match="is no note of a compiled part"):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])


@pytest.mark.parametrize("text", ["x", '{"parts": [["../../etc", "0"]]}', '{"parts": [1]}'])
def test_a_damaged_index_is_refused(tmp_path, keys, text):
    write(tmp_path / "cache" / "index.json", text)
    with pytest.raises(CacheError):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])


def archive_with(path, member, content=b"x"):
    with gzip.open(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        member.size = len(content) if member.isreg() else 0
        tar.addfile(member, io.BytesIO(content))


def entry(name, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        entry("../outside"),
        entry("/outside"),
        entry("in/../../outside"),
        entry("link", tarfile.SYMTYPE, "/etc"),
        entry("in/link", tarfile.SYMTYPE, "../../outside"),
        entry("link", tarfile.LNKTYPE, "other"),
        entry("device", tarfile.CHRTYPE),
        entry("pipe", tarfile.FIFOTYPE),
        entry("there/file"),
    ],
    ids=lambda member: f"{member.name} {member.linkname}",
)
def test_an_archive_that_leads_outside_is_refused(tmp_path, member):
    archive_with(tmp_path / "bad", member)
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "there").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="refused"):
        entries.unpack(tmp_path / "bad", tmp_path / "in")
    assert not (tmp_path / "outside").exists()
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"there"}
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_names_of_one_file_are_taken(tmp_path, keys):
    part = make_part(tmp_path / "a")
    (part / "bin" / "same").hardlink_to(part / "bin" / "tool")
    push(part, tmp_path / "cache", keys)
    assert pulled(tmp_path / "cache", tmp_path / "b", keys[1]) == ["taken"]
    assert files_of(tmp_path / "b" / "tool" / part.name) == files_of(part)


def test_an_archive_cannot_declare_itself_complete(tmp_path):
    archive_with(tmp_path / "bad", tarfile.TarInfo(f"./{MARKER}"))
    (tmp_path / "in").mkdir()
    entries.unpack(tmp_path / "bad", tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


def test_a_part_for_another_system_is_left(tmp_path, keys):
    platform = build_platform() | {"distribution": "plan9 4"}
    push(make_part(tmp_path / "a", platform=platform), tmp_path / "cache", keys)
    (outcome,) = pulled(tmp_path / "cache", tmp_path / "b", keys[1])
    assert "plan9 4" in outcome
    assert not list((tmp_path / "b").iterdir())


def test_a_part_that_names_its_folder_runs_in_that_one_only(tmp_path, keys):
    part = make_part(tmp_path / "a", own=True)
    push(part, tmp_path / "cache", keys)
    with pytest.raises(CacheError, match=f"runs in {part} only"):
        pulled(tmp_path / "cache", tmp_path / "b", keys[1])
    shutil.rmtree(tmp_path / "a")
    assert pulled(tmp_path / "cache", tmp_path / "a", keys[1]) == ["taken"]


def test_a_link_to_its_own_folder_ties_a_part_to_it(tmp_path):
    part = make_part(tmp_path / "a")
    assert entries.own_path(part) == ""
    (part / "link").symlink_to(part / "bin")
    assert entries.own_path(part) == str(part)


def test_where_a_part_was_compiled_does_not_tie_it_but_other_parts_do(tmp_path):
    part = make_part(tmp_path / "a")
    write(part / "data", f"assertion failed in {part}/.build/tool-1.0/main.c")
    write(part / "empty", "")
    assert entries.own_path(part) == ""
    write(part / "data", f"library in {part.parent.parent}/other/{'0' * 32}/lib")
    assert entries.own_path(part) == str(part)


def test_a_library_that_the_system_lacks_is_named(tmp_path):
    write(tmp_path / "o.c", "int other(void) { return 1; }\n")
    write(tmp_path / "m.c", "int other(void); int main(void) { return other(); }\n")
    (tmp_path / "part" / "bin").mkdir(parents=True)
    subprocess.run(["cc", "-shared", "-fPIC", "o.c", "-olibo.so"], cwd=tmp_path, check=True)
    subprocess.run(["cc", "m.c", "-L.", "-lo", "-opart/bin/m"], cwd=tmp_path, check=True)
    with pytest.raises(CacheError, match=r"tool of the cache needs libo\.so"):
        libraries.check_libraries("tool", tmp_path / "part")


def test_a_private_key_is_for_its_owner_only_and_is_not_replaced(keys):
    path, _ = keys
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CacheError, match="is there already"):
        make_key(path)


@pytest.mark.parametrize("word", ["ed25519:short", "rsa:" + "A" * 44, "ed25519:!"])
def test_a_word_that_is_no_key_is_named(tmp_path, word):
    with pytest.raises(CacheError, match="is no public key"):
        read_public_keys([str(write(tmp_path / "keys", f"# ours\n{word}\n"))])


def test_without_a_trusted_key_nothing_is_taken():
    with pytest.raises(CacheError, match="no key is trusted"):
        read_public_keys([])


def test_a_file_that_is_no_private_key_is_named(tmp_path):
    with pytest.raises(CacheError, match="holds no private key"):
        read_private_key(write(tmp_path / "key", "x"))
    with pytest.raises(CacheError, match="cannot be read"):
        read_private_key(tmp_path / "absent")


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Gives files and takes them, from who knows the password."""

    def do_PUT(self):
        if self.headers.get("Authorization") != "Basic bWU6aGlkZGVu":
            self.send_error(403)
            return
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def storing_server(folder):
    folder.mkdir()
    handler = partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_server_keeps_what_is_pushed_and_gives_it_to_others(tmp_path, keys):
    part = make_part(tmp_path / "a")
    with storing_server(tmp_path / "store") as host:
        assert push(part, f"http://me:hidden@{host}", keys)
        assert not push(part, f"http://me:hidden@{host}", keys)
        assert pulled(f"http://{host}/", tmp_path / "b", keys[1]) == ["taken"]
    assert files_of(tmp_path / "b" / "tool" / part.name) == files_of(part)


def test_a_server_that_takes_nothing_is_named_without_the_password(tmp_path, keys):
    part = make_part(tmp_path / "a")
    with (
        storing_server(tmp_path / "store") as host,
        pytest.raises(CacheError, match="answers 403") as error,
    ):
        push(part, f"http://you:secret@{host}", keys)
    assert "secret" not in str(error.value)


def test_a_long_answer_is_cut(tmp_path, keys):
    part = make_part(tmp_path / "a")
    push(part, tmp_path / "cache", keys)
    archive = archive_of(tmp_path / "cache")
    archive.write_bytes(archive.read_bytes() + b"x")
    with serve(tmp_path / "cache") as server:
        url = server.url.removesuffix("/simple")
        with pytest.raises(CacheError, match="has not the size"):
            pulled(url, tmp_path / "b", keys[1])


def test_a_cache_that_is_no_place_is_named():
    with pytest.raises(CacheError, match="neither a folder nor a URL"):
        open_place("ftp://host/cache")


def test_a_part_that_is_not_there_is_told_from_a_fault(tmp_path, keys):
    with pytest.raises(NotInCacheError):
        cache_in(tmp_path).note("tool", "0" * 32, read_public_keys([keys[1]]))


def slapos(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "slapos_wendelin.cli.entry", "cache", *arguments],
        env={key: value for key, value in os.environ.items() if not key.startswith("WENDELIN")}
        | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_commands_make_a_key_push_and_pull(tmp_path):
    part = make_part(tmp_path / "home" / "parts")
    key = slapos("key", f"{tmp_path}/k").stdout.strip()
    home = {"WENDELIN_HOME": str(tmp_path / "home")}
    done = slapos("push", f"{tmp_path}/cache", f"--key={tmp_path}/k", **home)
    assert f"tool {part.name}  pushed" in done.stdout
    done = slapos("pull", f"{tmp_path}/cache", f"--trust={key}", f"--parts={tmp_path}/b", "--json")
    assert json.loads(done.stdout) == [{"part": "tool", "digest": part.name, "outcome": "taken"}]


def test_the_commands_tell_faults_on_one_line_with_a_remedy(tmp_path, keys):
    make_part(tmp_path / "a")
    done = slapos("push", f"{tmp_path}/c", f"--key={keys[0]}", f"--parts={tmp_path}/a", "tol")
    assert done.returncode == 1
    assert f"slapos: {tmp_path}/a has no compiled tol" in done.stderr
    done = slapos("push", f"{tmp_path}/c", f"--key={keys[0]}")
    assert "remedy: add --parts FOLDER" in done.stderr
    done = slapos("pull", f"{tmp_path}/c", f"--parts={tmp_path}/b")
    assert "no key is trusted" in done.stderr
    done = slapos("pull", f"{tmp_path}/c", f"--parts={tmp_path}/b", f"--trust={keys[1]}")
    assert (done.returncode, done.stdout) == (
        0,
        f"Nothing to do: the cache {tmp_path}/c is empty.\n",
    )


@pytest.fixture
def compiled(tmp_path, keys):
    """Return the settings of a cache that holds the small program, and the program's options."""
    with serve(tmp_path / "upstream") as server:
        options = publish(server, source()) | {"configure_options": "-DCMAKE_INSTALL_PREFIX=/none"}
        options["make_targets"] = "&& cmake --install build --prefix %(location)s"
        buildout(profile(tmp_path / "a", **options))
        assert push(built(tmp_path / "a"), tmp_path / "cache", keys)
        yield {"WENDELIN_COMPILED": f"{tmp_path}/cache", "WENDELIN_COMPILED_KEYS": keys[1]}, options


def test_a_build_takes_from_the_cache_what_another_has_compiled(tmp_path, compiled):
    settings, options = compiled
    profile(tmp_path / "b", **options | {"url": "http://127.0.0.1:9/tiny.tar.gz"})
    output = buildout(tmp_path / "b", WENDELIN_COMPILE="never", **settings).stdout
    assert f"taken from the cache {tmp_path}/cache" in output
    assert said(tmp_path / "b") == "42\n"


def test_what_is_not_in_the_cache_is_not_compiled_when_that_is_forbidden(tmp_path, compiled):
    settings, options = compiled
    profile(tmp_path / "b", **options, make_binary="ninja -v")
    output = buildout(tmp_path / "b", status=1, WENDELIN_COMPILE="never", **settings).stdout
    assert "[tiny] is not built, and WENDELIN_COMPILE=never forbids to compile it" in output
    buildout(tmp_path / "b", **settings)
    assert said(tmp_path / "b") == "42\n"


def test_a_build_refuses_what_is_wrongly_signed(tmp_path, compiled):
    settings, options = compiled
    settings["WENDELIN_COMPILED_KEYS"] = make_key(tmp_path / "other")
    output = buildout(profile(tmp_path / "b", **options), status=1, **settings).stdout
    assert "is not signed by a trusted key" in output
    assert "Traceback" not in output


def test_a_cache_that_does_not_answer_does_not_keep_a_build(tmp_path, compiled):
    settings, options = compiled
    settings["WENDELIN_COMPILED"] = "http://127.0.0.1:9/cache"
    output = buildout(profile(tmp_path / "b", **options), **settings).stdout
    assert "compiling without it" in output
    assert said(tmp_path / "b") == "42\n"


def test_a_computer_without_a_compiler_takes_what_one_with_it_has_compiled(tmp_path, compiled):
    settings, options = compiled
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("ldd", "sh", "cat", "bash"):
        (programs / name).symlink_to(shutil.which(name) or "")
    profile(tmp_path / "b", **options)
    buildout(tmp_path / "b", WENDELIN_COMPILE="never", PATH=str(programs), **settings)
    assert said(tmp_path / "b") == "42\n"


def test_a_build_that_is_killed_while_it_takes_leaves_no_part(tmp_path, compiled):
    settings, options = compiled
    digest = built(tmp_path / "a").name
    with serve(tmp_path / "cache") as server:
        server.gate.clear()
        settings["WENDELIN_COMPILED"] = server.url.removesuffix("/simple")
        profile(tmp_path / "b", **options)
        killed = subprocess.Popen(
            [BUILDOUT], cwd=tmp_path / "b", env=environment(tmp_path / "b", **settings)
        )
        deadline = time.monotonic() + 300
        while not server.fetched:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        server.gate.set()
        assert not (tmp_path / "b" / "shared" / "tiny" / digest / MARKER).exists()
        buildout(tmp_path / "b", WENDELIN_COMPILE="never", **settings)
    assert said(tmp_path / "b") == "42\n"
    names = {path.name for path in built(tmp_path / "b").iterdir()}
    assert names == {"bin", ".compiler", MARKER}
    assert hashlib.sha256((built(tmp_path / "b") / MARKER).read_bytes()).hexdigest()[:32] == digest
