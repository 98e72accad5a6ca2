# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's parameters decide its nodes and where they may go."""

import json
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos_wendelin import parameters
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.topology import (
    as_plain_data,
    cluster_cautions,
    cluster_nodes,
    cluster_requests,
)

REPOSITORY = Path(__file__).parents[2]
SCHEMA = parameters.load_schema(
    REPOSITORY / "software" / "wendelin" / "instance-cluster-input-schema.json"
)


def nodes_of(**given):
    wanted = {key.replace("_", "-"): value for key, value in given.items()}
    return {
        node.name: node for node in cluster_nodes(parameters.check(SCHEMA, wanted), group="tree")
    }


@given(
    storages=st.integers(1, 64),
    masters=st.integers(1, 9),
    workers=st.integers(0, 256),
    notebooks=st.integers(0, 64),
)
def test_a_cluster_has_the_nodes_that_were_asked_for_each_with_its_own_name(
    storages, masters, workers, notebooks
):
    nodes = cluster_nodes(
        parameters.check(
            SCHEMA,
            {
                "storage-count": storages,
                "replicas": 0,
                "master-count": masters,
                "worker-count": workers,
                "notebook-count": notebooks,
            },
        ),
        group="tree",
    )
    assert Counter(node.software_type for node in nodes) == Counter(
        {
            "neo-master": masters,
            "neo-admin": 1,
            "neo-storage": storages,
            "dask-scheduler": 1,
            "dask-worker": workers,
            "notebook": notebooks,
        }
    )
    assert len({node.name for node in nodes}) == len(nodes)


def test_there_is_no_notebook_server_unless_it_is_asked_for():
    assert not [name for name in nodes_of() if name.startswith("notebook")]
    nodes = nodes_of(notebook_count=2, overrides={"notebook-1": {"data-center": "tokyo"}})
    assert nodes["notebook-0"].sla == {"spread": "datacenter", "group": "tree/notebook"}
    assert nodes["notebook-1"].sla["datacenter"] == "tokyo"


def test_parameters_of_a_release_without_notebooks_give_none():
    given = parameters.check(SCHEMA, {})
    del given["notebook-count"]
    assert not [node for node in cluster_nodes(given, group="tree") if "notebook" in node.name]


def test_nodes_of_one_type_are_spread_over_data_centers():
    nodes = nodes_of()
    assert nodes["neo-storage-0"].sla == {"spread": "datacenter", "group": "tree/neo-storage"}
    assert nodes["neo-storage-0"].sla == nodes["neo-storage-2"].sla
    assert nodes["neo-master-0"].sla["group"] != nodes["neo-storage-0"].sla["group"]


def test_data_centers_bound_every_node():
    assert {
        node.sla["datacenter"] for node in nodes_of(data_centers=["paris", "tokyo"]).values()
    } == {"paris,tokyo"}


def test_an_override_changes_only_the_nodes_that_its_pattern_names():
    nodes = nodes_of(overrides={"dask-worker-1": {"memory-limit": "2GiB", "data-center": "tokyo"}})
    assert nodes["dask-worker-1"].configuration["memory-limit"] == "2GiB"
    assert nodes["dask-worker-1"].sla["datacenter"] == "tokyo"
    assert nodes["dask-worker-0"].configuration["memory-limit"] == "512MiB"
    assert "datacenter" not in nodes["dask-worker-0"].sla


def test_the_later_of_two_overrides_wins():
    nodes = nodes_of(overrides={"dask-worker-*": {"threads": 2}, "dask-worker-0": {"threads": 4}})
    assert nodes["dask-worker-0"].configuration["threads"] == 4
    assert nodes["dask-worker-1"].configuration["threads"] == 2


def test_a_node_can_be_put_on_one_computer_and_still_counts_in_its_group():
    nodes = nodes_of(data_centers=["tokyo"], overrides={"neo-admin": {"computer": "paris-2"}})
    assert nodes["neo-admin"].sla == {
        "spread": "datacenter",
        "group": "tree/neo-admin",
        "computer_guid": "paris-2",
    }


def test_a_pattern_that_names_no_node_is_refused():
    with pytest.raises(ParameterError, match="'neo-stroage-0' matches no node"):
        nodes_of(overrides={"neo-stroage-0": {"data-center": "tokyo"}})


def test_storages_on_mariadb_are_told_of_durability_and_settings_others_are_not():
    assert nodes_of()["neo-storage-0"].configuration == {
        "cluster": "wendelin",
        "replication-bandwidth": 0,
        "storage-engine": "sqlite",
    }
    path = REPOSITORY / "software" / "wendelin-mariadb" / "instance-cluster-input-schema.json"
    given = {"storage-engine": "rocksdb", "mariadb": {"long-query-time": 2}}
    complete = parameters.check(parameters.load_schema(path), given)
    nodes = {node.name: node for node in cluster_nodes(complete, group="tree")}
    assert nodes["neo-storage-0"].configuration == {
        "cluster": "wendelin",
        "durability": "safe",
        "replication-bandwidth": 0,
        **given,
    }
    assert "storage-engine" not in nodes["neo-master-0"].configuration


@pytest.mark.parametrize(
    ("amount", "in_bytes"), [("unlimited", 0), ("20MiB", 20 * 2**20), ("2GiB", 2 * 2**30)]
)
def test_storages_are_told_in_bytes_what_they_may_send_to_others(amount, in_bytes):
    storage = nodes_of(**{"replication-bandwidth": amount})["neo-storage-2"]
    assert storage.configuration["replication-bandwidth"] == in_bytes


def test_more_copies_than_data_centers_are_a_caution():
    def cautions(there, **given):
        complete = parameters.check(SCHEMA, {"storage-count": 4, **given})
        return cluster_cautions(complete, lambda: there)

    (caution,) = cautions({"tokyo", "paris", "oslo"}, replicas=3)
    assert "4 copies of each NEO partition are more than the data centers" in caution
    assert "(oslo, paris, tokyo)" in caution
    assert cautions({"tokyo", "paris", "oslo"}, replicas=2) == []
    assert cautions({"tokyo"}, replicas=3) == []
    (caution,) = cautions({"oslo"}, **{"replicas": 2, "data-centers": ["tokyo", "paris"]})
    assert "(paris, tokyo)" in caution


def test_templates_get_plain_data():
    (first, *_) = as_plain_data(list(nodes_of().values()))
    assert first["name"] == "neo-master-0"
    assert first["configuration"]["partitions"] == 12


def rendered(complete):
    """Return the profile of the root instance, as buildout would read it."""
    template = (REPOSITORY / "instance-profiles" / "instance-cluster.cfg.in").read_text()
    text = jinja2.Template(template).render(
        parameters=complete,
        nodes=as_plain_data(cluster_nodes(complete, group="tree")),
        base_profile="base.cfg",
        dumps=json.dumps,
    )
    profile = ConfigParser(interpolation=None, delimiters="=")
    profile.optionxform = str
    profile.read_string(text.replace("\n<= ", "\nextends = "))
    return profile


@given(
    masters=st.integers(1, 9),
    storages=st.integers(1, 12),
    workers=st.integers(0, 12),
    notebooks=st.integers(0, 12),
)
def test_a_plan_expects_what_the_root_instance_requests_in_its_order(
    masters, storages, workers, notebooks
):
    complete = parameters.check(
        SCHEMA,
        {
            "master-count": masters,
            "storage-count": storages,
            "worker-count": workers,
            "notebook-count": notebooks,
            "replicas": 0,
            "data-centers": ["paris", "tokyo"],
        },
    )
    profile = rendered(complete)
    # The recipe of the first part asks for the peers, then for those that they wait for.
    assert "${peers:addresses}" in profile["promise-masters-listen"]["config-addresses"]
    sections = [
        *profile["peers"]["of"].split(),
        *profile["peers"]["wait-for"].split(),
        *profile["buildout"]["parts"].split(),
    ]
    requests = [name for name in dict.fromkeys(sections) if name.startswith("request-")]
    expected = cluster_requests(complete, "tree")
    assert requests == [f"request-{each['reference']}" for each in expected]
    for name, each in zip(requests, expected, strict=True):
        options = dict(profile[name])
        sent = {key[7:]: value for key, value in options.items() if key.startswith("config-")}
        assert set(sent) == set(each["parameters"]) | set(each["run_time"])
        assert {key: json.loads(sent[key]) for key in each["parameters"]} == each["parameters"]
        assert {k[4:]: v for k, v in options.items() if k.startswith("sla-")} == each["sla"]
        assert options["software-type"] == each["software_type"]
