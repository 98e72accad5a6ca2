# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipe slapos_wendelin:wheel, in real buildout runs."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from buildout_runs import BASE, archive, buildout, serve, sha256, source_archive, write

PATCH = """\
--- a/tiny/__init__.py
+++ b/tiny/__init__.py
@@ -1 +1 @@
-value = {old}
+value = 2
"""


@pytest.fixture
def index(tmp_path):
    with serve(tmp_path / "index") as index:
        yield index


def profile(folder, **options):
    text = BASE + "parts = tiny show\nshared-part-list = ${buildout:directory}/shared\n"
    text += "[tiny]\nrecipe = slapos_wendelin:wheel\n"
    text += "".join(f"{name.replace('_', '-')} = {value}\n" for name, value in options.items())
    text += "[show]\nrecipe = slapos.recipe.template:jinja2\noutput = ${buildout:directory}/wheel\n"
    text += "inline = ${tiny:wheel}\n"
    write(folder / "buildout.cfg", text)
    (folder / "shared").mkdir(exist_ok=True)


def release(index, **options):
    content = source_archive("tiny", "1.0", **options)
    return {
        "requirement": "tiny==1.0",
        "sha256": index.add("tiny", "tiny-1.0.tar.gz", content),
    }


def built_wheel(folder):
    return zipfile.ZipFile((folder / "wheel").read_text())


def patch(folder, old="1"):
    path = write(folder / "fix.patch", PATCH.format(old=old))
    return f"{path}#{hashlib.md5(path.read_bytes()).hexdigest()}"  # noqa: S324


def test_a_patched_wheel_is_built_from_the_index(tmp_path, index):
    profile(tmp_path, **release(index), patches=patch(tmp_path))
    buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
    assert built_wheel(tmp_path).read("tiny/__init__.py") == b"value = 2\n"
    assert index.fetched == ["tiny-1.0.tar.gz"]
    assert "Updating tiny" in buildout(tmp_path).stdout


def test_the_index_that_pip_is_configured_for_is_used(tmp_path, index):
    profile(tmp_path, **release(index))
    buildout(tmp_path, UV_DEFAULT_INDEX="", PIP_INDEX_URL=index.url)
    assert index.fetched == ["tiny-1.0.tar.gz"]


def test_an_index_may_be_a_folder(tmp_path, index):
    profile(tmp_path, **release(index))
    buildout(tmp_path, UV_DEFAULT_INDEX=f"file://{index.folder}/simple")
    assert built_wheel(tmp_path).read("tiny/__init__.py") == b"value = 1\n"


def test_the_same_source_gives_the_same_bytes(tmp_path, index):
    options = release(index)
    wheels = []
    for umask, name in ((0o022, "a"), (0o077, "b")):
        profile(tmp_path / name, **options)
        before = os.umask(umask)
        try:
            buildout(tmp_path / name, UV_DEFAULT_INDEX=index.url)
        finally:
            os.umask(before)
        wheels.append(Path((tmp_path / name / "wheel").read_text()).read_bytes())
    assert wheels[0] == wheels[1]


def test_the_download_cache_spares_the_network(tmp_path, index):
    options = release(index)
    profile(tmp_path / "a", **options)
    cache = f"buildout:download-cache={tmp_path}/cache"
    buildout(tmp_path / "a", cache, UV_DEFAULT_INDEX=index.url)
    profile(tmp_path / "b", **options)
    buildout(tmp_path / "b", cache, "buildout:offline=true")
    assert built_wheel(tmp_path / "b").namelist()
    assert index.fetched == ["tiny-1.0.tar.gz"]


@pytest.mark.parametrize("cached", [False, True])
def test_other_bytes_than_the_pinned_ones_are_refused(tmp_path, index, cached):
    profile(tmp_path, **{**release(index), "sha256": "0" * 64})
    if cached:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "tiny-1.0.tar.gz").write_bytes(b"other")
    cache = f"buildout:download-cache={tmp_path}/cache"
    output = buildout(tmp_path, cache, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert f"not {'0' * 64}" in output
    assert "tiny-1.0.tar.gz has sha256" in output
    assert not list((tmp_path / "shared" / "tiny").glob("[0-9a-f]*"))


def test_a_patch_that_does_not_fit_is_named_with_its_file(tmp_path, index):
    profile(tmp_path, **release(index), patches=patch(tmp_path, old="9"))
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert f"applying the patch {tmp_path}/fix.patch failed" in output
    assert "tiny/__init__.py" in output
    assert "Traceback" not in output


def test_a_patch_with_another_checksum_is_refused(tmp_path, index):
    profile(tmp_path, **release(index), patches=f"{tmp_path}/fix.patch#{'0' * 32}")
    write(tmp_path / "fix.patch", PATCH.format(old="1"))
    output = buildout(tmp_path, status=1).stdout
    assert "fix.patch" in output
    assert f"update-hash {tmp_path}" in output


def test_a_missing_network_is_named_with_the_remedy(tmp_path, index):
    profile(tmp_path, **release(index))
    output = buildout(tmp_path, status=1).stdout
    assert "cannot fetch http://127.0.0.1:9/simple/tiny/" in output
    assert "UV_DEFAULT_INDEX" in output


def test_a_password_of_the_index_is_sent_and_not_shown(tmp_path):
    profile(tmp_path, requirement="tiny==1.0", sha256="0" * 64)
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX="http://me:hidden@127.0.0.1:9/s").stdout
    assert "cannot fetch http://127.0.0.1:9/s/tiny/" in output
    assert "hidden" not in output


def test_a_release_that_the_index_lacks_is_named(tmp_path, index):
    profile(tmp_path, **{**release(index), "requirement": "tiny==1.1"})
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "lists no source archive of tiny 1.1" in output


def test_an_archive_that_leads_outside_is_refused(tmp_path, index):
    content = archive({"tiny-1.0/../../evil": "x"})
    profile(tmp_path, requirement="tiny==1.0", sha256=sha256(content))
    index.add("tiny", "tiny-1.0.tar.gz", content)
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "tiny-1.0/../../evil" in output


def test_a_damaged_archive_is_refused(tmp_path, index):
    content = source_archive("tiny", "1.0")[:200]
    profile(tmp_path, requirement="tiny==1.0", sha256=sha256(content))
    index.add("tiny", "tiny-1.0.tar.gz", content)
    output = buildout(tmp_path, status=1, UV_DEFAULT_INDEX=index.url).stdout
    assert "no intact tar.gz archive" in output


def project(folder):
    with tarfile.open(fileobj=io.BytesIO(source_archive("tiny", "1.0"))) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content
            write(folder / Path(member.name).relative_to("tiny-1.0"), content.read().decode())
    write(folder / "elsewhere" / "big.bin", "x")
    return folder


def test_a_project_folder_is_built_and_left_as_it_was(tmp_path):
    folder = project(tmp_path / "project")
    before = sorted(folder.rglob("*"))
    profile(tmp_path, path=folder)
    buildout(tmp_path)
    assert sorted(folder.rglob("*")) == before
    assert "tiny/__init__.py" in built_wheel(tmp_path).namelist()
    write(folder / "elsewhere" / "big.bin", "y")
    assert "building" not in buildout(tmp_path).stdout
    write(folder / "tiny" / "__init__.py", "value = 3\n")
    buildout(tmp_path)
    assert built_wheel(tmp_path).read("tiny/__init__.py") == b"value = 3\n"


def test_a_folder_without_project_is_refused(tmp_path):
    profile(tmp_path, path=tmp_path)
    assert f"{tmp_path} holds no Python project" in buildout(tmp_path, status=1).stdout


def test_a_project_on_a_server_is_refused(tmp_path):
    profile(tmp_path, path="http://host/repository")
    output = buildout(tmp_path, status=1).stdout
    assert "path is http://host/repository" in output


def test_path_and_requirement_together_are_refused(tmp_path):
    profile(tmp_path, path=tmp_path, requirement="tiny==1.0")
    output = buildout(tmp_path, status=1).stdout
    assert "needs one of the options path and requirement" in output


NATIVE = """\
from setuptools import Extension, setup

setup(
    name="tiny",
    version="1.0",
    packages=["tiny"],
    ext_modules=[Extension("tiny.fast", ["fast.c"])],
)
"""
FAST = """\
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "fast", 0, -1, 0, 0, 0, 0, 0};
PyMODINIT_FUNC PyInit_fast(void) {
    PyObject *made = PyModule_Create(&module);
    PyModule_AddIntConstant(made, "number", NUMBER);
    return made;
}
"""


def native_release(index):
    files = {
        "setup.py": NATIVE,
        "fast.c": FAST,
        "tiny/__init__.py": "",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    }
    content = archive({f"tiny-1.0/{name}": text for name, text in files.items()})
    return {"requirement": "tiny==1.0", "sha256": index.add("tiny", "tiny-1.0.tar.gz", content)}


def test_a_native_wheel_is_compiled_with_the_variables_of_the_profile(tmp_path, index):
    numbers = []
    options = native_release(index)
    for number in (7, 8):
        profile(tmp_path, **options, tag="native", environment=f"\n  CPPFLAGS = -DNUMBER={number}")
        buildout(tmp_path, UV_DEFAULT_INDEX=index.url)
        folder = tmp_path / f"unpacked-{number}"
        built_wheel(tmp_path).extractall(folder)  # noqa: S202 (it is the test's own)
        code = "import tiny.fast; print(tiny.fast.number)"
        numbers.append(
            subprocess.check_output(
                [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": "."}
            )
        )
    assert numbers == [b"7\n", b"8\n"]


def test_a_line_that_sets_no_variable_is_named(tmp_path):
    profile(tmp_path, requirement="tiny==1.0", sha256="0" * 64, environment="CPPFLAGS")
    output = buildout(tmp_path, status=1).stdout
    assert "[tiny] environment: 'CPPFLAGS' is not of the form NAME = VALUE" in output
