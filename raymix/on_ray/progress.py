"""What a person wants to know while a study runs: how far it is, the best mixture so far, the time it will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from raymix.design import scale_of
from raymix.design.schedule import longer_rungs
from raymix.on_ray.kept import Kept, needed
from raymix.proxy import resolve
from raymix.simplex import Array
from raymix.space import Scale, SearchSpace
from raymix.study.agenda import expected_trials
from raymix.study.ledger import Ledger
from raymix.study.stacks import begun_with
from raymix.study.trial import Trial
from raymix.target.objective import objective_of
from raymix.target.optimum import minimise
from raymix.target.recommend import fit_law

FIGURES_SECONDS = 1.0  # between two looks at what is left: with thousands of trials it takes a while to add up


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


class Watcher:
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
        self._next = 0.0
        self.flops = cache(self._flops)

    def __call__(self, event: str, trial: Trial | None) -> None:
        progress = self.progress
        progress.done, progress.failed = self.ledger.count("done"), self.ledger.count("failed")
        progress.done += self.ledger.count("stopped")
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
        now = time.monotonic()
        if now >= self._next or not progress.running:
            self._next = now + FIGURES_SECONDS
            progress.total, progress.eta_seconds = expected_trials(self.ledger), self._eta()
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

    def _flops(self, scale: Scale) -> float:
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
