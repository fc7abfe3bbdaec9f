"""A driver to be killed: asks, trains with a synthetic trainer, tells. It says what it did, on disk and aloud."""

import os
from multiprocessing.connection import Connection
from pathlib import Path

from raymix import Study
from tests import worlds


def main(path: Path, listener: Connection) -> None:
    """To the end of the study in `path`, begun or continued."""

    def say(word: str) -> None:
        with open(f"{path}.said", "a", encoding="utf-8") as file:
            file.write(word + "\n")
            file.flush()
            os.fsync(file.fileno())
        listener.send(word)

    say("begun -")
    study = Study.resume(worlds.space(), path, seed=0)
    with study.writing() as ledger:
        while len(ledger.trials) < (ledger.space.budget.trials or 0) or ledger.pending():
            for trial in ledger.pending() or ledger.ask(ledger.space.budget.per_round):
                say(f"training {trial.trial_id}")
                for row in worlds.rows(trial):
                    ledger.observe(trial.trial_id, row)
                say(f"acknowledged {trial.trial_id}")
