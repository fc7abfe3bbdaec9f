"""Nodes that come and go, as raylets of this machine: how fast a round's nodes come, how soon a late one trains."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tests.cluster.head import ROOT, Head, end, free_port, head
from tests.cluster.test_autoscaler import autoscaled
from tests.e2e.test_run import SPACE, WORDS

Process = subprocess.Popen[str]


def autoscale(version: str) -> dict[str, Any]:
    """From no node to four and back, by Ray's fake provider, which starts one raylet after the other."""
    before = os.getloadavg()[0]
    found = autoscaled(version)
    return {
        "row": f"0 -> 4 -> 0 nodes, autoscaler {version}",
        "asked_at_once": found["asked"],
        "seconds_to_each_node": [seconds for seconds, _ in found["nodes"][1:5]],
        "seconds_to_4_trials": found["training"][3],
        "seconds_down_after_the_last_trial": found["down"],
        "load_average": [round(before, 1), round(os.getloadavg()[0], 1)],
    }


def late_node() -> dict[str, Any]:
    """Real proxies wait for a node; it comes, starts a worker, fetches the token shards and trains."""
    before = os.getloadavg()[0]
    folder = Path(tempfile.mkdtemp(prefix="rm-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        running = stack.enter_context(head(Path(tempfile.mkdtemp(prefix="rm-")), cpus=0))
        _write_study(folder)
        environment = {**running.environment, "RAY_ADDRESS": running.gcs, "RAYMIX_CACHE": str(folder / "cache")}
        study = [sys.executable, "-m", "raymix", "run", str(folder / "space.yaml"), "--study", str(folder / "study")]
        driver = _start(stack, [*study, "--json"], environment, stderr=subprocess.PIPE)
        said = _until(driver.stderr, lambda line: "waiting for nodes" in line)
        watch = _start(stack, [sys.executable, "-m", "tests.cluster.hosts", running.gcs], environment)
        start = time.monotonic()
        _start(stack, _worker(running), {**environment, "RAYMIX_NODE_CACHE": str(folder / "node")}, stdout=None)
        _until(watch.stdout, lambda line: len(json.loads(line)) == 2)
        ready = time.monotonic()
        _until(driver.stdout, lambda line: json.loads(line)["event"] == "checkpoint")
        first = time.monotonic()
        fetched = [path.name for path in (folder / "node" / "nodes").iterdir() if path.is_dir()]
    assert len(fetched) == 1, "the node was to fetch the shards itself"
    return {
        "row": "late node",
        "said_while_waiting": said.strip(),
        "seconds_from_ray_start_to_ready": round(ready - start, 1),
        "seconds_from_ready_to_the_first_losses": round(first - ready, 1),
        "load_average": [round(before, 1), round(os.getloadavg()[0], 1)],
    }


def _write_study(folder: Path) -> None:
    for name, words in WORDS.items():
        lines = [json.dumps({"text": " ".join(words[i % 5 :] + words)}) for i in range(300)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "space.yaml").write_text(SPACE.replace("max_epochs: 4", "max_epochs: 20"))


def _worker(running: Head) -> list[str]:
    """What `ray up` runs on a new machine."""
    ray = str(Path(sys.executable).with_name("ray"))
    words = [ray, "start", "--block", f"--address={running.gcs}", "--num-cpus=1", "--node-ip-address=127.0.0.1"]
    return [*words, f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]


def _start(stack: ExitStack, words: list[str], environment: dict[str, str], **pipes: Any) -> Process:
    """A process that ends with the stack, and everything it started with it."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "start_new_session": True}
    process: Process = subprocess.Popen(words, cwd=ROOT, env=environment, **{**options, **pipes})
    stack.callback(end, process)
    return process


def _until(stream: IO[str] | None, wanted: Callable[[str], bool]) -> str:
    assert stream is not None
    for line in stream:
        if wanted(line):
            return line
    raise RuntimeError("the process ended before")
