# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make machines at a cloud, whichever apache-libcloud knows."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from libcloud.common.exceptions import BaseHTTPError
from libcloud.common.types import InvalidCredsError, LibcloudError
from libcloud.compute.base import Node, NodeDriver
from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState, Provider

from slapos_wendelin.errors import MissingRequirementError, ParameterError
from slapos_wendelin.remote.errors import HostError, UnreachableHostError

#: Where the credentials are, the first pair that is set: they are never on a command line.
_CREDENTIALS = (
    ("CLOUD_KEY", "CLOUD_SECRET"),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
)
#: Seconds between two looks at a machine that starts.
_INTERVAL = 1.0
_GONE = (NodeState.TERMINATED, "terminated", "shutting-down")


class CloudError(HostError):
    """A cloud refuses something, or does not answer."""


@dataclass(frozen=True)
class Machine:
    """What is wanted of a machine."""

    name: str
    image: str
    size: str
    #: What else the provider's driver takes, such as ex_keyname.
    options: Mapping[str, Any] = field(default_factory=dict)


class Cloud:
    """One provider, with an account there."""

    def __init__(self, provider: str, region: str = "", endpoint: str = "") -> None:
        """Connect to a provider with the credentials of the environment.

        :param endpoint: the URL of its API, where it is not the provider's own.
        :raises ParameterError: when there is no such provider.
        :raises MissingRequirementError: when there are no credentials.
        """
        known = {value: value for name, value in vars(Provider).items() if name.isupper()}
        if provider not in known:
            raise ParameterError(
                f"--provider is {provider!r}", "use a provider of apache-libcloud, such as ec2"
            )
        key, secret = _credentials()
        options: dict[str, Any] = {"region": region} if region else {}
        if endpoint:
            parts = urlsplit(endpoint)
            secure = parts.scheme == "https"
            options |= {"host": parts.hostname, "secure": secure}
            options["port"] = parts.port or (443 if secure else 80)
        self.provider = provider
        with _told(provider):
            self._driver: NodeDriver = get_driver(provider)(key, secret, **options)

    def machine(self, wanted: Machine) -> tuple[Node, bool]:
        """Return a machine of that name, and whether it was made now: a repeated call finds it."""
        with _told(self.provider):
            for node in self._driver.list_nodes():
                if node.name == wanted.name and node.state not in _GONE:
                    return node, False
            node = self._driver.create_node(
                name=wanted.name,
                image=self._image(wanted.image),
                size=self._size(wanted.size),
                **wanted.options,
            )
            return node, True

    def address(
        self, node: Node, *, private: bool, seconds: float, say: Callable[[str], None]
    ) -> str:
        """Wait until a machine runs and its SSH answers; return its address.

        :param private: whether to use its private address.
        :param say: is told what is waited for.
        :raises UnreachableHostError: when it takes longer.
        """
        deadline = time.monotonic() + seconds
        while True:
            with _told(self.provider):
                found = next(
                    (each for each in self._driver.list_nodes() if each.id == node.id), node
                )
            if found.state in _GONE:
                raise CloudError(
                    f"{node.name} ({node.id}) was terminated", f"see why at {self.provider}"
                )
            addresses = found.private_ips if private else found.public_ips
            say(f"{node.id} is {found.state}" + (f" at {addresses[0]}" if addresses else ""))
            if found.state == NodeState.RUNNING and addresses and _answers(addresses[0]):
                return str(addresses[0])
            if time.monotonic() > deadline:
                kind = "private" if private else "public"
                raise UnreachableHostError(
                    f"{node.name} ({node.id}) is {found.state} and its SSH does not answer after"
                    f" {seconds:g} s at {addresses or f'no {kind} address'}",
                    "see that its security group lets SSH in, then repeat the command",
                )
            time.sleep(_INTERVAL)

    def _image(self, name: str) -> Any:
        """Return an image by its id."""
        return self._driver.get_image(name)

    def _size(self, name: str) -> Any:
        """Return a size by its id or its name.

        :raises ParameterError: when there is none.
        """
        sizes = self._driver.list_sizes()
        for size in sizes:
            if name in {size.id, size.name}:
                return size
        some = ", ".join(sorted(each.id for each in sizes)[:8])
        raise ParameterError(f"--size is {name!r}", f"use one of the provider's: {some}, ...")


def _credentials() -> tuple[str, str]:
    """Return the key and the secret of the environment."""
    for names in _CREDENTIALS:
        key, secret = (os.environ.get(name, "") for name in names)
        if key and secret:
            return key, secret
    raise MissingRequirementError(
        "there are no credentials for the cloud",
        "set the environment variables CLOUD_KEY and CLOUD_SECRET (for ec2 also those of AWS)",
    )


@contextmanager
def _told(provider: str) -> Iterator[None]:
    """Tell what a provider refuses as one of our errors."""
    try:
        yield
    except InvalidCredsError as error:
        raise CloudError(
            f"{provider} does not take the credentials", "correct CLOUD_KEY and CLOUD_SECRET"
        ) from error
    except (LibcloudError, BaseHTTPError, OSError) as error:
        raise CloudError(
            f"{provider} refuses: {' '.join(str(error).split())[:300]}",
            "correct what it names, then repeat the command",
        ) from error
    except (ValueError, TypeError, IndexError) as error:
        raise CloudError(
            f"{provider} cannot be used like this: {error}", "correct --region and the options"
        ) from error


def _answers(address: str) -> bool:
    """Say whether something takes connections at the port of SSH."""
    try:
        socket.create_connection((address, 22), timeout=5).close()
    except OSError:
        return False
    return True
