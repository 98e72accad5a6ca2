# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine is made at a cloud and joined: moto's EC2, whose machines are hosts of a lab."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.ec2.models.instances import InstanceBackend
from moto.server import DomainDispatcherApplication, create_backend_app
from operators import Operator, made_operator
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from slapos_wendelin.lab import Host, Lab

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PORT = 5001
#: An image that moto knows.
REGION = "eu-west-3"


@dataclass
class Cloud:
    """A cloud whose machines are hosts of a lab."""

    operator: Operator
    image: str
    hosts: list[Host]

    def create(self, *options: str, status: int = 0) -> Any:
        """Run slapos computer create."""
        lab = self.operator.lab
        done = self.operator.slapos(
            *("computer", "create", "--provider", "ec2", "--cloud-region", REGION),
            *("--endpoint", f"http://{lab.address}:{PORT}", "--image", self.image),
            *("--size", "t3.medium", "--partitions", "2", "--datacenter", "paris"),
            *(*self.operator.way(), "--json", *options),
            status=status,
        )
        return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Yield a cloud beside the master of an operator."""
    with Lab.build({"paris": 0}) as lab, mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOUD_KEY", "testing")
        patch.setenv("CLOUD_SECRET", "testing")
        operator = made_operator(lab, tmp_path_factory)
        hosts: list[Host] = []
        start_hosts(lab, hosts, patch)
        with lab.master.listen((lab.address, PORT)) as listener:
            application = NamedAsAmazonDoes(DomainDispatcherApplication(create_backend_app))
            server = make_server(lab.address, PORT, application, True, fd=listener.fileno())
            threading.Thread(target=server.serve_forever, daemon=True).start()
            client = boto3.client("ec2", REGION, aws_access_key_id="x", aws_secret_access_key="x")
            image = client.describe_images()["Images"][0]["ImageId"]
            yield Cloud(operator, image, hosts)
            server.shutdown()
        operator.stop_master()


class NamedAsAmazonDoes:
    """Writes the name of the answers' XML with the slash at its end, which moto leaves out."""

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application

    def __call__(self, environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        answer = Response.from_app(self.application, environment)
        answer.data = answer.data.replace(b'/doc/2016-11-15">', b'/doc/2016-11-15/">')
        return answer(environment, start)


def start_hosts(lab: Lab, hosts: list[Host], patch: pytest.MonkeyPatch) -> None:
    """Let a host of the lab start for each machine that is asked for."""
    run_instances, numbers = InstanceBackend.run_instances, count(1)

    def run(backend: Any, *arguments: Any, **options: Any) -> Any:
        reservation = run_instances(backend, *arguments, **options)
        for instance in reservation.instances:
            (host,) = lab.add_hosts([("paris", f"machine-{next(numbers)}")])
            hosts.append(host)
            interface = instance.nics[0]
            interface.public_ip = interface.private_ip_address = host.address
        return reservation

    patch.setattr(InstanceBackend, "run_instances", run)


def test_a_machine_is_made_at_a_cloud_and_joined_and_made_once(cloud: Cloud) -> None:
    options = ("--name", "paris-9", "--accept-new-host-key")
    # Whoever made the host has put its key into known_hosts; here it is met for the first time.
    (outcome,) = cloud.create(*options)
    assert outcome["result"] == "joined", outcome
    (host,) = cloud.hosts
    assert outcome["host"] == f"ssh://admin@{host.address}"
    computer = cloud.operator.computer("paris-9")
    assert computer["provider"] == "ec2"
    assert computer["labels"]["machine"].startswith("i-")
    (again,) = cloud.create(*options)
    assert again["result"] == "unchanged"
    assert cloud.hosts == [host]


def test_nothing_is_made_of_what_cannot_be(cloud: Cloud) -> None:
    before = len(cloud.hosts)
    for options, fault in (
        (("--name", "x"), "the key of a machine that is made now cannot be known"),
        (("--accept-new-host-key",), "no name is named"),
        (("--name", "x", "--accept-new-host-key", "--size", "huge"), "--size is 'huge'"),
        (("--name", "x", "--accept-new-host-key", "--provider", "ce2"), "--provider is 'ce2'"),
        (("--name", "x", "--accept-new-host-key", "--image", "ami-none"), "ec2 refuses"),
    ):
        assert fault in cloud.create(*options, status=1)
    assert len(cloud.hosts) == before
