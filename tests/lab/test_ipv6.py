# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud and its cluster where there is no address of IPv4 but the loopback one."""

from __future__ import annotations

import json
import os
import subprocess

from environment import COMMAND_TIME, Environment, new_environment

from slapos_wendelin.local.home import DATA_CENTERS, PARTITION_COUNT, Home

NETWORK = "fd00:77"

#: Makes the addresses, then runs the rest as the user who called; all ends with it.
SCRIPT = """
ip link set lo up
ip -6 -batch "$0" || exit 1
exec unshare --user --map-user="$1" --map-group="$2" -- sh -c '
    ./wendelin up &&
    ./wendelin run slapos request wendelin-cluster --wait --parameters notebook-count=1 &&
    echo ---- && ./wendelin run slapos cluster status --json'
"""


def test_up_with_its_proof_works_on_ipv6() -> None:
    with new_environment() as made:
        home = Home(made.home.root, NETWORK)
        # What up installs and builds comes from the network, which is not there then.
        made.wendelin("build", "software/wendelin")
        batch = made.home.root.with_name("addresses")
        batch.write_text(addresses(home))
        done = in_own_network(made, str(batch), str(os.getuid()), str(os.getgid()))
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        status = json.loads(done.stdout.partition("----\n")[2])
        (root,) = status["instances"]
        published = root["connection"]
        assert published["zodb-uri"].startswith(f"neo://wendelin@[{NETWORK}::")
        assert published["dask-scheduler"].startswith(f"tls://[{NETWORK}::")
        assert published["dask-dashboard"].startswith(f"https://[{NETWORK}::")
        # Its promises have seen that it listens, and shows the page.
        assert published["notebooks"].startswith(f"https://[{NETWORK}::")


def addresses(home: Home) -> str:
    """Return the commands that give the loopback interface all addresses of an environment."""
    wanted = [home.own_address]
    wanted += [
        home.partition_address(name, number)
        for name in DATA_CENTERS
        for number in range(PARTITION_COUNT)
    ]
    return "".join(f"address add {each}/128 dev lo\n" for each in wanted)


def in_own_network(made: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a network of its own, which takes all processes along."""
    spaces = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
    return subprocess.run(
        ["unshare", *spaces, "--mount-proc", "sh", "-c", SCRIPT, *arguments],
        cwd=made.source,
        env=made.variables | {"WENDELIN_NETWORK": NETWORK, "UV_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIME,
    )
