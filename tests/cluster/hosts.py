"""Hosts on one machine: network namespaces on a bridge of their own, each with files that no other host sees.

Nothing of the machine's own network is touched. `python -m tests.cluster.hosts GCS` prints the addresses of the nodes
that a cluster thinks alive, a line at every change.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.head import ROOT, end, environment

NET = "10.77.0"
OWN = "here"  # this folder is another one on every host
ENTER = 'mount --bind "$0" "$1" && shift && exec "$@"'
PATIENCE = 300.0  # seconds without a change after which nobody waits for one any more
IMPATIENT = {  # a silent node is lost after about 8 seconds; a minute is Ray's own choice
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}


@dataclass
class Hosts:
    """A bridge and its hosts; `folder` is seen by all, `folder / OWN` is each host's own."""

    folder: Path
    names: Sequence[str]
    started: list[subprocess.Popen[Any]] = field(default_factory=list)

    def space(self, name: str) -> str:
        """The network namespace of a host, or of the switch between them."""
        return f"rm{os.getpid()}-{name}"

    def address(self, name: str) -> str:
        """A host's own."""
        return f"{NET}.{self.names.index(name) + 1}"

    def start(self, name: str, words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A process of a host."""
        known = environment() | IMPATIENT | {"RAYMIX_CACHE": str(self.folder / OWN / "cache")}
        known |= {"RAYMIX_MALLOC": "default"} | options.pop("env", {})
        inside = ["sh", "-c", ENTER, str(self.folder / name), str(self.folder / OWN), *words]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.space(name), *inside], env=known, start_new_session=True, **options
        )
        self.started.append(process)
        return process

    def link(self, name: str, state: str) -> None:
        """Pull a host's cable (`down`), or plug it in again (`up`)."""
        ip("-n", self.space("switch"), "link", "set", name, state)

    def ray(self, name: str, head: str, *options: str, again: bool = False) -> subprocess.Popen[Any]:
        """A node of a cluster on a host, until it is killed or told that it is lost; then once more, if `again`."""
        gcs = f"{self.address(head)}:6379"
        where = ["--head", "--port=6379", "--include-dashboard=false"] if name == head else [f"--address={gcs}"]
        words = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", *where, *options,
            f"--node-ip-address={self.address(name)}", f"--temp-dir={self.folder / OWN / 'ray'}",
            "--disable-usage-stats",
        ]  # fmt: skip
        words = [*(["sh", "-c", 'until "$0" "$@"; do sleep 1; done'] if again else []), *words]
        with (self.folder / f"{name}.log").open("ab") as log:
            return self.start(name, words, stdout=log, stderr=log, cwd=ROOT)


def ip(*words: str) -> str:
    """What iproute2 prints; its complaints become ours."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def hosts(folder: Path, *names: str) -> Iterator[Hosts]:
    """Hosts that reach each other and nobody else.

    Raises:
        OSError: network namespaces are not permitted here, or iproute2 is not installed.
    """
    made = Hosts(folder, names)
    (folder / OWN).mkdir()
    switch = made.space("switch")
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for name in names:
            (folder / name).mkdir()
            there = ("-n", made.space(name))
            ip("netns", "add", made.space(name))
            ip(*there, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", switch)
            ip("-n", switch, "link", "set", name, "master", "bridge", "up")
            ip(*there, "addr", "add", f"{made.address(name)}/24", "dev", "eth0")
            ip(*there, "link", "set", "eth0", "up")
            ip(*there, "link", "set", "lo", "up")
        yield made
    finally:
        for process in made.started:
            end(process)
        for name in ("switch", *names):
            with suppress(OSError):
                for pid in ip("netns", "pids", made.space(name)).split():  # whoever is left there
                    os.kill(int(pid), signal.SIGKILL)
                ip("netns", "del", made.space(name))
        shutil.rmtree(folder, ignore_errors=True)


def main(gcs: str) -> None:
    """Print the addresses of nodes alive, whenever they change."""
    from ray._raylet import GcsClient

    client, said, when = GcsClient(address=gcs), None, time.monotonic()
    while time.monotonic() < when + PATIENCE:
        nodes = client.get_all_node_info(timeout=10).values()
        alive = sorted(node.node_manager_address for node in nodes if node.state == 0)
        if alive != said:
            print(json.dumps(alive), flush=True)
            said, when = alive, time.monotonic()
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
