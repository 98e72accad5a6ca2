# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What profiles can do with the extension, in real buildout runs."""

import importlib.metadata
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from buildout_runs import BASE, buildout, environment, serve, write
from zc.buildout import buildout as stock
from zc.buildout import easy_install

from slapos_wendelin.buildout import patches
from slapos_wendelin.buildout.errors import ProfileError

REPOSITORY = Path(__file__).resolve().parents[2]

TEMPLATE = """
[part]
recipe = slapos.recipe.template:jinja2
output = ${buildout:directory}/out
inline = {{ value | tojson }}
context = key value :value
"""


def profile(folder, text, name="buildout.cfg"):
    return write(folder / name, BASE + "parts = part\n" + text)


def rendered(folder, name="out"):
    return json.loads((folder / name).read_text())


def test_a_reference_that_stands_alone_keeps_the_type(tmp_path):
    literals = {
        "!py!{'port': 8080, 'hosts': ['a', 'b']}": {"port": 8080, "hosts": ["a", "b"]},
        "!py!None": None,
        "!py!False": False,
        "!py!'!py!x'": "!py!x",
        "text": "text",
    }
    text = TEMPLATE.replace("{{ value |", "{{ values.values() | list |").replace(
        "key value :value", "section values values"
    )
    text += "[values]\n" + "".join(f"{i} = ${{data:{i}}}\n" for i in range(len(literals)))
    text += "[data]\n" + "".join(f"{i} = {literal}\n" for i, literal in enumerate(literals))
    profile(tmp_path, text)
    buildout(tmp_path)
    assert rendered(tmp_path) == list(literals.values())


#: A buildout that is killed while it writes how its parts were installed.
KILLED = """
import os, signal
from zc.buildout import buildout
from slapos_wendelin.buildout import patches

patches.apply()
save_option = buildout._save_option

def save_one_and_die(*arguments):
    save_option(*arguments)
    arguments[-1].flush()
    os.kill(os.getpid(), signal.SIGKILL)

buildout._save_option = save_one_and_die
buildout.main([])
"""


@pytest.mark.parametrize("is_first", [True, False])
def test_a_run_that_is_killed_while_it_notes_what_it_installed_is_made_good_by_the_next(
    tmp_path, is_first
):
    if not is_first:
        profile(tmp_path, TEMPLATE + "value = before\n")
        buildout(tmp_path)
    profile(tmp_path, TEMPLATE + "value = after\n")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env=environment(tmp_path), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    buildout(tmp_path)
    assert rendered(tmp_path) == "after"


def test_a_number_may_stand_within_a_text(tmp_path):
    profile(
        tmp_path,
        TEMPLATE + "value = http://h:${data:port}/${data:on}\n[data]\nport=!py!80\non=!py!True\n",
    )
    buildout(tmp_path)
    assert rendered(tmp_path) == "http://h:80/true"


def test_a_container_within_a_text_is_refused_with_its_place(tmp_path):
    profile(tmp_path, TEMPLATE + "value = x ${data:list}\n[data]\nlist = !py![1]\n")
    output = buildout(tmp_path, status=1).stdout
    assert "[part] ${data:list}: [1] cannot be part of a text" in output


def test_a_malformed_typed_value_is_refused_with_its_place(tmp_path):
    profile(tmp_path, TEMPLATE + "value = !py!{1: \n")
    assert "[part] value: '!py!{1:' does not hold" in buildout(tmp_path, status=1).stdout


def test_a_part_with_typed_options_is_installed_once(tmp_path):
    text = TEMPLATE + "value = ${data:value}\n[data]\nvalue = !py!{'a': {'x', 'y', 'z'}}\n"
    profile(tmp_path, text.replace("value | tojson", "value"))
    assert "Installing part" in buildout(tmp_path).stdout
    for seed in "123":
        assert "Updating part" in buildout(tmp_path, PYTHONHASHSEED=seed).stdout
    profile(tmp_path, text.replace("'z'", "'w'").replace("value | tojson", "value"))
    assert "Installing part" in buildout(tmp_path).stdout


def test_base_location_is_the_folder_of_the_file_that_wrote_it(tmp_path):
    write(
        tmp_path / "stack" / "base.cfg",
        """
        [macro]
        mine = ${:_profile_base_location_}/macro
        files = ${:_profile_base_location_}/a
        [kept]
        value = ${:_profile_base_location_}
        """,
    )
    write(
        tmp_path / "software" / "middle.cfg",
        "[buildout]\nextends = ../stack/base.cfg\n"
        "[macro]\nfiles += ${:_profile_base_location_}/b\n",
    )
    profile(
        tmp_path / "top",
        """
        [part]
        <= macro
        recipe = slapos.recipe.template:jinja2
        output = ${buildout:directory}/out
        files += ${:_profile_base_location_}/c
        inline = {{ [mine, files, kept] | tojson }}
        context =
          key mine :mine
          key files :files
          key kept kept:value
        """.replace("\n        ", "\n"),
    )
    with (tmp_path / "top" / "buildout.cfg").open("a") as stream:
        stream.write("[buildout]\nextends = ../software/middle.cfg\n")
    assert "unused" not in buildout(tmp_path / "top").stdout
    mine, files, kept = rendered(tmp_path / "top")
    assert mine == f"{tmp_path}/stack/macro"
    assert files.split() == [f"{tmp_path}/stack/a", f"{tmp_path}/software/b", f"{tmp_path}/top/c"]
    assert kept == f"{tmp_path}/stack"


def test_base_location_of_a_profile_on_a_server_is_its_url(tmp_path):
    release = tmp_path / "site" / "software" / "x"
    profile(
        release,
        TEMPLATE + "value = ${:_profile_base_location_}/f ${base:value}\n",
        name="software.cfg",
    )
    with (release / "software.cfg").open("a") as stream:
        stream.write("[buildout]\nextends = ../../stack/base.cfg\n")
    write(tmp_path / "site/stack/base.cfg", "[base]\nvalue = ${:_profile_base_location_}/g\n")
    with serve(tmp_path / "site") as index:
        site = index.url.removesuffix("/simple")
        write(
            tmp_path / "b" / "buildout.cfg", f"[buildout]\nextends={site}/software/x/software.cfg"
        )
        buildout(tmp_path / "b")
    assert rendered(tmp_path / "b").split() == [f"{site}/software/x/f", f"{site}/stack/g"]


def test_recipes_of_the_environment_work_offline_with_no_egg(tmp_path):
    profile(
        tmp_path,
        """
[part]
recipe = slapos.cookbook:wrapper
command-line = /bin/echo hello
wrapper-path = ${buildout:directory}/hello
[promise]
recipe = slapos.cookbook:promise.plugin
eggs = slapos_wendelin
module = slapos_wendelin
output = ${buildout:directory}/promise.py
config-port = !py!80
""",
    )
    with (tmp_path / "buildout.cfg").open("a") as stream:
        stream.write("[buildout]\nparts += promise\n")
    buildout(tmp_path, "buildout:offline=true")
    assert (tmp_path / "hello").exists()
    assert "'port': 80" in (tmp_path / "promise.py").read_text()
    assert not list((tmp_path / "eggs").iterdir())


def test_a_recipe_that_is_not_there_is_not_looked_for_offline(tmp_path):
    profile(tmp_path, "[part]\nrecipe = no-such-recipe\n")
    with serve(tmp_path) as index:
        output = buildout(
            tmp_path, "buildout:offline=true", f"buildout:index={index.url}", status=1
        ).stdout
        assert not index.fetched
    assert "We don't have a distribution for no-such-recipe" in output


def test_the_signature_of_a_part_does_not_depend_on_bytecode(tmp_path):
    profile(tmp_path, TEMPLATE + "value = 1\n")
    buildout(tmp_path)
    (line,) = [
        line
        for line in (tmp_path / ".installed.cfg").read_text().splitlines()
        if line.startswith("__buildout_signature__")
    ]
    version = importlib.metadata.version("slapos.recipe.template")
    assert f"slapos-recipe-template-{version}" in line.split()


def test_another_major_version_of_buildout_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "7.0")
    with pytest.raises(ProfileError, match=r"extends zc\.buildout 6, but this is 7\.0"):
        patches.check_version()


def test_a_buildout_without_the_extension_asks_no_index_and_names_what_lacks(tmp_path, monkeypatch):
    """What a buildout of another environment does with stack/slapos.cfg."""
    monkeypatch.setattr(easy_install, "default_index_url", "http://127.0.0.1:9/")
    text = (REPOSITORY / "stack" / "slapos.cfg").read_text()
    write(tmp_path / "buildout.cfg", text.replace("= slapos_wendelin", "= not-installed-extension"))
    monkeypatch.chdir(tmp_path)
    build = stock.Buildout("buildout.cfg", [], use_user_defaults=False)
    with pytest.raises(easy_install.MissingDistribution, match="'not-installed-extension'"):
        build.install([])


def test_a_changed_template_stops_the_build_with_the_file_and_the_remedy(tmp_path):
    write(tmp_path / "t.in", "changed")
    profile(
        tmp_path,
        "[part]\nrecipe = slapos.recipe.build:download\n"
        "url = ${:_profile_base_location_}/t.in\nmd5sum = 00000000000000000000000000000000\n",
    )
    output = buildout(tmp_path, status=1).stdout
    assert f"{tmp_path}/t.in" in output
    assert f"update-hash {tmp_path}" in output
