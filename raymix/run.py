"""A study's trials on Ray: one Tune trial per proxy, rounds of them, on a laptop or a cluster.

Tune is a scheduler here and its state a cache in a temporary folder: every result is in our records before the
searcher knows of it, and `Tuner.restore` is never used. A finished trial is therefore never trained again.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from raymix.corpus import Corpus, open_corpus
from raymix.design import scale_of
from raymix.ledger import Ledger, Trial
from raymix.optimum import minimise, objective_of
from raymix.proxy import WORKER_ENV, Diverged, resolve, train_proxy
from raymix.recommend import fit_law
from raymix.search import MixtureSearch
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace
from raymix.study import Study

log = logging.getLogger(__name__)

MAX_RETRIES = 2  # a worker may die this often before its trial counts as failed


@dataclass
class Progress:
    """What a person wants to know while a study runs."""

    total: int
    done: int = 0
    failed: int = 0
    running: int = 0
    best: dict[str, float] | None = None
    """The mixture the law thinks best at the target so far."""
    eta_seconds: float | None = None


def run_study(study: Study, corpus: Corpus, on_progress: Callable[[str, Progress], None] | None = None) -> None:
    """Train every trial that is left of the budget; returns when all have ended.

    Raises:
        StoreError: another driver holds the study, or a record could not be written.
        KeyboardInterrupt: passed on; everything recorded so far is kept.
    """
    with study.writing() as ledger:
        if study.finished:
            return
        watcher = _Watcher(study.space, ledger, corpus.vocab, on_progress)
        watcher("starting", None)
        with _ray() as slots:
            search = MixtureSearch(ledger=ledger, rounds=True, on_change=watcher)
            _fit(search, study.space, corpus.path, slots)
        if search.failure is not None:
            raise search.failure


def _fit(search: MixtureSearch, space: SearchSpace, corpus: Path, slots: int) -> None:
    trainable = partial(train_trial, space_json=space.model_dump_json(), corpus_path=str(corpus))
    with tempfile.TemporaryDirectory(prefix="raymix-tune-") as cache:
        tune.Tuner(
            tune.with_resources(trainable, resources(space)),
            tune_config=tune.TuneConfig(
                search_alg=search, num_samples=-1, max_concurrent_trials=slots, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=cache,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            ),
        ).fit()


def train_trial(config: dict[str, Any], space_json: str, corpus_path: str) -> None:
    """The trainable: one proxy, one report per checkpoint; a proxy that diverges reports that instead."""
    space, corpus = _opened(corpus_path, space_json)
    mixture_K = space.mixture(config["mixture"])
    rows = train_proxy(corpus, space, mixture_K, config["n_params"], config["n_tokens"], config["seed"])
    try:
        row = next(rows)
        for following in rows:
            tune.report({**row, "status": "checkpoint"})
            row = following
        tune.report({**row, "status": "done"})
    except Diverged as error:
        tune.report({"status": "failed", "reason": str(error)})


@lru_cache(maxsize=2)
def _opened(corpus_path: str, space_json: str) -> tuple[SearchSpace, Corpus]:
    """Opened once per worker: a reused actor trains many trials."""
    return SearchSpace.model_validate_json(space_json), open_corpus(Path(corpus_path))


def resources(space: SearchSpace) -> dict[str, float]:
    """What one trial takes: a GPU where the cluster has some, else a core."""
    return {"cpu": 1, "gpu": 1} if ray.cluster_resources().get("GPU", 0) >= 1 else {"cpu": 1}


@contextmanager
def _ray() -> Iterator[int]:
    """Ray, joined where RAY_ADDRESS names a cluster and started here otherwise; yields trials at a time."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # our records are the log
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C reaches us, not Tune's shutdown
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # no tables from Tune: ours are better informed
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ours = not ray.is_initialized()
    address = os.environ.get("RAY_ADDRESS")
    if ours:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": WORKER_ENV},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"include_dashboard": False}),
        )
    try:
        have = ray.cluster_resources()
        slots = int(have.get("GPU", 0)) or int(have.get("CPU", 1))
        yield max(slots, 1)
    finally:
        if ours:
            ray.shutdown()


class _Watcher:
    """Turns the search's events into `Progress`; refits the law once a round for the best mixture so far."""

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        vocab: int,
        on_progress: Callable[[str, Progress], None] | None,
    ) -> None:
        self.space, self.ledger, self.vocab = space, ledger, vocab
        self.on_progress = on_progress
        self.progress = Progress(total=space.budget.trials)
        self._done: dict[str, float] = {}
        self._first_start = 0.0

    def __call__(self, event: str, trial: Trial | None) -> None:
        progress = self.progress
        progress.done, progress.failed = self.ledger.count("done"), self.ledger.count("failed")
        if event == "started":
            self._first_start = self._first_start or time.monotonic()
            progress.running += 1
        if event == "ended" and trial is not None:
            progress.running -= 1
        if event in ("checkpoint", "ended") and trial is not None:
            seen = self.ledger.tokens_seen(trial.trial_id)
            self._done[trial.trial_id] = self._flops(Scale(trial.n_params, seen)) if seen else 0.0
            progress.eta_seconds = self._eta()
        if event == "round":
            best = self._best()
            progress.best = self.space.shares(best) if best is not None else None
        if self.on_progress is not None:
            self.on_progress(event, progress)

    def _best(self) -> Array | None:
        try:
            law = fit_law(self.space, self.ledger.table())
        except ValueError:  # too few trials yet
            return None
        return minimise(objective_of(self.space, law), self.space.polytope()).mixture_K

    def _flops(self, scale: Scale) -> float:
        shape = resolve(self.space.recipe, scale.n_params, scale.n_tokens, self.vocab)
        return shape.flops_per_token * scale.n_tokens

    def _eta(self) -> float | None:
        """Seconds left if the rest costs per FLOP what this run has cost so far, checkpoints included."""
        done = sum(self._done.values())
        if not done:
            return None
        asked = list(self.ledger.trials.values())
        ahead = [scale_of(self.space, i) for i in range(len(asked), self.space.budget.trials)]
        left = sum(self._flops(Scale(trial.n_params, trial.n_tokens)) for trial in self.ledger.pending())
        left += sum(map(self._flops, ahead)) - sum(self._done.get(t.trial_id, 0.0) for t in self.ledger.pending())
        return left * (time.monotonic() - self._first_start) / done
