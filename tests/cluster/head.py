"""A real Ray head in a process group of its own: started with a token, ended by its id, nobody else's Ray touched."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4
START_SECONDS = 120
HEAD_TYPE = "ray.head.default"  # what the provider of fake nodes calls it


@dataclass
class Head:
    """A running head: the addresses of its Jobs API and its metrics, and what a client needs in its environment."""

    address: str
    gcs: str
    metrics: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]


@contextmanager
def head(folder: Path, cpus: int = 2, workers: dict[str, float] | None = None, version: str = "v1") -> Iterator[Head]:
    """A head on loopback ports of its own, its files under `folder` (a short path: sockets live there).

    With `workers`, an autoscaler of this version beside it starts and stops up to 4 of them, real raylets on this
    machine.
    """
    gcs, dashboard, metrics = free_port(), free_port(), free_port()
    words = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--num-cpus={cpus}",
        f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1",
        f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
        f"--metrics-export-port={metrics}", f"--temp-dir={folder}", "--disable-usage-stats",
    ]  # fmt: skip
    started = environment() | {"RAY_metrics_report_interval_ms": "1000"}
    if workers is not None:
        file = folder / "autoscaler.json"
        file.write_text(json.dumps(autoscaler(workers, f"127.0.0.1:{gcs}")))
        words.append(f"--autoscaling-config={file}")
        started |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        if version == "v2":  # which finds its own node by these names
            names = ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING")
            started |= {"RAY_enable_autoscaler_v2": "1", **dict.fromkeys(names, FAKE_HEAD_NODE_ID)}
            started["RAY_NODE_TYPE_NAME"] = HEAD_TYPE
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(words, env=started, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + START_SECONDS
        while not listening(dashboard):
            assert process.poll() is None and time.monotonic() < until, (folder / "head.log").read_text()
            time.sleep(0.2)
        scraped = f"http://127.0.0.1:{metrics}/metrics"
        yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", scraped, environment(), process)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def autoscaler(workers: dict[str, float], gcs: str) -> dict[str, object]:
    """Ray's autoscaler with its provider of raylets on one machine."""
    empty: dict[str, object] = {
        key: [] for key in ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    }
    return empty | {
        "cluster_name": "fake",
        "max_workers": 4,
        "upscaling_speed": 4,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",  # by its own name, version 2 wants a file of defaults that Ray's wheels do not hold
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "gcs_address": gcs,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,  # else it makes one node, however many it is asked for
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": workers, "node_config": {}, "min_workers": 0, "max_workers": 4},
        },
    }


def environment() -> dict[str, str]:
    """Ours, with the token and with this interpreter first on PATH (a job's `raymix` is looked up there)."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {
        **kept,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def end(process: subprocess.Popen[Any]) -> None:
    """A head, say, and everything it started, at once: as a lost machine would."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port nobody uses just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listening(port: int) -> bool:
    """Whether somebody answers on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
