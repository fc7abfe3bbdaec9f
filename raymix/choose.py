"""Which law for these runs: `auto` of `raymix fit`, by what laws predict of mixtures and sizes they have not seen.

Whole mixtures are held out, in five folds; where the target is larger than every size seen, whole sizes too, each
predicted from the smaller ones. A law is judged by the error of the weighted mean loss plus the error per eval domain.
The default, the union law with a Gaussian process on its residuals, is hard to beat: whoever is not better than the
laws before it by more than one standard error of the difference loses to them. An average of two takes the same test.
Time is bounded: at most 160 mixtures are used to choose, and a law far behind after a fold is dropped. 512 runs with
13 eval domains take about 6 s on one core, of which the last fit takes 1.

Letters: B rows, K training domains, M eval domains.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raymix.laws import LAWS, Law, make_law
from raymix.laws.base import Array, Ints, Table, as_table
from raymix.laws.rows import SAME_SCALE, canonical_order, distinct, usable_rows
from raymix.laws.select import mixture_folds
from raymix.observations import Observations
from raymix.scores import HeldOutBy, HeldOutLosses, LawScore, blend, standard_error
from raymix.space import Scale

DEFAULT = "residual_gp"
AVERAGE = "average"
ONE_SCALE = (DEFAULT, "union", "effective_data", "log_feature")  # in the order in which ties are settled
ONE_SIZE = (DEFAULT, "union", "log_feature_joint")
SEVERAL = (DEFAULT, "union", "joint", "log_feature_joint", "nested")
FOLDS = 5
MIN_MIXTURES = 5  # one per fold: below, nothing is chosen
MAX_MIXTURES = 160  # used to choose; the fit itself uses all
FAR_BEHIND = 1.5  # times the least error so far: a law with more is dropped, no fold could make up for it
WARMUP, ROWS_PER_RUN = 0.1, 8  # the rows that laws are fitted on by default, and judged by


@dataclass(frozen=True)
class Choice:
    """The law to use, fitted on all rows, and why."""

    law: Law
    name: str
    scores: list[LawScore]
    why: str


def own_domains(domains: Sequence[str], eval_domains: Sequence[str]) -> Ints:
    """The training domain of the same name for every eval domain (M,), or -1; case, spaces, - and _ do not count."""
    plain = [_plain(name) for name in domains]
    own = []
    for name in eval_domains:
        exact = [k for k, domain in enumerate(domains) if domain == name]
        alike = exact or [k for k, domain in enumerate(plain) if domain == _plain(name)]
        own.append(alike[0] if len(alike) == 1 else -1)
    return np.array(own, dtype=np.int64)


def choose_law(
    table: Observations,
    own_M: ArrayLike | None,
    target: Scale | None = None,
    candidates: Sequence[str] | None = None,
    weights_M: ArrayLike | None = None,
    seed: int = 0,
) -> Choice:
    """The law that predicts best what it has not seen, fitted on all usable rows.

    Args:
        table: runs with losses.
        own_M: see `Law.fit`; `own_domains` guesses it from names.
        target: where the law will be read; a larger size than those seen is rehearsed by holding sizes out.
        candidates: names of laws, in the order in which ties are settled; what suits the scales if left out.
        weights_M: of the objective over eval domains; equal if left out.
        seed: of the folds.

    Raises:
        ValueError: no usable rows, an unknown law, or no candidate that can be fitted.
    """
    usable = table.usable()
    if not len(usable):
        raise ValueError("no row has a loss, so there is nothing to fit a law to")
    known = np.isfinite(usable.loss_BM).any(axis=0)
    if not known.all():
        raise ValueError(f"eval domain {usable.eval_domains[int(np.argmin(known))]!r} has no loss in any row")
    every = as_table(usable.mix_BK, usable.scale_B2, usable.loss_BM, usable.run_B, own_M)
    names = _suited(every) if candidates is None else tuple(dict.fromkeys(candidates))
    _check_names(names)
    weights = np.full(every.loss_BM.shape[1], 1.0) if weights_M is None else np.asarray(weights_M, dtype=np.float64)
    n_mixtures = len(np.unique(every.mix_BK, axis=0))
    if n_mixtures < MIN_MIXTURES:
        why = f"{n_mixtures} mixtures are too few to hold any out: the first candidate is used unjudged"
        return Choice(_fitted(make_law(names[0]), every), names[0], [], why)
    rounds = _hold_out(_thinned(every, seed), names, weights, target, seed)
    rounds = [held for held in rounds if held]
    if not rounds:
        raise ValueError(f"none of the laws {', '.join(names)} could be fitted to these runs")
    return _choose(every, names, rounds)


def _hold_out(
    table: Table, names: Sequence[str], weights_M: Array, target: Scale | None, seed: int
) -> list[dict[str, HeldOutLosses]]:
    """Predictions by law, for each way of holding out."""
    fold_B = mixture_folds(table.mix_BK, FOLDS, seed)
    splits = [(fold_B != fold, fold_B == fold) for fold in range(fold_B.max() + 1)]
    rounds = [_race(table, names, weights_M, "mixtures", splits)]
    sizes = distinct(table.scale_B2[:, 0])
    if target is not None and len(sizes) > 1 and np.log(target.n_params / sizes[-1]) > SAME_SCALE:
        log_size_B = np.log(table.scale_B2[:, 0])
        held_sizes = np.log(sizes[min(2, len(sizes) - 1) :])  # from two smaller sizes on, where there are two
        splits = [(log_size_B < s - SAME_SCALE, np.abs(log_size_B - s) <= SAME_SCALE) for s in held_sizes]
        rounds.append(_race(table, names, weights_M, "sizes", splits))
    return rounds


def _race(
    table: Table,
    names: Sequence[str],
    weights_M: Array,
    held_out: HeldOutBy,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
) -> dict[str, HeldOutLosses]:
    """Fold by fold, every law still in the race."""
    fold_B = np.full(len(table.mix_BK), -1)
    found = {name: HeldOutLosses(name, held_out, table, weights_M, fold_B.copy(), _nan(table)) for name in names}
    running = list(names)
    for fold, (train_B, test_B) in enumerate(splits):
        for name in list(running):
            if _predict_fold(name, table, train_B, test_B, found[name].pred_BM):
                found[name].fold_B[test_B] = fold
            else:
                running.remove(name)
                del found[name]
        error = {name: float(np.nanmean(found[name].error_Q())) for name in running}
        running = [name for name in running if error[name] <= FAR_BEHIND * min(error.values())]
    return found


def _predict_fold(name: str, table: Table, train_B: np.ndarray, test_B: np.ndarray, pred_BM: Array) -> bool:
    """Write the predictions of one fold into `pred_BM`; False where the law cannot be fitted."""
    part, test = table.take(np.flatnonzero(train_B)), np.flatnonzero(test_B)
    seen = np.flatnonzero(np.isfinite(part.loss_BM).any(axis=0))
    if not len(seen):
        return True
    part = Table(part.mix_BK, part.scale_B2, part.loss_BM[:, seen], part.run_B, part.own_M[seen])
    try:
        law = _fitted(make_law(name), part)
    except (ValueError, np.linalg.LinAlgError) as error:
        warnings.warn(f"{name} cannot be fitted to a fold and is left out: {error}", stacklevel=2)
        return False
    pred_BM[np.ix_(test, seen)] = law.predict(table.mix_BK[test], table.scale_B2[test])
    return True


def _choose(every: Table, names: Sequence[str], rounds: list[dict[str, HeldOutLosses]]) -> Choice:
    """The first law within one standard error of the best, or an average of two that is better than that."""
    whole = [name for name in names if all(_complete(held, name) for held in rounds)]
    scores = [held[name].score() for held in rounds for name in names if name in held]
    total = {name: _total(rounds, name) for name in whole}
    best = min(whole, key=lambda name: total[name])
    chosen = next(name for name in whole if total[name] - total[best] <= _error(rounds, name, best))
    others = [name for name in whole if name != chosen]
    law = make_law(chosen)
    if others:
        other = min(others, key=lambda name: total[name])
        blended = [{**held, AVERAGE: blend(held[chosen], held[other], AVERAGE)} for held in rounds]
        gain = total[chosen] - _total(blended, AVERAGE)
        if gain > _error(blended, AVERAGE, chosen):
            law = make_law(AVERAGE, laws=(make_law(chosen), make_law(other)), weights=(0.5, 0.5))
            scores += [held[AVERAGE].score() for held in blended]
    why = _why(law.name, chosen, best, total, rounds)
    return Choice(_fitted(law, every), law.name, scores, why)


def _why(name: str, chosen: str, best: str, total: dict[str, float], rounds: list[dict[str, HeldOutLosses]]) -> str:
    by = " and ".join(next(iter(held.values())).held_out for held in rounds)
    if name == AVERAGE:
        return f"the average of {chosen} and another law predicts {by} held out better than either, beyond noise"
    if len(total) == 1:
        return f"{chosen} was the only law judged to the end on {by} held out"
    if chosen == best:
        return f"{chosen} predicts {by} held out best (error {total[best]:.2%})"
    return (f"{chosen} (error {total[chosen]:.2%}) is within one standard error of the best, {best} "
            f"({total[best]:.2%}), on {by} held out, and comes first")  # fmt: skip


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
    mixture_B = np.unique(table.mix_BK, axis=0, return_inverse=True)[1].ravel()
    n_mixtures = int(mixture_B.max()) + 1
    if n_mixtures > MAX_MIXTURES:
        kept = np.random.default_rng([seed, 1]).permutation(n_mixtures)[:MAX_MIXTURES]
        used_B &= np.isin(mixture_B, kept)
    table = table.take(np.flatnonzero(used_B))
    seen = np.isfinite(table.loss_BM).any(axis=0)
    assert seen.all(), "an eval domain is measured in none of the mixtures used to choose"
    return table


def _suited(table: Table) -> tuple[str, ...]:
    sizes, tokens = (len(distinct(table.scale_B2[:, i])) for i in range(2))
    return SEVERAL if sizes > 1 else ONE_SIZE if tokens > 1 else ONE_SCALE


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in LAWS:
            raise ValueError(f"unknown law {name!r}; known: auto, {', '.join(sorted(LAWS))}")
    if not names:
        raise ValueError("there is no law to choose from")


def _fitted(law: Law, table: Table) -> Law:
    return law.fit(table.mix_BK, table.scale_B2, table.loss_BM, table.run_B, table.own_M)


def _nan(table: Table) -> Array:
    return np.full(table.loss_BM.shape, np.nan)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
