"""From no worker to four and back, driven by what pending trials ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.head import ROOT, head

UP_SECONDS = 15.0  # the goal, on a machine with two cores to itself
BUSY = 3.0  # load average of two cores from which seconds say nothing


@pytest.mark.exhaustive
def test_four_nodes_come_for_a_round_and_all_go_after_it() -> None:
    load = os.getloadavg()[0]
    with head(Path(tempfile.mkdtemp(prefix="rm-")), cpus=0, workers={"CPU": 1, "fake_gpu": 1}) as running:
        words = [sys.executable, "-m", "tests.cluster.autoscaled", running.gcs]
        done = subprocess.run(words, cwd=ROOT, env=running.environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    counts = [count for _, count in found["seen"]]
    assert counts[0] == 0 and max(counts) == 4 and found["left"] == 0
    assert found["rows"] == 8
    up = next(seconds for seconds, count in found["seen"] if count == 4)
    assert up <= UP_SECONDS or max(load, os.getloadavg()[0]) > BUSY, found["seen"]
