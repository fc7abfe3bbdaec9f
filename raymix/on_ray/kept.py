"""What trials keep between workers: checkpoints on this machine, copied to the store that the study is in, if any."""

import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from raymix.design.promotion import promotions
from raymix.proxy.checkpoint import Checkpoints
from raymix.store.mirror import Mirror
from raymix.study.agenda import over
from raymix.study.ledger import Ledger
from raymix.study.stacks import begun_with

log = logging.getLogger(__name__)

ABOUT = "study.json"
UNSAVED = "unsaved"  # of a result: why the last checkpoint of its trial is not where it should be
FINAL = "final"  # beside the checkpoints of a trial: its model, where it is to be kept


class NotSharedError(OSError):
    """A study on a disk that a node does not see."""


@dataclass(frozen=True)
class Kept:
    """The checkpoints of all trials of a study, by trial id; workers are given one of these."""

    folder: Path
    mirror: Mirror | None = None
    begun: str | None = None
    """What ABOUT beside `folder` says, of a study on a disk: a node that cannot read it there does not see it."""

    def check(self) -> None:
        """Whether this node sees the study.

        Raises:
            NotSharedError: it does not, so that what is saved here would be found by nobody.
        """
        about = self.folder.parent / ABOUT
        if self.begun is not None and not (about.is_file() and about.read_text() == self.begun):
            raise NotSharedError(
                f"{about.parent} is not on this node: keep the study on a path that all nodes share, or in an object "
                "store (--study s3://bucket/name)"
            )

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


class Unsaved(tune.Callback):  # type: ignore[misc]
    """Says, once, why checkpoints are not saved: workers say it in Ray's logs alone."""

    def __init__(self) -> None:
        self._said = False

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called at every result."""
        if result.get(UNSAVED) and not self._said:
            self._said = True
            log.warning(
                "checkpoints are not kept, so a trial whose worker dies begins again further back: %s", result[UNSAVED]
            )


def needed(ledger: Ledger) -> set[str]:
    """Names of checkpoints that may be asked for: what is pending or gone on from, the better half that may go on."""
    pending = ledger.pending()
    names = {begun_with(ledger, trial).name for trial in pending}
    names |= {trial.continues for trial in pending if trial.continues}
    if over(ledger) is None:
        names |= {each.trial_id for each in promotions(ledger.space, ledger.table(), [], best=0.5)}
    return names
