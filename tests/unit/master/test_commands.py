# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real slapos command against a real master."""

from __future__ import annotations

import json
from pathlib import Path

from master_cloud import Cloud
from slapos_command import run


def test_a_user_and_a_computer_work_with_the_slapos_command(
    cloud: Cloud, configuration: Path, tmp_path: Path
):
    release = tmp_path / "software.cfg"
    outputs = run(
        configuration,
        ["node", "format", "--now"],
        ["supply", str(release), "paris"],
        ["remove", str(release), "paris"],
        ["node", "software"],
        ["request", "cluster", str(release), "--parameters", "count=3"],
        ["service", "list"],
        ["service", "info", "cluster"],
        ["service", "info", "unknown"],
        ["computer", "list"],
        ["computer", "info", "paris"],
        ["computer", "info", "unknown"],
        ["node", "bang", "-m", "hello"],
        ["request", "cluster", str(release), "--state", "destroyed"],
        ["node", "report"],
    )
    statuses = [int(each.rsplit("status ", 1)[1]) for each in outputs]
    assert statuses == [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0, 0, 0], "\n\n".join(outputs)
    texts = [each.rsplit("status ", 1)[0].strip() for each in outputs]
    assert "State is : started" in texts[4]
    assert json.loads(texts[5]) == {"cluster": str(release)}
    info = json.loads(texts[6])
    assert info["instance-parameters"] == {"count": "3"}
    assert (info["requested-state"], info["status"]) == ("started", "red")
    assert "paris" in texts[8]
    assert "Computer Reference: paris" in texts[9]
    # The report destroyed the instance and its partition is free again.
    (computer,) = cloud.client.computers()
    assert (computer["partitions"], computer["partitions_used"]) == (4, 0)
    assert cloud.client.instances() == []


def test_the_slapos_command_shows_why_a_request_is_refused(cloud: Cloud, configuration: Path):
    cloud.add_computer("paris", partitions=1, datacenter="paris")
    release = str(configuration.with_name("software.cfg"))
    full, unknown = run(
        configuration,
        ["request", "cluster", release, "--node", "datacenter=tokyo"],
        ["request", "cluster", release, "--node", "datacentre=paris"],
    )
    assert "paris: data center is paris, asked for tokyo" in full
    assert "unknown SLA key 'datacentre' (the known ones are computer_guid, datacenter" in unknown


CONSOLE = """
import json
instance = request(product.neo, "cluster", partition_parameter_kw={"count": 3})
supply("https://example.org/other.cfg", "paris")
information = getInformation("cluster")
print(json.dumps({
    "release": information._software_release_url,
    "parameters": information._parameter_dict,
    "state": instance.getState(),
    "trees": sorted(slap.getOpenOrderDict()),
    "computers": sorted(slap.getComputerDict()),
    "status": slap.registerComputer("paris").getStatus()["text"],
    "addresses": instance.getFullHostingIpAddressList(),
}))
"""


def test_a_script_in_the_console_requests_supplies_and_looks(cloud: Cloud, configuration: Path):
    cloud.add_computer("paris", partitions=1)
    cloud.client.put_product("neo", release_url="https://example.org/neo.cfg")
    script = configuration.with_name("script.py")
    script.write_text(CONSOLE)
    (output,) = run(configuration, ["console", "--cfg", str(configuration), str(script)])
    seen = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    status = seen.pop("status")
    assert seen == {
        "release": "https://example.org/neo.cfg",
        "parameters": {"count": "3"},
        "state": "started",
        "trees": ["cluster"],
        "computers": ["paris"],
        "addresses": [["tap0", "10.0.0.0"]],
    }
    assert status.startswith("#access Computer was last in contact at")
    (computer,) = cloud.client.computers()
    urls = {each["url"] for each in computer["software"]}
    assert urls == {"https://example.org/neo.cfg", "https://example.org/other.cfg"}


def test_an_unknown_product_computer_or_release_is_refused_and_nothing_is_changed(
    cloud: Cloud, configuration: Path
):
    cloud.add_computer("paris")
    outputs = run(
        configuration,
        ["request", "cluster", "product.nothing"],
        ["request", "cluster", "product.nothing", "--state", "destroyed"],
        ["request", "cluster", "http://a b"],
        ["remove", "https://example.org/nothing.cfg", "paris"],
    )
    assert "No Software Release corresponding to this Software Product" in outputs[0]
    assert "holds a space" in outputs[2]
    assert [int(each.rsplit("status ", 1)[1]) for each in outputs] == [1, 1, 1, 0]
    assert cloud.client.instances() == []
    assert cloud.client.status()["software"] == []
