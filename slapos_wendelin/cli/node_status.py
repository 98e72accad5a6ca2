# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos node status``: what the agent of this computer does, and what it waits for."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from slapos.cli.config import ConfigCommand
from slapos.grid.svcbackend import getSupervisorRPC

from slapos_wendelin.build_progress import described
from slapos_wendelin.cli.ages import duration
from slapos_wendelin.cli.client_command import print_json
from slapos_wendelin.disk_space import fault_of
from slapos_wendelin.errors import MissingRequirementError
from slapos_wendelin.node import exclusion, state
from slapos_wendelin.node.configuration import NodeConfiguration, read_configuration
from slapos_wendelin.node.processes import WATCHDOG_GROUP
from slapos_wendelin.node.quotas import Quotas, quotas_of

Document = dict[str, Any]

_WELL, _WAITING, _FAULT = "green", "yellow", "red"
_PHASE_STYLES = {"settled": _WELL, "failed": _FAULT, "promises are red": _FAULT}


class StatusCommand(ConfigCommand):
    """show software, partitions, programs and promises of this computer, and what they wait for."""

    command_group = "node"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Take the stock options, partitions to show, and --json."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("partitions", nargs="*", metavar="PARTITION", help="show only these")
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
        return parser

    def take_action(self, args: argparse.Namespace) -> int:  # pyright: ignore (as stock names it)
        """Print the status; return 0 when all is well, 1 otherwise."""
        document = node_status(read_configuration(Path(self.config_path(args))), args.partitions)
        if args.json:
            print_json(document)
        else:
            print_status(document, Console(highlight=False))
        return 0 if document["well"] else 1


def node_status(configuration: NodeConfiguration, only: Iterable[str] = ()) -> Document:
    """Return what is known of a computer on the computer itself.

    :param only: the partitions to show; none for all.
    :raises MissingRequirementError: no agent has run here, or this user may not know.
    """
    root, only = configuration.instance_root, set(only)
    try:
        told = state.read_state(root)
    except PermissionError as error:
        raise MissingRequirementError(
            f"only the user of the agent may read {error.filename}", "run this command as that user"
        ) from error
    if told is None:
        raise MissingRequirementError(
            f"no agent has told anything in {root}",
            f"start it: python -m slapos_wendelin.node --configuration {configuration.path}",
        )
    unknown = only - {each["name"] for each in told["partitions"]}
    if unknown:
        raise MissingRequirementError(
            f"no instance is in {', '.join(sorted(unknown))}",
            "name partitions with instances: `slapos node status` lists them",
        )
    partitions = [each for each in told["partitions"] if not only or each["name"] in only]
    programs = [
        each | {"deaths": told.get("deaths", {}).get(f"{each['group']}:{each['name']}")}
        for each in _programs(configuration)
        if not only or each["group"] in only
    ]
    quotas = quotas_of(root)
    document = told | {
        "is_alive": exclusion.is_locked(state.folder_of(root)),
        "partitions": partitions,
        "programs": programs,
        "quotas": {"mount_point": quotas.mount_point, "kept": quotas.are_kept},
    }
    problems = _problems(document)
    # An agent whose disk is full cannot tell it.
    if full := fault_of(root):
        problems.append(full)
    return document | {"well": not problems, "problems": problems}


def _programs(configuration: NodeConfiguration) -> list[Document]:
    """Return the programs of the partitions, none when their supervisord does not run."""
    with (
        contextlib.suppress(OSError, Fault),
        getSupervisorRPC(str(configuration.supervisor_socket)) as supervisor,
    ):
        return [
            {
                "group": each["group"],
                "name": each["name"],
                "state": each["statename"],
                "pid": each["pid"],
                "since": each["start"] if each["pid"] else each["stop"],
            }
            for each in supervisor.getAllProcessInfo()
            if each["group"] != WATCHDOG_GROUP
        ]
    return []


def _problems(document: Document) -> list[str]:
    """Return a sentence for each thing that is not well."""
    found = []
    if not document["is_alive"]:
        found.append("the agent does not run: what is below is what it told last")
    if document["master"]["error"]:
        found.append(f"the master does not answer: {document['master']['error']}")
    found += [
        f"{name} holds the data of {each['instance']!r} ({each['guid']}), of which the master does"
        f" not know that it is here; to give it up: slapos node wipe {name}"
        for name, each in document.get("left", {}).items()
    ]
    found += [
        f"{each['url']} is to be {each['wanted']}: {each.get('error') or _state_of(each)}"
        for each in document["software"]
    ]
    for each in document["partitions"]:
        red = red_promises(each)
        if each["phase"] != "settled":
            waits = f", waits for {each['waits_for']}" if each["waits_for"] else ""
            error = f": {each['error']}" if each["error"] else ""
            found.append(f"{each['name']} is {each['phase']}{waits}{error}")
        elif red and each["wanted"] == "started":
            found += [f"{each['name']}: promise {name} is red: {text}" for name, text in red]
    found += [
        f"{each['group']}:{each['name']} is {each['state']}"
        for each in document["programs"]
        if each["state"] in ("FATAL", "BACKOFF")
    ]
    return found


def _state_of(software: Document) -> str:
    """Return what is done about a release, and how far that is."""
    # An agent of an earlier version tells of no progress.
    return described(software["state"], software.get("progress"))


def red_promises(partition: Document) -> list[tuple[str, str]]:
    """Return the red promises of a partition with what they say."""
    promises = sorted(partition["promises"].items())
    return [(name, promise["message"]) for name, promise in promises if promise["red"]]


def print_status(document: Document, console: Console) -> None:
    """Print a status as tables, and what is not well below them."""
    age = duration(time.time() - document["written_at"])
    runs = f"agent {document['pid']}" if document["is_alive"] else "no agent"
    console.print(f"computer {document['computer']}, {runs}, told {age} ago")
    if document["software"]:
        rows = [
            (each["url"], each["wanted"], _state_of(each), _next_try(each))
            for each in document["software"]
        ]
        console.print(_table(("release", "wanted", "state", "next try"), rows))
    rows = [_partition_row(each) for each in document["partitions"]]
    names = ("partition", "instance", "wanted", "state", "promises", "waits for", "next try")
    console.print(_table(names, rows))
    rows = [_program_row(each) for each in document["programs"]]
    console.print(_table(("program", "state", "process", "since", "died"), rows))
    quotas = Quotas(document["quotas"]["mount_point"], document["quotas"]["kept"])
    console.print(f"disk quotas of partitions: {quotas}")
    for problem in document["problems"]:
        console.print(Text(problem, style=_FAULT), soft_wrap=True)
    if document["well"]:
        console.print(Text("all is well", style=_WELL))


def _table(names: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Return a table."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _partition_row(partition: Document) -> tuple[str | Text, ...]:
    """Return what the table tells of a partition."""
    red, count = len(red_promises(partition)), len(partition["promises"])
    promises = Text(f"{red} of {count} red" if red else f"{count} green")
    promises.stylize(_FAULT if red else _WELL)
    phase = partition["phase"]
    return (
        partition["name"],
        partition["instance"],
        partition["wanted"],
        Text(phase, style=_PHASE_STYLES.get(phase, _WAITING)),
        promises if count else "",
        partition["waits_for"],
        _next_try(partition),
    )


def _program_row(program: Document) -> tuple[str | Text, ...]:
    """Return what the table tells of a program."""
    style = _WELL if program["state"] == "RUNNING" else _WAITING
    return (
        f"{program['group']}:{program['name']}",
        Text(program["state"], style=style),
        str(program["pid"] or ""),
        duration(time.time() - program["since"]) if program["since"] else "",
        _deaths(program["deaths"]),
    )


def _deaths(deaths: Document | None) -> str:
    """Return how often a program has died, and when it did last; empty for never."""
    if deaths is None:
        return ""
    return f"{deaths['count']}, last {duration(time.time() - deaths['last'])} ago"


def _next_try(thing: Document) -> str:
    """Return in how long something is tried; empty when it is not waited for."""
    if thing["next_try"] is None:
        return ""
    return f"in {max(thing['next_try'] - time.time(), 0):.0f} s"
