# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud in three data centers, and what becomes of it when a part of it fails.

One command joins six hosts. All stories are of this cloud: each leaves it well for the next one.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import pytest
import yaml
from operators import (
    PATIENCE,
    REPOSITORY,
    TREE,
    TREE_ON_HOSTS,
    Operator,
    made_operator,
    put_release,
)

from slapos_wendelin.lab import Host, Lab
from slapos_wendelin.lab.polling import until

CENTERS = ("paris", "tokyo", "virginia")
RELEASE = f"{TREE_ON_HOSTS}/software.cfg"
INSTANCES, SOFTWARE = "/srv/slapos-wendelin/inst", "/srv/slapos-wendelin/soft"
SLAPOS = "/opt/slapos-wendelin/current/bin/slapos"
AGENT_LOG = "/srv/slapos-wendelin/run/agent.log"

#: Whose commands the stories run.
PAGE = (REPOSITORY / "docs" / "data-centers.md").read_text()

Document = dict[str, Any]


def documented(name: str, changes: Mapping[str, str] | None = None) -> list[str]:
    """Return the words of the page's command that begins so, without "slapos", some changed."""
    (words,) = (each for each in commands() if " ".join(each).startswith(name))
    return [(changes or {}).get(word, word) for word in words]


def commands() -> list[list[str]]:
    """Return the words of each command of the page, without "slapos"."""
    lines = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]
    return [shlex.split(line)[1:] for line in lines if line.startswith("slapos ")]


class Cloud(Operator):
    """A master and its six computers."""

    _watch: Watch | None = None

    def join_all(self) -> list[Document]:
        """Join all hosts of the lab by one inventory; return what came of each."""
        centers: Document = {center: {"region": f"{center}-region"} for center in CENTERS}
        for center, described in centers.items():
            hosts = self.lab.data_center(center).hosts
            described["hosts"] = [{"address": each.address, "name": each.name} for each in hosts]
        document = {"defaults": {"user": "admin", "partitions": 5}, "datacenters": centers}
        (self.folder / "computers.yaml").write_text(yaml.safe_dump(document))
        done = self.slapos(*documented("computer join"), *self.way(), "--json")
        outcomes: list[Document] = json.loads(done.stdout)
        return outcomes

    def change(self, name: str, *parameters: str, wait: bool = False) -> None:
        """Request an instance tree, or change it."""
        waiting = ("--wait", str(PATIENCE)) if wait else ()
        given = ("--parameters", *parameters) if parameters else ()
        self.slapos("request", name, RELEASE, "--unchecked", *given, *waiting)

    def single(
        self,
        name: str,
        place: str,
        *,
        release: str = RELEASE,
        wait: bool = True,
        status: int = 0,
    ) -> str:
        """Request one node alone, wait until it is well; return what was said.

        :param place: a computer, or KEY=VALUE.
        """
        node = ("--type", "node", "--node", place if "=" in place else f"computer_guid={place}")
        waiting = ("--wait", str(PATIENCE)) if wait else ()
        options = ("--parameters", f"words={name}", "--unchecked", *waiting)
        done = self.slapos("request", name, release, *node, *options, status=status)
        return done.stdout + done.stderr

    def computer(self, name: str) -> Document:
        """Return a computer as the master shows it."""
        (found,) = (each for each in self.status()["computers"] if each["reference"] == name)
        return found

    def tree(self, name: str, *parameters: str) -> Document:
        """Request an instance tree, or change it, and wait until all of it is well; return it."""
        self.change(name, *parameters, wait=True)
        return self.instance(name)

    def instance(self, reference: str) -> Document:
        """Return an instance tree as the master shows it."""
        known = [each for each in self.status()["instances"] if each["reference"] == reference]
        # One that was moved leaves another of its name behind, which is to be wiped.
        (tree,) = (each for each in known if each["state"] != "destroyed" or len(known) == 1)
        return tree

    def end(self, name: str, *, wait: bool = True) -> None:
        """Destroy an instance tree, and wait until it is gone."""
        waiting = ("--wait", str(PATIENCE)) if wait else ()
        self.slapos("request", name, "--state", "destroyed", *waiting)

    def status(self) -> Document:
        """Return the state of everything, as it is now or a moment later."""
        if self._watch is None:
            self._watch = Watch(self)
        return self._watch.next()

    def end_watch(self) -> None:
        """End the command that tells the state of everything."""
        if self._watch is not None:
            self._watch.end()

    def is_well(self) -> bool:
        """Say whether everything is as it should be."""
        return bool(self.status()["well"])

    def host_of(self, instance: Document) -> Host:
        """Return the host that an instance is on."""
        return self.lab.host(instance["computer"])


class Watch:
    """`slapos cluster status --watch`: one command that goes on is less work than one a look."""

    def __init__(self, cloud: Operator) -> None:
        self._cloud = cloud
        self._news = Condition()
        self._count = 0
        self._newest: Document = {}
        self._is_over = False
        self._command: subprocess.Popen[str] | None = None
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the command."""
        self._is_over = True
        while self._thread.is_alive():
            # It may just have been started anew.
            if self._command is not None:
                self._command.kill()
            self._thread.join(0.1)

    def next(self) -> Document:
        """Return the state of a moment that comes after the call."""
        with self._news:
            # What comes next may have been asked for before.
            wanted = self._count + 2
            assert self._news.wait_for(lambda: self._count >= wanted, PATIENCE), "no status"
            return self._newest

    def _read(self) -> None:
        """Keep what the command says; a master that is away ends it, and it is started again."""
        while not self._is_over:
            command = ("cluster", "status", "--json", "--watch", "0.2")
            with self._cloud.start(*command) as self._command:
                for line in self._command.stdout or ():
                    if line.startswith("{"):
                        with self._news:
                            self._newest = json.loads(line)
                            self._count += 1
                            self._news.notify_all()


def starts(host: Host, instance: Document) -> list[str]:
    """Return the process of each start of a node's program; there is one at least."""
    file = f"{INSTANCES}/{instance['partition']}/starts"
    # Nothing of an instance says that its program has begun.
    told = until(lambda: host.run("cat", file, check=False).stdout, "its program has begun")
    return told.split()


def words(host: Host, instance: Document) -> str:
    """Return the words that a node was given."""
    # buildout takes it away for a moment when it writes it anew.
    file = f"{INSTANCES}/{instance['partition']}/words"
    return host.run("cat", file, check=False).stdout.strip()


def runs(host: Host, process: str) -> bool:
    """Say whether a process of a host runs; one that waits to be buried does not."""
    state = host.run("ps", "-o", "stat=", "-p", process, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_for_last_start(host: Host, instance: Document) -> None:
    """Wait until a node's program runs as it was started last."""
    until(lambda: runs(host, starts(host, instance)[-1]), "its program runs again", PATIENCE)


def processed(host: Host, instance: Document) -> int:
    """Return how often the agent has processed a partition to the end, once it is done."""
    # It tells the master before it says so itself.
    until(lambda: is_done(host, instance), "the agent is done", PATIENCE)
    log = host.run("cat", AGENT_LOG).stdout
    return log.count(f"{instance['partition']}: well")


def is_done(host: Host, instance: Document) -> bool:
    """Say whether the agent has processed a partition to the end, as it tells itself."""
    phases = {each["name"]: each["phase"] for each in agent_status(host)["partitions"]}
    return phases.get(instance["partition"]) == "settled"


def agent_status(host: Host) -> Document:
    """Return what the agent of a host says."""
    done = host.run(SLAPOS, *documented("node status"), "--json", check=False)
    document: Document = json.loads(done.stdout)
    return document


#: Exits with status 0 when the files of the release in the working folder are whole.
_WHOLE = """
for number in range(200):
    assert open(f"parts/bulk/{number}").read() == f"{number}\\n" * 10000, number
"""


def put_other_release(host: Host, name: str) -> tuple[str, str]:
    """Give a host the release under another URL; return that, and the folder of its build."""
    place = f"/usr/local/share/{name}"
    put_release(host, TREE, place)
    host.run("sync")
    url = f"{place}/software.cfg"
    return url, f"{SOFTWARE}/{md5(url.encode(), usedforsecurity=False).hexdigest()}"


def release_on(cloud: Cloud, host: Host, url: str) -> Document:
    """Return a release of a host as the master shows it; empty while it knows none."""
    known = {each["url"]: each for each in cloud.computer(host.name)["software"]}
    return known.get(url, {"error": None, "reported_state": None})


@contextmanager
def builds_wait(host: Host) -> Iterator[None]:
    """Let what a host builds wait in the middle, until the block is done."""
    host.run("touch", "/run/let-builds-wait")
    yield
    # A host without power has lost what was in its memory.
    if host.runs:
        host.run("rm", "/run/let-builds-wait")


def wipe(host: Host, partition: str) -> None:
    """Give up what a partition holds that the master does not know."""
    host.run(SLAPOS, *documented("node wipe", {"slappart0": partition}))


def nodes_of(tree: Document) -> list[Document]:
    """Return the nodes of a tree, without its root."""
    children: list[Document] = tree["children"]
    return children


def places(tree: Document) -> list[tuple[str, ...]]:
    """Return where each instance of a tree is."""
    keys = ("reference", "guid", "computer", "partition")
    return [tuple(each[key] for key in keys) for each in (tree, *nodes_of(tree))]


def made_cloud(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cloud, list[Document]]:
    """Return a cloud of all hosts of a lab, and what came of the joining of each."""
    made_cloud_ = made_operator(lab, tmp_path_factory, Cloud)
    for host in lab.hosts.values():
        put_release(host, TREE, TREE_ON_HOSTS)
    return made_cloud_, made_cloud_.join_all()


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, list[Document]]]:
    """Yield the cloud, and what came of the joining of each host."""
    with Lab.build(dict.fromkeys(CENTERS, 2)) as lab:
        cloud, outcomes = made_cloud(lab, tmp_path_factory)
        yield cloud, outcomes
        cloud.end_watch()
        cloud.stop_master()


@pytest.fixture
def cloud(joined: tuple[Cloud, list[Document]]) -> Iterator[Cloud]:
    """Yield the cloud, which is well before and after each story."""
    cloud, _ = joined
    yield cloud
    mend(cloud)


@contextmanager
def quick_to_lose(cloud: Cloud) -> Iterator[None]:
    """Give the cloud a master for which a computer is lost after some seconds."""
    cloud.kill_master()
    cloud.run_master("--lost-after", "20")
    try:
        yield
    finally:
        cloud.kill_master()
        cloud.run_master()


def mend(cloud: Cloud) -> None:
    """Make a cloud well and empty again, whatever a story has done."""
    lab = cloud.lab
    if not cloud.has_master:
        cloud.run_master()
    for center in lab.data_centers.values():
        center.heal()
    for host in lab.hosts.values():
        host.thaw()
        host.power_on()
        host.free_disk()
    for computer in cloud.status()["computers"]:
        for partition in computer["measured"].get("left", {}):
            wipe(lab.host(computer["reference"]), partition)
    for tree in cloud.status()["instances"]:
        cloud.end(tree["reference"], wait=False)
    until(lambda: not cloud.status()["instances"], "all instances are gone", PATIENCE)
    until(cloud.is_well, f"the cloud is well again: {cloud.status()['problems']}", PATIENCE)


def test_no_command_of_the_page_is_without_a_story() -> None:
    run = re.findall(r"documented\(\s*\"([^\"]+)\"", Path(__file__).read_text())
    names = {name for name in run if any(" ".join(each).startswith(name) for each in commands())}
    assert len(names) == len(set(run)) == len(commands()) == 10, (sorted(set(run)), commands())


def test_one_inventory_makes_a_cloud_and_a_tree_spreads_over_its_data_centers(
    joined: tuple[Cloud, list[Document]], cloud: Cloud
) -> None:
    _, outcomes = joined
    assert [each["result"] for each in outcomes] == ["joined"] * 6, outcomes
    assert {each["name"]: len(each["computers"]) for each in cloud.status()["datacenters"]} == (
        dict.fromkeys(CENTERS, 2)
    )

    assert "All is well." in cloud.slapos(*documented("cluster status")).stdout
    tree = cloud.tree("spread", "nodes=6", "words=bonjour")
    nodes = nodes_of(tree)
    assert sorted(each["computer"] for each in nodes) == sorted(cloud.lab.hosts)
    assert Counter(each["datacenter"] for each in nodes) == dict.fromkeys(CENTERS, 2)
    # What the root publishes it has from its nodes, by the master, across data centers.
    for node in nodes:
        assert tree["connection"][node["reference"]] == f"{node['computer']} says bonjour"
        (process,) = starts(cloud.host_of(node), node)
        assert runs(cloud.host_of(node), process)
    for host in cloud.lab.hosts.values():
        assert release_on(cloud, host, RELEASE)["reported_state"] == "available"


def test_a_data_center_that_is_cut_catches_up_and_does_nothing_twice(cloud: Cloud) -> None:
    tree = cloud.tree("cut", "nodes=3", "words=before")
    (away,) = (each for each in nodes_of(tree) if each["datacenter"] == "tokyo")
    host = cloud.host_of(away)
    before = {each["guid"]: starts(cloud.host_of(each), each) for each in nodes_of(tree)}
    count = processed(host, away)

    # The cut comes while the computers process a change; two more come meanwhile.
    cloud.change("cut", "words=first")
    cloud.lab.data_center("tokyo").cut()
    cloud.change("cut", "words=second")
    cloud.change("cut", "words=third")
    others = [each for each in nodes_of(tree) if each is not away]
    until(
        lambda: all(words(cloud.host_of(each), each) == "third" for each in others),
        "others go on",
        PATIENCE,
        0.2,
    )
    until(lambda: words(host, away) in {"before", "first"}, "it has what was said before the cut")
    assert runs(host, *before[away["guid"]])

    cloud.lab.data_center("tokyo").heal()
    healed = cloud.tree("cut")
    assert healed["connection"][away["reference"]] == f"{away['computer']} says third"
    assert words(host, away) == "third"
    # The same instances at the same places; their programs were never started anew.
    assert places(healed) == places(tree)
    assert {each["guid"]: starts(cloud.host_of(each), each) for each in nodes_of(tree)} == before
    assert all(runs(cloud.host_of(each), *before[each["guid"]]) for each in nodes_of(tree))
    # What was asked for three times was done at most twice: before the cut, and after it.
    assert processed(host, away) - count in {1, 2}
    assert sum(each["partitions_used"] for each in cloud.status()["computers"]) == 4


def test_a_frozen_host_is_lost_takes_nothing_new_and_comes_back_as_it_was(cloud: Cloud) -> None:
    request = documented("request steady", {"https://example.org/software.cfg": RELEASE})
    node = ("--type", "node", "--parameters", "words=steady", "--unchecked")
    cloud.slapos(*request, *node, "--wait", str(PATIENCE))
    steady = cloud.instance("steady")
    assert steady["datacenter"] == "paris"
    host = cloud.host_of(steady)
    before = starts(host, steady), processed(host, steady)

    with quick_to_lose(cloud):
        host.freeze()
        until(lambda: cloud.computer(host.name)["lost"], "the host is lost", PATIENCE)
        problems = cloud.status()["problems"]
        assert any(each.startswith(f"computer {host.name} is lost") for each in problems), problems
        assert f"{host.name}: lost" in cloud.single("newcomer", host.name, status=1)

        host.thaw()
        until(lambda: not cloud.computer(host.name)["lost"], "the host is back", PATIENCE)
        cloud.single("newcomer", host.name)
    assert (starts(host, steady), processed(host, steady)) == before
    assert runs(host, *before[0])
    assert cloud.instance("steady")["settled"]


def test_a_master_restored_from_an_older_backup_harms_nothing(cloud: Cloud) -> None:
    tokyo, paris = cloud.lab.host("tokyo-1"), cloud.lab.host("paris-1")
    kept = cloud.tree("kept", "nodes=2", "words=old")
    cloud.single("gone", tokyo.name)
    cloud.slapos(*documented("master backup"))

    # What the backup does not know: a change, an end, and two instances, one where another was.
    place = cloud.instance("gone")["partition"]
    cloud.change("kept", "words=new", wait=True)
    cloud.end("gone")
    cloud.single("late", tokyo.name)
    cloud.single("lost", paris.name)
    late, lost = cloud.instance("late"), cloud.instance("lost")
    assert late["partition"] == place
    unknown = [(tokyo, late), (paris, lost)]
    before = [starts(host, each) for host, each in unknown]
    old = {each["guid"]: starts(cloud.host_of(each), each) for each in nodes_of(kept)}

    cloud.kill_master()
    cloud.slapos(*documented("master restore"))
    assert all(runs(host, *each) for (host, _), each in zip(unknown, before, strict=True))
    cloud.run_master()

    # Computers come back by themselves; what the backup knows is again as it was then.
    restored = cloud.tree("kept")
    assert restored["connection"] == kept["connection"]
    assert places(restored) == places(kept)
    assert {each["guid"]: starts(cloud.host_of(each), each) for each in nodes_of(kept)} == old
    # What it does not know runs on, is named, and nobody gets its place.
    until(
        lambda: all(
            cloud.computer(each["computer"])["measured"].get("left") for _, each in unknown
        ),
        "the computers tell what they hold",
        PATIENCE,
    )
    problems = "\n".join(cloud.status()["problems"])
    assert f"{lost['partition']} of paris-1 holds the data of 'lost' ({lost['guid']})" in problems
    assert f"{place} of tokyo-1 holds the data of 'late' ({late['guid']})" in problems
    assert (
        f"{place} holds the data of 'late'"
        in (until(lambda: cloud.instance("gone")["error"], "it is refused", PATIENCE)["text"])
    )
    cloud.single("fresh", paris.name)
    assert cloud.instance("fresh")["partition"] != lost["partition"]
    for (host, each), processes in zip(unknown, before, strict=True):
        assert starts(host, each) == processes
        assert runs(host, *processes)
        assert words(host, each) == each["reference"]
        assert any(each["guid"] in problem for problem in agent_status(host)["problems"])

    # What is needed again is requested again, somewhere else; the operator gives up what is left.
    cloud.slapos(*documented("cluster move"))
    cloud.single("late", tokyo.name)
    assert cloud.instance("late")["partition"] != place
    assert runs(tokyo, *before[0])
    for host, each in unknown:
        wipe(host, each["partition"])
    assert not any(runs(host, *each) for (host, _), each in zip(unknown, before, strict=True))
    until(cloud.is_well, "all is well", PATIENCE)


def tells_of_space(problems: list[str]) -> bool:
    """Say whether problems tell that there is no space, and what to do."""
    said = "\n".join(problems)
    return "No space left on device" in said and "free some" in said


def test_a_disk_that_fills_up_during_a_build_is_named_and_once_freed_the_build_goes_on(
    cloud: Cloud,
) -> None:
    host = cloud.lab.host("virginia-1")
    cloud.single("steady", host.name)
    steady = cloud.instance("steady")
    before = starts(host, steady)
    url, folder = put_other_release(host, "full")

    with builds_wait(host):
        cloud.single("newcomer", host.name, release=url, wait=False)
        until(host.path(f"{folder}/parts/bulk").exists, "the build is under way", PATIENCE)
        host.fill_disk()
    until(lambda: release_on(cloud, host, url)["error"], "the build has failed", PATIENCE)
    # The instance that waits for it may name it too.
    built = f"{url} was not built on virginia-1"

    def problems() -> list[str]:
        return [each for each in cloud.status()["problems"] if each.startswith(built)]

    # While it is tried again, that is told.
    until(lambda: tells_of_space(problems()), "the master tells it", PATIENCE)
    until(lambda: tells_of_space(agent_status(host)["problems"]), "the agent tells it", PATIENCE)
    assert starts(host, steady) == before
    assert runs(host, *before)

    # Nobody does anything but give the space back.
    host.free_disk()
    until(lambda: cloud.instance("newcomer")["settled"], "it is built and runs", PATIENCE)
    host.run("python3", "-c", _WHOLE, cwd=folder)
    assert starts(host, steady) == before


def test_a_host_without_power_comes_back_with_its_instances(cloud: Cloud) -> None:
    tree = cloud.tree("powered", "nodes=3", "words=before")
    (node,) = (each for each in nodes_of(tree) if each["datacenter"] == "tokyo")
    host = cloud.host_of(node)
    with quick_to_lose(cloud):
        host.power_off()
        until(lambda: cloud.computer(host.name)["lost"], "the host is lost", PATIENCE)
        # The others go on with what is asked for meanwhile.
        cloud.change("powered", "words=after")
        host.power_on()
        until(lambda: not cloud.computer(host.name)["lost"], "the host is back", PATIENCE)
    healed = cloud.tree("powered")
    assert healed["connection"][node["reference"]] == f"{host.name} says after"
    assert places(healed) == places(tree)
    wait_for_last_start(host, node)
    assert all(
        len(starts(cloud.host_of(each), each)) == 1 for each in nodes_of(tree) if each is not node
    )
    until(lambda: agent_status(host)["well"], "the agent has nothing to complain of", PATIENCE)


def test_the_instances_of_a_host_that_is_dead_go_elsewhere_when_the_operator_says_so(
    cloud: Cloud,
) -> None:
    cloud.single("refugee", "datacenter=tokyo")
    refugee = cloud.instance("refugee")
    host = cloud.host_of(refugee)
    host.power_off()
    cloud.slapos(*documented("computer drain", {"tokyo-2": host.name}))
    moved = cloud.instance("refugee")
    assert (moved["guid"], moved["datacenter"]) == (refugee["guid"], "tokyo")
    assert moved["computer"] != host.name
    assert runs(cloud.host_of(moved), *starts(cloud.host_of(moved), moved))
    host.power_on()
    until(cloud.is_well, "the host has wiped what was moved", PATIENCE)
    assert not host.path(f"{INSTANCES}/{refugee['partition']}/starts").exists()
    cloud.slapos(*documented("computer uncordon", {"tokyo-2": host.name}))
    assert cloud.computer(host.name)["state"] == "eligible"


@pytest.mark.parametrize("moment", ["in the middle of", "directly after"])
def test_a_release_is_whole_though_the_power_went_during_its_build(
    cloud: Cloud, moment: str
) -> None:
    host = cloud.lab.host("virginia-2")
    url, folder = put_other_release(host, moment.partition(" ")[0])
    if moment == "directly after":
        cloud.single("built", host.name, release=url, wait=False)
        until(
            lambda: release_on(cloud, host, url)["reported_state"] == "available",
            "it is built",
            PATIENCE,
        )
        host.power_off()
    else:
        with builds_wait(host):
            cloud.single("built", host.name, release=url, wait=False)
            until(host.path(f"{folder}/parts/bulk").exists, "the build is under way", PATIENCE)
            host.power_off()
    host.power_on()
    cloud.single("built", host.name, release=url)
    assert release_on(cloud, host, url)["reported_state"] == "available"
    host.run("python3", "-c", _WHOLE, cwd=folder)
    built = cloud.instance("built")
    wait_for_last_start(host, built)
