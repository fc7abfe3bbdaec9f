"""A study's trials on Ray: one Tune trial per proxy, rounds of them, on a laptop or a cluster.

Tune is a scheduler here and its state a cache in a temporary folder: every result is in our records before the
searcher knows of it, and `Tuner.restore` is never used. A finished trial is therefore never trained again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ray
from ray import tune

from raymix.corpus import Corpus
from raymix.corpus.prepare import default_cache
from raymix.design import rungs, scale_of
from raymix.design.promotion import promotions
from raymix.design.schedule import longer_rungs
from raymix.on_ray.demand import Default, Waiting, check_fits, placement
from raymix.on_ray.kept import Kept
from raymix.on_ray.lost import Hearing
from raymix.on_ray.shards import share
from raymix.on_ray.sharing import default_resources, trials_at_a_time
from raymix.on_ray.stacking import stack_sizes
from raymix.on_ray.stuck import Unstarted
from raymix.on_ray.trackers import telling, tracking
from raymix.on_ray.trial import ProxyTrial
from raymix.proxy import WORKER_ENV, resolve
from raymix.proxy.downstream import check_tasks
from raymix.search import MixtureSearch
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace
from raymix.study import Study
from raymix.study.agenda import expected_trials, over
from raymix.study.ledger import Ledger
from raymix.study.stacks import Sizes, begun_with
from raymix.study.trial import Trial
from raymix.target.objective import objective_of
from raymix.target.optimum import minimise
from raymix.target.recommend import fit_law

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # in the study: of trials that have not ended
MAX_RETRIES = 4  # a worker may die this often where its trial got no further: spot machines go without notice


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


class _There(NamedTuple):
    """What Ray offers to a study."""

    slots: int
    """Trials of Tune at a time."""
    default: Default
    stacks: Sizes


def run_study(study: Study, corpus: Corpus, on_progress: Callable[[str, Progress], None] | None = None) -> None:
    """Train every trial that is left of the budget; returns when all have ended.

    Raises:
        StoreError: another driver holds the study, or a record could not be written.
        KeyboardInterrupt: passed on; everything recorded so far is kept.
    """
    with study.writing() as ledger:
        if study.finished:
            return
        beside = files_beside(study)
        kept = Kept((beside / CHECKPOINTS).resolve(), study.store.mirror(CHECKPOINTS))
        watcher = _Watcher(study.space, ledger, corpus.vocab, kept, on_progress)
        ledger.expected_flops = watcher.flops
        watcher("starting", None)
        # A size that cannot be had, or a metric that cannot be measured, is said before anything starts.
        recipe, folder = study.space.recipe, study.space.folder
        check_tasks(study.space, [resolve(recipe, *rung, corpus.vocab, folder) for rung in rungs(study.space)])
        with _ray(study.space, ledger, corpus.vocab) as there, tracking(study.space.name, beside) as tracked:
            watchers = _all(watcher, telling(ledger, tracked, lambda: watcher.best_loss))
            search = MixtureSearch(
                ledger=ledger, rounds=True, on_change=watchers, retries=MAX_RETRIES, stacks=there.stacks
            )
            _fit(search, study.space, corpus, kept, there)
        kept.forget_all_but(needed(ledger))
        if search.failure is not None:
            raise search.failure


def files_beside(study: Study) -> Path:
    """Where checkpoints and trackers write: the study's directory; of one in an object store, a folder of the cache.

    Checkpoints are copied from there to the store, so that a trial goes on from another machine.
    """
    if study.store.is_local:
        return study.store.path
    return default_cache() / "studies" / hashlib.sha256(study.store.where.encode()).hexdigest()[:16]


def _fit(search: MixtureSearch, space: SearchSpace, corpus: Corpus, kept: Kept, there: _There) -> None:
    kept.forget_all_but(needed(search.ledger))
    shards = share(corpus)
    trainable = tune.with_parameters(
        ProxyTrial,
        space_json=space.model_dump_json(),
        folder=str(space.folder),
        shards=shards,
        kept=kept,
    )
    with tempfile.TemporaryDirectory(prefix="raymix-tune-") as cache:
        tune.Tuner(
            tune.with_resources(trainable, placement(space, there.default)),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=Hearing(search.explain),
                num_samples=-1,
                max_concurrent_trials=there.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=cache,
                stop=search.poor if space.budget.stop_poor else None,
                verbose=0,
                callbacks=[Waiting(), Unstarted()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def _all(*watchers: Callable[[str, Trial | None], None]) -> Callable[[str, Trial | None], None]:
    """One watcher of the search's events that tells all of these."""

    def tell(event: str, trial: Trial | None) -> None:
        for watcher in watchers:
            watcher(event, trial)

    return tell


@contextmanager
def _ray(space: SearchSpace, ledger: Ledger, vocab: int) -> Iterator[_There]:
    """Ray, joined where RAY_ADDRESS names a cluster and started here otherwise.

    A cluster may have no worker yet: a round is as many trials at a time, and Ray starts those that fit.
    """
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
        _close_token()
        local = ours and address is None
        if local:
            check_fits(space, {"cpu": 1})
        stacks = stack_sizes(space, ledger, vocab)
        default = default_resources(space, vocab, stacks)
        slots = trials_at_a_time(space, default)
        yield _There(max(slots, 1 if local else space.budget.per_round), default, stacks)
    finally:
        if ours:
            ray.shutdown()


def _close_token() -> None:
    """Ray writes its token, which is a password, readable by everybody on the machine."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)


def needed(ledger: Ledger) -> set[str]:
    """Names of checkpoints that may be asked for: what is pending or gone on from, the better half that may go on."""
    pending = ledger.pending()
    names = {begun_with(ledger, trial).name for trial in pending}
    names |= {trial.continues for trial in pending if trial.continues}
    if over(ledger) is None:
        names |= {each.trial_id for each in promotions(ledger.space, ledger.table(), [], best=0.5)}
    return names


class _Watcher:
    """Turns the search's events into `Progress`; refits the law once a round for the best mixture so far."""

    def __init__(
        self,
        space: SearchSpace,
        ledger: Ledger,
        vocab: int,
        kept: Kept,
        on_progress: Callable[[str, Progress], None] | None,
    ) -> None:
        self.space, self.ledger, self.vocab, self.kept = space, ledger, vocab, kept
        self.on_progress = on_progress
        self.progress = Progress(total=expected_trials(ledger))
        self.best_loss: float | None = None
        self._done: dict[str, float] = {}
        """FLOPs of each trial in this run: what was trained before it took none of its time."""
        self._before = {trial.trial_id: ledger.tokens_seen(trial.trial_id) for trial in ledger.pending()}
        self._first_start = 0.0

    def __call__(self, event: str, trial: Trial | None) -> None:
        progress = self.progress
        progress.done, progress.failed = self.ledger.count("done"), self.ledger.count("failed")
        progress.done += self.ledger.count("stopped")
        progress.total = expected_trials(self.ledger)
        if event == "started":
            self._first_start = self._first_start or time.monotonic()
            progress.running += 1
        if event in ("ended", "lost"):
            progress.running -= 1
        if event == "ended" and trial is not None and not longer_rungs(self.space, trial.scale):
            stack = begun_with(self.ledger, trial)
            if not stack.left(self.ledger):
                self.kept.forget(stack.name)
        if event in ("checkpoint", "ended") and trial is not None:
            before = self._flops_of(trial, self._before.get(trial.trial_id, 0.0))
            self._done[trial.trial_id] = self._so_far(trial) - before
            progress.eta_seconds = self._eta()
        if event == "round" and any(longer_rungs(self.space, rung.scale) for rung in self.space.ladder):
            self.kept.forget_all_but(needed(self.ledger))
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
        optimum = minimise(objective_of(self.space, law), self.space.polytope())
        self.best_loss = optimum.value
        return optimum.mixture_K

    def flops(self, scale: Scale) -> float:
        """What our trainer spends on a trial."""
        shape = resolve(self.space.recipe, *scale, self.vocab, self.space.folder)
        return shape.flops_per_token * scale.n_tokens

    def _so_far(self, trial: Trial) -> float:
        return self._flops_of(trial, self.ledger.tokens_seen(trial.trial_id))

    def _flops_of(self, trial: Trial, n_tokens: float) -> float:
        """Up to so many tokens; of a trial that goes on, without those it began with."""
        begun = trial.after[-1] if trial.after else 0.0
        if n_tokens <= begun:
            return 0.0
        return self.flops(Scale(trial.n_params, n_tokens)) * (1 - begun / n_tokens)

    def _eta(self) -> float | None:
        """Seconds left if the rest costs per FLOP what this run has cost so far, checkpoints included."""
        done = sum(self._done.values())
        if not done:
            return None
        ahead = [scale_of(self.space, i) for i in range(len(self.ledger.trials), expected_trials(self.ledger))]
        left = sum(self._flops_of(trial, trial.n_tokens) - self._so_far(trial) for trial in self.ledger.pending())
        left += sum(map(self.flops, ahead))
        return left * (time.monotonic() - self._first_start) / done
