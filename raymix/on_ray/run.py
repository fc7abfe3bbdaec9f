"""A study's trials on Ray: one Tune trial per proxy, rounds of them, on a laptop or a cluster.

Tune is a scheduler here and its state a cache in a temporary folder: every result is in our records before the
searcher knows of it, and `Tuner.restore` is never used. A finished trial is therefore never trained again.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ray
from ray import tune
from ray._private import ray_constants  # no argument of `ray.init` says on which address it listens

from raymix.corpus import Corpus
from raymix.corpus.on_ray import join, own_signals
from raymix.corpus.places import in_short
from raymix.corpus.prepare import default_cache
from raymix.corpus.workers import cluster_address, ray_folder
from raymix.design import rungs
from raymix.on_ray.demand import Default, Waiting, check_fits, placement
from raymix.on_ray.ending import Ending
from raymix.on_ray.head import watched
from raymix.on_ray.kept import ABOUT, Kept, NotSharedError, Unsaved, needed
from raymix.on_ray.leaving import Leaving
from raymix.on_ray.lost import Hearing
from raymix.on_ray.progress import Progress, Watcher
from raymix.on_ray.shards import share
from raymix.on_ray.sharing import default_resources, trials_at_a_time
from raymix.on_ray.stacking import stack_sizes
from raymix.on_ray.stuck import Unstarted
from raymix.on_ray.trackers import telling, tracking
from raymix.on_ray.trial import ProxyTrial
from raymix.proxy import WORKER_ENV, resolve
from raymix.proxy.downstream import check_tasks
from raymix.search import MixtureSearch
from raymix.space import SearchSpace
from raymix.store import StoreError
from raymix.study import Study
from raymix.study.agenda import out_of_hours
from raymix.study.ledger import Ledger
from raymix.study.stacks import Sizes
from raymix.study.text import check_text
from raymix.study.trial import Trial

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"  # in the study: of trials that have not ended
OF_A_JOB = "working_dir_files"  # folder in which Ray keeps what was submitted with a job, while it runs
MAX_RETRIES = 4  # a worker may die this often where its trial got no further: spot machines go without notice


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
        SpaceError: the text is not what the study was begun with.
        KeyboardInterrupt: passed on; everything recorded so far is kept.
    """
    with study.writing() as ledger:
        if study.finished:
            return
        if why := out_of_hours(ledger, ledger.hours, study.command()):
            return log.warning("%s", why)
        check_text(ledger, corpus.parts)
        beside = files_beside(study)
        if OF_A_JOB in beside.resolve().parts:
            log.warning(
                "%s: Ray deletes this folder after the job; name another with --study, or an object store", beside
            )
        begun = (beside / ABOUT).read_text() if study.store.is_local else None
        kept = Kept((beside / CHECKPOINTS).resolve(), study.store.mirror(CHECKPOINTS), begun)
        watcher = Watcher(study.space, ledger, corpus.vocab, kept, on_progress)
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
            _fit(search, study, corpus, kept, there)
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


def _fit(search: MixtureSearch, study: Study, corpus: Corpus, kept: Kept, there: _There) -> None:
    space = study.space
    kept.forget_all_but(needed(search.ledger))
    shards = share(corpus)
    trainable = tune.with_parameters(
        ProxyTrial,
        space_json=space.model_dump_json(),
        folder=str(space.folder),
        shards=shards,
        kept=kept,
    )
    leaving = Leaving()
    head = watched(ray.get_runtime_context().gcs_address, study.command())
    with tempfile.TemporaryDirectory(prefix="raymix-tune-") as cache, leaving.listening(), head:
        tune.Tuner(
            tune.with_resources(trainable, placement(space, there.default)),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=Hearing(partial(_hear, search)),
                num_samples=-1,
                max_concurrent_trials=there.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=cache,
                stop=Ending(search, study.command()),
                verbose=0,
                callbacks=[leaving, Waiting(), Unstarted(), Unsaved()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def _hear(search: MixtureSearch, trial_id: str, why: str) -> None:
    """Why a worker is gone; where its node can train nothing it is the end, or all trials would fail there in turn."""
    search.explain(trial_id, why)
    kind, _, words = why.partition(": ")
    if kind == ModuleNotFoundError.__name__:
        words = f"a node cannot run trials: {words}; give all nodes one image, or one environment"
    elif not kind.endswith(NotSharedError.__name__):
        return
    search.give_up(StoreError(words))


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
    tunes = logging.getLogger("ray.tune")
    before = tunes.level
    tunes.setLevel(logging.CRITICAL)  # it has a page for every worker lost: the search has a sentence
    ours = not ray.is_initialized()
    address = cluster_address()
    if ours and address:
        join(WORKER_ENV)
    elif ours:
        _start()
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
        tunes.setLevel(before)
        if ours:
            ray.shutdown()


def _start() -> None:
    """Ray on this machine alone, on loopback: closed to others, and a laptop may change its network meanwhile.

    Raises:
        OSError: it does not start.
    """
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)  # private to Ray, and may move: then it has no effect
    ray_constants.ENABLE_RAY_CLUSTER = False  # as Ray has it on a Mac
    try:
        with own_signals():
            ray.init(
                address="local",
                runtime_env={"env_vars": WORKER_ENV},
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
            )
    except Exception as error:  # Ray has no kind of its own for it
        raise OSError(
            f"Ray does not start on this machine ({in_short(error)}): its logs and sockets need room in {ray_folder()} "
            "and a short path to it (a socket's has 107 bytes at most), or set RAY_TMPDIR; its token needs a home "
            "folder that you may write to, or set HOME"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _close_token() -> None:
    """Ray writes its token, which is a password, readable by everybody on the machine."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(0o600)
