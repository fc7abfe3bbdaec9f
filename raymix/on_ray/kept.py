"""What trials keep between workers: checkpoints on this machine, copied to the store that the study is in, if any."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from raymix.proxy.checkpoint import Checkpoints
from raymix.store.mirror import Mirror

log = logging.getLogger(__name__)

FINAL = "final"  # beside the checkpoints of a trial: its model, where it is to be kept


@dataclass(frozen=True)
class Kept:
    """The checkpoints of all trials of a study, by trial id; workers are given one of these."""

    folder: Path
    mirror: Mirror | None = None

    def of(self, trial_id: str, every_seconds: float = 60.0, keep_end: bool = False) -> Checkpoints:
        """Those of one trial."""
        mirror = self.mirror.of(trial_id) if self.mirror else None
        return Checkpoints(self.folder / trial_id, every_seconds, mirror, keep_end)

    def copy_final(self, trial_id: str) -> None:
        """Copy the model of a trial, if there is one, where the study is."""
        final = self.folder / trial_id / FINAL
        if self.mirror is None or not final.is_dir():
            return
        try:
            self.mirror.of(trial_id).put(final)
        except OSError as error:
            log.warning("%s: the model stays on this machine, it could not be copied (%s)", final, error)

    def forget(self, trial_id: str) -> None:
        """Delete the checkpoints of a trial that has ended; its model stays."""
        self.of(trial_id).remove()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def forget_all_but(self, needed: Collection[str]) -> None:
        """The same for every trial that is not needed: what earlier drivers left, and what no other goes on from."""
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        try:
            names.update(self.mirror.names() if self.mirror else ())
        except OSError as error:
            log.warning("old checkpoints could not be listed (%s)", error)
        for name in sorted(names.difference(needed)):
            self.forget(name)
