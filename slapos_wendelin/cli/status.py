# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the master's status: data centers, computers, instance trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from slapos_wendelin.build_progress import described
from slapos_wendelin.cli.ages import age, gibibytes, times
from slapos_wendelin.master.client import Document

#: From this width on, in columns, everything is shown.
WIDE = 120

#: How many problems are listed below the rest.
_LISTED_PROBLEMS = 12

_WELL, _WAITING, _FAULT, _QUIET = "green", "yellow", "red", "dim"

_COMPUTER_STYLES = {"eligible": _WELL, "lost": _FAULT}
_RELEASE_STYLES = {"available": _WELL, "error": _FAULT}


def print_status(document: Document, console: Console) -> int:
    """Print a status; return the exit status: 0 when all is well, 1 otherwise."""
    console.print(render(document, console.width))
    return exit_status(document)


def exit_status(document: Document) -> int:
    """Return 0 when all is well, 1 otherwise."""
    return 0 if document["well"] else 1


def render(document: Document, width: int) -> RenderableType:
    """Return a status as tables and trees that fit into a width in columns."""
    is_wide = width >= WIDE
    now = document["time"]
    parts: list[RenderableType] = [_datacenter_line(each) for each in document["datacenters"]]
    if document["computers"]:
        parts.append(_computers(document["computers"], now, is_wide))
    parts += [_tree(root, now, is_wide) for root in document["instances"]]
    parts += _conclusion(document["problems"])
    return Group(*parts)


def _datacenter_line(datacenter: Document) -> Text:
    """Return the summary of a data center."""
    line = Text(datacenter["name"] or "(no data center)", style="bold")
    if datacenter["regions"]:
        line.append(f" ({', '.join(datacenter['regions'])})", style="not bold")
    count = len(datacenter["computers"])
    states = datacenter["states"]
    line.append(f": {count} computer{'s' * (count != 1)}", style="not bold")
    others = [f"{number} {state}" for state, number in states.items() if state != "eligible"]
    if others:
        line.append(f" ({', '.join(others)})", style=f"not bold {_WAITING}")
    used, offered = datacenter["partitions_used"], datacenter["partitions"]
    line.append(
        f", {used} of {offered} partitions in use, {datacenter['instances']} instances",
        style="not bold",
    )
    if datacenter["instances_not_settled"]:
        line.append(f", {datacenter['instances_not_settled']} not well", style=f"not bold {_FAULT}")
    return line


def _computers(computers: Iterable[Document], now: str, is_wide: bool) -> Table:
    """Return the table of computers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("computer", "state", "contact", "partitions"):
        table.add_column(name, overflow="fold")
    if is_wide:
        for name in ("data center", "cores", "load", "memory", "disk"):
            table.add_column(name, overflow="fold")
    table.add_column("software", overflow="fold")
    for computer in computers:
        state = "lost" if computer["lost"] else computer["state"]
        row: list[RenderableType] = [
            Text(computer["reference"]),
            Text(state, style=_COMPUTER_STYLES.get(state, _WAITING)),
            age(computer["contacted_at"], now) or "never",
            f"{computer['partitions_used']} of {computer['partitions']}",
        ]
        if is_wide:
            row += [Text(computer["datacenter"]), *_capacity(computer["measured"])]
        table.add_row(*row, _releases(computer["software"], now))
    return table


def _capacity(measured: Document) -> Iterator[str]:
    """Yield cores, load, memory and disk of a computer, empty where they are not known."""
    yield str(measured.get("cpu_core", ""))
    yield f"{measured['load'][0]:.1f}" if "load" in measured else ""
    for used, size in (("memory_used", "memory_size"), ("storage_used", "storage_capacity")):
        total, busy = gibibytes(measured.get(size)), gibibytes(measured.get(used))
        yield f"{busy.split()[0]} of {total}" if busy else total


def _releases(software: Iterable[Document], now: str) -> Text:
    """Return the releases of a computer with their states and ages."""
    text = Text()
    for release in software:
        if text:
            text.append(", ")
        state = release["reported_state"] or "waiting"
        if release["requested_state"] == "destroyed":
            state = "going"
        text.append(f"{release['version']} ")
        style = _RELEASE_STYLES.get(state, _WAITING)
        text.append(described(state, release["progress"]), style=style)
        if since := age(release["reported_at"], now):
            text.append(f" {since}", style=_QUIET)
    return text


def _tree(root: Document, now: str, is_wide: bool) -> Tree:
    """Return an instance and all below it."""
    branch = Tree(_label(root, now, is_wide))
    _grow(branch, root, now, is_wide)
    return branch


def _grow(branch: Tree, instance: Document, now: str, is_wide: bool) -> None:
    """Add what is below an instance."""
    for child in instance["children"]:
        _grow(branch.add(_label(child, now, is_wide)), child, now, is_wide)


def _label(instance: Document, now: str, is_wide: bool) -> Text:
    """Describe an instance."""
    label = Text(instance["reference"], style="bold")
    place = f"{instance['computer']}/{instance['partition']}" if instance["computer"] else "nowhere"
    label.append(f"  {place}  ", style="not bold")
    label.append(*_state(instance))
    if is_wide:
        label.append(f"  {instance['version']}", style="not bold")
        label.append(f"  {instance['guid']}", style=f"not bold {_QUIET}")
    label.append(f"  {age(instance['created_at'], now)} old", style=f"not bold {_QUIET}")
    if instance["error"]:
        since = age(instance["error"]["time"], now)
        label.append(f"\n{_last_line(instance['error']['text'])}", style=f"not bold {_FAULT}")
        label.append(f" ({since} ago)", style=f"not bold {_QUIET}")
    for each in instance["deaths"]:
        died = f"\n{each['program']} died {times(each['count'])}, and was started again"
        label.append(died, style=f"not bold {_WAITING}")
        label.append(f" (last {age(each['last_at'], now)} ago)", style=f"not bold {_QUIET}")
    return label


def _state(instance: Document) -> tuple[str, str]:
    """Return how an instance is, and the style of the words."""
    if instance["error"]:
        return f"{instance['state']}, fails", f"not bold {_FAULT}"
    if not instance["settled"]:
        reported = instance["reported_state"] or "new"
        goal = instance["state"]
        text = f"{reported}, changes" if reported == goal else f"{reported}, to be {goal}"
        return text, f"not bold {_WAITING}"
    if instance["state"] == "started":
        return "started, promises pass", f"not bold {_WELL}"
    return instance["state"], f"not bold {_WELL}"


def _conclusion(problems: list[str]) -> list[Text]:
    """Return the last lines: that all is well, or what is not."""
    if not problems:
        return [Text("All is well.", style=_WELL)]
    lines = [Text(f"Not well: {len(problems)}", style=_FAULT)]
    lines += [Text(f"  {problem}") for problem in problems[:_LISTED_PROBLEMS]]
    if len(problems) > _LISTED_PROBLEMS:
        lines.append(Text(f"  and {len(problems) - _LISTED_PROBLEMS} more"))
    return lines


def _last_line(text: str) -> str:
    """Return the last line of an error."""
    return (text.strip().splitlines() or [""])[-1].strip()
