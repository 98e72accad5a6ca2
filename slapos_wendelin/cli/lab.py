# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of ``./wendelin lab``: a lab to play with."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from slapos_wendelin.cli.outcome import outcome
from slapos_wendelin.lab import DataCenter, Host, Lab, LabError, Link
from slapos_wendelin.lab.disks import DEFAULT_SIZE
from slapos_wendelin.lab.keeper import standing
from slapos_wendelin.lab.lab import MOST_HOSTS
from slapos_wendelin.local.progress import Progress
from slapos_wendelin.master.quantities import read_bytes, show_bytes

#: The lab that the commands mean unless another is named.
PLAYGROUND = "playground"
NAMES = (
    *("paris", "tokyo", "virginia", "frankfurt", "mumbai", "oregon", "dublin", "seoul", "sydney"),
    *("montreal", "stockholm", "singapore"),
)

Command = Callable[[argparse.Namespace], int]


def up(options: argparse.Namespace) -> int:
    """Build a lab of data centers with hosts, and say what to do with it."""
    begin = time.monotonic()
    progress = Progress()
    hosts: int = options.hosts
    count = len(options.data_centers) * hosts
    with progress.step(f"build {len(options.data_centers)} data centers with {count} hosts"):
        lab = Lab.build(
            dict.fromkeys(options.data_centers, hosts),
            name=options.name,
            round_trip=options.delay,
            disk_size=options.disk,
            ipv6=options.ipv6,
            stays=True,
        )
    _show_hosts(lab, Console(highlight=False))
    host, first = next(iter(lab.hosts), "HOST"), options.data_centers[0]
    lab_command = "./wendelin lab" + (f" --name {lab.name}" if lab.name != PLAYGROUND else "")
    lines = {
        f"ssh {host}": "log in as admin, who may sudo",
        f"run ping {host}": "any program of this machine, from the master's place",
        f"slow {first} 100ms": "ping to and from there shows 100 ms",
        f"cut {first}": f"nobody reaches {first}; heal {first} ends that",
        f"off {host}": "take its power: what is not synced is lost; on gives it back",
        f"fill {host}": "no space left on its disk; free gives it back",
        "status": "what is cut, slow, off or frozen (--json for programs)",
        "down": "end it all; nothing stays",
    }
    print(f"\nThe lab stands after {time.monotonic() - begin:.1f} s. Next:")
    for words, meaning in lines.items():
        print(f"  {lab_command} {words:<20} {meaning}")
    return 0


def down(options: argparse.Namespace) -> int:
    """End a lab; nothing of it stays."""
    with Progress().step("end the lab"):
        Lab.attach(options.name).close()
    return 0


def status(options: argparse.Namespace) -> int:
    """Show hosts and ways; exit 3 when there is no lab."""
    if options.name not in standing():
        others = [name for name in standing() if name != options.name]
        if options.json:
            json.dump({"stands": False, "others": others}, sys.stdout)
        else:
            print(f"There is no lab {options.name!r}. Build it with: ./wendelin lab up")
            if others:
                print(f"Others stand: {', '.join(others)} (--name says which)")
        return 3
    lab = Lab.attach(options.name)
    if options.json:
        json.dump({"stands": True, **lab.state()}, sys.stdout, indent=2)
        return 0
    console = Console(highlight=False)
    _show_hosts(lab, console)
    _show_ways(lab, console)
    return 0


def _show_hosts(lab: Lab, console: Console) -> None:
    """Print the hosts."""
    table = Table("host", "data center", "address", "state", "free disk", box=None, pad_edge=False)
    for host in lab.state()["hosts"]:
        free = show_bytes(host["free"]) if host["free"] is not None else ""
        table.add_row(host["name"], host["data_center"], host["address"], host["state"], free)
    console.print(table)


def _show_ways(lab: Lab, console: Console) -> None:
    """Print the ways between data centers."""
    table = Table("way", "round trip", "loss", "limit", "state", box=None, pad_edge=False)
    for way in lab.state()["ways"]:
        loss = f"{way['loss']:.1%}" if way["loss"] else ""
        limit = f"{way['megabits']:g} Mbit/s" if way["megabits"] else ""
        table.add_row(
            " - ".join(way["between"]),
            f"{way['round_trip'] * 1000:g} ms",
            *(loss, limit, "cut" if way["is_cut"] else "open"),
        )
    console.print()
    console.print(table)


def ssh(options: argparse.Namespace) -> int:
    """Log in to a host as admin, or run a command there."""
    lab = Lab.attach(options.name)
    host = lab.host(options.host)
    command = [
        *("ssh", "-i", str(lab.key), "-o", f"UserKnownHostsFile={lab.known_hosts}"),
        *("-o", "IdentitiesOnly=yes", "-F", "none", f"{host.user}@{host.address}"),
    ]
    return _become(lab, [*command, *options.command])


def run(options: argparse.Namespace) -> int:
    """Run a command of this machine in the master's place, from where hosts can be reached."""
    lab = Lab.attach(options.name)
    return _become(lab, options.command or [os.environ.get("SHELL", "/bin/sh")])


def _become(lab: Lab, command: list[str]) -> int:
    """Let this process become a command in the master's place."""
    words = lab.master.command(command)
    os.execvp(words[0], words)  # noqa: S606 (the user's own command, no shell)


def _on_ways(change: Callable[[DataCenter | Link, float], None]) -> Command:
    """Return a command that changes all ways of a data center, or the way between two."""

    def work(options: argparse.Namespace) -> int:
        lab = Lab.attach(options.name)
        change(_ways(lab, options.names), options.value)
        return 0

    return work


def _on_network(change: Callable[[DataCenter | Link | Host], None]) -> Command:
    """Return a command that changes a host's network too."""

    def work(options: argparse.Namespace) -> int:
        lab = Lab.attach(options.name)
        names = options.names
        is_host = len(names) == 1 and names[0] in lab.hosts
        change(lab.host(names[0]) if is_host else _ways(lab, names))
        return 0

    return work


def _on_hosts(change: Callable[[Host], None]) -> Command:
    """Return a command that changes hosts, or all of a data center."""

    def work(options: argparse.Namespace) -> int:
        lab = Lab.attach(options.name)
        hosts: list[Host] = []
        for name in options.names:
            is_center = name in lab.data_centers
            hosts += lab.data_center(name).hosts if is_center else [lab.host(name)]
        lab.on_all(hosts, change)
        return 0

    return work


def _ways(lab: Lab, names: list[str]) -> DataCenter | Link:
    """Return what one or two names mean."""
    if len(names) == 1:
        return lab.data_center(names[0])
    if len(names) == 2:  # noqa: PLR2004 (a way has two ends)
        return lab.link(*names)
    raise LabError(
        f"{len(names)} names: {' '.join(names)}", "name a data center, or two for the way between"
    )


def _centers(text: str) -> list[str]:
    """Return the names of data centers that ``3`` or ``paris,tokyo`` means."""
    if not text.isdigit():
        return text.split(",")
    if not 1 <= int(text) <= len(NAMES):
        raise argparse.ArgumentTypeError(
            f"{text} data centers: choose 1 to {len(NAMES)}, or name them: paris,tokyo"
        )
    return list(NAMES[: int(text)])


def _quantity(example: str, units: dict[str, float]) -> Callable[[str], float]:
    """Return a function that reads a number with a unit."""

    def quantity(text: str) -> float:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%/]*)", text)
        if match is None or match[2].lower() not in units:
            known = ", ".join(unit or "none" for unit in units)
            raise argparse.ArgumentTypeError(f"{text!r} is not such as {example} (units: {known})")
        return float(match[1]) * units[match[2].lower()]

    return quantity


def _disk(text: str) -> int:
    """Return the bytes that a size such as 4GiB means."""
    size = read_bytes(text)
    if size is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a disk, such as 4GiB")
    return size


def _hosts(text: str) -> int:
    """Return how many hosts a data center has."""
    if not text.isdigit() or not 1 <= int(text) <= MOST_HOSTS:
        raise argparse.ArgumentTypeError(f"{text!r} hosts: choose 1 to {MOST_HOSTS}")
    return int(text)


_duration = _quantity("40ms or 0.5s", {"ms": 0.001, "s": 1.0})
_share = _quantity("1%", {"%": 0.01})
_rate = _quantity("10Mbit", {"kbit": 0.001, "mbit": 1.0, "gbit": 1000.0})

#: What changes ways: the command, its summary, what the last word means.
_WAYS: dict[str, tuple[str, Callable[[str], float], Callable[[Any, float], None]]] = {
    "slow": (
        "let packets and their answers take so long, such as 100ms",
        _duration,
        lambda ways, seconds: ways.slow_down(seconds),
    ),
    "lose": (
        "lose a share of all packets, such as 1%% (0%% to end it)",
        _share,
        lambda ways, share: ways.lose(share),
    ),
    "limit": (
        "let so much through, such as 10Mbit (0Mbit for all there is)",
        _rate,
        lambda ways, megabits: ways.limit(megabits),
    ),
}
_NETWORK: dict[str, tuple[str, Callable[[Any], None]]] = {
    "cut": ("let nothing through", lambda target: target.cut()),
    "heal": ("let packets through again", lambda target: target.heal()),
}
_HOSTS: dict[str, tuple[str, Callable[[Host], None]]] = {
    "off": ("take the power; what was not synced is lost", lambda host: host.power_off()),
    "on": ("give the power back", lambda host: host.power_on()),
    "freeze": ("let nothing run, as if it hung", lambda host: host.freeze()),
    "thaw": ("let it go on", lambda host: host.thaw()),
    "fill": ("leave no space on the disk", lambda host: host.fill_disk()),
    "free": ("give the space back", lambda host: host.free_disk()),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    lab = argparse.ArgumentParser(
        prog="./wendelin lab", description="Many hosts in data centers on this machine."
    )
    lab.add_argument("--name", default=PLAYGROUND, help="of the lab, where there are several")
    sub = lab.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, help_text: str, function: Command) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = sub.add_parser(
            name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
        )
        parser.set_defaults(function=function)
        return parser

    up_parser = command("up", "build a lab", up)
    up_parser.add_argument(
        "--data-centers", type=_centers, default="3", help="how many, or their names: paris,tokyo"
    )
    up_parser.add_argument("--hosts", type=_hosts, default="2", help="in each data center")
    up_parser.add_argument(
        "--delay", type=_duration, default="0ms", help="round trip between data centers: 40ms"
    )
    up_parser.add_argument("--disk", type=_disk, default=DEFAULT_SIZE, help="of a host: 4GiB")
    up_parser.add_argument("--ipv6", action="store_true", help="addresses of IPv6, none of IPv4")
    command("down", "end the lab; nothing of it stays", down)
    status_parser = command("status", "show hosts and ways; exit 3 when there is no lab", status)
    status_parser.add_argument("--json", action="store_true", help="for programs")
    ssh_parser = command("ssh", "log in to a host as admin, or run a command there", ssh)
    ssh_parser.add_argument("host")
    ssh_parser.add_argument("command", nargs=argparse.REMAINDER)
    run_parser = command("run", "run a command of this machine in the master's place", run)
    run_parser.add_argument("command", nargs=argparse.REMAINDER)
    _add_changes(command)
    return lab


def _add_changes(command: Callable[[str, str, Command], argparse.ArgumentParser]) -> None:
    """Add the commands that change a lab."""
    ways_help = "a data center, or two for the way between (master is one)"
    for name, (summary, change) in _NETWORK.items():
        command(name, summary, _on_network(change)).add_argument(
            "names", nargs="+", metavar="NAME", help=f"{ways_help}, or a host"
        )
    for name, (summary, read, change) in _WAYS.items():
        parser = command(name, summary, _on_ways(change))
        parser.add_argument("names", nargs="+", metavar="NAME", help=ways_help)
        parser.add_argument("value", type=read, metavar="VALUE")
    for name, (summary, change) in _HOSTS.items():
        command(name, summary, _on_hosts(change)).add_argument(
            "names", nargs="+", metavar="NAME", help="hosts, or data centers for all of theirs"
        )


def main() -> int:
    """Run one command."""
    return outcome(parser().parse_args(), "Interrupted. ./wendelin lab status shows what stands.")


if __name__ == "__main__":
    sys.exit(main())
