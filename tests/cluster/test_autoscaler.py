"""From no worker to four and back, driven by what pending trials ask for, with both of Ray's autoscalers.

`ray up` and the Kubernetes files use version 2. How long it takes is measured by `python -m benchmarks.scale --nodes`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.head import ROOT, head


def autoscaled(version: str) -> dict[str, Any]:
    """What `tests.cluster.autoscaled` saw."""
    folder = Path(tempfile.mkdtemp(prefix="rm-"))
    with head(folder, cpus=0, workers={"CPU": 1, "fake_gpu": 1}, version=version) as running:
        words = [sys.executable, "-m", "tests.cluster.autoscaled", running.gcs]
        done = subprocess.run(words, cwd=ROOT, env=running.environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("{")]  # Ray prints there too, of nodes it lost
    return dict(json.loads(said[-1]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_four_nodes_come_for_a_round_and_all_go_after_it(version: str) -> None:
    found = autoscaled(version)
    counts = [count for _, count in found["nodes"]]
    assert counts[0] == 0 and max(counts) >= 4 and found["left"] == 0
    assert max(counts) == 4 or version == "v1"  # which starts some twice where they start slowly: a busy machine
    assert found["asked"] == 4  # the whole round, before the first node was there
    assert found["rows"] == 8
