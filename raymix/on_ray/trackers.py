"""Studies in the trackers people already look at: TensorBoard, MLflow, W&B, and Prometheus through Ray.

RAYMIX_TRACKERS=tensorboard,mlflow names them; it is no part of a space, and of no hash. One group per study, one run
per trial. They are told in a thread of their own: a tracker that fails says so once and is left alone, a slow one never
holds up a trial.
"""

import logging
import math
import os
import posixpath
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from raymix.study.budget import HOUR
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from raymix.yaml12 import SpaceError

log = logging.getLogger(__name__)

VARIABLE = "RAYMIX_TRACKERS"
CLOSE_SECONDS = 30.0  # for what is still to be told when a study ends
Rows = Mapping[str, Any]


class Tracker(Protocol):
    """One tracker. Losses in nats per token; steps are tokens."""

    def row(self, trial: Trial, row: Rows) -> None:
        """A checkpoint or the end of a trial: `loss/...`, `n_tokens`, `seconds`."""

    def end(self, trial: Trial, status: str) -> None:
        """A trial is done, stopped or failed."""

    def study(self, numbers: Mapping[str, float]) -> None:
        """Of the whole study: trials_done, trials_failed, best_predicted_loss, ..."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files: a folder per trial, and one for the study."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = import_module("tensorboardX").SummaryWriter  # comes with ray[tune]
        self._open: dict[str, Any] = {}
        self._steps = 0

    def row(self, trial: Trial, row: Rows) -> None:
        """Scalars by tokens."""
        writer = self._of(trial.trial_id)
        for key, value in numbers_of(row).items():
            writer.add_scalar(key, value, int(row["n_tokens"]))

    def end(self, trial: Trial, status: str) -> None:
        """The mixture and the status as text; the file is complete."""
        writer = self._of(trial.trial_id)
        writer.add_text(
            "trial", ", ".join(f"{name} {share:.3f}" for name, share in trial.mixture.items()) + f": {status}"
        )
        self._open.pop(trial.trial_id).close()

    def study(self, numbers: Mapping[str, float]) -> None:
        """Scalars by event."""
        self._steps += 1
        for key, value in numbers.items():
            self._of("study").add_scalar(key, value, self._steps)

    def close(self) -> None:
        """All files complete."""
        for writer in self._open.values():
            writer.close()

    def _of(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = self._writer(str(self._folder / name))
        return self._open[name]


class MLflow:
    """An experiment per study, a run per trial below one run for the study; MLFLOW_TRACKING_URI, else a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client: Any = import_module("mlflow.tracking").MlflowClient(uri)
        known = self._client.get_experiment_by_name(f"raymix/{name}")
        self._experiment = known.experiment_id if known else self._client.create_experiment(f"raymix/{name}")
        self._parent = self._client.create_run(self._experiment, run_name=name).info.run_id
        self._runs: dict[str, str] = {}
        self._steps = 0

    def row(self, trial: Trial, row: Rows) -> None:
        """Metrics by tokens."""
        for key, value in numbers_of(row).items():
            self._client.log_metric(self._of(trial), key, value, step=int(row["n_tokens"]))

    def end(self, trial: Trial, status: str) -> None:
        """FINISHED, KILLED where it was stopped, or FAILED."""
        ended = {"done": "FINISHED", "stopped": "KILLED"}.get(status, "FAILED")
        self._client.set_terminated(self._of(trial), ended)

    def study(self, numbers: Mapping[str, float]) -> None:
        """Metrics of the parent run."""
        self._steps += 1
        for key, value in numbers.items():
            self._client.log_metric(self._parent, key, value, step=self._steps)

    def close(self) -> None:
        """The parent run ends."""
        self._client.set_terminated(self._parent)

    def _of(self, trial: Trial) -> str:
        if trial.trial_id not in self._runs:
            tags = {"mlflow.parentRunId": self._parent}
            run = self._client.create_run(self._experiment, tags=tags, run_name=trial.trial_id).info.run_id
            for name, share in trial.mixture.items():
                self._client.log_param(run, _plain(f"mixture/{name}"), f"{share:.6g}")
            self._client.log_param(run, "n_params", trial.n_params)
            self._runs[trial.trial_id] = run
        return self._runs[trial.trial_id]


class WandB:
    """A run per trial, written when it ends, in one group per study; WANDB_MODE and WANDB_PROJECT as ever."""

    def __init__(self, name: str, folder: Path) -> None:
        self._wandb: Any = import_module("wandb")
        self._name, self._folder = name, folder
        self._rows: dict[str, list[Rows]] = {}
        self._study: list[Mapping[str, float]] = []

    def row(self, trial: Trial, row: Rows) -> None:
        """Kept until the trial ends."""
        self._rows.setdefault(trial.trial_id, []).append(row)

    def end(self, trial: Trial, status: str) -> None:
        """The whole trial at once."""
        rows = [(int(row["n_tokens"]), numbers_of(row)) for row in self._rows.pop(trial.trial_id, [])]
        self._write(trial.trial_id, "trial", {**trial.to_json(), "status": status}, rows, int(status != "done"))

    def study(self, numbers: Mapping[str, float]) -> None:
        """Kept until the study ends."""
        self._study.append(numbers)

    def close(self) -> None:
        """The study's own run."""
        self._write("study", "study", {}, list(enumerate(self._study, 1)), 0)

    def _write(self, name: str, kind: str, config: Any, rows: list[tuple[int, Any]], code: int) -> None:
        where = {"project": os.environ.get("WANDB_PROJECT", "raymix"), "group": self._name, "dir": str(self._folder)}
        run = self._wandb.init(**where, name=name, job_type=kind, config=config, reinit="create_new")
        for step, row in rows:
            run.log(dict(row), step=step)
        run.finish(exit_code=code)


class Prometheus:
    """Gauges beside those Ray exports; they carry the study's name."""

    def __init__(self, name: str, folder: Path) -> None:
        from ray.util.metrics import Gauge

        self._tags = {"study": name}
        self._gauge = Gauge
        self._gauges: dict[str, Any] = {}

    def row(self, trial: Trial, row: Rows) -> None:
        """Tokens per second of the trial that spoke last."""
        if row.get("seconds"):
            self._set("tokens_per_second", row["n_tokens"] / row["seconds"])

    def end(self, trial: Trial, status: str) -> None:
        """The study's numbers follow."""

    def study(self, numbers: Mapping[str, float]) -> None:
        """One gauge each: raymix_trials_done, raymix_trial_hours, ..."""
        for key, value in numbers.items():
            self._set(key, value)

    def close(self) -> None:
        """Ray drops what its driver exported."""

    def _set(self, key: str, value: float) -> None:
        if key not in self._gauges:
            self._gauges[key] = self._gauge(f"raymix_{key}", f"raymix: {key}", tag_keys=("study",))
        self._gauges[key].set(value, tags=self._tags)


TRACKERS: dict[str, Callable[[str, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "prometheus": Prometheus,
}


class Tracking:
    """All trackers of a study behind one queue."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)
        self._queue: queue.Queue[tuple[str, tuple[Any, ...]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
        self._thread.start()

    def tell(self, what: str, *about: Any) -> None:
        """`row`, `end` or `study`, with what belongs to it; returns at once."""
        if self._trackers:
            self._queue.put((what, about))

    def close(self) -> None:
        """Wait a little for what is still to be told."""
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            self._each(*item)
        self._each("close", ())

    def _each(self, what: str, about: tuple[Any, ...]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, what)(*about)
            except Exception as error:
                log.warning("tracker %s: %s: %s; it is left out from here on", name, type(error).__name__, error)
                del self._trackers[name]


def telling(ledger: Ledger, tracked: Tracking, best: Callable[[], float | None]) -> Callable[[str, Trial | None], None]:
    """A watcher of the search's events that passes them on; `best` is the predicted loss at the target, nats."""

    def tell(event: str, trial: Trial | None) -> None:
        if trial is not None and event in ("checkpoint", "ended") and (row := ledger.last_row(trial.trial_id)):
            tracked.tell("row", trial, row)
        if trial is not None and event == "ended":
            tracked.tell("end", trial, ledger.status(trial.trial_id) or "failed")
        if event in ("ended", "round"):
            numbers = {f"trials_{status}": float(ledger.count(status)) for status in ("done", "failed", "stopped")}
            rows = filter(None, map(ledger.last_row, ledger.trials))
            numbers["trial_hours"] = sum(row.get("seconds") or 0.0 for row in rows) / HOUR
            if (value := best()) is not None:
                numbers["best_predicted_loss"] = value
            tracked.tell("study", numbers)

    return tell


@contextmanager
def tracking(name: str, folder: Path) -> Iterator[Tracking]:
    """The trackers that RAYMIX_TRACKERS names, for one study; files of theirs go below `folder`.

    Raises:
        SpaceError: a name that is no tracker.
    """
    wanted = [word.strip() for word in os.environ.get(VARIABLE, "").split(",") if word.strip()]
    for word in wanted:
        if word not in TRACKERS:
            raise SpaceError(f"{VARIABLE}: {word!r} is no tracker; known: {', '.join(TRACKERS)}")
    trackers: dict[str, Tracker] = {}
    for word in wanted:
        try:
            trackers[word] = TRACKERS[word](name, folder)
        except Exception as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name
            why = f"{error}: pip install {absent}" if absent else f"{type(error).__name__}: {error}"
            log.warning("tracker %s: %s; the study goes on without it", word, why)
    tracked = Tracking(trackers)
    try:
        yield tracked
    finally:
        tracked.close()


def numbers_of(row: Rows) -> dict[str, float]:
    """The finite numbers of a row that a tracker shows, by names every tracker takes."""
    wanted = {
        key: value for key, value in row.items() if key.startswith(("loss/", "metric/", "bpb/")) or key == "seconds"
    }
    return {_plain(key): float(value) for key, value in wanted.items() if _finite(value)}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(name: str) -> str:
    """Letters, digits and - _ . / alone, others as their code; and those two where they make a path like a/../b."""
    kind, _, rest = name.partition("/")
    kept = "-_./" if posixpath.normpath(name) == name else "-_"
    coded = "".join(c if c.isascii() and (c.isalnum() or c in kept) else f"x{ord(c):x}" for c in rest)
    return f"{kind}/{coded}" if rest else kind
