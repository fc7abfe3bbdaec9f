"""Row 24 of the faults: the clock jumps between runs of a driver, by decades; order is that of the numbers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raymix import Study
from raymix.store import Store
from tests import worlds

RUN = """
import sys, time
from raymix import Study
from tests import worlds
study = Study.resume(worlds.space(), sys.argv[1], seed=0)
with study.writing() as ledger:
    for trial in ledger.ask(4):
        for row in worlds.rows(trial):
            ledger.observe(trial.trial_id, row)
print(time.strftime("%Y"))
"""


@pytest.mark.slow  # three processes
@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_study_whose_clock_jumps_is_the_study_whose_clock_does_not(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for year in (2031, 1999, 2015):
        words = ["faketime", f"{year}-06-01 00:00:00", sys.executable, "-c", RUN, str(tmp_path / "study")]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(year)]
    study = Study.create(worlds.space(), tmp_path / "truth", seed=0)
    with study.writing() as ledger:
        worlds.play(ledger)
    assert Store(tmp_path / "study").records() == Store(tmp_path / "truth").records()
