"""Where a run stands, on disk, so that a killed one goes on: whole or not there, verified when read.

    DIR/step-00000120/weights.safetensors   parameters by name
                      rest.safetensors      moments of the optimiser, averaged weights, losses since the last look
                      state.json            format, run, step, rows; sha256 of the two files and of itself

A checkpoint is written to a temporary folder, brought to disk and renamed; its predecessor stays until the next one
is there. safetensors loads a flipped byte without complaint, hence the hashes: a damaged checkpoint is passed over
for its predecessor. Nothing here is ever a pickle.

With a `Mirror` every checkpoint is also copied where other machines see it, and the newest of both places counts.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from raymix.corpus.shards import file_hash, signature, sync, write_text

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2  # a checkpoint and its predecessor
WEIGHTS, REST, STATE = "weights.safetensors", "rest.safetensors", "state.json"
STEP = re.compile(r"step-\d{8,}")
AT_MOST = 0.05  # of the time may go into saving: large models are saved less often than asked for


@dataclass(frozen=True)
class Snapshot:
    """A run after `step` steps."""

    step: int
    weights: dict[str, Tensor]
    rest: dict[str, Tensor]
    notes: dict[str, Any]
    """Plain values: rows reported so far, seconds spent, settings that decide the bits."""


class Mirror(Protocol):
    """Where folders are copied to for other machines; every method may raise OSError."""

    def names(self) -> list[str]:
        """Folders that are there."""

    def put(self, folder: Path) -> None:
        """Copy a folder there."""

    def get(self, name: str, folder: Path) -> None:
        """Copy a folder from there."""

    def drop(self, name: str) -> None:
        """Delete a folder there."""


class Checkpoints:
    """The checkpoints of one run in a folder of their own.

    Args:
        folder: made when first saved to.
        every_seconds: time between two saves.
        mirror: where every snapshot is copied to. What fails there is said and ends nothing.
        keep_end: save the state at the run's end too, for a longer run that goes on from it.
    """

    def __init__(
        self, folder: str | Path, every_seconds: float = 60.0, mirror: Mirror | None = None, keep_end: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.mirror = mirror
        self.every_seconds = every_seconds
        self.keep_end = keep_end
        self.stopping = False
        """Set it (from a signal handler, say) to have the run saved after its step and ended by `Interrupted`."""
        self.trouble = ""
        """Why the last snapshot is not where it should be; empty where it is."""
        self._saved_at = time.monotonic()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether it is time to save."""
        wait = max(self.every_seconds, self._cost / AT_MOST)
        return self.stopping or time.monotonic() - self._saved_at >= wait

    def save(self, run: str, snapshot: Snapshot) -> None:
        """Write a snapshot of `run` (an identity: see `latest`); returns when it is on disk.

        Where it cannot be written (a full disk) the run goes on all the same, and the last snapshot stays.
        """
        started, self.trouble = time.monotonic(), ""
        try:
            self._copy(self._save(run, snapshot))
        except OSError as error:
            self._say(f"{self.folder}: not saved, the run goes on without ({error})")
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started

    def latest(self, run: str) -> Snapshot | None:
        """The newest intact snapshot of `run`; one that is damaged, or of another run, is passed over and said."""
        here, there = self._here(), self._there()
        for name in sorted({*here, *there}, reverse=True):
            for fetch in [False] * (name in here) + [True] * (name in there):
                try:
                    if fetch:
                        self._fetch(name)
                    return _read(self.folder / name, run)
                except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                    log.warning("%s: cannot be resumed from (%s); passed over", self.folder / name, error)
        return None

    def remove(self) -> None:
        """Delete all snapshots in both places, and what a killed writer left; the folder if nothing else is in it."""
        for path in [*map(self.folder.joinpath, self._here()), *self.folder.glob(".*.part")]:
            shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
        self._drop(self._there())

    def _save(self, run: str, snapshot: Snapshot) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{uuid4().hex[:8]}.part"
        part.mkdir()
        try:
            _write(part, run, snapshot)
            final = self.folder / f"step-{snapshot.step:08d}"
            shutil.rmtree(final, ignore_errors=True)  # damaged, or it would have been taken up
            part.rename(final)
            sync(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in self._here()[:-KEPT]:
            shutil.rmtree(self.folder / old, ignore_errors=True)
        return final

    def _here(self) -> list[str]:
        """Snapshots on this machine, oldest first."""
        return sorted(path.name for path in self.folder.glob("step-*"))

    def _there(self) -> list[str]:
        """Snapshots in the mirror, oldest first; none where it cannot be read."""
        try:
            return sorted(filter(STEP.fullmatch, self.mirror.names())) if self.mirror is not None else []
        except OSError as error:
            log.warning("%s: its copies elsewhere cannot be listed (%s)", self.folder, error)
            return []

    def _copy(self, final: Path) -> None:
        if self.mirror is None:
            return
        try:
            self.mirror.put(final)
        except OSError as error:
            self._say(f"{final}: not copied, so only this machine can go on from it ({error})")
        self._drop(self._there()[:-KEPT])

    def _say(self, trouble: str) -> None:
        self.trouble = trouble
        log.warning("%s", trouble)

    def _drop(self, names: list[str]) -> None:
        """Delete copies; those that cannot be deleted stay and do no harm."""
        try:
            for name in names:
                assert self.mirror is not None
                self.mirror.drop(name)
        except OSError as error:
            log.warning("%s: its copies elsewhere could not be deleted (%s)", self.folder, error)

    def _fetch(self, name: str) -> None:
        """A snapshot of the mirror into the place of the one here."""
        assert self.mirror is not None
        part = self.folder / f".{uuid4().hex[:8]}.part"
        try:
            self.mirror.get(name, part)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            part.rename(self.folder / name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


class Interrupted(RuntimeError):  # noqa: N818 (not a failure: the run goes on from its checkpoint)
    """The run was asked to stop, and is saved."""


def identity(*parts: Any) -> str:
    """A hash of what decides a run: a snapshot of another one must not be taken up."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _write(folder: Path, run: str, snapshot: Snapshot) -> None:
    files = {}
    for name, tensors in ((WEIGHTS, snapshot.weights), (REST, snapshot.rest)):
        try:
            save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, folder / name)
        except SafetensorError as error:  # a full disk, say
            raise OSError(f"{folder / name}: cannot be written ({error})") from None
        sync(folder / name)
        files[name] = file_hash(folder / name)
    state = {"format": FORMAT, "run": run, "step": snapshot.step, "files": files, "notes": snapshot.notes}
    write_text(folder / STATE, json.dumps({**state, "sha256": signature(state)}))
    sync(folder)


def _read(folder: Path, run: str) -> Snapshot:
    state = json.loads((folder / STATE).read_text())
    if state.pop("sha256") != signature(state) or state["format"] != FORMAT:
        raise ValueError(f"{STATE} is damaged or of another version")
    if state["run"] != run:
        raise ValueError("it belongs to a run with other settings")
    for name, expected in state["files"].items():
        if (found := file_hash(folder / name)) != expected:
            raise ValueError(f"{name}: sha256 {expected} expected, {found} found")
    return Snapshot(state["step"], load_file(folder / WEIGHTS), load_file(folder / REST), state["notes"])
