# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running cluster gets a JupyterLab in place, whose kernels compute on it."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path

import pytest
from cluster import Cluster
from cryptography.hazmat.primitives.serialization import pkcs12
from environment import REPOSITORY, Environment
from notebooks import NODE, notebook_server

PROGRAM = REPOSITORY / "tests" / "analytics" / "notebook_page.py"
BROWSER = PROGRAM.with_name("notebook_browser.py")
EXAMPLE = "arrays.ipynb"
TOTAL = "2000000.0\n"


def run_example(cluster: Cluster, page: str, certificate: Path) -> None:
    """Run the example on the page as a user does, and save it."""
    done = cluster.python(str(PROGRAM), page, str(certificate), EXAMPLE)
    assert done.stdout == TOTAL, done.stdout + done.stderr


def test_kernels_compute_on_the_cluster_and_notebooks_outlive_a_killed_server(
    environment: Environment, cluster: Cluster, tmp_path: Path
) -> None:
    before = cluster.processes()
    certificate = tmp_path / "alice"
    with notebook_server(cluster) as page:
        assert cluster.processes("(?!notebook)") == before
        write_for_browser(environment, cluster, certificate)
        run_example(cluster, page, certificate)
        saved = cluster.folder(NODE) / "srv" / EXAMPLE
        assert json.loads(saved.read_text())["cells"][2]["outputs"][0]["text"] == [TOTAL]
        killed = cluster.kill(NODE)
        cluster.successor(killed, NODE)
        cluster.wait_until_well()
        assert json.loads(saved.read_text())["cells"][2]["outputs"][0]["text"] == [TOTAL]
        run_example(cluster, page, certificate)
    assert cluster.processes() == before


@pytest.mark.skipif(
    not all(map(shutil.which, ("firefox-esr", "certutil", "pk12util"))),
    reason="no browser is installed: apt-get install firefox-esr libnss3-tools",
)
def test_firefox_takes_the_certificate_and_runs_the_example(
    environment: Environment, cluster: Cluster, tmp_path: Path
) -> None:
    with notebook_server(cluster) as page:
        file, password = write_for_browser(environment, cluster, tmp_path / "alice")
        done = cluster.python(str(BROWSER), page, str(file), password, EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(
        r"imported: refused: .*SEC_ERROR_UNKNOWN_ISSUER.*\n"
        r"trusted: JupyterLab\n"
        rf"printed: {TOTAL}\n",
        done.stdout,
    ), done.stdout


def write_for_browser(environment: Environment, cluster: Cluster, folder: Path) -> tuple[Path, str]:
    """Get a certificate; return the file for browsers and its password."""
    path = folder.with_name("browser.p12")
    options = (cluster.reference, str(folder), "--browser", str(path))
    done = environment.slapos("cluster", "certificate", *options)
    assert done.returncode == 0, done.stderr
    told = re.search(r"\nImport (\S+) in the browser; its password: (\S+)\n", done.stdout)
    assert told
    assert told[1] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = pkcs12.load_pkcs12(path.read_bytes(), told[2].encode())
    assert read.key
    assert read.cert
    assert read.cert.certificate.public_key() == read.key.public_key()
    return path, told[2]
