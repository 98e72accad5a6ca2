# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of a cluster are checked before anything happens."""

import json
from pathlib import Path

import jsonschema
import pytest

from slapos_wendelin import parameters
from slapos_wendelin.errors import ParameterError

RELEASE = Path(__file__).parents[2] / "software" / "wendelin"
SCHEMA = parameters.load_schema(RELEASE / "instance-cluster-input-schema.json")


ON_MARIADB = parameters.load_schema(
    RELEASE.with_name("wendelin-mariadb") / "instance-cluster-input-schema.json"
)


def refusal(given, previous=None, schema=SCHEMA):
    with pytest.raises(ParameterError) as caught:
        parameters.check(schema, given, previous)
    return caught.value.message


def test_no_parameter_at_all_gives_a_cluster_that_survives_the_loss_of_a_storage():
    complete = parameters.check(SCHEMA, {})
    assert complete["replicas"] == 1
    assert complete["storage-count"] == 3
    assert complete["cluster"] == "wendelin"


def test_every_parameter_has_a_default_that_the_schema_itself_allows():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(parameters.with_defaults(SCHEMA, {}), SCHEMA)
    assert set(parameters.with_defaults(SCHEMA, {})) == set(SCHEMA["properties"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"storage-count": "3"}, 'storage-count: "3" must be of type integer'),
        ({"storage-count": 0}, "storage-count: 0 must be at least 1"),
        ({"partitions": 4097}, "partitions: 4097 must be at most 4096"),
        ({"storage-engine": "tokudb"}, 'storage-engine: "tokudb" must be one of sqlite'),
        ({"worker-memory-limit": "512"}, 'worker-memory-limit: "512" must match'),
        ({"replica": 1}, "replica: unknown key, did you mean replicas? (known are cluster, data-c"),
        (
            {"replication-bandwidth": "20MB"},
            'replication-bandwidth: "20MB" must match ^(unlimited|[1-9][0-9]{0,5}(MiB|GiB))$',
        ),
        ({"replicas": 3}, "replicas: 3 needs storage-count 4 or more, and it is 3"),
        (
            {"overrides": {"*": {"memory": 1}}},
            "overrides.*.memory: unknown key, did you mean memory-",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_allowed(given, said):
    assert said in refusal(given)


def test_keys_that_are_missing_and_alternatives_are_told():
    schema = {
        "required": ["name"],
        "properties": {"size": {"anyOf": [{"type": "integer"}, {"enum": ["small", "large"]}]}},
    }
    with pytest.raises(ParameterError) as caught:
        parameters.check(schema, {"size": "smal"})
    assert caught.value.message == (
        "parameters: 'name' is missing; "
        'size: "smal" must be of type integer, '
        'or "smal" must be one of small, large, did you mean small?'
    )


def test_a_schema_may_refer_to_other_documents():
    schema = {
        "$id": "https://example.org/input.json",
        "properties": {"size": {"$ref": "size.json"}},
    }
    documents = {"https://example.org/size.json": {"type": "integer"}}
    assert parameters.check(schema, {"size": 3}, read=documents.__getitem__) == {"size": 3}
    with pytest.raises(ParameterError, match='size: "3" must be of type integer'):
        parameters.check(schema, {"size": "3"}, read=documents.__getitem__)
    with pytest.raises(ParameterError, match="the release's schema is wrong"):
        parameters.check(schema, {"size": 3}, read={}.__getitem__)


def test_a_wrong_schema_is_told():
    with pytest.raises(ParameterError, match="the release's schema is wrong"):
        parameters.check({"type": "nothing"}, {})


def test_all_faults_are_told_at_once():
    said = refusal({"storage-count": 0, "partitions": "x"})
    assert "storage-count" in said
    assert "partitions" in said


@pytest.mark.parametrize("key", ["cluster", "partitions"])
def test_what_is_fixed_at_creation_cannot_be_changed(key):
    other = {"cluster": "other", "partitions": 24}
    assert f"{key}: cannot be changed after creation" in refusal({key: other[key]}, previous={})


def test_a_default_that_is_written_out_is_no_change():
    assert parameters.check(SCHEMA, {"partitions": 12}, previous={})["partitions"] == 12


def test_storages_may_be_added_but_not_taken_away():
    parameters.check(SCHEMA, {"storage-count": 4}, previous={"storage-count": 3})
    assert "storage-count: cannot be lowered" in refusal(
        {"storage-count": 3}, previous={"storage-count": 4}
    )


def test_a_release_without_its_schema_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"missing\.json cannot be read"):
        parameters.load_schema(tmp_path / "missing.json")


@pytest.mark.parametrize("name", ["wendelin", "wendelin-mariadb"])
def test_the_release_names_schemas_that_are_there(name):
    folder = RELEASE.with_name(name)
    release = json.loads((folder / "software.cfg.json").read_text())
    for software_type in release["software-type"].values():
        for key in ("request", "response"):
            schema = parameters.load_schema(folder / software_type[key])
            jsonschema.Draft202012Validator.check_schema(schema)


def test_the_release_with_mariadb_takes_all_that_the_other_takes_in_the_same_way():
    properties = dict(ON_MARIADB["properties"])
    assert set(properties) - set(SCHEMA["properties"]) == {"durability", "mariadb"}
    for key, description in SCHEMA["properties"].items():
        if key != "storage-engine":
            assert properties[key] == description
    assert ON_MARIADB["$defs"]["name"] == SCHEMA["$defs"]["name"]
    engine = properties["storage-engine"]
    elsewhere = SCHEMA["properties"]["storage-engine"]["x-elsewhere"]
    assert engine["enum"] == ["sqlite", *elsewhere]
    for place in elsewhere.values():
        assert (RELEASE.parents[1] / place / "software.cfg").is_file()
    assert parameters.check(ON_MARIADB, {})["storage-engine"] == "sqlite"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"storage-engine": "inodb"},
            'storage-engine: "inodb" must be one of sqlite, innodb, rocksdb, did you mean innodb?',
        ),
        (
            {"storage-engine": "innodb", "mariadb": {"innodb-io-capacty": 200}},
            "mariadb.innodb-io-capacty: unknown key, did you mean innodb-io-capacity? (known are",
        ),
        (
            {"storage-engine": "innodb", "mariadb": {"innodb-io-capacity": "fast"}},
            'mariadb.innodb-io-capacity: "fast" must be of type integer',
        ),
        (
            {"storage-engine": "innodb", "mariadb": {"innodb-buffer-pool-size": "1G"}},
            'mariadb.innodb-buffer-pool-size: "1G" must match',
        ),
        (
            {"storage-engine": "innodb", "durability": "lazy"},
            'durability: "lazy" must be one of safe, relaxed',
        ),
        (
            {"durability": "relaxed"},
            "durability: relaxed needs storage-engine innodb or rocksdb, and it is sqlite",
        ),
        (
            {"mariadb": {"long-query-time": 1}},
            "mariadb.long-query-time: needs storage-engine innodb or rocksdb, and it is sqlite",
        ),
    ],
)
def test_what_is_wrong_about_mariadb_is_told_with_its_place(given, said):
    assert said in refusal(given, schema=ON_MARIADB)


def test_the_engine_cannot_be_changed_after_creation_but_the_rest_can():
    created = {"storage-engine": "innodb"}
    assert "storage-engine: cannot be changed after creation (it is innodb, not sqlite)" in (
        refusal({}, previous=created, schema=ON_MARIADB)
    )
    changed = created | {"durability": "relaxed", "mariadb": {"innodb-io-capacity": 300}}
    parameters.check(ON_MARIADB, changed, created)


def test_a_release_without_mariadb_says_which_one_has_it():
    assert refusal({"storage-engine": "rocksdb"}) == (
        'storage-engine: "rocksdb" must be one of sqlite:'
        " this release lacks it, request software/wendelin-mariadb"
    )


def test_relaxed_durability_says_what_may_be_lost():
    assert parameters.cautions(ON_MARIADB, parameters.check(ON_MARIADB, {})) == []
    (caution,) = parameters.cautions(ON_MARIADB, {"durability": "relaxed"})
    assert caution.startswith("durability relaxed: a computer that loses power")
