# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cluster of an environment: its nodes, their processes and promises, and its data."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import psutil
from patience import wait_for

from slapos_wendelin.cluster_identity import keep_for_user
from slapos_wendelin.local.cluster import client_environment, programs_of
from slapos_wendelin.neo.certificates import FOLDER_VARIABLE, IDENTITY_FILE

if TYPE_CHECKING:
    from environment import Environment

#: Seconds in which a cluster has to recover from whatever was done to it.
RECOVERY_TIME = 300.0
OBJECTS = Path(__file__).with_name("objects.py")


class Outcome(NamedTuple):
    """What a promise found last."""

    is_red: bool
    message: str


class Cluster:
    """The instance tree of one cluster."""

    def __init__(self, environment: Environment, reference: str) -> None:
        self.environment = environment
        self.reference = reference

    @property
    def root(self) -> dict[str, Any]:
        """The root instance, as the master's status shows it."""
        for root in self.environment.master.status()["instances"]:
            if root["reference"] == self.reference:
                return root
        raise AssertionError(f"the master has no instance {self.reference}")

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return all instances of the tree, the root under its reference, by name."""
        root = self.root
        return {node["reference"]: node for node in (root, *root["children"])}

    def error(self, node: str) -> str:
        """Return what the master's status says is wrong with a node, or nothing."""
        found = self.nodes()[node]["error"]
        return found["text"] if found else ""

    def folder(self, node: str) -> Path:
        """Return the folder of a node's partition."""
        place = self.nodes()[node]
        home = self.environment.home
        return home.computer(place["computer"]) / "inst" / place["partition"]

    def computer(self, node: str) -> str:
        """Return the name of the computer that hosts a node."""
        return self.nodes()[node]["computer"]

    def process(self, node: str, program: str = "") -> psutil.Process:
        """Return the process of a node's program, by default the one that names its type."""
        return _process_in(self._pid_file(node, program))

    def _pid_file(self, node: str, program: str) -> Path:
        """Return the file with the id of the process of a node's program."""
        name = program or re.sub(r"-\d+$", "", node)
        return self.folder(node) / f"var/run/{name}.pid"

    def kill(self, node: str, program: str = "") -> psutil.Process:
        """``kill -9`` a node's program, wait for its end and return what it was."""
        process = self.process(node, program)
        process.kill()
        psutil.wait_procs([process], timeout=RECOVERY_TIME)
        return process

    def successor(self, killed: psutil.Process, node: str, program: str = "") -> psutil.Process:
        """Wait until a node's program that was killed runs again; return its process."""
        path = self._pid_file(node, program)

        def find() -> psutil.Process | None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = _process_in(path)
                return process if process != killed else None
            return None

        return wait_for(find, f"{path.stem} of {node} starts again")

    def processes(self, pattern: str = "") -> dict[str, tuple[int, float]]:
        """Return process id and start time of each program, by node; *pattern* selects nodes."""
        found = {}
        for node in self.nodes():
            if node != self.reference and re.match(pattern, node):
                process = self.process(node)
                found[node] = process.pid, process.create_time()
        return found

    def outcomes(self, node: str) -> dict[str, Outcome]:
        """Return what each promise of a node found last, by the promise's name."""
        found = {}
        for path in (self.folder(node) / ".slapgrid/promise/result").glob("*.status.json"):
            document = json.loads(path.read_text())
            result = document["result"]
            found[document["title"]] = Outcome(result["failed"], result["message"])
        return found

    def look(self, *names: str) -> None:
        """Let slapgrid look at these nodes, on all their computers at once."""
        nodes = self.nodes()
        places: dict[str, list[str]] = {}
        for name in names:
            places.setdefault(nodes[name]["computer"], []).append(nodes[name]["partition"])
        with ThreadPoolExecutor(max(len(places), 1)) as pool:
            list(pool.map(lambda place: self.environment.look(place[0], *place[1]), places.items()))

    def look_until(
        self,
        *promises: tuple[str, str],
        is_red: bool,
        says: str | Mapping[tuple[str, str], str] = "",
        by_service: bool = False,
        seconds: float = RECOVERY_TIME,
    ) -> dict[tuple[str, str], Outcome]:
        """Look until promises (node and name) are all red or all green; return what they found.

        What they say has to match the pattern *says*, or that of each promise: it may be red for a
        while for another reason. slapgrid does not run a promise again within three seconds.

        :param by_service: leave it to the nodes' services to run them. What slapgrid tells the
            master of a node, of whichever promise it finds red first, would stay there.
        """
        patterns = dict.fromkeys(promises, says) if isinstance(says, str) else says
        deadline = time.monotonic() + seconds
        nodes = {node for node, _ in promises}
        while True:
            if by_service:
                time.sleep(0.5)
            else:
                self.look(*nodes)
            outcomes = {node: self.outcomes(node) for node, _ in promises}
            found = {(node, name): outcomes[node].get(name) for node, name in promises}
            others = [
                key
                for key, value in found.items()
                if not value
                or value.is_red != is_red
                or not re.search(patterns[key], value.message)
            ]
            if not others:
                return {key: value for key, value in found.items() if value}
            assert time.monotonic() < deadline, f"not {'red' if is_red else 'green'}: {found}"
            nodes = {node for node, _ in others}

    def state(self) -> dict[str, Any]:
        """Return what NEO tells of itself through its admin node; the reason while that is away."""
        nothing: dict[str, Any] = {"replicas": None, "nodes": [], "partition-table": []}
        admin = self.root["connection"]["admin"]
        try:
            python = self.process("neo-admin").cmdline()[0]
        except (psutil.Error, OSError, ValueError, IndexError) as error:
            # It is being replaced: no file or number of it yet, or no program in its process.
            return nothing | {"cluster": repr(error)}
        answer = subprocess.run(
            [
                *self.environment.prefix,
                *(python, "-m", "slapos_wendelin.neo.state", "--admin", admin),
                *("--certificates", str(self.certificates)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=RECOVERY_TIME,
        )
        return nothing | (
            json.loads(answer.stdout) if answer.returncode == 0 else {"cluster": answer.stderr}
        )

    def primary(self) -> str:
        """Return the name of the node that is the primary master, once there is one."""

        def find() -> str:
            state = self.state()
            leading = [n["address"] for n in state["nodes"] if n["id"] == state.get("primary")]
            return next((n for n, address in self.addresses().items() if address in leading), "")

        return wait_for(find, f"{self.reference} has a primary master")

    def addresses(self) -> dict[str, str]:
        """Return the addresses that nodes publish, by their names."""
        published = {name: node["connection"] for name, node in self.nodes().items()}
        return {name: each["address"] for name, each in published.items() if "address" in each}

    def neo_id(self, node: str) -> str:
        """Return the name that NEO has for a storage node, such as S2."""
        address = self.addresses()[node]

        def find() -> str:
            return next((n["id"] for n in self.state()["nodes"] if n["address"] == address), "")

        return wait_for(find, f"NEO knows {node}")

    def neoctl(self, *arguments: str) -> str:
        """Run neoctl and return what it said."""
        return self._run("neoctl", *arguments).stdout

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the Python of the analytics environment to its end."""
        return self._run("analytics-python", *arguments)

    def start_python(
        self, *arguments: str, without: Sequence[str] = (), output: IO[str] | None = None
    ) -> subprocess.Popen[str]:
        """Start the Python of the analytics environment, *without* some variables.

        Its output goes to a file if one is given, its errors nowhere then; both can be read from
        the process otherwise.
        """
        root = self.root
        program = programs_of(self.environment.home, root["release_url"]) / "analytics-python"
        variables = self._variables(root)
        variables = {k: v for k, v in variables.items() if k not in without}
        return subprocess.Popen(
            [str(program), *arguments],
            cwd=self.environment.source,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.PIPE,
            stderr=subprocess.DEVNULL if output else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def write_objects(self, name: str, count: int = 200) -> None:
        """Write objects of which the content is known."""
        done = self.python(str(OBJECTS), "write", name, str(count))
        assert done.stdout == f"{count} written\n", done.stdout + done.stderr

    def check_objects(self, name: str, count: int = 200) -> None:
        """Read them and fail when one is not what was written."""
        done = self.python(str(OBJECTS), "check", name, str(count))
        assert done.stdout == f"{count} right\n", done.stdout + done.stderr

    def request(self, *options: str, **parameters: Any) -> subprocess.CompletedProcess[str]:
        """``slapos request`` with parameters; underscores of their names become hyphens."""
        pairs = [f"{key.replace('_', '-')}={value}" for key, value in parameters.items()]
        given = ["--parameters", *pairs] if pairs else []
        product = [] if self.reference == "wendelin-cluster" else ["wendelin-cluster"]
        return self.environment.slapos("request", self.reference, *product, *options, *given)

    def faults(self) -> dict[str, str]:
        """Return what is wrong with nodes, by name; nothing when all is as it was requested."""
        found = {}
        for name, node in self.nodes().items():
            if node["error"]:
                found[name] = node["error"]["text"].strip()
            elif not node["settled"]:
                found[name] = f"{node['reported_state']}, not {node['state']}, or not processed yet"
        return found

    def wait_until_well(self, seconds: float = RECOVERY_TIME) -> dict[str, Any]:
        """Wait until nodes are as requested and listen, and NEO has all copies; return its state.

        A program that died is started again without any promise having missed it, so that the
        master's word is not enough.
        """
        deadline = time.monotonic() + seconds
        while True:
            faults = self.faults()
            state = {} if faults else self.state()
            missing = faults or self._missing(state) or self.faults()
            if not missing:
                return state
            assert time.monotonic() < deadline, f"after {seconds:.0f} s: {missing} {state}"
            red = [node for node, document in self.nodes().items() if document["error"]]
            if red:
                self.look(*red)
            else:
                time.sleep(0.2)

    def _missing(self, state: dict[str, Any]) -> Any:
        """Return what NEO has yet to do or to find, and the nodes that do not listen."""
        if state["cluster"] != "RUNNING":
            return state["cluster"]
        published = self.addresses()
        storages = {at for name, at in published.items() if name.startswith("neo-storage-")}
        listening = listening_addresses()
        return [
            *_behind(state, storages),
            *(name for name, address in published.items() if address not in listening),
        ]

    @property
    def certificates(self) -> Path:
        """Folder of the certificate with which the environment's user uses this cluster."""
        folder = self.environment.home.root / "etc" / "ssl" / self.reference
        if not (folder / IDENTITY_FILE).exists():
            keep_for_user(self.environment.master, self.reference, folder)
        return folder

    def _variables(self, root: dict[str, Any]) -> dict[str, str]:
        """Return the variables of programs that use the cluster."""
        variables = client_environment(self.environment.home, root["connection"])
        variables[FOLDER_VARIABLE] = str(self.certificates)
        return self.environment.variables | variables

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the release with the variables that ``./wendelin run`` sets."""
        root = self.root
        path = programs_of(self.environment.home, root["release_url"]) / program
        return subprocess.run(
            [str(path), *arguments],
            cwd=self.environment.source,
            env=self._variables(root),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RECOVERY_TIME,
            check=False,
        )


def cells_of(state: dict[str, Any], node_id: str) -> list[str]:
    """Return the states of the cells of a storage node."""
    return [cell for row in state["partition-table"] for node, cell in row if node == node_id]


def copies(state: dict[str, Any]) -> Iterator[int]:
    """Yield the number of readable copies of each NEO partition."""
    for row in state["partition-table"]:
        yield sum(cell in ("UP_TO_DATE", "FEEDING") for _, cell in row)


def listening_addresses() -> set[str]:
    """Return where somebody listens on this machine, as addresses are published."""
    return {
        f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        for ip, port in [connection.laddr]
    }


def _process_in(path: Path) -> psutil.Process:
    """Return the process whose id is in a file, which is empty while the shell writes it."""
    return psutil.Process(int(wait_for(lambda: path.read_text().strip(), f"{path} is written")))


def _behind(state: dict[str, Any], addresses: set[str]) -> list[Any]:
    """Return what NEO has yet to do: copies to make, storages to use; all where it has no table.

    :param addresses: those of the storages that were requested.
    """
    rows = state["partition-table"]
    if not rows:
        return [state]
    holders = {node for row in rows for node, _ in row}
    storages = [node for node in state["nodes"] if node["type"] == "STORAGE"]
    running = {node["address"] for node in storages if node["state"] == "RUNNING"}
    return [
        *(cell for row in rows for cell in row if cell[1] != "UP_TO_DATE"),
        *(row for row in rows if len(row) <= state["replicas"]),
        *(node["id"] for node in storages if node["id"] not in holders),
        *(addresses - running),
    ]
