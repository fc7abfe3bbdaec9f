"""Which law for these runs: `auto` of `raymix fit`, by what laws predict of mixtures and sizes they have not seen.

Whole mixtures are held out, in five folds. Where the target is larger than every size seen, whole sizes are too, each
predicted from the smaller ones, at least two of them: from one size every law's effect of size is its prior, and how
priors do says nothing of a fit to two sizes. A law is judged by the error of the weighted mean loss plus the mean error
per eval domain. The default, the union law with a Gaussian process on its residuals, is hard to beat: it stays unless
another is better by more than one standard error of the difference. Averages of two laws are not tried: chosen by
cross-validation on published runs, they lost up to .13% to the default on mixtures left out. At one scale M4 is tried
too: published runs do not follow it (chosen in none of 56 tables of them), but losses that do cost the default three
times its error. So is apple_joint, which has a power of every domain where the default has one for all, where there are
many mixtures to tell them: from 200 runs of RegMix on it errs 11 to 21% less. It is read at that scale alone.

Time is bounded: at most 240 mixtures are used to choose, and a law far behind is dropped. 512 runs with 13 eval domains
take about 6 s on one core, 1000 rows with 22 eval domains 5 to 10. What was chosen stands beside the default in
benchmarks/laws.md (`auto`).

Letters: B rows, K training domains, M eval domains.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws import LAWS, Law, make_law
from raymix.laws.base import Array, Flags, Ints, Table, as_table
from raymix.laws.rows import (
    ROWS_PER_RUN,
    SAME_SCALE,
    WARMUP,
    canonical_order,
    distinct,
    mixture_numbers,
    usable_rows,
)
from raymix.laws.select import mixture_folds, predict_unseen
from raymix.observations import Observations
from raymix.space import Scale
from raymix.tables.diverged import diverged
from raymix.tables.scores import HeldOutBy, HeldOutLosses, LawScore, standard_error

log = logging.getLogger(__name__)

DEFAULT = "residual_gp"
ONE_SCALE = (DEFAULT, "union", "effective_data", "log_feature", "m4", "apple_joint")  # in the order that settles ties
NEEDS = {  # more mixtures in a fold than this, of K domains
    "log_feature": lambda k: k + 2,  # its parameters, on a ridge: it passes through so many, right only by luck
    "apple_joint": lambda k: 2 * (4 * k + 6),  # twice its parameters: with fewer it is never chosen, and takes long
}
ONE_SCALE_ELSEWHERE = (DEFAULT, "union")
ONE_SIZE = (DEFAULT, "union", "log_feature_joint")
SEVERAL = (DEFAULT, "union", "joint", "log_feature_joint", "nested")
FOLDS = 5
MIN_MIXTURES = 5  # one per fold: below, nothing is chosen
MAX_MIXTURES = 240  # used to choose; the fit itself uses all. Of 160 too few are left in a fold to tell powers
FAR_BEHIND = 1.5  # times the error of the first candidate so far: a law with more is dropped, to save time


@dataclass(frozen=True)
class Choice:
    """The law to use, fitted on all rows, and why."""

    law: Law
    name: str
    scores: list[LawScore]
    why: str
    elsewhere: Law | None = None
    """Where the chosen law is one for the scale of the runs alone: the default, for any other."""


def own_domains(domains: Sequence[str], eval_domains: Sequence[str]) -> Ints:
    """The training domain of the same name for every eval domain (M,), or -1; case, spaces, - and _ do not count."""
    plain = [_plain(name) for name in domains]
    own = []
    for name in eval_domains:
        exact = [k for k, domain in enumerate(domains) if domain == name]
        alike = exact or [k for k, domain in enumerate(plain) if domain == _plain(name)]
        own.append(alike[0] if len(alike) == 1 else -1)
    return np.array(own, dtype=np.int64)


def rows_of(usable: Observations, own_M: ArrayLike | None) -> Table:
    """What laws are fitted to."""
    return as_table(usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.model_B, own_M, usable.unique_BK)


def choose_law(
    table: Observations,
    own_M: ArrayLike | None,
    target: Scale | None = None,
    candidates: Sequence[str] | None = None,
    weights_M: ArrayLike | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Choice:
    """The law that predicts best what it has not seen, fitted on all usable rows.

    Args:
        table: runs with losses.
        own_M: see `Law.fit`; `own_domains` guesses it from names.
        target: where the law will be read; a larger size than those seen is rehearsed by holding sizes out.
        candidates: names of laws, in the order in which ties are settled; what suits the scales if left out.
        weights_M: of the objective over eval domains; equal if left out.
        seed: of the folds.
        progress: called with a stage and a fraction from 0 to 1.

    Raises:
        ValueError: no usable rows, an unknown law, or no candidate that can be fitted.
    """
    usable = table.usable()
    if not len(usable):
        raise ValueError("no row has a loss, so there is nothing to fit a law to")
    known = np.isfinite(usable.loss_BM).any(axis=0)
    if not known.all():
        name = usable.eval_domains[int(np.argmin(known))]
        raise ValueError(f"eval domain {name!r} has no loss in any row: drop the column loss/{name}, or fit the others "
                         "alone (--eval NAME, as often as needed)")  # fmt: skip
    usable.check_unique()
    every = rows_of(usable, own_M)
    names = _suited(every, target) if candidates is None else tuple(dict.fromkeys(candidates))
    _check_names(names)
    weights = np.full(every.loss_BM.shape[1], 1.0) if weights_M is None else np.asarray(weights_M, dtype=np.float64)
    n_mixtures = int(mixture_numbers(every.mix_BK).max()) + 1
    if n_mixtures < MIN_MIXTURES:
        why = f"too few mixtures ({n_mixtures}) to hold any out: the first candidate is used unjudged"
        return Choice(every.fit(make_law(names[0])), names[0], [], why)
    rounds = _hold_out(_without_diverged(_thinned(every, seed)), names, weights, target, seed, progress)
    name, scores, why = _choose(names, rounds)
    progress(f"fitting {name}", 0.0)
    chosen = every.fit(make_law(name))
    here_alone = candidates is None and name in ONE_SCALE and name not in ONE_SCALE_ELSEWHERE
    return Choice(chosen, name, scores, why, every.fit(make_law(DEFAULT)) if here_alone else None)


def _hold_out(
    table: Table,
    names: Sequence[str],
    weights_M: Array,
    target: Scale | None,
    seed: int,
    progress: Callable[[str, float], None],
) -> list[dict[str, HeldOutLosses]]:
    """Predictions by law, for each way of holding out; who drops out in the first is not in the second."""
    fold_B = mixture_folds(table.mix_BK, FOLDS, seed)
    splits = [(fold_B != fold, fold_B == fold) for fold in range(fold_B.max() + 1)]
    rounds = [_race(table, names, weights_M, "mixtures", splits, progress)]
    sizes = distinct(table.scale_B2[:, 0])
    if target is not None and len(sizes) > 2 and np.log(target.n_params / sizes[-1]) > SAME_SCALE:
        log_size_B = np.log(table.scale_B2[:, 0])
        splits = [(log_size_B < s - SAME_SCALE, np.abs(log_size_B - s) <= SAME_SCALE) for s in np.log(sizes[2:])]
        left = [name for name in rounds[0] if _complete(rounds[0], name)]
        rounds.append(_race(table, left, weights_M, "sizes", splits, progress))
    return rounds


def _race(
    table: Table,
    names: Sequence[str],
    weights_M: Array,
    held_out: HeldOutBy,
    splits: Sequence[tuple[Flags, Flags]],
    progress: Callable[[str, float], None],
) -> dict[str, HeldOutLosses]:
    """Fold by fold, every law still in the race."""
    fold_B = np.full(len(table.mix_BK), -1)
    found = {
        name: HeldOutLosses(name, held_out, table, weights_M, fold_B.copy(), np.full_like(table.loss_BM, np.nan))
        for name in names
    }
    running, reason = list(names), ""
    for fold, (train_B, test_B) in enumerate(splits):
        racing = list(running)
        for i, name in enumerate(racing):
            progress(f"judging laws, {held_out} held out", (fold + i / len(racing)) / len(splits))
            try:
                found[name].pred_BM[test_B] = predict_unseen(make_law(name), table, train_B, test_B)
                found[name].fold_B[test_B] = fold
            except (ValueError, np.linalg.LinAlgError) as error:
                reason = f"{name} cannot be fitted: {error}"
                log.warning("left out: %s", reason)
                running.remove(name)
                del found[name]
        if not running:
            raise ValueError(f"no law is left; {reason}")
        so_far = {name: float(np.nanmean(found[name].error_Q())) for name in running}
        limit = FAR_BEHIND * so_far[running[0]]
        running = [name for name in running if name == running[0] or so_far[name] <= limit]
    return found


def _choose(names: Sequence[str], rounds: list[dict[str, HeldOutLosses]]) -> tuple[str, list[LawScore], str]:
    """The first law within one standard error of the best, all scores, and a sentence."""
    whole = [name for name in names if all(_complete(held, name) for held in rounds)]
    scores = [held[name].score() for held in rounds for name in names if name in held]
    total = {name: _total(rounds, name) for name in whole}
    best = min(whole, key=lambda name: total[name])
    chosen = next(name for name in whole if total[name] - total[best] <= _error(rounds, name, best))
    by = " and ".join(next(iter(held.values())).held_out for held in rounds)
    if len(names) == 1:
        return chosen, scores, f"{chosen} as asked for (with {by} held out, error + objective {total[chosen]:.2%})"
    return chosen, scores, _why(chosen, best, total, by)


def _why(chosen: str, best: str, total: dict[str, float], by: str) -> str:
    if len(total) == 1:
        return f"{chosen} was the only law judged to the end, with {by} held out (error + objective {total[best]:.2%})"
    if chosen == best:
        return f"{chosen} predicts {by} held out best (error + objective {total[best]:.2%})"
    return (f"{chosen} (error + objective {total[chosen]:.2%}) is within one standard error of the best, {best} "
            f"({total[best]:.2%}), with {by} held out, and comes first")  # fmt: skip


def _complete(held: dict[str, HeldOutLosses], name: str) -> bool:
    most = max(int(found.fold_B.max()) for found in held.values())
    return name in held and int(held[name].fold_B.max()) == most


def _total(rounds: list[dict[str, HeldOutLosses]], name: str) -> float:
    return float(np.mean([np.nanmean(held[name].error_Q()) for held in rounds]))


def _error(rounds: list[dict[str, HeldOutLosses]], name: str, other: str) -> float:
    """Standard error of the difference of totals."""
    if name == other:
        return 0.0
    squares = [standard_error(held[name], held[other]) ** 2 for held in rounds]
    return float(np.sqrt(np.sum(squares)) / len(rounds))


def _thinned(table: Table, seed: int) -> Table:
    """The rows that laws are fitted on, of at most `MAX_MIXTURES` mixtures."""
    table = canonical_order(table)
    used_B = usable_rows(table, WARMUP, ROWS_PER_RUN).any(axis=0)
    mixture_B = mixture_numbers(table.mix_BK)
    n_mixtures = int(mixture_B.max()) + 1
    if n_mixtures > MAX_MIXTURES:
        few = np.random.default_rng([seed, 1]).permutation(n_mixtures)[:MAX_MIXTURES]
        some_B = used_B & np.isin(mixture_B, few)
        if np.isfinite(table.loss_BM[some_B]).any(axis=0).all():  # no eval domain is lost
            used_B = some_B
    return table.take(np.flatnonzero(used_B))


def _without_diverged(table: Table) -> Table:
    """The table without losses that no law can be judged by; as it is where that is all there is of an eval domain."""
    loss_BM = np.where(diverged(table)[0], np.nan, table.loss_BM)
    known_BM = np.isfinite(loss_BM)
    if not known_BM.any(axis=0).all():
        return table
    return replace(table, loss_BM=loss_BM).take(np.flatnonzero(known_BM.any(axis=1)))


def _suited(table: Table, target: Scale | None) -> tuple[str, ...]:
    """By what varies; a law without n_params and n_tokens only where one scale was seen and is asked for."""
    sizes, tokens = (distinct(table.scale_B2[:, i]) for i in range(2))
    if len(sizes) > 1:
        return SEVERAL
    if len(tokens) > 1:
        return ONE_SIZE
    elsewhere = target is not None and np.abs(np.log(np.array(target) / [sizes[0], tokens[0]])).max() > SAME_SCALE
    if elsewhere:
        return ONE_SCALE_ELSEWHERE
    in_a_fold = min(int(mixture_numbers(table.mix_BK).max()) + 1, MAX_MIXTURES) * (FOLDS - 1) / FOLDS
    return tuple(name for name in ONE_SCALE if name not in NEEDS or in_a_fold > NEEDS[name](table.mix_BK.shape[1]))


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in LAWS:
            raise ValueError(f"unknown law {name!r}; known: auto, {', '.join(sorted(LAWS))}")
    if not names:
        raise ValueError("there is no law to choose from")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
